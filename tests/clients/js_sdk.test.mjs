// Azure's own client for JavaScript (@azure/web-pubsub-client 1.1.0) against the real server, on all four
// subprotocols: the SDK's own two JSON ones, and the two protobuf ones through support/protobuf_protocol.mjs.
//
// Unlike the one for Python this SDK hands out messages in the order of the wire. Every protocol object is tapped, so
// that a test can also see what the SDK keeps to itself: acks, pongs, and what it drops as a duplicate.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Dataset, decoded, groupOf } from "./support/orderflow.mjs";
import { withProxy } from "./support/proxy.mjs";
import { Server } from "./support/server.mjs";
import { PROTOCOLS, withSubscriber } from "./support/subscriber.mjs";
import { waitUntil } from "./support/waiting.mjs";

const PROFILES = ["2025-11", "2026-04"];
const NO_RETRIES = { messageRetryOptions: { maxRetries: 0 } };

let dataset;
let server;

before(async () => {
  // SPY is short, so that its replay starts over within a test.
  dataset = new Dataset(mkdtempSync(path.join(tmpdir(), "flowcast-js-")), { SPX: 300, ES_SPX: 290, SPY: 7 });
  server = await Server.start(dataset);
});

after(async () => {
  const code = await server?.stop();
  rmSync(dataset.directory, { recursive: true });
  assert.equal(code, 0, server?.log);
});

function rowsOf(messages, ticker, profile) {
  return messages
    .filter((message) => message.kind === "groupData" && message.group === groupOf(ticker))
    .map((message) => dataset.rowOf(ticker, decoded(message.data), profile));
}

async function assertRefused(request, name) {
  const error = await request.then(
    () => assert.fail("the request succeeded"),
    (reason) => reason,
  );
  assert.equal(error.errorDetail?.name, name, String(error));
  assert.ok(error.errorDetail.message, "an error has a message");
}

for (const makeProtocol of PROTOCOLS) {
  const { name, isReliableSubProtocol } = makeProtocol();

  describe(name, () => {
    for (const profile of PROFILES) {
      test(`a subscriber receives every record in file order with every field exact, profile ${profile}`, async () => {
        await withSubscriber(await server.websocketUrl(profile), makeProtocol(), {}, async (subscriber) => {
          for (const ticker of ["SPX", "ES_SPX", "SPY"]) {
            await subscriber.client.joinGroup(groupOf(ticker));
          }
          await subscriber.waitFor(25, groupOf("SPY"));
          for (const ticker of ["SPX", "ES_SPX", "SPY"]) {
            const rows = rowsOf(subscriber.received, ticker, profile);
            assert.ok(rows.length >= 20);
            dataset.assertConsecutive(ticker, rows);
          }
          for (const message of subscriber.received) {
            assert.equal(message.dataType, "protobuf");
            assert.equal(message.sequenceId !== undefined, isReliableSubProtocol);
          }
        });
      });
    }

    test("the first message is connected, with a fresh connection id and the key as user", async () => {
      const url = await server.websocketUrl("2026-04", "my-key");
      await withSubscriber(url, makeProtocol(), {}, async (first) => {
        await withSubscriber(url, makeProtocol(), {}, async (second) => {
          const [one, other] = [first.onTheWire[0], second.onTheWire[0]];
          for (const connected of [one, other]) {
            assert.equal(connected.kind, "connected");
            assert.equal(connected.userId, "my-key");
            assert.ok(connected.connectionId);
            assert.equal(Boolean(connected.reconnectionToken), isReliableSubProtocol);
          }
          assert.notEqual(one.connectionId, other.connectionId);
        });
      });
    });

    test("a group joined twice delivers each record once", async () => {
      await withSubscriber(await server.websocketUrl(), makeProtocol(), NO_RETRIES, async (subscriber) => {
        await subscriber.client.joinGroup(groupOf("SPX"));
        await subscriber.client.joinGroup(groupOf("SPX"));
        await subscriber.waitFor(20, groupOf("SPX"));
        dataset.assertConsecutive("SPX", rowsOf(subscriber.onTheWire, "SPX", "2026-04"));
      });
    });

    test("nothing of a group follows the ack of its leave", async () => {
      await withSubscriber(await server.websocketUrl(), makeProtocol(), NO_RETRIES, async (subscriber) => {
        await subscriber.client.joinGroup(groupOf("SPX"));
        await subscriber.client.joinGroup(groupOf("ES_SPX"));
        await subscriber.waitFor(5, groupOf("SPX"));
        const { ackId } = await subscriber.client.leaveGroup(groupOf("SPX"));
        await subscriber.waitForMore(20, groupOf("ES_SPX"));
        const place = subscriber.onTheWire.findIndex((message) => message.ackId === ackId);
        const groups = subscriber.onTheWire
          .slice(place)
          .filter((message) => message.kind === "groupData")
          .map((message) => message.group);
        assert.deepEqual([...new Set(groups)], [groupOf("ES_SPX")]);
      });
    });

    test("leaving twice or without a join succeeds", async () => {
      await withSubscriber(await server.websocketUrl(), makeProtocol(), NO_RETRIES, async (subscriber) => {
        await subscriber.client.leaveGroup(groupOf("SPX"));
        await subscriber.client.joinGroup(groupOf("SPX"));
        await subscriber.client.leaveGroup(groupOf("SPX"));
        await subscriber.client.leaveGroup(groupOf("SPX"));
      });
    });

    test("a ticker that is not loaded can be joined and stays silent", async () => {
      await withSubscriber(await server.websocketUrl(), makeProtocol(), NO_RETRIES, async (subscriber) => {
        await subscriber.client.joinGroup(groupOf("NQ_NDX"));
        await subscriber.client.joinGroup(groupOf("SPX"));
        await subscriber.waitFor(10, groupOf("SPX"));
        assert.deepEqual(subscriber.messages(groupOf("NQ_NDX")), []);
      });
    });

    test("malformed names and another hub's groups are refused and the connection lives on", async () => {
      await withSubscriber(await server.websocketUrl(), makeProtocol(), NO_RETRIES, async (subscriber) => {
        for (const group of ["nonsense", "blue_SPX", "blue__orderflow_orderflow"]) {
          await assertRefused(subscriber.client.joinGroup(group), "BadRequest");
        }
        for (const group of ["blue_SPX_classic_gex_full", "red_SPX_orderflow_orderflow"]) {
          await assertRefused(subscriber.client.joinGroup(group), "Forbidden");
        }
        await subscriber.client.joinGroup(groupOf("SPX"));
        await subscriber.waitFor(3, groupOf("SPX"));
        assert.equal(subscriber.connected.length, 1);
      });
    });

    test("the 151st group of a connection is refused until another is left", async () => {
      const letters = [..."ABCDEFGHIJKLM"];
      const groups = letters.flatMap((first) => letters.map((second) => groupOf(`T${first}${second}`))).slice(0, 151);
      await withSubscriber(await server.websocketUrl(), makeProtocol(), NO_RETRIES, async (subscriber) => {
        await Promise.all(groups.slice(0, 150).map((group) => subscriber.client.joinGroup(group)));
        await assertRefused(subscriber.client.joinGroup(groups[150]), "Forbidden");
        await subscriber.client.leaveGroup(groups[0]);
        await subscriber.client.joinGroup(groups[150]);
      });
    });

    test("publishing and events are refused with Azure's errors", async () => {
      await withSubscriber(await server.websocketUrl(), makeProtocol(), NO_RETRIES, async (subscriber) => {
        const { client } = subscriber;
        const binary = new Uint8Array([1, 2, 3]).buffer;
        await client.joinGroup(groupOf("SPX"));
        await assertRefused(client.sendToGroup(groupOf("SPX"), "hello", "text"), "Forbidden");
        await assertRefused(client.sendToGroup(groupOf("SPX"), { a: 1 }, "json"), "Forbidden");
        await assertRefused(client.sendToGroup(groupOf("SPX"), binary, "binary"), "Forbidden");
        await assertRefused(client.sendEvent("hello", { a: 1 }, "json"), "InternalServerError");
        await subscriber.waitFor(5, groupOf("SPX"));
        dataset.assertConsecutive("SPX", rowsOf(subscriber.received, "SPX", "2026-04"));
      });
    });

    test("an ack id that succeeded before counts as a duplicate", async () => {
      await withSubscriber(await server.websocketUrl(), makeProtocol(), NO_RETRIES, async ({ client }) => {
        assert.equal((await client.joinGroup(groupOf("SPX"), { ackId: 500 })).isDuplicated, false);
        assert.equal((await client.joinGroup(groupOf("SPX"), { ackId: 500 })).isDuplicated, true);
      });
    });

    test("the SDK's ping is answered with a pong", async () => {
      await withSubscriber(
        await server.websocketUrl(),
        makeProtocol(),
        { keepAliveIntervalInMs: 50 },
        async (subscriber) => {
          const pongs = () => subscriber.onTheWire.filter((message) => message.kind === "pong").length;
          await waitUntil(() => pongs() >= 3, "three pongs");
        },
      );
    });

    test("a server that stops tells its clients so and exits with success", async () => {
      const other = await Server.start(dataset);
      const options = { autoReconnect: false };
      await withSubscriber(await other.websocketUrl(), makeProtocol(), options, async (subscriber) => {
        await subscriber.client.joinGroup(groupOf("SPX"));
        await subscriber.waitFor(3, groupOf("SPX"));
        assert.equal(await other.stop(), 0, other.log);
        const said = () => subscriber.onTheWire.find((message) => message.kind === "disconnected");
        assert.ok((await waitUntil(said, "the disconnected message")).message);
      });
    });

    if (isReliableSubProtocol) {
      test("after a restart, which forgets its session, a client has a new connection and its groups at once", async () => {
        const first = await Server.start(dataset);
        await withProxy(first.port, async (proxy) => {
          await withSubscriber(proxy.through(await first.websocketUrl()), makeProtocol(), {}, async (subscriber) => {
            await subscriber.client.joinGroup(groupOf("SPX"));
            await subscriber.waitFor(5, groupOf("SPX"));
            proxy.serverPort = server.port;
            await first.kill();
            // One attempt to recover, which is refused for good, and no 30 s of others.
            await waitUntil(() => subscriber.connected.length === 2, "a new connection");
            assert.match(proxy.requests[1], /awps_reconnection_token=/);
            assert.doesNotMatch(proxy.requests[2], /awps_/);
            assert.equal(proxy.requests.length, 3);
            await subscriber.waitForMore(10, groupOf("SPX"));
          });
        });
      });

      test("with a session key any node takes a client back: it neither waits nor joins, and nothing comes twice", async () => {
        const nodes = [];
        for (let count = 0; count < 3; count += 1) {
          nodes.push(await Server.start(dataset, { FLOWCAST_SESSION_KEY: "0123456789abcdef0123456789abcdef" }));
        }
        // The node that has begun last comes first: the sequence ids of the others are behind its own.
        const [third, second, first] = nodes;
        await withProxy(first.port, async (proxy) => {
          await withSubscriber(proxy.through(await first.websocketUrl()), makeProtocol(), {}, async (subscriber) => {
            const joined = [groupOf("SPX"), groupOf("ES_SPX")];
            for (const group of joined) {
              await subscriber.client.joinGroup(group);
            }
            const more = () => Promise.all(joined.map((group) => subscriber.waitForMore(10, group)));
            await more();
            proxy.serverPort = second.port;
            await first.kill();
            await more();
            proxy.serverPort = third.port;
            proxy.cut(1);
            await more();
            assert.equal(proxy.requests.length, 3, "the first attempt that is let through");
            const acks = subscriber.onTheWire.filter((message) => message.kind === "ack");
            assert.equal(acks.length, 2, "joined once");
            const connected = subscriber.onTheWire.filter((message) => message.kind === "connected");
            assert.equal(new Set(connected.map((message) => message.connectionId)).size, 1);
            assert.deepEqual([subscriber.connected.length, subscriber.disconnected], [1, []], "no event");
            const ids = subscriber.onTheWire.filter((message) => message.kind === "groupData").map((message) => message.sequenceId);
            assert.equal(ids.length, subscriber.received.length, "nothing is dropped as a duplicate");
            assert.ok(ids.every((id, place) => place === 0 || id > ids[place - 1]));
          });
        });
        await second.stop();
        await third.stop();
      });

      for (const failingAttempts of [0, 1]) {
        test(`a cut loses nothing and repeats nothing, with ${failingAttempts} failing attempts to recover`, async () => {
          await withProxy(server.port, async (proxy) => {
            await withSubscriber(proxy.through(await server.websocketUrl()), makeProtocol(), {}, async (subscriber) => {
              await subscriber.client.joinGroup(groupOf("SPX"));
              await subscriber.client.joinGroup(groupOf("ES_SPX"));
              await subscriber.waitFor(10, groupOf("SPX"));

              // The network swallows records, the first of them in the middle of a frame, before the cut shows.
              proxy.hold(100);
              await waitUntil(() => proxy.swallowedBytes > 4000, "records that are lost on the way");
              proxy.cut(failingAttempts);

              await subscriber.waitForMore(30, groupOf("SPX"));
              for (const ticker of ["SPX", "ES_SPX"]) {
                dataset.assertConsecutive(ticker, rowsOf(subscriber.received, ticker, "2026-04"));
              }
              assert.match(proxy.requests[1], /awps_reconnection_token=/);
              assert.equal(subscriber.connected.length, 1, "recovered, not connected anew");
              assert.deepEqual(subscriber.disconnected, []);
            });
          });
        });
      }
    } else {
      test("a client whose connection is cut comes back with its groups joined again", async () => {
        await withProxy(server.port, async (proxy) => {
          await withSubscriber(proxy.through(await server.websocketUrl()), makeProtocol(), {}, async (subscriber) => {
            await subscriber.client.joinGroup(groupOf("SPX"));
            await subscriber.waitFor(5, groupOf("SPX"));
            proxy.cut();
            await waitUntil(() => subscriber.connected.length === 2, "a new connection");
            await subscriber.waitForMore(10, groupOf("SPX"));
            assert.notEqual(subscriber.connected[0].connectionId, subscriber.connected[1].connectionId);
          });
        });
      });
    }
  });
}
