// The example client and its command line against the real server: prices from the replay, the rest
// published over HTTP.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { MESSAGE_TYPES } from "../../../examples/js/flowcast.mjs";
import { Dataset } from "../support/orderflow.mjs";
import { BINARY, Server } from "../support/server.mjs";
import { waitUntil } from "../support/waiting.mjs";
import { IMPLEMENTATIONS, withClient } from "./support.mjs";
import { EXAMPLES, SECRET, SETTINGS, jwt, keepPublishing, publish, streamsUrl } from "./publishing.mjs";

const TAIL = fileURLToPath(new URL("../../../examples/js/tail.mjs", import.meta.url));

let dataset;
let server;

before(async () => {
  dataset = new Dataset(mkdtempSync(path.join(tmpdir(), "flowcast-streams-")), { SPX: 300, SPY: 7 });
  server = await Server.start(dataset, SETTINGS);
});

after(async () => {
  const code = await server?.stop();
  rmSync(dataset.directory, { recursive: true });
  assert.equal(code, 0, server?.log);
});

const as = (claims) => ({ url: streamsUrl(server), token: () => jwt({ sub: "test", ...claims }) });

for (const [name, WebSocket] of IMPLEMENTATIONS) {
  describe(`with ${name}`, () => {
    test("every message type arrives in its shape", async () => {
      await withClient({ ...as(), WebSocket }, async ({ client, log, of, untilMessage }) => {
        await client.connect();
        client.ping();
        client.subscribe(["lines", "price_updates", "signals", "trades", "portfolio"]);
        client.subscribe("no_such_channel");
        await untilMessage("subscribed");
        const stop = keepPublishing(server);
        try {
          // Nobody is slow here.
          for (const type of MESSAGE_TYPES) if (type !== "skipped") await untilMessage(type);
        } finally {
          await stop();
        }
        assert.deepEqual(log.malformed, []);
        assert.equal(of("error")[0].code, "unknown_channel");
        assert.ok(of("price_update").some(({ symbols }) => symbols.SPX?.price > 0), "prices of the replay");
        assert.deepEqual(of("message")[0].payload, EXAMPLES.lines);
        assert.equal(of("signal")[0].signal_type, EXAMPLES.signals.signal_type);
        assert.equal(of("trade_executed")[0].price, EXAMPLES.trades.price);
        assert.deepEqual(of("portfolio_update")[0].data, EXAMPLES.portfolio);
      });
    });

    test("a killed server is found again, with the same subscriptions", async () => {
      const first = await Server.start(dataset, SETTINGS);
      let second;
      try {
        const options = { url: streamsUrl(first), token: () => jwt({ sub: "test" }), WebSocket, maxFailedAttempts: Infinity };
        await withClient(options, async ({ client, log, of, until, untilMessage }) => {
          client.subscribe("signals", ["AAPL"]);
          await client.connect();
          await untilMessage("subscribed");
          await first.kill();
          await until("reconnecting", 3);
          second = await Server.start(dataset, { ...SETTINGS, WS_BIND_ADDRESS: `127.0.0.1:${first.port}` });
          await until("open", 2);
          const { channels, symbols, positions } = await untilMessage("subscribed", 2);
          assert.deepEqual([channels, symbols], [["signals"], { signals: ["AAPL"] }]);
          // Another process counts anew, and says so.
          assert.deepEqual([positions.signals.recovered, positions.signals.reason], [false, "unknown_epoch"]);
          assert.deepEqual(log.gap, [{ channel: "signals", reason: "unknown_epoch" }]);
          await publish(second, "signals", { ...EXAMPLES.signals, symbol: "MSFT" });
          await publish(second, "signals", EXAMPLES.signals);
          assert.equal((await untilMessage("signal")).symbol, "AAPL");
          assert.equal(of("signal").length, 1);
          assert.deepEqual(log.malformed, []);
        });
      } finally {
        await second?.stop();
      }
    });

    test("a server that stops says so, and disconnect ends the tries to come back", async () => {
      const other = await Server.start(dataset, SETTINGS);
      const options = { url: streamsUrl(other), token: () => jwt({ sub: "test" }), WebSocket, maxFailedAttempts: Infinity };
      await withClient(options, async ({ client, until, log }) => {
        await client.connect();
        assert.equal(await other.stop(), 0, other.log);
        const { code, meaning } = await until("close");
        assert.deepEqual([code, meaning], [1001, "server stopping"]);
        await until("reconnecting", 2);
        client.disconnect();
        const tries = log.reconnecting.length;
        const back = await Server.start(dataset, { ...SETTINGS, WS_BIND_ADDRESS: `127.0.0.1:${other.port}` });
        assert.equal((await (await fetch(`${back.url}/websocket/status`)).json()).active_connections, 0);
        await back.stop();
        assert.equal(log.reconnecting.length, tries);
        assert.equal(client.state, "idle");
      });
    });

    test("pings are answered", async () => {
      await withClient({ ...as(), WebSocket, pingIntervalMs: 10 }, async ({ client, untilMessage, log }) => {
        await client.connect();
        await untilMessage("pong", 3);
        assert.equal(log.open.length, 1);
      });
    });
  });
}

test("a token that expires while connected is replaced", async () => {
  let minted = 0;
  // 60 s of leeway: this one is good for about two seconds more.
  const token = () => jwt({ sub: "test", exp: Math.floor(Date.now() / 1000) + (++minted === 1 ? -58 : 3600) });
  await withClient({ url: streamsUrl(server), token }, async ({ client, until }) => {
    await client.connect();
    const { code, meaning } = await until("close");
    assert.deepEqual([code, meaning], [4401, "token expired"]);
    await until("open", 2);
    assert.equal(minted, 2);
  });
});

for (const [name, token] of [
  ["no token", undefined],
  ["a token of another secret", jwt({ sub: "test" }, "another secret, as long as the right one")],
  ["a token without a subject", jwt({})],
  ["an expired token", jwt({ sub: "test", exp: 1_700_000_000 })],
]) {
  test(`${name} is refused with 401 and not tried for ever`, async () => {
    await withClient({ url: streamsUrl(server), token: () => token }, async ({ client }) => {
      await assert.rejects(client.connect(), /refused 3 times .*401/);
    });
  });
}

test("a token for some channels gets those and an error for others", async () => {
  await withClient(as({ channels: ["lines"] }), async ({ client, untilMessage }) => {
    await client.connect();
    client.subscribe("signals");
    client.subscribe("lines");
    assert.equal((await untilMessage("error")).code, "forbidden_channel");
    await untilMessage("subscribed");
    assert.deepEqual(client.subscriptions.channels, ["lines"]);
  });
});

test("a client that only gives something back keeps the other trading streams over a reconnect", async () => {
  const kept = ["portfolio", "price_updates", "signals"];
  const other = await Server.start(dataset, SETTINGS);
  let back;
  try {
    const options = { url: streamsUrl(other), token: () => jwt({ sub: "test" }), maxFailedAttempts: Infinity };
    await withClient(options, async ({ client, until, untilMessage }) => {
      await client.connect();
      client.unsubscribe("trades");
      assert.deepEqual((await untilMessage("subscribed")).channels.toSorted(), kept);
      await other.kill();
      back = await Server.start(dataset, { ...SETTINGS, WS_BIND_ADDRESS: `127.0.0.1:${other.port}` });
      await until("open", 2);
      await waitUntil(() => String(client.subscriptions.channels.toSorted()) === String(kept), "all three again");
    });
  } finally {
    await back?.stop();
  }
});

describe("tail.mjs", () => {
  const environment = { PATH: process.env.PATH };
  const tail = (...args) => ["--experimental-websocket", TAIL, streamsUrl(server), ...args];

  test("prints what was asked for, a JSON object a line, with a token of flowcast's own", async () => {
    const { stdout } = await promisify(execFile)(BINARY, ["token", "--sub", "tail"], {
      env: { ...environment, WS_AUTH_SECRET: SECRET },
    });
    const env = { ...environment, FLOWCAST_TOKEN: stdout.trim() };
    const child = spawn(process.execPath, tail("--channels", "price_updates", "--symbols", "SPX", "--count", "2"), { env });
    const printed = { out: "", err: "" };
    child.stdout.on("data", (text) => (printed.out += text));
    child.stderr.on("data", (text) => (printed.err += text));
    assert.deepEqual(await once(child, "exit"), [0, null], printed.err);
    const messages = printed.out.trim().split("\n").map(JSON.parse);
    assert.deepEqual(messages.map(({ type }) => type), ["price_update", "price_update"]);
    assert.deepEqual(messages.flatMap(({ symbols }) => Object.keys(symbols)), ["SPX", "SPX"]);
    assert.ok(!printed.err.includes(stdout.trim()), "the token is a secret");
  });

  test("what it does not know is told with its usage, and ends it with 2", async () => {
    const failed = promisify(execFile)(process.execPath, [TAIL, "--chanels", "lines"], { env: environment });
    await assert.rejects(failed, ({ code, stderr }) => code === 2 && /--chanels[\s\S]*usage: tail.mjs \[URL\]/.test(stderr));
  });

  test("a server that is not there ends it with 1, in the end", async () => {
    const env = { ...environment, FLOWCAST_TOKEN: "not a token" };
    const failed = promisify(execFile)(process.execPath, [...tail(), "--max-attempts", "2"], { env });
    await assert.rejects(failed, ({ code, stderr }) => code === 1 && /given up/.test(stderr));
  });
});
