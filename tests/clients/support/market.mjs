// A day of the whole market on disk, and what its records must be on the wire.
//
// A payload and the line that it was made from are both turned into the same thing: the line's JSON with the integers
// of the wire in place of its numbers. For a line they are computed from the digits in its text with BigInt.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { decompress } from "fzstd";
import protobuf from "protobufjs";
import { Any, DATE, FIELDS, Orderflow, ROOT, scaled } from "./orderflow.mjs";
import { BINARY } from "./server.mjs";

export const HUBS = {
  classic: ["classic_gex_full", "classic_gex_zero", "classic_gex_one"],
  state_gex: ["state_gex_full", "state_gex_zero", "state_gex_one"],
  state_greeks_zero: ["state_delta_zero", "state_gamma_zero", "state_vanna_zero", "state_charm_zero"],
  state_greeks_one: ["state_delta_one", "state_gamma_one", "state_vanna_one", "state_charm_one"],
  orderflow: ["orderflow_orderflow"],
};
export const FIXTURES = path.join(ROOT, "tests/fixtures/gexbot");
const GOLDEN = { classic_gex_full: "gex_full", state_gamma_zero: "gamma_zero" };
const RECORDS = 60;

const GEX = { min_dte: 1, sec_min_dte: 1, spot: 100, zero_gamma: 100, major_pos_vol: 100, major_pos_oi: 100 };
Object.assign(GEX, { major_neg_vol: 100, major_neg_oi: 100 });
Object.assign(GEX, { sum_gex_vol: 1000, sum_gex_oi: 1000, delta_risk_reversal: 1000 });
const GREEK = { min_dte: 1, sec_min_dte: 1, spot: 100, major_positive: 100, major_negative: 100 };
Object.assign(GREEK, { major_long_gamma: 100, major_short_gamma: 100 });
/** The fields that have another name than their key. */
const GREEK_FIELD = { major_positive: "major_call_gamma", major_negative: "major_put_gamma" };

function messageOf(file, name) {
  const root = new protobuf.Root().loadSync(path.join(ROOT, "proto", file), { keepCase: true });
  const type = root.lookupType(name);
  // Without defaults an optional field that is not there is missing.
  return (payload) => type.toObject(type.decode(payload), { longs: Number, arrays: true });
}

const gex = messageOf("gex_profile.proto", "gex_profile.Gex");
const optionProfile = messageOf("option_profile.proto", "option_profile.OptionProfile");
const spotPrice = messageOf("spot_price.proto", "spot_price.SpotPrice");

/** The full name of a group that a body of POST or PATCH names so. */
export function prefixed(name) {
  return `blue_${name}`;
}

/** The unprefixed names of all fifteen groups of a ticker. */
export function namesOf(ticker) {
  return Object.values(HUBS).flatMap((series) => series.map((name) => `${ticker}_${name}`));
}

/** The current hub of an unprefixed name. */
export function hubOf(name) {
  if (/_(delta|gamma|vanna|charm)_\d{8}$/.test(name)) {
    return "state_greeks";
  }
  return Object.keys(HUBS).find((hub) => HUBS[hub].some((series) => name.endsWith(`_${series}`)));
}

/** Type URL and payload in group data: a base64 text, an ArrayBuffer, or an `Any` object. */
export function unpacked(data) {
  const bytes = typeof data === "string" ? Buffer.from(data, "base64") : data;
  const any = bytes instanceof Uint8Array || bytes instanceof ArrayBuffer ? Any.decode(new Uint8Array(bytes)) : bytes;
  return { typeUrl: any.type_url, payload: decompress(any.value) };
}

/** The record in group data, in the shape of its line, with the wire's integers. */
export function decoded(data) {
  const { typeUrl, payload } = unpacked(data);
  const decode = {
    "proto.gex": decodedGex,
    "proto.greek": decodedGreek,
    "proto.spot": (bytes) => members(spotPrice(bytes), { spot: 100 }),
    "proto.orderflow": decodedOrderflow,
  }[typeUrl];
  assert.ok(decode, `unknown type URL ${typeUrl}`);
  return decode(payload);
}

function members(message, factors, fields = {}) {
  const { timestamp, ticker } = message;
  const numbers = Object.keys(factors).map((key) => [key, message[fields[key] ?? key] ?? 0]);
  return { timestamp, ticker, ...Object.fromEntries(numbers) };
}

function decodedGex(payload) {
  const message = gex(payload);
  return {
    ...members(message, GEX),
    strikes: message.strikes.map((row) => [row.strike_price, row.value_1 ?? 0, row.value_2 ?? 0, row.priors.values]),
    max_priors: message.max_priors.tuples.map((pair) => [pair.first_value ?? 0, pair.second_value ?? 0]),
  };
}

function decodedGreek(payload) {
  const message = optionProfile(payload);
  return {
    ...members(message, GREEK, GREEK_FIELD),
    mini_contracts: message.mini_contracts.map((row) => [
      row.strike,
      row.call_ivol ?? 0,
      row.put_ivol ?? 0,
      row.call_cvolume ?? 0,
      row.call_cvolume_priors,
      row.put_cvolume ?? null,
      row.put_cvolume_priors?.values ?? null,
    ]),
  };
}

function decodedOrderflow(payload) {
  const message = Orderflow.toObject(Orderflow.decode(payload), { longs: Number, defaults: true });
  return Object.fromEntries(FIELDS.map(({ field, key }) => [key, message[field]]));
}

/** What a line of that kind must be on the wire, in the shape of `decoded`. */
function expected(line, kind, profile) {
  // Every number as its text, because JSON.parse would make doubles of them.
  const record = JSON.parse(line.replace(/(?<=[:,[])-?\d[-+.\deE]*/g, '"$&"'));
  const by = (factor) => (text) => scaled(text, factor);
  const head = (factors) => ({
    timestamp: Number(record.timestamp),
    ticker: record.ticker,
    ...Object.fromEntries(Object.entries(factors).map(([key, factor]) => [key, scaled(record[key], factor)])),
  });
  switch (kind) {
    case "gex":
      return {
        ...head(GEX),
        strikes: record.strikes.map((row) => [...row.slice(0, 3).map(by(100)), row[3].map(by(100))]),
        max_priors: record.max_priors.map(([strike, change]) => [scaled(strike, 100), scaled(change, 1000)]),
      };
    case "greek":
      return {
        ...head(GREEK),
        mini_contracts: record.mini_contracts.map((row) => [
          scaled(row[0], 100),
          scaled(row[1], 1000),
          scaled(row[2], 1000),
          scaled(row[3], 100),
          row[4].map(by(100)),
          row[5] === null ? null : scaled(row[5], 1),
          row[6] === null ? null : row[6].map(by(1)),
        ]),
      };
    case "spot":
      return head({ spot: 100 });
    default:
      return head(Object.fromEntries(FIELDS.slice(2).map(({ key, factor }) => [key, factor[profile]])));
  }
}

/** These tickers with all fifteen categories, made by `flowcast generate`, and SPX with the two records that have
 *  golden payloads. */
export class Market {
  constructor(directory, tickers) {
    this.directory = directory;
    const day = path.join(directory, DATE);
    const size = ["--records", String(RECORDS), "--strikes", "5"];
    const what = ["--date", DATE, "--tickers", tickers.join(","), "--categories", "all"];
    execFileSync(BINARY, ["generate", "--out", directory, ...what, ...size], { stdio: "pipe" });
    for (const [series, name] of Object.entries(GOLDEN)) {
      const [, packageName, category] = /^([a-z]+)_(.*)$/.exec(series);
      mkdirSync(path.join(day, "SPX", packageName), { recursive: true });
      copyFileSync(path.join(FIXTURES, `${name}.jsonl`), path.join(day, "SPX", packageName, `${category}.jsonl`));
    }
    this.lines = {};
    for (const ticker of readdirSync(day).filter((name) => name !== "streams")) {
      for (const packageName of readdirSync(path.join(day, ticker))) {
        for (const file of readdirSync(path.join(day, ticker, packageName))) {
          const text = readFileSync(path.join(day, ticker, packageName, file), "utf8");
          this.lines[`${ticker}_${packageName}_${path.parse(file).name}`] = text.trimEnd().split("\n");
        }
      }
    }
  }

  /** Which line of the group's file these data are; fails unless every number is as it must be. A spot price is a line
   *  of the ticker's orderflow. */
  rowOf(group, data, profile = "2026-04") {
    const name = group.replace(/^blue_/, "");
    const record = decoded(data);
    const isSpot = name === `${record.ticker}_spot`;
    const lines = this.lines[isSpot ? `${record.ticker}_orderflow_orderflow` : name];
    const row = record.timestamp - JSON.parse(lines[0]).timestamp;
    assert.ok(lines[row], `${name} has no record of ${record.timestamp}`);
    const kind = isSpot
      ? "spot"
      : name.includes("_orderflow_")
        ? "orderflow"
        : name.includes("_gex_")
          ? "gex"
          : "greek";
    assert.deepEqual(record, expected(lines[row], kind, profile));
    return row;
  }

  /** The rows follow one another in file order, the first after the last. */
  assertConsecutive(rows) {
    assert.deepEqual(
      rows,
      rows.map((_, step) => (rows[0] + step) % RECORDS),
    );
  }
}
