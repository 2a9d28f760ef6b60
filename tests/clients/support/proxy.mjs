// A TCP proxy between a client and the server that can lose a connection.

import { once } from "node:events";
import net from "node:net";

export class TcpProxy {
  /** What each connection so far asked for: the first line of its HTTP request. */
  requests = [];
  /** Bytes that the server sent and that no client will ever get. */
  swallowedBytes = 0;
  /** Where new connections lead. A test may set another. */
  serverPort;
  #pairs = new Set();
  #allowance = Infinity;
  #refusals = 0;

  static async start(serverPort) {
    const proxy = new TcpProxy();
    proxy.serverPort = serverPort;
    proxy.listener = net.createServer((client) => proxy.#accept(client));
    proxy.listener.listen(0, "127.0.0.1");
    await once(proxy.listener, "listening");
    return proxy;
  }

  /** The URL that leads to the same place through this proxy. */
  through(url) {
    const changed = new URL(url);
    changed.port = this.listener.address().port;
    return changed.toString();
  }

  /** Lets that many bytes more through to the client, then none, although the server goes on sending. */
  hold(afterBytes) {
    this.#allowance = afterBytes;
  }

  /** Resets every connection on both sides; the next `refuseNext` attempts are reset too. */
  cut(refuseNext = 0) {
    this.#refusals = refuseNext;
    this.#allowance = Infinity;
    for (const pair of this.#pairs) {
      pair.forEach((socket) => socket.resetAndDestroy());
    }
    this.#pairs.clear();
  }

  async stop() {
    this.cut();
    this.listener.close();
    await once(this.listener, "close");
  }

  #accept(client) {
    client.on("error", () => {}); // ends in "close" as well
    if (this.#refusals > 0) {
      this.#refusals -= 1;
      client.resetAndDestroy();
      return;
    }
    const server = net.connect(this.serverPort, "127.0.0.1");
    server.on("error", () => {});
    const pair = [client, server];
    this.#pairs.add(pair);
    client.once("data", (bytes) => this.requests.push(bytes.toString("latin1").split("\r\n", 1)[0]));
    client.on("data", (bytes) => server.write(bytes));
    server.on("data", (bytes) => this.#forward(bytes, client));
    client.on("end", () => server.end());
    server.on("end", () => client.end());
  }

  #forward(bytes, client) {
    const part = bytes.subarray(0, Math.min(bytes.length, this.#allowance));
    this.#allowance -= part.length;
    this.swallowedBytes += bytes.length - part.length;
    if (part.length > 0) {
      client.write(part);
    }
  }
}

/** Runs `body` with a proxy before that port and stops it whatever happens. */
export async function withProxy(serverPort, body) {
  const proxy = await TcpProxy.start(serverPort);
  try {
    await body(proxy);
  } finally {
    await proxy.stop();
  }
}
