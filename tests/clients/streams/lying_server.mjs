// A `/ws` of the test's own making: it says whatever a test wants, in and out of shape, and ends
// connections as it likes. It is for what the real server never does.

import { once } from "node:events";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { waitUntil } from "../support/waiting.mjs";

export class LyingServer {
  /** Every accepted connection: `{ socket, url, received }`. */
  connections = [];
  /** The query of every attempt, refused ones too. */
  attempts = [];
  /** The HTTP status of the next attempts; `undefined` accepts. */
  refusals = [];
  /** Whether pings and subscriptions are answered. */
  answers = true;
  /** What `subscribe` to this channel is answered with instead. */
  forbidden = new Set();

  static async start(port = 0) {
    const server = new LyingServer();
    server.http = createServer((_, response) => response.writeHead(404).end());
    server.ws = new WebSocketServer({ noServer: true });
    server.http.on("upgrade", (request, socket, head) => server.#upgrade(request, socket, head));
    server.http.listen(port, "127.0.0.1");
    await once(server.http, "listening");
    return server;
  }

  get url() {
    return `ws://127.0.0.1:${this.http.address().port}/ws`;
  }

  get last() {
    return this.connections.at(-1);
  }

  /** The `number`th connection, once it is there. */
  async connection(number) {
    return waitUntil(() => this.connections[number - 1], `connection ${number}`);
  }

  say(message) {
    const data = typeof message === "string" || Buffer.isBuffer(message) ? message : JSON.stringify(message);
    this.last.socket.send(data);
  }

  async stop() {
    for (const { socket } of this.connections) socket.terminate();
    this.http.close();
    this.http.closeAllConnections();
    await once(this.http, "close");
  }

  #upgrade(request, socket, head) {
    const url = new URL(request.url, "ws://server");
    this.attempts.push(url.searchParams);
    const status = this.refusals.shift();
    if (status !== undefined) {
      socket.end(`HTTP/1.1 ${status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
      return;
    }
    this.ws.handleUpgrade(request, socket, head, (accepted) => {
      const connection = { socket: accepted, url, received: [], channels: new Map() };
      this.connections.push(connection);
      accepted.on("error", () => {}); // ends in "close" as well
      accepted.on("message", (data) => this.#onRequest(connection, JSON.parse(data)));
    });
  }

  #onRequest(connection, request) {
    connection.received.push(request);
    if (!this.answers) return;
    connection.socket.send(JSON.stringify(this.#answer(connection, request)));
  }

  #answer({ channels }, request) {
    if (request.type === "ping") return { type: "pong" };
    const refused = request.channels.find((channel) => this.forbidden.has(channel));
    if (refused) return { type: "error", error: `not for you: ${refused}`, code: "forbidden_channel" };
    for (const channel of request.channels) {
      if (request.type === "subscribe") channels.set(channel, request.symbols);
      else channels.delete(channel);
    }
    const filtered = [...channels].filter(([, symbols]) => symbols);
    return { type: "subscribed", channels: [...channels.keys()], symbols: Object.fromEntries(filtered) };
  }
}
