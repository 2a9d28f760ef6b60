// Orderflow records, twice: as JSONL lines with what they must become, and as they come from the wire.
//
// What a line must become is computed from the digits in its text with BigInt and the table of the golden files.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { decompress } from "fzstd";
import protobuf from "protobufjs";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
export const FIELDS = JSON.parse(readFileSync(path.join(ROOT, "tests/fixtures/golden/orderflow_fields.json"), "utf8"));
const root = new protobuf.Root().loadSync(path.join(ROOT, "proto/orderflow.proto"), { keepCase: true });
export const Orderflow = root.lookupType("orderflow_proto.Orderflow");
export const Any = protobuf
  .parse('syntax = "proto3"; message Any { string type_url = 1; bytes value = 2; }', { keepCase: true })
  .root.lookupType("Any");

export const DATE = "2025-11-28";
const FIRST_TIMESTAMP = 1764340200;

export function groupOf(ticker) {
  return `blue_${ticker}_orderflow_orderflow`;
}

/** The fields of the record in group data: an ArrayBuffer on the JSON wires, an `Any` object on the others. */
export function decoded(data) {
  const any = data instanceof ArrayBuffer ? Any.decode(new Uint8Array(data)) : data;
  assert.equal(any.type_url, "proto.orderflow");
  const record = Orderflow.decode(decompress(any.value));
  return Orderflow.toObject(record, { longs: Number, defaults: true });
}

/** A small trading day on disk. `lengths` maps a ticker to its number of records. */
export class Dataset {
  constructor(directory, lengths) {
    this.directory = directory;
    this.lines = {};
    for (const [ticker, length] of Object.entries(lengths)) {
      const chance = randomNumbers(ticker);
      this.lines[ticker] = Array.from({ length }, (_, row) => lineOf(ticker, row, chance));
      const folder = path.join(directory, DATE, ticker, "orderflow");
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, "orderflow.jsonl"), this.lines[ticker].map((line) => `${line}\n`).join(""));
    }
  }

  /** Which line of the ticker's file these fields are; fails unless every one of them is as it must be. */
  rowOf(ticker, fields, profile) {
    const row = fields.timestamp - FIRST_TIMESTAMP;
    assert.ok(this.lines[ticker][row], `${ticker} has no record of ${fields.timestamp}`);
    assert.deepEqual(fields, expectedFields(this.lines[ticker][row], profile));
    return row;
  }

  /** The rows follow one another in file order, the first after the last. */
  assertConsecutive(ticker, rows) {
    const length = this.lines[ticker].length;
    assert.deepEqual(
      rows,
      rows.map((_, step) => (rows[0] + step) % length),
    );
  }
}

function expectedFields(line, profile) {
  const texts = Object.fromEntries([...line.matchAll(/"(\w+)":("[^"]*"|[^,}]+)/g)].map(([, key, text]) => [key, text]));
  return Object.fromEntries(
    FIELDS.map(({ field, key, factor }) => {
      if (!factor) {
        return [field, JSON.parse(texts[key])];
      }
      const text = texts[key] ?? "null";
      return [field, text === "null" ? 0 : scaled(text, factor[profile])];
    }),
  );
}

/** `text × factor`, cut toward zero, without ever making a double of a decimal. */
export function scaled(text, factor) {
  const [, sign, whole, fraction = "", exponent = "0"] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  const power = Number(exponent) - fraction.length;
  let magnitude = BigInt(whole + fraction) * BigInt(factor);
  magnitude = power >= 0 ? magnitude * 10n ** BigInt(power) : magnitude / 10n ** BigInt(-power);
  return magnitude === 0n ? 0 : Number(sign + magnitude);
}

function lineOf(ticker, row, chance) {
  const members = [`"timestamp":${FIRST_TIMESTAMP + row}`, `"ticker":"${ticker}"`];
  for (const { key, type } of FIELDS.slice(2)) {
    const number = numberText(chance, type === "sint32");
    if (number !== undefined) {
      members.push(`"${key}":${number}`);
    }
  }
  return `{${members.join(",")}}`;
}

/** A number as it may stand in a file: mostly two decimals, and everything else that is allowed. */
function numberText(chance, signed) {
  const below = (limit) => Math.floor(chance() * limit);
  const digits = (count) => Array.from({ length: count }, () => below(10)).join("");
  const sign = signed && below(2) === 1 ? "-" : "";
  const whole = below(20_000);
  switch (below(16)) {
    case 0:
      return undefined;
    case 1:
      return "null";
    case 2:
      return `${sign}${whole}`;
    case 3:
      return `${sign}${whole}.${digits(1)}`;
    case 4:
      return `${sign}${whole}.${digits(3)}`;
    case 5:
      return `${sign}${whole}.${digits(12)}`;
    case 6:
      return `${sign}${whole}e-${1 + below(4)}`;
    case 7:
      return `${sign}${below(20)}.${digits(2)}E+${below(4)}`;
    case 8:
      return `${sign}0.0`;
    default:
      return `${sign}${whole}.${digits(2)}`;
  }
}

/** The same numbers from 0 to 1 for the same seed, every time (a 32-bit xorshift). */
function randomNumbers(seed) {
  let state = [...seed].reduce((sum, letter) => (Math.imul(sum, 31) + letter.codePointAt(0)) | 0, 17) || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
