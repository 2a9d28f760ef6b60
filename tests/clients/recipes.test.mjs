// What Azure's client for JavaScript and the example client do on bad days: the recipes of docs/faults.md, and its table.
//
// Each recipe is played to three clients at once. The test asserts what the table says; a client that does something else
// now makes it fail, with the words that belong into the table.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { WebPubSubClient, WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } from "@azure/web-pubsub-client";
import { WebSocket } from "ws";
import { FlowcastClient } from "../../examples/js/flowcast.mjs";
import { SETTINGS, jwt, publish, streamsUrl } from "./streams/publishing.mjs";
import { Dataset, decoded, groupOf } from "./support/orderflow.mjs";
import { play, recipes, told } from "./support/recipes.mjs";
import { Server } from "./support/server.mjs";

const [WATCHED, BESIDE] = ["SPX", "SPY"];
// Something to be broken in a message.
const PAD = "right".repeat(8);
let dataset;

before(() => {
  dataset = new Dataset(mkdtempSync(path.join(tmpdir(), "flowcast-recipes-")), { [WATCHED]: 4000, [BESIDE]: 4000 });
});

after(() => rmSync(dataset.directory, { recursive: true }));

/** The same protocol. An error that its reader throws leaves the socket's handler: in Node it would end the process. */
function survived(protocol, watched) {
  const parseMessages = (input) => {
    try {
      return protocol.parseMessages(input);
    } catch {
      watched.thrown += 1;
      return null;
    }
  };
  const { name, isReliableSubProtocol } = protocol;
  return { name, isReliableSubProtocol, writeMessage: (message) => protocol.writeMessage(message), parseMessages };
}

/** An application on the SDK: gives it a URL whenever it wants one, and joins its groups once. */
const sdk = (protocol) => (watched, server, key) => {
  const client = new WebPubSubClient({ getClientAccessUrl: () => server.websocketUrl("2026-04", key) }, {
    protocol: survived(protocol(), watched),
  });
  client.on("connected", () => (watched.connections += 1));
  client.on("stopped", () => (watched.hasStopped = true));
  client.on("group-message", ({ message }) =>
    watched.handed(() => {
      if (message.group === groupOf(BESIDE)) return undefined;
      assert.equal(message.group, groupOf(WATCHED));
      return dataset.rowOf(WATCHED, decoded(message.data), "2026-04");
    }),
  );
  const joined = async () => {
    await client.start();
    await Promise.all([WATCHED, BESIDE].map((ticker) => client.joinGroup(groupOf(ticker))));
  };
  joined().then(() => (watched.hasStarted = true), (error) => (watched.failure = error));
  return () => client.stop();
};

/** The example client on a channel whose messages are numbered. */
function example(watched, server, clientId) {
  const options = { baseDelayMs: 50, maxDelayMs: 1_000, WebSocket, token: () => jwt({ sub: "recipe" }) };
  const client = new FlowcastClient({ url: streamsUrl(server), clientId, ...options });
  client.on("open", () => (watched.connections += 1));
  client.on("given_up", () => (watched.hasStopped = true));
  client.on("malformed", () => (watched.malformed += 1));
  client.on("message", ({ payload }) =>
    watched.handed(() => {
      assert.equal(payload.pad, PAD);
      return payload.number;
    }),
  );
  let isOn = true;
  const publishing = (async () => {
    for (let number = 0; isOn; number += 1) {
      await publish(server, "lines", { number, pad: PAD });
      await sleep(40);
    }
  })();
  client.subscribe("lines");
  client.connect().then(() => (watched.hasStarted = true), (error) => (watched.failure = error));
  return async () => {
    isOn = false;
    client.disconnect();
    await publishing;
  };
}

const CLIENTS = {
  "JavaScript SDK": sdk(WebPubSubJsonProtocol),
  "JavaScript SDK, reliable": sdk(WebPubSubJsonReliableProtocol),
  "Example client": example,
};

describe("recipes", { concurrency: 4 }, () => {
  for (const name of recipes()) {
    test(`a client does what the table says: ${name}`, async () => {
      const server = await Server.start(dataset, SETTINGS);
      try {
        const seen = await play(name, server, CLIENTS);
        const expected = told()[name];
        assert.deepEqual(seen, Object.fromEntries(Object.keys(CLIENTS).map((client) => [client, expected[client]])));
      } finally {
        await server.stop();
      }
    });
  }
});
