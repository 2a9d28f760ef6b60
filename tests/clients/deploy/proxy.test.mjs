// deploy/haproxy/haproxy.cfg as it is, with TLS, in front of two real nodes. deploy/check.sh runs this; it
// sets HAPROXY_BIN, CERTIFICATE (self-signed) and NODE_EXTRA_CA_CERTS.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { WebPubSubClient, WebPubSubJsonReliableProtocol } from "@azure/web-pubsub-client";
import { WebSocket } from "ws";
import { jwt, keepPublishing, SETTINGS } from "../streams/publishing.mjs";
import { withClient } from "../streams/support.mjs";
import { Dataset, groupOf } from "../support/orderflow.mjs";
import { Server } from "../support/server.mjs";
import { waitUntil } from "../support/waiting.mjs";

const CONFIG = fileURLToPath(new URL("../../../deploy/haproxy/haproxy.cfg", import.meta.url));
const { HAPROXY_BIN, CERTIFICATE } = process.env;
const NODE_SETTINGS = { ...SETTINGS, FLOWCAST_TRUSTED_PROXIES: "127.0.0.1/32", WS_SHUTDOWN_TIMEOUT_SECONDS: "3" };

let dataset;
let nodes;
let proxy;

/** A port that was free a moment ago: HAProxy does not tell which one it took. */
async function freePort() {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

async function startProxy() {
  const [port, metricsPort] = [await freePort(), await freePort()];
  const child = spawn(HAPROXY_BIN, ["-db", "-f", CONFIG], {
    env: {
      ...process.env,
      CERTIFICATE,
      MAXCONN: "500",
      BIND: `127.0.0.1:${port}`,
      METRICS_BIND: `127.0.0.1:${metricsPort}`,
      FLOWCAST_NODE_1: `127.0.0.1:${nodes[0].port}`,
      FLOWCAST_NODE_2: `127.0.0.1:${nodes[1].port}`,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const started = { child, port, metricsPort, log: "", origin: `localhost:${port}` };
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (started.log += text));
  await waitUntil(async () => {
    assert.equal(child.exitCode, null, started.log);
    return (await fetch(`https://${started.origin}/healthz`).catch(() => undefined))?.status === 200;
  }, "the proxy to serve");
  return started;
}

before(async () => {
  assert.ok(HAPROXY_BIN && CERTIFICATE, "deploy/check.sh sets HAPROXY_BIN and CERTIFICATE");
  dataset = new Dataset(mkdtempSync(path.join(tmpdir(), "flowcast-proxy-")), { SPX: 300 });
  nodes = [await Server.start(dataset, NODE_SETTINGS), await Server.start(dataset, NODE_SETTINGS)];
  proxy = await startProxy();
});

after(async () => {
  proxy?.child.kill("SIGTERM");
  for (const node of nodes ?? []) await node.stop();
  rmSync(dataset.directory, { recursive: true });
});

const negotiated = async () => {
  const response = await fetch(`https://${proxy.origin}/v2/negotiate`, { headers: { Authorization: "Bearer my-secret-key" } });
  return (await response.json()).websocket_urls.orderflow;
};

async function metric(node, name) {
  const text = await (await fetch(`${node.url}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)[1]);
}

const perNode = async (name) => [await metric(nodes[0], name), await metric(nodes[1], name)];

/** A reliable connection, up to its `connected` message. */
async function connected(url) {
  const socket = new WebSocket(url, "json.reliable.webpubsub.azure.v1");
  const [data] = await once(socket, "message");
  const message = JSON.parse(data);
  assert.equal(message.event, "connected");
  return { socket, message };
}

test("negotiate answers wss:// and the proxy's own address", async () => {
  const url = new URL(await negotiated());
  assert.equal(url.protocol, "wss:");
  assert.equal(url.host, proxy.origin);
});

test("Azure's client receives records over wss://", async () => {
  const client = new WebPubSubClient(await negotiated(), { protocol: WebPubSubJsonReliableProtocol() });
  const received = [];
  client.on("group-message", ({ message }) => received.push(message));
  await client.start();
  try {
    await client.joinGroup(groupOf("SPX"));
    await waitUntil(() => received.length >= 5, "records");
  } finally {
    client.stop();
  }
});

test("the clients of the hub spread over both nodes, and each recovery reaches the node of its session", async () => {
  const SESSIONS = 30;
  const opened = await perNode("flowcast_connections_opened_total");
  const urls = await Promise.all(Array.from({ length: SESSIONS }, negotiated));
  for (const url of urls) {
    const { socket, message } = await connected(url);
    socket.terminate();
    // The way the SDK for JavaScript does it: the query is written anew.
    const recovery = new URL(url);
    recovery.searchParams.append("awps_connection_id", message.connectionId);
    recovery.searchParams.append("awps_reconnection_token", message.reconnectionToken);
    assert.notEqual(recovery.search.includes(":"), url.includes("?access_token=my-secret-key:"));
    const again = new WebSocket(recovery, "json.reliable.webpubsub.azure.v1");
    await once(again, "open");
    again.close(1000);
  }
  const recovered = await perNode("flowcast_recoveries_total");
  assert.equal(recovered[0] + recovered[1], SESSIONS);
  const now = await perNode("flowcast_connections_opened_total");
  for (const place of [0, 1]) assert.ok(now[place] > opened[place], `node ${place + 1} has none of ${SESSIONS} clients`);
});

test("POST and PATCH of a key and its sockets reach one node, and keys spread over both", async () => {
  const KEYS = 12;
  const group = "SPX_orderflow_orderflow";
  const body = JSON.stringify({ groups: [group] });
  const patched = JSON.stringify({ groups: [{ hub: "orderflow", group }] });
  const negotiate = `https://${proxy.origin}/v2/negotiate`;
  const sockets = [];
  for (let n = 0; n < KEYS; n += 1) {
    const key = `posted key:${n}`.replace(" ", n % 3 ? "+" : "/");
    const headers = { Authorization: `${n % 2 ? "Basic" : "bearer"} ${key}` };
    const post = await fetch(negotiate, { method: "POST", headers, body });
    assert.equal(post.status, 200, await post.clone().text());
    const url = (await post.json()).websocket_urls.orderflow;
    const socket = new WebSocket(url, "json.webpubsub.azure.v1");
    await once(socket, "open"); // a node that does not know the slot answers 401
    sockets.push(socket);
    const token = new URL(url).searchParams.get("access_token");
    for (const credential of [key, token]) {
      const patch = await fetch(`${negotiate}?key=${encodeURIComponent(credential)}`, { method: "PATCH", body: patched });
      assert.equal(patch.status, 200, await patch.text());
    }
  }
  const slots = await perNode("flowcast_api_slots");
  assert.equal(slots[0] + slots[1], KEYS);
  for (const place of [0, 1]) assert.ok(slots[place] > 0, `node ${place + 1} has none of ${KEYS} keys`);
  for (const socket of sockets) socket.terminate();
});

test("all clients of a replay session and its own routes reach one node, and sessions spread over both", async () => {
  const SESSIONS = 12;
  const sockets = [];
  for (let n = 0; n < SESSIONS; n += 1) {
    const name = `suite_${n}.a-b`;
    for (const [method, body] of [["GET"], ["POST", JSON.stringify({ groups: ["SPX_orderflow_orderflow"] })]]) {
      const negotiate = `https://${proxy.origin}/v2/negotiate?session=${name}&state=paused&key=${method}%2F${n}`;
      const response = await fetch(negotiate, { method, body });
      assert.equal(response.status, 200, await response.clone().text());
      const socket = new WebSocket((await response.json()).websocket_urls.orderflow, "json.webpubsub.azure.v1");
      sockets.push(socket);
      await once(socket, "message"); // connected
    }
    const clock = await (await fetch(`https://${proxy.origin}/replay/sessions/${name}`)).json();
    assert.equal(clock.clients, 2, JSON.stringify(clock));
  }
  const sessions = await Promise.all(nodes.map(async (node) => (await (await fetch(`${node.url}/replay/sessions`)).json()).count));
  assert.equal(sessions[0] + sessions[1], SESSIONS);
  for (const place of [0, 1]) assert.ok(sessions[place] > 0, `node ${place + 1} has none of ${SESSIONS} sessions`);
  for (const socket of sockets) socket.terminate();
});

test("the example client receives every kind of message over wss://", async () => {
  const options = { url: `wss://${proxy.origin}/ws`, token: () => jwt({ sub: "my-secret-subject" }) };
  await withClient(options, async ({ client, log, untilMessage }) => {
    await client.connect();
    client.subscribe(["lines", "price_updates", "signals", "trades", "portfolio"]);
    const stops = nodes.map(keepPublishing);
    try {
      for (const type of ["subscribed", "message", "price_update", "signal", "trade_executed", "portfolio_update"]) {
        await untilMessage(type);
      }
    } finally {
      for (const stop of stops) await stop();
    }
    assert.deepEqual(log.malformed, []);
  });
});

test("figures and publishing are not for the outside, and the proxy has figures of its own", async () => {
  for (const inside of ["/metrics", "/ticks", "/api/publish", "/", "/live", "/live/events"]) {
    assert.equal((await fetch(`https://${proxy.origin}${inside}`)).status, 403, inside);
  }
  const figures = await (await fetch(`http://127.0.0.1:${proxy.metricsPort}/metrics`)).text();
  assert.match(figures, /haproxy_server_status\{proxy="streams",server="node1",state="UP"\} 1/);
});

test("every metric of the dashboard and of the alerts exists", async () => {
  const figures = await Promise.all(
    [`${nodes[0].url}/metrics`, `http://127.0.0.1:${proxy.metricsPort}/metrics`].map(async (url) => (await fetch(url)).text()),
  );
  const exist = new Set(figures.join("\n").match(/^(flowcast|haproxy)_\w+/gm));
  const read = (file) => readFileSync(new URL(`../../../deploy/${file}`, import.meta.url), "utf8");
  const dashboard = JSON.parse(read("grafana/dashboards/flowcast.json"));
  const queries = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
  const asked = [...queries, read("prometheus/alerts.yml")].join("\n").match(/\b(flowcast|haproxy)_\w+/g);
  assert.ok(asked.length > 40, "the files have queries");
  assert.deepEqual([...new Set(asked)].filter((name) => !exist.has(name)), []);
});

test("a node that stops sends its clients to the other one", async () => {
  const options = { url: `wss://${proxy.origin}/ws`, token: () => jwt({ sub: "my-secret-subject" }) };
  const clients = [];
  const holding = Array.from({ length: 6 }, () =>
    withClient(options, async (watched) => {
      await watched.client.connect();
      clients.push(watched);
      await waitUntil(() => done, "the end of the test", 60);
    }),
  );
  let done = false;
  try {
    await waitUntil(() => clients.length === 6, "six clients");
    const theirs = await metric(nodes[1], "flowcast_connections");
    assert.ok(theirs > 0, "the second node has none of them");
    assert.equal(await nodes[1].stop(), 0);
    // The node is gone before its close frames have come through the proxy: that all are open says nothing yet.
    const moved = () => clients.filter(({ log }) => log.close.length > 0);
    await waitUntil(() => moved().length >= theirs, "the clients of the second node to hear of it");
    await waitUntil(() => clients.every(({ client }) => client.state === "open"), "all to be back");
    assert.equal(moved().length, theirs);
    for (const { log } of moved()) assert.equal(log.close[0].meaning, "server stopping");
    for (const { log } of clients) assert.deepEqual(log.given_up, []);
  } finally {
    done = true;
    await Promise.all(holding);
  }
});

test("the proxy's log has no tokens", () => {
  assert.match(proxy.log, / GET \/ws$/m);
  assert.match(proxy.log, / GET \/client\/hubs\/orderflow$/m);
  assert.doesNotMatch(proxy.log, /my-secret|access_token|eyJ/);
});
