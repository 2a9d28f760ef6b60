// What the tests publish, and the tokens they do it with: made here, not by flowcast.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

export const SECRET = "a secret of at least 32 bytes, for tests only";

/** Short intervals, so that nothing is waited for. */
export const SETTINGS = {
  WS_AUTH_SECRET: SECRET,
  WEBSOCKET_PRICE_UPDATE_INTERVAL: "1",
  WEBSOCKET_PORTFOLIO_UPDATE_INTERVAL: "1",
};

/** One input of each channel that is published. */
export const EXAMPLES = {
  lines: { game: 7, odds: [1.9, 2.1], note: "äöü" },
  signals: { signal_type: "BUY", symbol: "AAPL", price: 150.25, quantity: 10, confidence: 0.85 },
  trades: { symbol: "AAPL", side: "SELL", quantity: 10, price: 150.25 },
  portfolio: {
    positions: {
      AAPL: { symbol: "AAPL", quantity: 10, average_price: 150.25, market_price: 151.5, unrealized_pnl: 12.5, unrealized_pnl_pct: 0.83 },
    },
    total_pnl: 12.5,
    position_count: 1,
  },
};

/** An HS256 token, as any identity provider makes it. */
export function jwt(claims, secret = SECRET) {
  const encoded = (part) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const signed = `${encoded({ alg: "HS256", typ: "JWT" })}.${encoded(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** The streams' address of a `Server`. */
export const streamsUrl = (server) => `${server.url.replace(/^http/, "ws")}/ws`;

export async function publish(server, channel, data) {
  const response = await fetch(`${server.url}/api/publish`, {
    method: "POST",
    headers: { Authorization: `Bearer ${jwt({ sub: "publisher", role: "publisher" })}`, "Content-Type": "application/json" },
    body: JSON.stringify({ channel, data }),
  });
  assert.ok(response.ok, `${response.status} ${await response.text()}`);
}

/** Publishes all examples over and over; returns what ends it. */
export function keepPublishing(server) {
  let isOn = true;
  const loop = (async () => {
    while (isOn) {
      for (const [channel, data] of Object.entries(EXAMPLES)) await publish(server, channel, data);
      await sleep(100);
    }
  })();
  loop.catch(() => {}); // told by the one who ends it
  return async () => {
    isOn = false;
    await loop;
  };
}
