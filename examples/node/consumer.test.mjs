// Tests of a consumer of market data, as yours could be: the market stands still until a test says "the next record".
//
//   npm ci && npm test        # FLOWCAST_BIN names the program if it is not in PATH
//
// Every test has a replay session of its own on one server, so that tests may also run side by side.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { decompress } from "fzstd";
import protobuf from "protobufjs";
import WebSocket from "ws";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const GROUP = "blue_SPX_orderflow_orderflow";
const Orderflow = protobuf.loadSync(`${ROOT}/proto/orderflow.proto`).lookupType("orderflow_proto.Orderflow");
const Any = protobuf.parse('syntax = "proto3"; message Any { string type_url = 1; bytes value = 2; }').root.lookupType("Any");

/** The code under test: the highest price, and a warning if the last one lies more than 0.05 % below it. */
class Consumer {
  high = 0;
  last = 0;
  time = 0;

  take({ timestamp, spot }) {
    if (Number(timestamp) <= this.time) this.high = 0; // the market was set back
    this.time = Number(timestamp);
    this.last = spot / 100;
    this.high = Math.max(this.high, this.last);
  }

  get isFalling() {
    return this.last < this.high * 0.9995;
  }
}

/** One replay session of flowcast and one socket in it. */
class Market {
  #messages = [];
  #arrived = () => {};

  static async open(session) {
    const market = new Market();
    market.replay = `${server}/replay/sessions/${session}`;
    const negotiated = await fetch(`${server}/v2/negotiate?session=${session}&state=paused`, {
      headers: { Authorization: "Bearer any-key" },
    });
    const { websocket_urls } = await negotiated.json();
    market.socket = new WebSocket(websocket_urls.orderflow, "json.webpubsub.azure.v1");
    market.socket.on("message", (text) => {
      market.#messages.push(JSON.parse(text));
      market.#arrived();
    });
    await once(market.socket, "open");
    market.socket.send(JSON.stringify({ type: "joinGroup", group: GROUP, ackId: 1 }));
    while ((await market.#next()).type !== "ack");
    return market;
  }

  async #next() {
    while (this.#messages.length === 0) await new Promise((resolve) => (this.#arrived = resolve));
    return this.#messages.shift();
  }

  /** What flowcast answers once it is done: after a step the records are on their way. */
  async change(change) {
    const answer = await fetch(this.replay, {
      method: "PATCH",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(change),
    });
    assert.ok(answer.ok, await answer.clone().text());
    return answer.json();
  }

  async step(consumer, records = 1) {
    await this.change({ step: records });
    for (let count = 0; count < records; count++) consumer.take(decoded(await this.#next()));
  }
}

/** The record in a message of the JSON protocol: base64, `Any`, zstd, protobuf. */
function decoded(message) {
  const packed = Any.decode(Buffer.from(message.data, "base64"));
  return Orderflow.decode(decompress(packed.value));
}

let flowcast;
let server;

before(async () => {
  flowcast = spawn(process.env.FLOWCAST_BIN ?? "flowcast", ["serve", "--bind", "127.0.0.1:0"], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = await once(flowcast.stdout, "data");
  server = /http:\/\/\S+/.exec(line)[0];
  while ((await fetch(`${server}/healthz`)).status !== 200) await sleep(20);
});

after(() => flowcast.kill());

/** A test with a market of its own. */
function marketTest(title, run) {
  test(title, { timeout: 20_000 }, async () => {
    const market = await Market.open(title.replaceAll(" ", "-"));
    await run(market).finally(() => market.socket.close());
  });
}

const recorded = readFileSync(`${ROOT}/data/2025-11-28/SPX/orderflow/orderflow.jsonl`, "utf8")
  .split("\n", 60)
  .map((line) => JSON.parse(line).spot);

marketTest("it knows the highest price", async (market) => {
  const consumer = new Consumer();
  for (let count = 1; count < 6; count++) {
    await market.step(consumer);
    assert.equal(consumer.last, recorded[count - 1]);
    assert.equal(consumer.high, Math.max(...recorded.slice(0, count)));
  }
});

marketTest("it warns when the price falls", async (market) => {
  const consumer = new Consumer();
  await market.step(consumer, 6);
  assert.ok(!consumer.isFalling);
  await market.step(consumer);
  assert.ok(consumer.isFalling, "6814.22 lies 3.80 below 6818.02");
});

marketTest("it forgets the high when the market is set back", async (market) => {
  const consumer = new Consumer();
  await market.step(consumer, 30);
  await market.change({ seek: { record: 0 } });
  await market.step(consumer);
  assert.equal(consumer.high, recorded[0]);
});
