// The POST and PATCH flow of negotiate, with a client that does what GexBot's TradingView companion does (groups
// without spot, hubs of the current generation) and one of the documented v2 generation (spot beside the records).

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Companion } from "./support/companion.mjs";
import { FIXTURES, HUBS, Market, hubOf, namesOf, prefixed, unpacked } from "./support/market.mjs";
import { withProxy } from "./support/proxy.mjs";
import { Server } from "./support/server.mjs";
import { waitUntil } from "./support/waiting.mjs";

const TICKERS = ["ES_SPX", "NDX", "QQQ", "SPY", "IWM", "AAPL", "NVDA", "TSLA", "AMZN", "META"];
const CURRENT = ["classic", "orderflow", "state_gex", "state_greeks", "state_greeks_one", "state_greeks_zero"];
const V2 = CURRENT.map((hub) => `v2_${hub}`);

let market;
let server;
let companions = 0;

before(async () => {
  market = new Market(mkdtempSync(path.join(tmpdir(), "flowcast-companion-")), TICKERS);
  server = await Server.start(market, { WS_STREAM_INTERVAL: "250ms" });
});

after(async () => {
  const code = await server?.stop();
  rmSync(market.directory, { recursive: true });
  assert.equal(code, 0, server?.log);
});

/** Runs `body` with a client of those groups and stops it whatever happens. Each has a slot of its own. */
async function withCompanion(names, body, at = server) {
  companions += 1;
  const companion = new Companion(at, names, `companion-${companions}`);
  try {
    await body(companion);
    assert.deepEqual(companion.rejected, []);
  } finally {
    companion.stop();
  }
}

async function waitForEach(companion, names, count) {
  const isThere = () => names.every((name) => companion.count(name) >= count);
  await waitUntil(isThere, `${count} records of each of ${names.length} groups`);
}

/** Every record of these groups is the line after the one before it. */
function assertConsecutive(companion, names) {
  for (const name of names) {
    market.assertConsecutive(companion.rows(market, prefixed(name)));
  }
}

/** On that hub nothing of the one group follows the first record of the other. */
function assertNoneAfter(companion, removed, added) {
  const { records } = companion;
  const since = records.findIndex(({ group }) => group === prefixed(added));
  assert.ok(since >= 0);
  assert.deepEqual(
    records.slice(since).filter(({ group }) => group === prefixed(removed)),
    [],
  );
}

describe("a companion, which names groups without spot", () => {
  test("gets the current hubs, and on each `connected` and then its records, every field exact", async () => {
    const recorded = ["ES_SPX", "NDX"]
      .flatMap((ticker) => namesOf(ticker))
      .filter((name) => hubOf(name) !== "orderflow");
    await withCompanion([...recorded, "NDX_state_gamma_20260717"], async (companion) => {
      const reply = await companion.start();
      assert.deepEqual(Object.keys(reply), ["websocket_urls"]);
      assert.deepEqual(Object.keys(reply.websocket_urls).sort(), CURRENT);
      await waitForEach(companion, recorded, 4);
      await waitUntil(() => companion.others.state_greeks.length > 0, "the hub whose group has no records");
      for (const others of Object.values(companion.others)) {
        assert.deepEqual(
          others.map(({ type, event }) => [type, event]),
          [["system", "connected"]],
          "nothing is acknowledged that was not asked for",
        );
      }
      assert.deepEqual(
        Object.keys(companion.others).sort(),
        CURRENT.filter((hub) => hub !== "orderflow"),
      );
      for (const { hub, group, isSelected } of companion.records) {
        assert.ok(isSelected);
        assert.equal(hub, hubOf(group));
      }
      assertConsecutive(companion, recorded);
    });
  });

  test("gets 150 groups at once and acknowledges every message with one of its own", async () => {
    const names = TICKERS.flatMap((ticker) => namesOf(ticker));
    assert.equal(names.length, 150);
    await withCompanion(names, async (companion) => {
      await companion.start();
      await waitForEach(companion, names, 4);
      assertConsecutive(companion, names);
      assert.equal(companion.sequenceAcks, companion.records.length);
      assert.deepEqual(companion.statuses, [200], "no connection was lost");
      for (const hub of Object.keys(HUBS)) {
        const ids = companion.records.filter((record) => record.hub === hub).map(({ sequenceId }) => sequenceId);
        assert.ok(ids.every((id, place) => place === 0 || id > ids[place - 1]));
      }
    });
    await withCompanion([...names, "SPX_classic_gex_full"], async (companion) => {
      const reply = await companion.start();
      assert.deepEqual(companion.statuses, [403]);
      assert.match(reply.error, /150/);
    });
  });

  test("changes its groups with PATCH: what stays has no gap, what goes ends, what is new begins", async () => {
    const names = ["ES_SPX_classic_gex_full", "ES_SPX_classic_gex_zero"];
    await withCompanion(names, async (companion) => {
      await companion.start();
      await waitForEach(companion, names, 2);
      const added = ["ES_SPX_classic_gex_one", "NDX_state_gamma_zero"];
      const { status, body } = await companion.select(["ES_SPX_classic_gex_full", ...added]);
      assert.equal(status, 200);
      const zeros = Object.fromEntries(CURRENT.map((hub) => [hub, 0]));
      assert.deepEqual(body, { updated_groups: 3, hubs: { ...zeros, classic: 2, state_greeks_zero: 1 } });
      await waitForEach(companion, added, 3);
      assertNoneAfter(companion, "ES_SPX_classic_gex_zero", "ES_SPX_classic_gex_one");
      assertConsecutive(companion, ["ES_SPX_classic_gex_full", ...added]);
    });
  });

  test("may send PATCH while its sockets are still connecting", async () => {
    await withCompanion(["ES_SPX_classic_gex_full", "ES_SPX_state_delta_one"], async (companion) => {
      await companion.start();
      const names = ["ES_SPX_classic_gex_zero", "ES_SPX_state_charm_one"];
      const { status } = await companion.select(names);
      assert.equal(status, 200);
      await waitForEach(companion, names, 3);
      assertNoneAfter(companion, "ES_SPX_classic_gex_full", "ES_SPX_classic_gex_zero");
      assertNoneAfter(companion, "ES_SPX_state_delta_one", "ES_SPX_state_charm_one");
      assertConsecutive(companion, names);
    });
  });

  test("loses its connections to another one with the same key", async () => {
    const names = ["ES_SPX_classic_gex_full", "ES_SPX_state_gamma_one"];
    await withCompanion(names, async (companion) => {
      await companion.start();
      await waitForEach(companion, names, 1);
      const other = new Companion(server, names, companion.key);
      try {
        await other.start();
        await waitUntil(() => companion.closes.length > 0, "the first one's close");
        const isTold = (others) => others.at(-1).event === "disconnected" && others.at(-1).message;
        assert.ok(Object.values(companion.others).some(isTold));
        assert.deepEqual(companion.closes, [1008]);
        companion.stop(); // before it takes its place back
        await waitForEach(other, names, 3);
        assertConsecutive(other, names);
        assert.deepEqual(other.closes, []);
      } finally {
        other.stop();
      }
    });
  });

  test("is told what is wrong with a PATCH, and goes on with the groups that it has", async () => {
    await withCompanion(["ES_SPX_classic_gex_full"], async (companion) => {
      await companion.start();
      await waitForEach(companion, companion.names, 1);
      companion.memberships = () => [{ hub: "classic", group: "ES_SPX_state_gex_full" }];
      const { status, body } = await companion.select(companion.names);
      assert.equal(status, 400);
      assert.match(body.error, /state_gex/);
      const { length } = companion.records;
      await waitForEach(companion, companion.names, length + 2);
      assertConsecutive(companion, companion.names);
    });
  });

  test("negotiates anew 2 s after it lost its connections, and gets its groups again", async () => {
    await withProxy(server.port, async (proxy) => {
      const names = ["ES_SPX_classic_gex_full", "ES_SPX_state_gamma_one"];
      await withCompanion(
        names,
        async (companion) => {
          await companion.start();
          await waitForEach(companion, names, 2);
          proxy.cut();
          await waitUntil(() => companion.statuses.length === 2, "the second negotiate");
          const { length } = companion.records;
          const isThere = () => names.every((name) => companion.records.slice(length).some(has(name)));
          await waitUntil(isThere, "records of both groups");
          assert.deepEqual(companion.statuses, [200, 200]);
          assert.ok(proxy.requests.every((request) => !request.includes("awps_")));
          assert.deepEqual(
            Object.values(companion.others).map((others) => others.map(({ event }) => event)),
            [
              ["connected", "connected"],
              ["connected", "connected"],
            ],
          );
        },
        { url: proxy.through(server.url).replace(/\/$/, "") },
      );
    });
  });
});

function has(name) {
  return ({ group }) => group === prefixed(name);
}

describe("a client of the v2 generation, which names spot groups", () => {
  const names = [
    "ES_SPX_classic_gex_full",
    "ES_SPX_state_gamma_zero",
    "ES_SPX_spot",
    "NDX_orderflow_orderflow",
    "NDX_spot",
  ];

  /** The rows of a group that came on a hub. */
  function rowsOn(companion, hub, name) {
    const records = companion.records.filter((record) => record.hub === hub && has(name)(record));
    return records.map(({ group, data }) => market.rowOf(group, data));
  }

  test("gets the v2 hubs, and on each the spot price beside the records with the same timestamps", async () => {
    await withCompanion(names, async (companion) => {
      const reply = await companion.start();
      assert.deepEqual(Object.keys(reply), ["websocket_urls"]);
      assert.deepEqual(Object.keys(reply.websocket_urls).sort(), V2);
      const hubs = { v2_classic: names[0], v2_state_greeks_zero: names[1], v2_orderflow: names[3] };
      const isThere = () => Object.entries(hubs).every(([hub, name]) => rowsOn(companion, hub, name).length >= 6);
      await waitUntil(isThere, "six records on each hub");
      for (const [hub, name] of Object.entries(hubs)) {
        const spot = `${name.startsWith("NDX") ? "NDX" : "ES_SPX"}_spot`;
        await waitUntil(() => rowsOn(companion, hub, spot).length >= 6, `six spot prices on ${hub}`);
        // A group begins when its first block is built, so one of the two may begin a tick before the other.
        const [records, spots] = [rowsOn(companion, hub, name), rowsOn(companion, hub, spot)];
        const common = records.find((row) => spots.includes(row));
        const fromCommon = (rows) => rows.slice(rows.indexOf(common)).slice(0, 4);
        assert.equal(fromCommon(records).length, 4);
        assert.deepEqual(fromCommon(records), fromCommon(spots));
        market.assertConsecutive(records);
        market.assertConsecutive(spots);
        assert.deepEqual(
          [...new Set(companion.records.filter((record) => record.hub === hub).map(({ group }) => group))].sort(),
          [prefixed(name), prefixed(spot)].sort(),
        );
      }
    });
  });

  test("names the spot group in PATCH once for each hub with records of the ticker", async () => {
    await withCompanion(names, async (companion) => {
      await companion.start();
      await waitForEach(companion, names, 1);
      const { status, body } = await companion.select([
        "ES_SPX_classic_gex_full",
        "ES_SPX_state_gex_one",
        "ES_SPX_spot",
      ]);
      assert.equal(status, 200);
      const zeros = Object.fromEntries(V2.map((hub) => [hub, 0]));
      assert.deepEqual(body, { updated_groups: 4, hubs: { ...zeros, v2_classic: 2, v2_state_gex: 2 } });
      await waitUntil(() => rowsOn(companion, "v2_state_gex", "ES_SPX_spot").length >= 3, "spot prices on the new hub");
      const { length } = companion.records;
      await waitUntil(
        () => rowsOn(companion, "v2_classic", "ES_SPX_spot").length >= 6,
        "spot prices on a hub that stays",
      );
      market.assertConsecutive(rowsOn(companion, "v2_classic", "ES_SPX_spot"));
      market.assertConsecutive(rowsOn(companion, "v2_classic", "ES_SPX_classic_gex_full"));
      const hubs = new Set(companion.records.slice(length).map(({ hub }) => hub));
      assert.ok(!hubs.has("v2_orderflow") && !hubs.has("v2_state_greeks_zero"));
    });
  });

  test("is told which spot group is missing", async () => {
    await withCompanion(["ES_SPX_classic_gex_full", "NDX_orderflow_orderflow", "NDX_spot"], async (companion) => {
      const reply = await companion.start();
      assert.deepEqual(companion.statuses, [400]);
      assert.match(reply.error, /ES_SPX_spot/);
    });
  });

  test("gets the golden bytes of the example records", async () => {
    const golden = {
      SPX_classic_gex_full: ["proto.gex", "gex_full"],
      SPX_state_gamma_zero: ["proto.greek", "gamma_zero"],
      SPX_spot: ["proto.spot", "spot"],
    };
    await withCompanion(Object.keys(golden), async (companion) => {
      await companion.start();
      await waitForEach(companion, Object.keys(golden), 2);
      for (const { group, data } of companion.records) {
        const [typeUrl, file] = golden[group.replace(/^blue_/, "")];
        const bytes = readFileSync(path.join(FIXTURES, `${file}.payload.bin`));
        const arrived = unpacked(data);
        assert.equal(arrived.typeUrl, typeUrl);
        assert.deepEqual(Buffer.from(arrived.payload), bytes);
      }
    });
  });
});
