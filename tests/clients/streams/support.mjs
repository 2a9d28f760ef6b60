// The example client as the tests use it: everything it emits is kept.

import { WebSocket as WsWebSocket } from "ws";
import { FlowcastClient } from "../../../examples/js/flowcast.mjs";
import { waitUntil } from "../support/waiting.mjs";

const EVENTS = ["any", "open", "close", "reconnecting", "gap", "malformed", "given_up"];

/** The implementations a user may have: the package `ws`, and what browsers and Node itself bring. */
export const IMPLEMENTATIONS = [
  ["ws", WsWebSocket],
  ["the built-in WebSocket", globalThis.WebSocket],
];

/** Runs `body` with a client that does not wait long, and disconnects it whatever happens. */
export async function withClient(options, body) {
  const client = new FlowcastClient({ WebSocket: WsWebSocket, baseDelayMs: 1, maxDelayMs: 20, ...options });
  const log = Object.fromEntries(EVENTS.map((event) => [event, []]));
  for (const event of EVENTS) client.on(event, (detail) => log[event].push(detail));
  const watched = {
    client,
    log,
    of: (type) => log.any.filter((message) => message.type === type),
    until: (event, times = 1) => waitUntil(() => log[event].length >= times && log[event][times - 1], `${event} ${times}`),
    untilMessage: (type, times = 1) =>
      waitUntil(() => watched.of(type).length >= times && watched.of(type)[times - 1], `${type} message ${times}`),
  };
  try {
    await body(watched);
  } finally {
    client.disconnect();
  }
}
