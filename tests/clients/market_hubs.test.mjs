// Azure's own client for JavaScript on the hubs of GEX, greeks and spot, on all four subprotocols.
//
// What it does with the protocol is tested on the orderflow hub (js_sdk.test.mjs); here every kind of payload goes
// through it.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { FIXTURES, HUBS, Market, prefixed, unpacked } from "./support/market.mjs";
import { withProxy } from "./support/proxy.mjs";
import { Server } from "./support/server.mjs";
import { PROTOCOLS, withSubscriber } from "./support/subscriber.mjs";
import { waitUntil } from "./support/waiting.mjs";

const SPOT = prefixed("ES_SPX_spot");

let market;
let server;

before(async () => {
  market = new Market(mkdtempSync(path.join(tmpdir(), "flowcast-market-")), ["ES_SPX"]);
  server = await Server.start(market, { WS_STREAM_INTERVAL: "100ms" });
});

after(async () => {
  const code = await server?.stop();
  rmSync(market.directory, { recursive: true });
  assert.equal(code, 0, server?.log);
});

function rowsOf(subscriber, group, profile) {
  return subscriber.messages(group).map(({ data }) => market.rowOf(group, data, profile));
}

for (const makeProtocol of PROTOCOLS) {
  const { name, isReliableSubProtocol } = makeProtocol();

  describe(name, () => {
    for (const profile of ["2025-11", "2026-04"]) {
      test(`every hub serves its records in file order, every field exact, profile ${profile}`, async () => {
        const serve = async ([hub, series]) => {
          const groups = series.map((name) => prefixed(`ES_SPX_${name}`));
          const url = await server.websocketUrl(profile, "my-key", hub);
          await withSubscriber(url, makeProtocol(), {}, async (subscriber) => {
            await Promise.all(groups.map((group) => subscriber.client.joinGroup(group)));
            for (const group of groups) {
              await subscriber.waitFor(3, group);
              market.assertConsecutive(rowsOf(subscriber, group, profile));
            }
            for (const message of subscriber.received) {
              assert.equal(message.dataType, "protobuf");
              assert.equal(message.sequenceId !== undefined, isReliableSubProtocol);
            }
          });
        };
        await Promise.all(Object.entries(HUBS).map(serve));
      });
    }

    test("a v2 hub serves the spot price beside the records with the same timestamps", async () => {
      const group = prefixed("ES_SPX_classic_gex_full");
      const url = await server.websocketUrl("2026-04", "my-key", "v2_classic");
      await withSubscriber(url, makeProtocol(), {}, async (subscriber) => {
        await subscriber.client.joinGroup(SPOT);
        await subscriber.client.joinGroup(group);
        await subscriber.waitFor(4, group);
        await subscriber.waitForMore(2, SPOT);
        const [records, spots] = [rowsOf(subscriber, group), rowsOf(subscriber, SPOT)];
        market.assertConsecutive(records);
        market.assertConsecutive(spots);
        assert.ok(records.slice(0, 4).every((row) => spots.includes(row)));
      });
    });

    test("what arrives of the example records are the golden bytes", async () => {
      const golden = {
        v2_classic: { SPX_classic_gex_full: ["proto.gex", "gex_full"], SPX_spot: ["proto.spot", "spot"] },
        v2_state_greeks_zero: { SPX_state_gamma_zero: ["proto.greek", "gamma_zero"] },
      };
      for (const [hub, groups] of Object.entries(golden)) {
        const url = await server.websocketUrl("2026-04", "my-key", hub);
        await withSubscriber(url, makeProtocol(), {}, async (subscriber) => {
          for (const [series, [typeUrl, file]] of Object.entries(groups)) {
            await subscriber.client.joinGroup(prefixed(series));
            await subscriber.waitFor(2, prefixed(series));
            const arrived = unpacked(subscriber.messages(prefixed(series))[0].data);
            assert.equal(arrived.typeUrl, typeUrl);
            const bytes = readFileSync(path.join(FIXTURES, `${file}.payload.bin`));
            assert.deepEqual(Buffer.from(arrived.payload), bytes);
          }
        });
      }
    });

    if (isReliableSubProtocol) {
      test("a cut on a classic hub loses nothing and repeats nothing, whoever joined the groups", async () => {
        const series = ["ES_SPX_classic_gex_full", "ES_SPX_classic_gex_one", "ES_SPX_spot"];
        const groups = series.map(prefixed);
        const headers = { Authorization: "Bearer sdk-key" };
        const body = JSON.stringify({ groups: series });
        const response = await fetch(`${server.url}/v2/negotiate`, { method: "POST", headers, body });
        const urls = {
          client: await server.websocketUrl("2026-04", "my-key", "v2_classic"),
          server: (await response.json()).websocket_urls.v2_classic,
        };
        for (const [joinedBy, url] of Object.entries(urls)) {
          await withProxy(server.port, async (proxy) => {
            await withSubscriber(proxy.through(url), makeProtocol(), {}, async (subscriber) => {
              for (const group of joinedBy === "client" ? groups : []) {
                await subscriber.client.joinGroup(group);
              }
              await subscriber.waitFor(3, SPOT);

              // The network swallows records, the first of them in the middle of a frame, before the cut shows.
              proxy.hold(100);
              await waitUntil(() => proxy.swallowedBytes > 4000, "records that are lost on the way");
              proxy.cut();

              for (const group of groups) {
                await subscriber.waitForMore(6, group);
                market.assertConsecutive(rowsOf(subscriber, group));
              }
              assert.match(proxy.requests[1], /awps_reconnection_token=/);
              assert.equal(subscriber.connected.length, 1, "recovered, not connected anew");
              assert.deepEqual(subscriber.disconnected, []);
            });
          });
        }
      });
    }
  });
}
