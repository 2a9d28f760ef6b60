// How the example client keeps a connection: against a server that ends, refuses and ignores.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { FlowcastClient } from "../../../examples/js/flowcast.mjs";
import { waitUntil } from "../support/waiting.mjs";
import { LyingServer } from "./lying_server.mjs";
import { IMPLEMENTATIONS, withClient } from "./support.mjs";

// A connection that an open socket or timer keeps is what these tests are about: nothing may be left over.
const FOREVER = 1_000_000;

let server;
beforeEach(async () => (server = await LyingServer.start()));
afterEach(() => server.stop());

/** What a connection was asked for, without pings. */
const asked = ({ received }) => received.filter(({ type }) => type !== "ping");

for (const [name, WebSocket] of IMPLEMENTATIONS) {
  describe(`with ${name}`, () => {
    before(() => assert.ok(WebSocket, "run this with node --experimental-websocket"));

    test("connect opens, and what is out of shape is reported while the connection lives on", async () => {
      await withClient({ url: server.url, WebSocket }, async ({ client, log, until }) => {
        await client.connect();
        for (const frame of ["{", Buffer.from("{}"), { type: "later" }, { type: "signal" }]) server.say(frame);
        server.say({ type: "pong" });
        await until("any");
        assert.deepEqual(
          log.malformed.map(({ problem }) => problem.split(":")[0].split(",")[0]),
          ["expected JSON", "expected a text frame", "message.type", "signal.signal_type"],
        );
        assert.equal(client.state, "open");
        assert.equal(server.connections.length, 1);
      });
    });

    test("what was subscribed is asked for again after a loss, channel by channel", async () => {
      await withClient({ url: server.url, WebSocket }, async ({ client, untilMessage, until }) => {
        client.subscribe(["lines", "order_book"]);
        client.subscribe("price_updates", ["AAPL", "MSFT"]);
        client.connect();
        await untilMessage("subscribed", 2);
        client.unsubscribe("lines");
        await untilMessage("subscribed", 3);
        server.last.socket.terminate();
        await until("open", 2);
        await untilMessage("subscribed", 5);
        assert.deepEqual(asked(server.last), [
          { type: "subscribe", channels: ["order_book"] },
          { type: "subscribe", channels: ["price_updates"], symbols: ["AAPL", "MSFT"] },
        ]);
        assert.deepEqual(client.subscriptions, {
          channels: ["order_book", "price_updates"],
          symbols: { price_updates: ["AAPL", "MSFT"] },
        });
      });
    });

    for (const [code, reason, meaning, slow] of [
      [1001, "", "server stopping", false],
      [1008, "policy violation: slow consumer", "slow consumer", true],
      [1008, "too many errors", "dropped by policy", false],
      [4401, "token expired", "token expired", false],
      [1011, "", "closed by an error", false],
      [1000, "", "closed", false],
    ]) {
      test(`a close with ${code} ${reason} is understood and reconnects with a fresh token`, async () => {
        let minted = 0;
        const token = async () => `token ${++minted}`;
        await withClient({ url: server.url, token, clientId: "me", WebSocket }, async ({ client, log, until }) => {
          await client.connect();
          server.last.socket.close(code, reason);
          await until("open", 2);
          assert.deepEqual(log.close, [{ code, reason, meaning, slow }]);
          assert.deepEqual(
            server.attempts.map((query) => [query.get("token"), query.get("client_id")]),
            [["token 1", "me"], ["token 2", "me"]],
          );
        });
      });
    }

    test("a connection that is reset reconnects", async () => {
      await withClient({ url: server.url, WebSocket }, async ({ client, log, until }) => {
        await client.connect();
        server.last.socket._socket.resetAndDestroy();
        await until("open", 2);
        assert.equal(log.close[0].code, 1006);
      });
    });

    test("disconnect closes with 1000 and ends reconnection", async () => {
      await withClient({ url: server.url, WebSocket }, async ({ client, log }) => {
        await client.connect();
        const closed = once(server.last.socket, "close");
        client.disconnect();
        assert.equal((await closed)[0], 1000);
        await sleep(60); // three times the longest wait
        assert.equal(server.attempts.length, 1);
        assert.equal(client.state, "idle");
        assert.deepEqual(log.close, [{ code: 1000, reason: "disconnected", meaning: "closed", slow: false }]);
        assert.deepEqual(log.reconnecting, []);
      });
    });

    test("attempts that never open are bounded, since a browser does not say that it was refused", async () => {
      server.refusals = Array(50).fill(503);
      await withClient({ url: server.url, maxFailedAttempts: 5, WebSocket }, async ({ client, until, log }) => {
        await assert.rejects(client.connect(), /5 attempts in a row have failed/);
        await until("given_up");
        assert.equal(server.attempts.length, 5);
        assert.equal(log.reconnecting.length, 4);
        assert.equal(client.state, "idle");
      });
    });
  });
}

test("a refusal that can be seen is believed after three of them", async () => {
  server.refusals = Array(50).fill(401);
  await withClient({ url: server.url, token: "stale" }, async ({ client, until }) => {
    await assert.rejects(client.connect(), /refused 3 times .*401/);
    await until("given_up");
    assert.equal(server.attempts.length, 3);
  });
});

test("a client that has given up connects again when told to", async () => {
  server.refusals = Array(3).fill(403);
  await withClient({ url: server.url }, async ({ client }) => {
    await assert.rejects(client.connect());
    await client.connect();
    assert.equal(client.state, "open");
  });
});

test("an expired token that nothing can replace is given up at once", async () => {
  await withClient({ url: server.url, token: "fixed" }, async ({ client, until }) => {
    await client.connect();
    server.last.socket.close(4401, "token expired");
    assert.match((await until("given_up")).reason, /nothing fetches another/);
    assert.equal(server.attempts.length, 1);
  });
});

test("a token that cannot be fetched is another failed attempt, and is fetched again", async () => {
  let calls = 0;
  const token = () => {
    if (++calls < 3) throw new Error("the identity provider is away");
    return "late";
  };
  await withClient({ url: server.url, token }, async ({ client, log }) => {
    await client.connect();
    assert.equal(server.attempts[0].get("token"), "late");
    assert.match(log.reconnecting[0].reason, /identity provider is away/);
  });
});

test("waits double from attempt to attempt up to the longest, and are drawn evenly from there down", async () => {
  server.refusals = Array(50).fill(503);
  const options = { baseDelayMs: 1, maxDelayMs: 10, maxFailedAttempts: 7 };
  for (const [draw, expected] of [[1, [1, 2, 4, 8, 10, 10]], [0.5, [0.5, 1, 2, 4, 5, 5]], [0, [0, 0, 0, 0, 0, 0]]]) {
    await withClient({ url: server.url, random: () => draw, ...options }, async ({ client, log }) => {
      await assert.rejects(client.connect());
      assert.deepEqual(log.reconnecting.map(({ delayMs }) => delayMs), expected);
    });
  }
});

test("a connection that does not hold leaves the wait long, one that holds makes it short again", async () => {
  const waits = async (stableMs, hold) => {
    const options = { url: server.url, random: () => 1, stableMs };
    return new Promise((resolve) =>
      withClient(options, async ({ client, log, until }) => {
        client.connect();
        for (let time = 1; time <= 3; time += 1) {
          await until("open", time);
          await hold();
          server.last.socket.close(1001);
        }
        await until("reconnecting", 3);
        resolve(log.reconnecting.map(({ delayMs }) => delayMs));
      }),
    );
  };
  assert.deepEqual(await waits(FOREVER, () => {}), [1, 2, 4]);
  assert.deepEqual(await waits(0, () => sleep(20)), [1, 1, 1]);
});

test("the default waits are bounded: half a second at first, half a minute at last", async () => {
  server.refusals = Array(50).fill(503);
  const client = new FlowcastClient({ url: server.url, random: () => 1, WebSocket: IMPLEMENTATIONS[0][1] });
  const waits = [];
  client.on("reconnecting", ({ delayMs }) => waits.push(delayMs));
  client.connect();
  await waitUntil(() => waits.length === 1, "the first wait");
  client.disconnect();
  assert.deepEqual(waits, [500]);
});

test("a refused subscription is not asked for again, its neighbours are", async () => {
  server.forbidden.add("order_book");
  await withClient({ url: server.url }, async ({ client, until, untilMessage }) => {
    await client.connect();
    for (const channel of ["lines", "order_book", "analytics"]) client.subscribe(channel);
    await untilMessage("error");
    await untilMessage("subscribed", 2);
    server.last.socket.terminate();
    await until("open", 2);
    await untilMessage("subscribed", 4);
    assert.deepEqual(asked(server.last).flatMap(({ channels }) => channels), ["lines", "analytics"]);
  });
});

test("a token that lost a channel keeps the others after a reconnect", async () => {
  await withClient({ url: server.url }, async ({ client, until, untilMessage }) => {
    client.subscribe(["lines", "analytics"]);
    await client.connect();
    await untilMessage("subscribed");
    server.forbidden.add("lines");
    server.last.socket.terminate();
    await until("open", 2);
    await untilMessage("error");
    await untilMessage("subscribed", 2);
    assert.deepEqual(client.subscriptions.channels, ["analytics"]);
  });
});

test("requests that were not answered before the loss are made again", async () => {
  server.answers = false;
  await withClient({ url: server.url }, async ({ client, untilMessage }) => {
    await client.connect();
    client.subscribe("lines");
    const { received, socket } = server.last;
    await waitUntil(() => received.length === 1, "the request");
    client.subscribe("analytics");
    server.answers = true;
    socket.terminate();
    await untilMessage("subscribed", 2);
    assert.deepEqual(client.subscriptions.channels, ["lines", "analytics"]);
  });
});

test("a loss in the middle of asking again loses nothing that was subscribed", async () => {
  await withClient({ url: server.url }, async ({ client, until, untilMessage }) => {
    client.subscribe(["lines", "analytics"]);
    await client.connect();
    await untilMessage("subscribed");
    server.answers = false;
    server.last.socket.terminate();
    await until("open", 2);
    server.say({ type: "subscribed", channels: ["lines"] });
    await untilMessage("subscribed", 2);
    server.answers = true;
    server.last.socket.terminate();
    await until("open", 3);
    await untilMessage("subscribed", 4);
    assert.deepEqual(client.subscriptions.channels, ["lines", "analytics"]);
  });
});

test("who gave everything back does not get the trading streams by reconnecting", async () => {
  await withClient({ url: server.url }, async ({ client, until, untilMessage }) => {
    await client.connect();
    client.subscribe("lines");
    client.unsubscribe("lines");
    await untilMessage("subscribed", 2);
    server.last.socket.terminate();
    await until("open", 2);
    await untilMessage("subscribed", 6);
    const trading = ["price_updates", "signals", "trades", "portfolio"];
    assert.deepEqual(asked(server.last), trading.map((channel) => ({ type: "unsubscribe", channels: [channel] })));
  });
});

test("who never asked for anything asks for nothing after a reconnect", async () => {
  await withClient({ url: server.url }, async ({ client, until, untilMessage }) => {
    await client.connect();
    server.last.socket.terminate();
    await until("open", 2);
    client.ping();
    await untilMessage("pong");
    assert.deepEqual(asked(server.last), []);
  });
});

test("requests that wait for a connection are bounded", async () => {
  const client = new FlowcastClient({ url: server.url, maxPendingRequests: 2 });
  client.subscribe("lines");
  client.subscribe("analytics");
  assert.throws(() => client.subscribe("order_book"), /2 requests wait/);
});

test("pings go out by themselves and are answered", async () => {
  await withClient({ url: server.url, pingIntervalMs: 5 }, async ({ client, untilMessage }) => {
    await client.connect();
    await untilMessage("pong", 3);
    assert.ok(server.last.received.length >= 3);
    assert.equal(server.connections.length, 1);
  });
});

test("a server that does not answer pings is left for a new connection", async () => {
  server.answers = false;
  await withClient({ url: server.url, pingIntervalMs: 5, answerTimeoutMs: 50 }, async ({ client, log, until }) => {
    await client.connect();
    await until("open", 2);
    assert.equal(log.close[0].reason, "no pong");
  });
});

test("an attempt that neither opens nor fails is given up in time", async () => {
  server.http.removeAllListeners("upgrade");
  const silent = [];
  server.http.on("upgrade", (_, socket) => silent.push(socket));
  await withClient({ url: server.url, answerTimeoutMs: 50, maxFailedAttempts: 2 }, async ({ client }) => {
    await assert.rejects(client.connect(), /could not connect in time/);
    assert.equal(silent.length, 2);
  });
  for (const socket of silent) socket.destroy();
});

for (const [moment, options, ready] of [
  ["waiting for a token", { token: () => new Promise(() => {}) }, () => {}],
  ["connecting", {}, () => {}],
  ["waiting for the next attempt", { baseDelayMs: 50, maxDelayMs: 50, random: () => 1 }, (log) => waitUntil(() => log.reconnecting.length, "a wait")],
]) {
  test(`disconnect while ${moment} ends it`, async () => {
    server.refusals = [503];
    await withClient({ url: server.url, ...options }, async ({ client, log }) => {
      const connected = client.connect();
      await ready(log);
      client.disconnect();
      await assert.rejects(connected, /disconnected/);
      await sleep(100);
      assert.equal(client.state, "idle");
      assert.deepEqual(log.open, []);
      assert.ok(server.attempts.length <= 1);
    });
  });
}

test("a token that arrives after disconnect and connect opens one connection only", async () => {
  const waiting = [];
  const token = () => new Promise((resolve) => waiting.push(resolve));
  await withClient({ url: server.url, token }, async ({ client, until }) => {
    client.connect();
    client.disconnect();
    client.connect();
    await waitUntil(() => waiting.length === 2, "two calls for a token");
    waiting[1]("second");
    await until("open");
    waiting[0]("first");
    await sleep(50);
    assert.deepEqual(server.attempts.map((query) => query.get("token")), ["second"]);
  });
});

test("disconnect and connect in a listener of close leave one connection", async () => {
  await withClient({ url: server.url }, async ({ client, log, until }) => {
    await client.connect();
    client.on("close", ({ code }) => {
      if (code !== 1001) return;
      client.disconnect();
      client.connect();
    });
    server.last.socket.close(1001);
    await until("open", 2);
    await sleep(60);
    assert.equal(server.attempts.length, 2);
    assert.deepEqual(log.reconnecting, []);
  });
});

test("connect while connected changes nothing", async () => {
  await withClient({ url: server.url }, async ({ client }) => {
    await client.connect();
    await client.connect();
    assert.equal(server.attempts.length, 1);
  });
});

test("a listener can be taken back", async () => {
  await withClient({ url: server.url }, async ({ client, untilMessage }) => {
    const heard = [];
    const stop = client.on("pong", (message) => heard.push(message));
    await client.connect();
    client.ping();
    await untilMessage("pong");
    stop();
    client.ping();
    await untilMessage("pong", 2);
    assert.deepEqual(heard, [{ type: "pong" }]);
  });
});

describe("a listener that throws", () => {
  const thrown = [];
  const listener = (error) => thrown.push(error.message);
  before(() => process.setUncaughtExceptionCaptureCallback(listener));
  after(() => process.setUncaughtExceptionCaptureCallback(null));

  test("shows as an uncaught error and does the connection no harm", async () => {
    await withClient({ url: server.url }, async ({ client, untilMessage }) => {
      client.on("pong", () => {
        throw new Error("a listener's own");
      });
      await client.connect();
      client.ping();
      await untilMessage("pong");
      client.ping();
      await untilMessage("pong", 2);
      await waitUntil(() => thrown.length === 2, "two uncaught errors");
      assert.deepEqual(thrown, ["a listener's own", "a listener's own"]);
    });
  });
});

test("an address that is no WebSocket's is refused at once", () => {
  assert.throws(() => new FlowcastClient({ url: "http://127.0.0.1/ws" }), /expected a ws:\/\/ or wss:\/\/ URL/);
  assert.throws(() => new FlowcastClient({ url: "nonsense" }), TypeError);
});
