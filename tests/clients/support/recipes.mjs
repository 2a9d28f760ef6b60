// The recipes of docs/faults.md, as support/recipes.py has them for Python: plans of faults, and what a client made of
// each, in the words of the table in docs/faults.md.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ROOT } from "./orderflow.mjs";

const PLANS = path.join(ROOT, "examples/faults");

/** Of these plans everything happens before a client has its groups. */
const FROM_THE_START = new Set(["rate-limited", "slow-start", "lost-acks", "late-acks"]);
const ENDINGS = ["reset", "reset-mid-frame", "close"];
const PATIENCE_MS = 70_000;
const LATE_MS = 22_000;
/** How long a join may wait for its answer. */
const ANSWER_MS = 20_000;
const TICK_MS = 50;

/** The names of all plans. */
export function recipes() {
  const names = readdirSync(PLANS).filter((name) => name.endsWith(".toml")).map((name) => path.basename(name, ".toml"));
  assert.ok(names.length >= 20, `${PLANS} has ${names}`);
  return names.sort();
}

/** The table of docs/faults.md: what each client does, by recipe and the head of the column. */
export function told() {
  const text = readFileSync(path.join(ROOT, "docs/faults.md"), "utf8").split("### What the clients do")[1];
  const cells = (line) => line.slice(1, -1).split("|").map((cell) => cell.trim());
  const [head, , ...body] = text.split("\n").filter((line) => line.startsWith("|")).map(cells);
  const named = ([name, ...row]) => [name.replaceAll(/[`[\]]|\(.*\)/g, ""), Object.fromEntries(row.map((cell, at) => [head[at + 1], cell]))];
  return Object.fromEntries(body.map(named));
}

/** What a client was handed, numbers in the order in which they came. */
export class Watched {
  rows = [];
  broken = 0;
  malformed = 0;
  thrown = 0;
  connections = 0;
  hasStarted = false;
  hasStopped = false;
  failure = undefined;

  /** `read` returns a number, or undefined for what does not count. */
  handed(read) {
    try {
      const row = read();
      if (row !== undefined) this.rows.push(row);
    } catch {
      this.broken += 1; // whatever a consumer would stumble over
    }
  }

  async hasMore(count, patienceMs = PATIENCE_MS) {
    const [wanted, deadline] = [this.rows.length + count, Date.now() + patienceMs];
    while (this.rows.length < wanted && Date.now() < deadline && !this.failure) await sleep(20);
    return this.rows.length >= wanted;
  }

  /** What it did, as the table says it. `resumedMs`: when records came again after the plan; undefined: never. */
  inWords(kinds, resumedMs) {
    if (this.failure) return "does not start";
    if (resumedMs === undefined) return this.hasStopped ? "stops" : "hangs";
    const seen = new Set(this.rows);
    const [first, last] = [Math.min(...this.rows), Math.max(...this.rows)];
    const isLost = Array.from({ length: last - first }, (_, at) => first + at).some((row) => !seen.has(row));
    const words = [];
    const isEnding = kinds.some((kind) => ENDINGS.includes(kind));
    if (isEnding) words.push(this.connections === 1 || !isLost ? "recovers" : "connects anew");
    // Nobody ordered that. Whether a record falls into the gap is a matter of milliseconds.
    const isBroken = !isEnding && this.connections > 1;
    if (isBroken) words.push("loses the connection");
    if (resumedMs > LATE_MS) words.push("after half a minute");
    if (!this.hasStarted) words.push("waits for an answer for ever");
    if (this.thrown > 0) words.push("throws");
    if (this.malformed > 0) words.push("says what is broken");
    if (this.broken > 0) words.push("hands on what is broken");
    if (isLost && !isBroken) words.push("loses records");
    if (this.rows.length > seen.size) words.push("hands on both");
    else if (this.rows.some((row, at) => at > 0 && row < this.rows[at - 1])) words.push("hands on out of order");
    return words.join(", ") || "nothing lost";
  }
}

/** Plays a recipe to one client of each kind at once; returns what each made of it, in words. */
export async function play(name, server, kinds) {
  const text = readFileSync(path.join(PLANS, `${name}.toml`), "utf8");
  const done = [...text.matchAll(/^do = "(.*)"$/gm)].map(([, kind]) => kind);
  const put = async () => {
    const answer = await fetch(`${server.url}/faults`, { method: "PUT", body: text, headers: { "Content-Type": "application/toml" } });
    assert.equal(answer.status, 200, `${name}: ${await answer.text()}`);
  };
  if (FROM_THE_START.has(name)) await put();
  const clients = Object.entries(kinds).map(([kind, start]) => [kind, new Watched(), start]);
  // What a plan draws depends on the key: the same bit is flipped in every run.
  const ends = clients.map(([, watched, start], number) => start(watched, server, `recipe-${number}`));
  try {
    await Promise.all(clients.map(([, watched]) => watched.hasMore(5)));
    if (!FROM_THE_START.has(name)) {
      await put();
      await untilTheEnd(server, text);
    }
    const began = Date.now();
    const settled = clients.map(async ([kind, watched]) => {
      const resumedMs = (await watched.hasMore(15)) ? Date.now() - began : undefined;
      while (!watched.hasStarted && !watched.failure && Date.now() - began < ANSWER_MS) await sleep(50);
      return [kind, watched.inWords(done, resumedMs)];
    });
    return Object.fromEntries(await Promise.all(settled));
  } finally {
    await Promise.all(ends.map((end) => end()));
  }
}

/** Until the last fault has done its work, and a little for what it leads to. */
async function untilTheEnd(server, text) {
  const moment = (written) => {
    const [, number, unit] = /^"?(\d+)(ms|s)?"?$/.exec(written);
    return Number(number) * (unit === "ms" ? 1 : unit === "s" ? 1000 : TICK_MS);
  };
  const ends = text.split("[[fault]]").slice(1).map((fault) => {
    const key = (name) => new RegExp(`^${name} = (.*)$`, "m").exec(fault)?.[1];
    return key("until") ? moment(key("until")) : moment(key("at")) + moment(key("for") ?? "0");
  });
  const last = Math.max(...ends) + 800;
  while ((await (await fetch(`${server.url}/faults`)).json()).elapsed_ms < last) await sleep(50);
}
