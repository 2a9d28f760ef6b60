// The live page: what each message changes on it. All text goes in as text, never as HTML.
//
// ?url=ws://…/ws&connect fills in the server and connects at once. A token has no place in the page's
// own address, which browsers keep.

import { FlowcastClient } from "./flowcast.mjs";

const MAX_ROWS = 100;
const STATES = { idle: "not connected", connecting: "connecting", open: "connected", waiting: "waiting to reconnect" };

const $ = (id) => document.getElementById(id);
const names = (field) => field.value.split(/[\s,]+/).filter(Boolean);
const clock = (timestamp) => new Date(timestamp).toLocaleTimeString();
const decimals = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 4 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });

let client;
const prices = new Map();

function row(cells, signed = []) {
  const line = document.createElement("tr");
  cells.forEach((value, place) => {
    const cell = line.insertCell();
    cell.textContent = value ?? "";
    if (signed[place]) cell.className = signed[place] > 0 ? "up" : "down";
  });
  return line;
}

/** Newest first, the oldest falls off. */
function note(list, text, isBad = false) {
  const item = document.createElement("li");
  item.textContent = text;
  item.classList.toggle("bad", isBad);
  list.prepend(item);
  if (list.children.length > MAX_ROWS) list.lastElementChild.remove();
}

function showState() {
  const state = client?.state ?? "idle";
  $("state").dataset.state = state;
  $("state").textContent = STATES[state];
  $("connect").disabled = state !== "idle";
  $("disconnect").disabled = state === "idle";
}

function log(text, isBad) {
  note($("log"), `${new Date().toLocaleTimeString()} ${text}`, isBad);
  showState();
}

const money = (value) => (value === undefined ? "" : decimals.format(value));
const amount = (value) => (value === undefined ? "" : whole.format(value));

const SHOW = {
  price_update({ symbols }) {
    for (const [symbol, now] of Object.entries(symbols)) prices.set(symbol, now);
    const rows = [...prices].sort(([one], [other]) => one.localeCompare(other)).map(([symbol, now]) =>
      row(
        [symbol, money(now.price), money(now.change), money(now.change_pct), money(now.low), money(now.high), amount(now.volume)],
        [0, 0, now.change, now.change_pct],
      ),
    );
    $("prices").replaceChildren(...rows);
  },
  portfolio_update({ data }) {
    $("total").textContent = data.total_pnl === undefined ? "" : `P&L ${money(data.total_pnl)}`;
    const rows = Object.entries(data.positions).map(([symbol, held]) =>
      row(
        [symbol, amount(held.quantity), money(held.average_price), money(held.market_price), money(held.unrealized_pnl)],
        [0, 0, 0, 0, held.unrealized_pnl],
      ),
    );
    $("positions").replaceChildren(...rows);
  },
  signal(it) {
    const details = [it.quantity && amount(it.quantity), it.price && `at ${money(it.price)}`];
    const confidence = it.confidence === undefined ? "" : `(${Math.round(it.confidence * 100)} %)`;
    note($("signals"), [clock(it.timestamp), it.signal_type, it.symbol, ...details, confidence].filter(Boolean).join(" "));
  },
  trade_executed(it) {
    note($("trades"), `${clock(it.timestamp)} ${it.side} ${amount(it.quantity)} ${it.symbol} at ${money(it.price)}`);
  },
  message(it) {
    const payload = it.encoding ? `${it.payload} (${it.encoding})` : JSON.stringify(it.payload);
    note($("topics"), `${clock(it.timestamp)} ${it.channel}${it.key === undefined ? "" : ` ${it.key}`}: ${payload}`);
  },
  subscribed({ channels, symbols = {} }) {
    const said = channels.map((channel) => (symbols[channel] ? `${channel} (${symbols[channel].join(", ")})` : channel));
    $("subscribed").textContent = said.join(", ") || "nothing";
    log(`subscribed: ${$("subscribed").textContent}`);
  },
  error: ({ error, code }) => log(`refused: ${error} (${code})`, true),
  malformed: ({ problem }) => log(`malformed message: ${problem}`, true),
  open: () => log("connected"),
  close: ({ code, meaning, reason }) => log(`connection ended: ${meaning} (${code}${reason && ` ${reason}`})`),
  reconnecting: ({ attempt, delayMs, reason }) => log(`attempt ${attempt} in ${(delayMs / 1000).toFixed(1)} s: ${reason}`),
  given_up: ({ reason }) => log(`given up: ${reason}`, true),
};

function connect() {
  try {
    client = new FlowcastClient({ url: $("url").value, token: () => $("token").value });
  } catch (error) {
    log(error.message, true);
    return;
  }
  for (const [event, show] of Object.entries(SHOW)) client.on(event, show);
  client.connect();
  log("connecting");
}

/** What the form names: symbols go with the trading streams only, and the server says so otherwise. */
function ask(what) {
  const channels = names($("channels"));
  const symbols = names($("symbols"));
  if (!client || channels.length === 0) return;
  client[what](channels, symbols.length > 0 ? symbols : undefined);
}

function on(id, event, act) {
  $(id).addEventListener(event, (fired) => {
    fired.preventDefault();
    act();
  });
}

const address = new URLSearchParams(location.search);
$("url").value = address.get("url") ?? `ws://${location.hostname || "localhost"}:8080/ws`;
on("connection", "submit", connect);
on("subscription", "submit", () => ask("subscribe"));
on("unsubscribe", "click", () => ask("unsubscribe"));
on("disconnect", "click", () => {
  client?.disconnect();
  log("disconnected");
});
if (address.has("connect")) connect();
