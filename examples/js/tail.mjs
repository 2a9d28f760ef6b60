#!/usr/bin/env node
// Prints what comes on the JSON streams, one JSON object a line.
//
//   node tail.mjs [ws://localhost:8080/ws] [--channels lines,signals] [--symbols AAPL,MSFT]
//                 [--token-command "flowcast token --sub me"] [--count N] [--max-attempts N]
//
// The token: what --token-command prints (run anew for each connection), or FLOWCAST_TOKEN. It is no flag,
// since other users of the machine can read a process's arguments. Without --channels: what the server
// gives to everybody. Data goes to standard output, everything else to standard error.

import { exec } from "node:child_process";
import { parseArgs, promisify } from "node:util";
import { FlowcastClient } from "./flowcast.mjs";

const DATA = ["message", "price_update", "signal", "trade_executed", "portfolio_update"];

const USAGE =
  "usage: tail.mjs [URL] [--channels A,B] [--symbols A,B] [--token-command COMMAND] [--count N] [--max-attempts N]";

const { values, positionals } = understood({
  allowPositionals: true,
  options: {
    url: { type: "string", default: "ws://localhost:8080/ws" },
    channels: { type: "string" },
    symbols: { type: "string" },
    count: { type: "string", default: "Infinity" },
    "max-attempts": { type: "string", default: "Infinity" },
    "token-command": { type: "string" },
    help: { type: "boolean", short: "h", default: false },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}

function understood(config) {
  try {
    return parseArgs(config);
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

const url = positionals[0] ?? values.url;
const say = (...words) => console.error(...words);
const command = values["token-command"];
const list = (names) => names?.split(",").filter(Boolean);

const client = new FlowcastClient({
  url,
  maxFailedAttempts: Number(values["max-attempts"]),
  token: command
    ? async () => (await promisify(exec)(command)).stdout.trim()
    : process.env.FLOWCAST_TOKEN,
});

// A new connection has all trading streams until the server has answered what we ask for.
const isChosen = Boolean(values.channels ?? values.symbols);
let isAnswered = false;
client.on("open", () => (isAnswered = false));
client.on("subscribed", () => (isAnswered = true));

let due = Number(values.count);
for (const type of DATA) {
  client.on(type, (message) => {
    if (due <= 0 || (isChosen && !isAnswered)) return;
    console.log(JSON.stringify(message));
    due -= 1;
    if (due <= 0) client.disconnect();
  });
}
client.on("open", () => say(`connected to ${url}`));
client.on("subscribed", ({ channels, symbols }) => say("subscribed:", channels.join(", "), symbols ?? ""));
client.on("error", ({ error, code }) => say(`refused: ${error} (${code})`));
client.on("malformed", ({ problem }) => say(`malformed message: ${problem}`));
client.on("close", ({ meaning, code, reason }) => say(`connection ended: ${meaning} (${code} ${reason})`));
client.on("reconnecting", ({ attempt, delayMs, reason }) =>
  say(`attempt ${attempt} in ${Math.round(delayMs)} ms: ${reason}`),
);
client.on("given_up", ({ reason }) => {
  say(`given up: ${reason}`);
  process.exitCode = 1;
});
process.once("SIGINT", () => client.disconnect());
process.once("SIGTERM", () => client.disconnect());

// Prices have symbols, topics have none: only the trading streams are filtered.
const TRADING = ["price_updates", "signals", "trades", "portfolio"];
const channels = list(values.channels);
const symbols = list(values.symbols);
const topics = channels?.filter((channel) => !TRADING.includes(channel)) ?? [];
const trading = symbols || channels ? (channels ?? TRADING).filter((channel) => TRADING.includes(channel)) : [];
if (topics.length > 0) client.subscribe(topics);
if (trading.length > 0) client.subscribe(trading, symbols);

client.connect();
