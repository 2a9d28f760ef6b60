// What the example client makes of each frame: the protocol's own examples, and everything that is wrong
// with them.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MESSAGE_TYPES, parseMessage, payloadBytes } from "../../../examples/js/flowcast.mjs";

const TIME = "2024-12-19T12:00:00Z";
const GOOD = {
  pong: { type: "pong" },
  subscribed: {
    type: "subscribed",
    channels: ["lines"],
    symbols: { price_updates: ["AAPL"] },
    positions: { lines: { epoch: "e", seq: { 0: 7, 1: 2 } } },
  },
  skipped: { type: "skipped", channel: "lines", epoch: "e", count: 3, from: 4, to: 6 },
  error: { type: "error", error: "Invalid message format", code: "invalid_message", timestamp: TIME },
  message: { type: "message", channel: "lines", payload: { any: "json" }, key: "k1", timestamp: "2024-12-19T12:00:00.123Z" },
  price_update: {
    type: "price_update",
    symbols: {
      AAPL: { price: 150.25, change: 0.5, change_pct: 0.33, volume: 1e6, high: 151, low: 149.5, open: 150, close: 150.25 },
      MSFT: { price: 380.5 },
    },
    timestamp: TIME,
  },
  signal: { type: "signal", signal_type: "BUY", symbol: "AAPL", price: 150.25, quantity: 10, confidence: 0.85, timestamp: TIME },
  trade_executed: { type: "trade_executed", symbol: "AAPL", side: "BUY", quantity: 10, price: 150.25, timestamp: TIME },
  portfolio_update: {
    type: "portfolio_update",
    channel: "portfolio",
    timestamp: TIME,
    data: {
      positions: {
        AAPL: { symbol: "AAPL", quantity: 10, average_price: 150.25, market_price: 151.5, unrealized_pnl: 12.5, unrealized_pnl_pct: 0.83 },
      },
      total_pnl: 12.5,
      position_count: 1,
    },
  },
};

/** `message` with the value at `path` replaced, or removed. */
function spoiled(message, path, value) {
  const copy = structuredClone(message);
  const place = path.slice(0, -1).reduce((part, key) => part[key], copy);
  if (value === undefined) delete place[path.at(-1)];
  else place[path.at(-1)] = value;
  return copy;
}

const problemOf = (message) => parseMessage(typeof message === "string" ? message : JSON.stringify(message)).problem;

test("there is a good example of every message type", () => {
  assert.deepEqual(Object.keys(GOOD).sort(), [...MESSAGE_TYPES].sort());
});

for (const [type, message] of Object.entries(GOOD)) {
  describe(type, () => {
    test("the protocol's example is understood", () => {
      assert.deepEqual(parseMessage(JSON.stringify(message)), { message });
    });

    test("keys that are not known are let through", () => {
      assert.equal(problemOf({ ...message, invented: { later: [1] } }), undefined);
    });
  });
}

const BAD = [
  ["a missing price", "price_update", ["symbols", "AAPL", "price"], undefined, /symbols\.AAPL\.price: expected a number, got nothing/],
  ["a price in quotes", "price_update", ["symbols", "AAPL", "price"], "150", /expected a number, got "150"/],
  ["null instead of an absent change", "price_update", ["symbols", "AAPL", "change"], null, /change: expected a number, got null/],
  ["symbols in a list", "price_update", ["symbols"], [], /expected an object/],
  ["a symbol without an object", "price_update", ["symbols", "MSFT"], 380.5, /expected an object/],
  ["a signal of an invented type", "signal", ["signal_type"], "SHORT", /expected BUY or SELL or HOLD, got "SHORT"/],
  ["a signal without a symbol", "signal", ["symbol"], undefined, /symbol: expected a string/],
  ["a trade that holds", "trade_executed", ["side"], "HOLD", /expected BUY or SELL/],
  ["a trade without a quantity", "trade_executed", ["quantity"], undefined, /quantity: expected a number/],
  ["a time that is none", "signal", ["timestamp"], "yesterday", /expected an RFC 3339 time/],
  ["a time of a month that is none", "signal", ["timestamp"], "2024-13-19T12:00:00Z", /expected an RFC 3339 time/],
  ["a number as time", "trade_executed", ["timestamp"], 1734609600, /expected an RFC 3339 time/],
  ["a topic message without a payload", "message", ["payload"], undefined, /payload: expected a value/],
  ["a channel that is a number", "message", ["channel"], 7, /channel: expected a string/],
  ["an unknown encoding", "message", ["encoding"], "hex", /encoding: expected base64/],
  ["positions in a list", "portfolio_update", ["data", "positions"], [], /expected an object/],
  ["half a position count", "portfolio_update", ["data", "position_count"], 0.5, /expected a count/],
  ["no portfolio data", "portfolio_update", ["data"], undefined, /data: expected an object/],
  ["channels that are no list", "subscribed", ["channels"], "lines", /expected a list/],
  ["channels that are no names", "subscribed", ["channels"], [1], /channels\[0\]: expected a string/],
  ["symbols that are no lists", "subscribed", ["symbols"], { signals: "AAPL" }, /symbols\.signals: expected a list/],
  ["an error without words", "error", ["error"], undefined, /error: expected a string/],
];

for (const [name, type, path, value, expected] of BAD) {
  test(`${name} is a problem that says where it is`, () => {
    assert.match(problemOf(spoiled(GOOD[type], path, value)), expected);
  });
}

for (const [name, frame] of [
  ["text that is no JSON", "{"],
  ["an empty frame", ""],
  ["JSON that is no object", "[]"],
  ["null", "null"],
  ["an object without a type", "{}"],
  ["a type of a later protocol", '{"type":"later"}'],
  ["a type that every object inherits", '{"type":"constructor"}'],
  ["a type that is no text", '{"type":{}}'],
]) {
  test(`${name} is a problem, not an exception`, () => {
    assert.ok(problemOf(frame));
  });
}

test("a binary frame is a problem", () => {
  assert.match(parseMessage(Buffer.from("{}")).problem, /binary/);
  assert.match(parseMessage(new ArrayBuffer(2)).problem, /binary/);
});

for (const payload of [null, 0, false, "text", [1, 2], 1.5]) {
  test(`the payload ${JSON.stringify(payload)} of a topic passes`, () => {
    assert.equal(problemOf({ ...GOOD.message, payload }), undefined);
  });
}

test("a payload that is no JSON comes as base64 and gives its bytes back", () => {
  const message = { ...GOOD.message, payload: "/wAB", encoding: "base64" };
  assert.equal(problemOf(message), undefined);
  assert.deepEqual([...payloadBytes(message)], [255, 0, 1]);
});

for (const payload of ["###", "A", 1234]) {
  test(`the payload ${JSON.stringify(payload)} is a problem if it claims to be base64`, () => {
    assert.match(problemOf({ ...GOOD.message, payload, encoding: "base64" }), /expected base64/);
  });
}

test("a problem quotes at most a little of what came", () => {
  const problem = problemOf({ ...GOOD.message, channel: { long: "x".repeat(10_000) } });
  assert.ok(problem.length < 200, problem);
});
