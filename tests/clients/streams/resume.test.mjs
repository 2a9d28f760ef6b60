// The example client goes on where it was, however often its connection is cut.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Dataset } from "../support/orderflow.mjs";
import { Server } from "../support/server.mjs";
import { waitUntil } from "../support/waiting.mjs";
import { LyingServer } from "./lying_server.mjs";
import { IMPLEMENTATIONS, withClient } from "./support.mjs";
import { EXAMPLES, SETTINGS, jwt, publish } from "./publishing.mjs";

const CUTS = 200;

let dataset;
let server;

before(async () => {
  dataset = new Dataset(mkdtempSync(path.join(tmpdir(), "flowcast-resume-")), { SPX: 300 });
  server = await Server.start(dataset, { ...SETTINGS, FLOWCAST_HISTORY_MESSAGES: "200000", FLOWCAST_REPLAY_TRADING: "false" });
});

after(async () => {
  await server?.stop();
  rmSync(dataset.directory, { recursive: true });
});

/** Passes bytes on to the server, until it cuts every connection in the middle of whatever it carries. */
class CuttingProxy {
  #pairs = new Set();

  static async start(port) {
    const proxy = new CuttingProxy();
    proxy.listener = net.createServer((near) => {
      const far = net.connect(port, "127.0.0.1");
      const pair = [near, far];
      proxy.#pairs.add(pair);
      const end = () => {
        proxy.#pairs.delete(pair);
        pair.forEach((socket) => socket.destroy());
      };
      for (const [from, to] of [pair, pair.toReversed()]) from.on("error", end).on("close", end).pipe(to);
    });
    await new Promise((listening) => proxy.listener.listen(0, "127.0.0.1", listening));
    return proxy;
  }

  get url() {
    return `ws://127.0.0.1:${this.listener.address().port}/ws`;
  }

  cut() {
    for (const pair of this.#pairs) pair.forEach((socket) => socket.resetAndDestroy());
  }

  stop() {
    this.cut();
    this.listener.close();
  }
}

for (const [name, WebSocket] of IMPLEMENTATIONS) {
  describe(`with ${name}`, () => {
    test(`of ${CUTS} cut connections nothing is lost and nothing comes twice`, async () => {
      const proxy = await CuttingProxy.start(server.port);
      const options = { url: proxy.url, token: () => jwt({ sub: "test" }), WebSocket, baseDelayMs: 5, maxDelayMs: 10, maxFailedAttempts: Infinity };
      try {
        await withClient(options, async ({ client, log, until, untilMessage }) => {
          const heard = { lines: [], signals: [] };
          client.on("message", ({ payload }) => heard.lines.push(payload.n));
          client.on("signal", ({ quantity }) => heard.signals.push(quantity));
          client.subscribe("lines");
          client.subscribe("signals", ["AAPL"]);
          await client.connect();
          await untilMessage("subscribed", 2);
          let n = 0;
          let over = false;
          const publishing = (async () => {
            while (!over) {
              n += 1;
              await publish(server, "lines", { n });
              await publish(server, "signals", { ...EXAMPLES.signals, symbol: "MSFT", quantity: n });
              await publish(server, "signals", { ...EXAMPLES.signals, symbol: "AAPL", quantity: n });
            }
          })();
          for (let cuts = 1; cuts <= CUTS; cuts += 1) {
            await sleep(Math.random() * 10);
            proxy.cut();
            await until("open", cuts + 1);
          }
          over = true;
          await publishing;
          await waitUntil(() => heard.lines.at(-1) === n && heard.signals.at(-1) === n, "the last messages");
          const all = Array.from({ length: n }, (_, at) => at + 1);
          assert.deepEqual(heard.lines, all);
          assert.deepEqual(heard.signals, all);
          assert.equal(log.gap?.length ?? 0, 0);
        });
      } finally {
        proxy.stop();
      }
    });
  });
}

test("a message that comes twice is handed on once, one that comes late is handed on, and the position is the highest", async () => {
  const lying = await LyingServer.start();
  try {
    await withClient({ url: lying.url }, async ({ client, of, untilMessage }) => {
      client.subscribe("lines");
      await client.connect();
      await untilMessage("subscribed");
      const message = (seq) => ({ type: "message", channel: "lines", epoch: "e", seq, payload: { seq }, timestamp: "2025-11-28T14:30:00Z" });
      for (const seq of [1, 2, 2, 4, 3, 3, 4, 5]) lying.say(message(seq));
      await untilMessage("message", 5);
      assert.deepEqual(of("message").map(({ seq }) => seq), [1, 2, 4, 3, 5]);
      lying.say(message(7));
      lying.say(message(6));
      await untilMessage("message", 7);
      lying.last.socket.terminate();
      const again = await lying.connection(2);
      await waitUntil(() => again.received.some(({ type }) => type === "subscribe"), "a new subscription");
      assert.deepEqual(again.received.find(({ type }) => type === "subscribe").since, { epoch: "e", seq: { 0: 7 } });
    });
  } finally {
    await lying.stop();
  }
});
