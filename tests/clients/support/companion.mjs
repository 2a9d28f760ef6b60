// A client that does what GexBot's TradingView companion does, written from the description of that program.
//
// It negotiates with POST and never joins; it speaks reliable JSON, refuses group messages that are not exactly as it
// wants them, acknowledges every sequence id with a message of its own, and never recovers: 2 s after a close it
// negotiates anew. Another selection goes out as PATCH.

import WebSocket from "ws";
import { hubOf, prefixed } from "./market.mjs";

const RECONNECT_MS = 2000;
const RETRY_MS = 10_000;

export class Companion {
  /** What it could use: hub, group and data, in the order in which it came, and whether the group is selected. */
  records = [];
  /** Group messages that it cannot use, each with the reason. */
  rejected = [];
  /** By hub: everything else that came, in order. */
  others = {};
  /** Code of each close that it did not ask for. */
  closes = [];
  /** Status of each POST. */
  statuses = [];
  sequenceAcks = 0;
  #sockets = new Map();
  #urls = {};

  constructor(server, names, key) {
    this.url = `${server.url}/v2/negotiate`;
    this.key = key;
    this.headers = {
      Authorization: `Bearer ${key}`,
      "Content-Type": "application/json",
      "User-Agent": "companion/1.0",
    };
    this.names = names;
  }

  /** Negotiates and creates the sockets; they are still connecting when it returns the reply. */
  async start() {
    const response = await this.#request("POST", { groups: this.names });
    this.statuses.push(response.status);
    if (!response.ok) {
      // A status of 4xx is final until something else is selected.
      if (response.status >= 500) {
        this.timer = setTimeout(() => this.start(), RETRY_MS);
      }
      return response.body;
    }
    this.#urls = response.body.websocket_urls;
    this.#connect();
    return response.body;
  }

  /** Selects other groups; the status and the body of the PATCH. */
  async select(names) {
    this.names = names;
    this.#connect();
    return this.#request("PATCH", { groups: this.memberships() });
  }

  /** The pairs of hub and group that the selection needs: those of v2 hubs if there are spot groups. */
  memberships() {
    const spots = this.names.filter((name) => name.endsWith("_spot"));
    const pairs = new Map();
    for (const group of this.names.filter((name) => !spots.includes(name))) {
      const hub = (spots.length > 0 ? "v2_" : "") + hubOf(group);
      const spot = spots.find((name) => group.startsWith(name.slice(0, -"spot".length)));
      for (const name of spot ? [group, spot] : [group]) {
        pairs.set(`${hub} ${name}`, { hub, group: name });
      }
    }
    return [...pairs.values()];
  }

  rows(market, group) {
    return this.records.filter((record) => record.group === group).map(({ data }) => market.rowOf(group, data));
  }

  count(name) {
    return this.records.filter(({ group }) => group === prefixed(name)).length;
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.#sockets.forEach((socket) => socket.terminate());
  }

  async #request(method, body) {
    const response = await fetch(this.url, { method, headers: this.headers, body: JSON.stringify(body) });
    return { ok: response.ok, status: response.status, body: await response.json() };
  }

  /** A socket for each hub of the selection that has none. */
  #connect() {
    for (const hub of new Set(this.memberships().map((pair) => pair.hub))) {
      if (this.#sockets.has(hub)) {
        continue;
      }
      if (!this.#urls[hub]) {
        throw new Error(`the reply has no URL of ${hub}`);
      }
      const socket = new WebSocket(this.#urls[hub], "json.reliable.webpubsub.azure.v1");
      this.#sockets.set(hub, socket);
      this.others[hub] ??= [];
      socket.on("message", (bytes, isBinary) => this.#receive(hub, socket, bytes, isBinary));
      socket.on("error", () => {}); // ends in "close" as well
      socket.on("close", (code) => this.#lost(socket, code));
    }
  }

  #receive(hub, socket, bytes, isBinary) {
    const message = isBinary ? { type: "binary frame" } : JSON.parse(bytes.toString("utf8"));
    if (Number.isSafeInteger(message.sequenceId)) {
      socket.send(JSON.stringify({ type: "sequenceAck", sequenceId: message.sequenceId }));
      this.sequenceAcks += 1;
    }
    if (message.type !== "message") {
      this.others[hub].push(message);
      return;
    }
    const reason = this.#reasonAgainst(message);
    if (reason) {
      this.rejected.push({ reason, message });
    } else {
      const { group, data, sequenceId } = message;
      this.records.push({ hub, group, data, sequenceId, isSelected: this.#isSelected(group) });
    }
  }

  #reasonAgainst({ from, dataType, data }) {
    if (from !== "group") {
      return "from is not group";
    }
    if (dataType !== "protobuf" || typeof data !== "string") {
      return "no protobuf data";
    }
    return undefined;
  }

  #isSelected(group) {
    return this.names.some((name) => group === name || group.endsWith(`_${name}`));
  }

  #lost(socket, code) {
    if (this.stopped || ![...this.#sockets.values()].includes(socket)) {
      return;
    }
    this.closes.push(code);
    const sockets = [...this.#sockets.values()];
    this.#sockets.clear();
    sockets.forEach((other) => other.terminate());
    this.timer = setTimeout(() => this.start(), RECONNECT_MS);
  }
}
