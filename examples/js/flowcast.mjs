// A client of flowcast's JSON streams (`GET /ws`, docs/streams.md), for browsers and for Node.
//
//   connect ─▶ token() ─▶ WebSocket ─▶ what was subscribed is asked for again, ─▶ messages ─▶ listeners
//      ▲                               with what was missed meanwhile                │
//      ▲                                                                            │
//      └──────────── a random wait, longer after each failure ◀── lost ◀────────────┘
//
// One file, no dependencies. Browsers and Node 22 have a WebSocket; Node 20 has one behind
// `--experimental-websocket`, and without it the package `ws` is used where it is installed.
//
// Nothing a server sends throws: what is not in the protocol's shape is reported as "malformed".

const DEFAULTS = {
  pingIntervalMs: 30_000,
  /** How long a pong may take, and how long a connection may take to open. */
  answerTimeoutMs: 10_000,
  /** Wait n is drawn evenly from 0 to min(maxDelayMs, baseDelayMs · 2ⁿ): "full jitter". */
  baseDelayMs: 500,
  maxDelayMs: 30_000,
  /** A connection that held this long was a good one: the next wait is a short one again. */
  stableMs: 30_000,
  /** Attempts in a row that never opened. Browsers hide why, so this also bounds refusals (401, 403). */
  maxFailedAttempts: 20,
  /** Attempts in a row that were visibly refused (401, 403 or 404, which only `ws` shows). */
  maxRefusals: 3,
  /** Requests that wait for a connection or for an answer. */
  maxPendingRequests: 1_000,
};

/** What the close codes of this server mean; any other code is an accident. All of them reconnect. */
export const CLOSE_MEANINGS = new Map([
  [1000, "closed"],
  [1001, "server stopping"],
  [1006, "connection lost"],
  [1008, "dropped by policy"],
  [4401, "token expired"],
]);

const SLOW_CONSUMER = /slow consumer/i;
const STATES = ["price_updates", "portfolio"];
const REMEMBERED = 256; // messages of a channel, so that none is handed on twice
const TRADING_STREAMS = ["price_updates", "signals", "trades", "portfolio"];

// ---- shapes ----------------------------------------------------------------------------------------
// A check takes a value and the path to it, and returns what is wrong in words, or undefined.

const TIME = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const expected = (what, value, path) => `${path}: expected ${what}, got ${brief(value)}`;
const check = (holds, what) => (value, path) => (holds(value) ? undefined : expected(what, value, path));

const text = check((value) => typeof value === "string", "a string");
const number = check((value) => typeof value === "number" && Number.isFinite(value), "a number");
const count = check((value) => Number.isSafeInteger(value) && value >= 0, "a count");
const time = check(
  (value) => typeof value === "string" && TIME.test(value) && !Number.isNaN(Date.parse(value)),
  "an RFC 3339 time",
);
const anything = check((value) => value !== undefined, "a value");
const oneOf = (...values) => check((value) => values.includes(value), values.join(" or "));

const optional = (inner) => (value, path) => (value === undefined ? undefined : inner(value, path));

const listOf = (inner) => (value, path) => {
  if (!Array.isArray(value)) return expected("a list", value, path);
  return first(value.entries(), ([index, item]) => inner(item, `${path}[${index}]`));
};

const mapOf = (inner) => (value, path) => {
  if (!isObject(value)) return expected("an object", value, path);
  return first(Object.entries(value), ([key, item]) => inner(item, `${path}.${key}`));
};

/** Keys that are not named are let through: a newer server may say more. */
const shape = (fields) => (value, path) => {
  if (!isObject(value)) return expected("an object", value, path);
  return first(Object.entries(fields), ([name, inner]) => inner(value[name], `${path}.${name}`));
};

function first(items, find) {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

function brief(value) {
  const shown = value === undefined ? "nothing" : (JSON.stringify(value) ?? String(value));
  return shown.length > 60 ? `${shown.slice(0, 60)}…` : shown;
}

/** The number of a message, or one per partition. */
const numbers = (value, path) => (isObject(value) ? mapOf(count)(value, path) : count(value, path));

const price = shape({
  price: number,
  change: optional(number),
  change_pct: optional(number),
  volume: optional(number),
  high: optional(number),
  low: optional(number),
  open: optional(number),
  close: optional(number),
});

const position = shape({
  symbol: optional(text),
  quantity: number,
  average_price: optional(number),
  market_price: optional(number),
  unrealized_pnl: optional(number),
  unrealized_pnl_pct: optional(number),
});

const topicMessage = shape({
  channel: text,
  payload: anything,
  key: optional(text),
  encoding: optional(oneOf("base64")),
  key_encoding: optional(oneOf("base64")),
  timestamp: time,
});

/** Every message a server may send, by its type. */
const MESSAGES = new Map([
  ["pong", shape({})],
  [
    "subscribed",
    shape({
      channels: listOf(text),
      symbols: optional(mapOf(listOf(text))),
      positions: optional(mapOf(shape({ epoch: text, seq: numbers }))),
    }),
  ],
  ["skipped", shape({ channel: text, epoch: text, count, from: numbers, to: numbers })],
  ["error", shape({ error: text, code: optional(text), timestamp: optional(time) })],
  ["message", (value, path) => topicMessage(value, path) ?? encoded(value, path)],
  ["price_update", shape({ symbols: mapOf(price), timestamp: time })],
  [
    "signal",
    shape({
      signal_type: oneOf("BUY", "SELL", "HOLD"),
      symbol: text,
      price: optional(number),
      quantity: optional(number),
      confidence: optional(number),
      timestamp: time,
    }),
  ],
  ["trade_executed", shape({ symbol: text, side: oneOf("BUY", "SELL"), quantity: number, price: number, timestamp: time })],
  [
    "portfolio_update",
    shape({
      channel: optional(oneOf("portfolio")),
      timestamp: time,
      data: shape({ positions: mapOf(position), total_pnl: optional(number), position_count: optional(count) }),
    }),
  ],
]);

/** The types of the messages a server sends. */
export const MESSAGE_TYPES = Object.freeze([...MESSAGES.keys()]);

function encoded(message, path) {
  try {
    if (message.encoding === "base64") payloadBytes(message);
    return undefined;
  } catch {
    return expected("base64", message.payload, `${path}.payload`);
  }
}

/**
 * The bytes of a topic message whose payload is no JSON (`"encoding":"base64"`).
 * @returns {Uint8Array}
 */
export function payloadBytes(message) {
  if (typeof message.payload !== "string") throw new TypeError("expected base64");
  return Uint8Array.from(atob(message.payload), (character) => character.charCodeAt(0));
}

/**
 * Understands one frame: `{ message }`, or `{ problem }` in words.
 * @param {unknown} data what a WebSocket's message event carries
 */
export function parseMessage(data) {
  if (typeof data !== "string") return { problem: "expected a text frame, got a binary one" };
  let message;
  try {
    message = JSON.parse(data);
  } catch (error) {
    return { problem: `expected JSON: ${error.message}` };
  }
  if (!isObject(message)) return { problem: expected("an object", message, "message") };
  const known = MESSAGES.get(message.type);
  if (!known) return { problem: expected("a known type", message.type, "message.type") };
  const problem = known(message, message.type);
  return problem === undefined ? { message } : { problem };
}

// ---- client ----------------------------------------------------------------------------------------

/**
 * A connection that comes back.
 *
 * Events (`on`): every message type of {@link MESSAGE_TYPES} with the message, "any" with each of
 * them, and
 * - "open" `{ attempt }`: connected, and what was subscribed before is asked for again;
 * - "close" `{ code, reason, meaning, slow }`: a connection ended;
 * - "reconnecting" `{ attempt, delayMs, reason }`: the next try, and when;
 * - "gap" `{ channel, reason }`: the server no longer has what was missed of a channel while away;
 * - "malformed" `{ problem, data }`: the server said something that is not in the protocol;
 * - "given_up" `{ reason }`: no more tries, until `connect` is called again.
 */
export class FlowcastClient {
  #options;
  #listeners = new Map();
  #state = "idle"; // idle ▸ connecting ▸ open ▸ waiting ▸ connecting …; given up and disconnected: idle
  #socket;
  #timers = new Map();
  #attempt = 0; // since the last stable connection: how long to wait
  #failed = 0; // attempts in a row that never opened
  #refused = 0; // those of them that were seen to be refused
  #opened; // what connect() returned, while nothing was opened yet
  #confirmed; // the server's word on what is subscribed; undefined: nothing was ever asked for
  #latest; // the last "subscribed" while more answers are due
  #pending = []; // requests not answered yet; those with `replay` are made again from #confirmed
  #positions = new Map(); // by channel: what has been heard of it, { epoch, seqs: Map(partition ▸ seq), recent: Set }
  #resuming = new Set(); // channels that were asked for with a position, and not answered yet

  /**
   * @param {object} options
   * @param {string} options.url `ws://` or `wss://…/ws`
   * @param {string | (() => string | undefined | Promise<string | undefined>)} [options.token] a JWT, or
   *   what fetches one; a function is called before every attempt, so an expired token is replaced
   * @param {string} [options.clientId] a name for the server's log; a UUID otherwise
   * @param {typeof WebSocket} [options.WebSocket] another implementation
   * @param {() => number} [options.random] 0 ≤ x < 1, for the waits
   * All of DEFAULTS can be given, too.
   */
  constructor(options) {
    this.#options = { ...DEFAULTS, random: Math.random, ...options };
    const { protocol } = new URL(this.#options.url);
    if (protocol !== "ws:" && protocol !== "wss:") {
      throw new TypeError(`expected a ws:// or wss:// URL, got ${protocol}//…`);
    }
  }

  /** "idle", "connecting", "open", or "waiting" for the next attempt. */
  get state() {
    return this.#state;
  }

  /** What the server said is subscribed: `{ channels, symbols }`; undefined before it said anything. */
  get subscriptions() {
    return structuredClone(this.#confirmed);
  }

  /** Calls `listener` on each `event`; returns what takes that back. */
  on(event, listener) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /**
   * Connects, and stays connected until `disconnect`.
   * @returns {Promise<void>} the first opening; rejected if it is given up. It need not be awaited.
   */
  connect() {
    if (this.#state !== "idle") return this.#opened?.promise ?? Promise.resolve();
    this.#attempt = this.#failed = this.#refused = 0;
    this.#opened = deferred();
    const { promise } = this.#opened;
    this.#open();
    return promise;
  }

  /** Closes with 1000 and ends reconnection. What was subscribed is forgotten. */
  disconnect() {
    const wasOpen = this.#state === "open";
    this.#confirmed = undefined;
    this.#pending = [];
    this.#positions.clear();
    this.#end("disconnected");
    if (wasOpen) this.#emit("close", { code: 1000, reason: "disconnected", meaning: "closed", slow: false });
  }

  /**
   * Asks for channels: `subscribe(["lines", "order_book"])`, `subscribe("price_updates", ["AAPL"])`.
   * Remembered over reconnects once the server has said yes; a refusal comes as "error".
   */
  subscribe(channels, symbols) {
    this.#request("subscribe", channels, symbols);
  }

  /** Gives channels back, or only some symbols of them. */
  unsubscribe(channels, symbols) {
    this.#request("unsubscribe", channels, symbols);
  }

  /** Asks for a pong. Happens by itself every `pingIntervalMs`; without an answer the connection is dropped. */
  ping() {
    if (this.#state !== "open") return;
    this.#send({ type: "ping" });
    if (!this.#timers.has("pong")) {
      this.#after("pong", this.#options.answerTimeoutMs, () => this.#lost(1006, "no pong"));
    }
  }

  #request(type, channels, symbols) {
    const request = { type, channels: [channels].flat() };
    if (symbols !== undefined) request.symbols = [symbols].flat();
    if (this.#pending.length >= this.#options.maxPendingRequests) {
      throw new RangeError(`${this.#pending.length} requests wait for an answer already`);
    }
    this.#pending.push({ request });
    if (this.#state === "open") this.#send(request);
  }

  async #open() {
    this.#state = "connecting";
    const attempt = {}; // stands for the socket until there is one, so that a late token is noticed
    this.#socket = attempt;
    const isOld = () => this.#socket !== attempt;
    this.#after("opening", this.#options.answerTimeoutMs, () => this.#lost(1006, "could not connect in time"));
    let socket;
    try {
      const url = new URL(this.#options.url);
      const { token, clientId } = this.#options;
      const jwt = typeof token === "function" ? await token() : token;
      const Socket = this.#options.WebSocket ?? (await defaultWebSocket());
      if (isOld()) return;
      if (jwt) url.searchParams.set("token", jwt);
      if (clientId) url.searchParams.set("client_id", clientId);
      socket = new Socket(url.href);
    } catch (error) {
      // The token's callback has failed, most likely; it may work the next time.
      const reason = error instanceof NoWebSocket ? error : `no connection could be made: ${error?.message ?? error}`;
      if (!isOld()) this.#lost(1006, reason);
      return;
    }
    this.#socket = socket;
    const current = (handle) => (event) => this.#socket === socket && handle(event);
    socket.addEventListener("open", current(() => this.#onOpen()));
    socket.addEventListener("message", current((event) => this.#onMessage(event.data)));
    socket.addEventListener("close", current(({ code, reason }) => this.#lost(code, reason)));
    // Browsers say nothing here, `ws` tells the status of a refused upgrade. Node 20's own WebSocket
    // does not close after it.
    const failed = (event) => this.#state === "connecting" && this.#lost(1006, event.message ?? "");
    socket.addEventListener("error", current(failed));
  }

  #onOpen() {
    this.#clear("opening");
    this.#state = "open";
    this.#failed = this.#refused = 0;
    this.#after("stable", this.#options.stableMs, () => (this.#attempt = 0));
    this.#every("ping", this.#options.pingIntervalMs, () => this.ping());
    const asked = this.#pending.filter(({ replay }) => !replay);
    this.#pending = [...replayOf(this.#confirmed, this.#positions), ...asked];
    this.#resuming = new Set(this.#pending.filter(({ request }) => request.since).flatMap(({ request }) => request.channels));
    for (const { request } of this.#pending) this.#send(request);
    this.#emit("open", { attempt: this.#attempt });
    this.#opened?.resolve();
    this.#opened = undefined;
  }

  #onMessage(data) {
    const { message, problem } = parseMessage(data);
    if (problem !== undefined) {
      this.#emit("malformed", { problem, data });
      return;
    }
    if (message.type === "pong") this.#clear("pong");
    if (message.type === "subscribed" || message.type === "error") this.#answered(message);
    const channel = channelOf(message);
    if (channel !== undefined) {
      // Comes from auto-subscription, and once more in its turn.
      if (this.#resuming.has(channel)) return;
      if (!this.#moveOn(channel, message)) return;
    }
    this.#emit(message.type, message);
    this.#emit("any", message);
  }

  /** Requests are answered in their order, each with "subscribed" (all that is subscribed now) or "error". */
  #answered(message) {
    const answered = this.#pending.shift();
    for (const channel of answered?.request.since ? answered.request.channels : []) this.#resuming.delete(channel);
    if (message.type === "subscribed") this.#settlePositions(message);
    // While a replay is under way the server knows a part only: what it says last counts.
    if (message.type === "subscribed") this.#latest = message;
    if (this.#pending.length === 0 && this.#latest) {
      this.#confirmed = { channels: this.#latest.channels, symbols: this.#latest.symbols ?? {} };
      this.#latest = undefined;
    }
  }

  /** A message of a channel was heard: from now on the channel goes on after it. False if it was heard before. */
  #moveOn(channel, { type, epoch, seq, partition = 0, to }) {
    if (epoch === undefined) return true; // an older server, or a message that is in no log
    const known = this.#positions.get(channel);
    const position = known?.epoch === epoch ? known : { epoch, seqs: new Map(), recent: new Set() };
    this.#positions.set(channel, position);
    const heard = type === "skipped" ? pairsOf(to) : [[String(partition), seq]];
    for (const [part, number] of heard) {
      if (number > (position.seqs.get(part) ?? -1)) position.seqs.set(part, number); // one may come late
    }
    // The state of a channel may be told again.
    return type === "skipped" || STATES.includes(channel) || isFirst(position.recent, `${partition}/${seq}`);
  }

  /** Where the channels stand that begin now; those of which something was missed go on from where they are. */
  #settlePositions({ channels, positions = {} }) {
    for (const channel of [...this.#positions.keys()]) {
      if (!channels.includes(channel) && !this.#resuming.has(channel)) this.#positions.delete(channel);
    }
    for (const [channel, { epoch, seq, recovered, reason }] of Object.entries(positions)) {
      if (this.#positions.has(channel) && recovered !== false) continue;
      this.#positions.set(channel, { epoch, seqs: new Map(pairsOf(seq)), recent: new Set() });
      if (recovered === false) this.#emit("gap", { channel, reason });
    }
  }

  /** A connection, or an attempt at one, has ended. */
  #lost(code, reason) {
    const wasOpen = this.#state === "open";
    this.#drop(true);
    this.#state = "waiting";
    const slow = code === 1008 && SLOW_CONSUMER.test(String(reason));
    const meaning = slow ? "slow consumer" : (CLOSE_MEANINGS.get(code) ?? "closed by an error");
    if (wasOpen) this.#emit("close", { code, reason: String(reason), meaning, slow });
    if (this.#state !== "waiting") return; // a listener has disconnected, and may have connected anew
    const why = reason ? `${meaning}: ${reason instanceof Error ? reason.message : reason}` : meaning;
    const hopeless = this.#hopeless(code, reason, wasOpen);
    if (hopeless) {
      this.#end(`${hopeless} (${why})`, true);
      return;
    }
    const { baseDelayMs, maxDelayMs, random } = this.#options;
    const delayMs = random() * Math.min(maxDelayMs, baseDelayMs * 2 ** Math.min(this.#attempt, 30));
    this.#attempt += 1;
    this.#after("retry", delayMs, () => this.#open());
    this.#emit("reconnecting", { attempt: this.#attempt, delayMs, reason: why });
  }

  /** Why another attempt is of no use, if so. */
  #hopeless(code, reason, wasOpen) {
    const { token, maxRefusals, maxFailedAttempts } = this.#options;
    if (reason instanceof NoWebSocket) return "there is no WebSocket";
    if (code === 4401 && typeof token !== "function") return "the token has expired and nothing fetches another";
    if (wasOpen) return undefined;
    this.#failed += 1;
    this.#refused = /\b(401|403|404)\b/.test(String(reason)) ? this.#refused + 1 : 0;
    if (this.#refused >= maxRefusals) return `refused ${this.#refused} times`;
    if (this.#failed >= maxFailedAttempts) return `${this.#failed} attempts in a row have failed`;
    return undefined;
  }

  #end(reason, isGivenUp = false) {
    this.#state = "idle";
    this.#drop();
    this.#opened?.reject(new Error(reason));
    this.#opened = undefined;
    if (isGivenUp) this.#emit("given_up", { reason });
  }

  /** Lets go of the socket at once: a dead one may take minutes to say that it is closed. */
  #drop(isDead = false) {
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    const socket = this.#socket;
    this.#socket = undefined;
    this.#latest = undefined;
    if (isDead && socket?.terminate) socket.terminate(); // of `ws`, which would wait for an answer
    else socket?.close?.(1000);
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #emit(event, detail) {
    for (const listener of this.#listeners.get(event) ?? []) {
      try {
        listener(detail);
      } catch (error) {
        // The listener's bug is shown as any uncaught error, and the client's state stays whole.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #after(name, delayMs, act) {
    this.#clear(name);
    const timer = setTimeout(() => {
      this.#timers.delete(name);
      act();
    }, delayMs);
    this.#timers.set(name, timer);
  }

  #every(name, delayMs, act) {
    this.#after(name, delayMs, () => {
      this.#every(name, delayMs, act);
      act();
    });
  }

  #clear(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** What brings a new connection to where the last one was: one request a channel, so that a token that
 *  may no longer have one of them still gets the others. */
function replayOf(confirmed, positions) {
  if (!confirmed) return [];
  const { channels, symbols } = confirmed;
  const subscribe = (channel) => ({
    type: "subscribe",
    channels: [channel],
    ...(Object.hasOwn(symbols, channel) && { symbols: symbols[channel] }),
    // The server sends the current prices and portfolio by itself.
    ...(positions.has(channel) && !STATES.includes(channel) && { since: sinceOf(positions.get(channel)) }),
  });
  // A new connection has all trading streams until it asks for something.
  const unsubscribe = (channel) => ({ type: "unsubscribe", channels: [channel] });
  const requests = channels.length > 0 ? channels.map(subscribe) : TRADING_STREAMS.map(unsubscribe);
  return requests.map((request) => ({ request, replay: true }));
}

/** Whether a message was not heard yet, as far as the last ones of its channel are remembered. */
function isFirst(recent, number) {
  if (recent.has(number)) return false;
  recent.add(number);
  if (recent.size > REMEMBERED) recent.delete(recent.values().next().value);
  return true;
}

const sinceOf = ({ epoch, seqs }) => ({ epoch, seq: Object.fromEntries(seqs) });

/** A number, or numbers by partition, as pairs. */
const pairsOf = (numbers) => (isObject(numbers) ? Object.entries(numbers) : [["0", numbers]]);

const CHANNELS = { price_update: "price_updates", signal: "signals", trade_executed: "trades", portfolio_update: "portfolio" };

/** The channel that a message belongs to, if it belongs to one. */
const channelOf = ({ type, channel }) => CHANNELS[type] ?? (type === "message" || type === "skipped" ? channel : undefined);

function deferred() {
  let settle;
  const promise = new Promise((resolve, reject) => (settle = { resolve, reject }));
  promise.catch(() => {}); // who does not await connect() learns it from "given_up"
  return { promise, ...settle };
}

class NoWebSocket extends Error {}

async function defaultWebSocket() {
  if (globalThis.WebSocket) return globalThis.WebSocket;
  try {
    return (await import("ws")).WebSocket;
  } catch {
    throw new NoWebSocket("use Node 22, or node --experimental-websocket, or npm install ws");
  }
}
