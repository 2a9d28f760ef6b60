// The live page on a sub-path behind HAProxy, with deploy/haproxy/live-page.cfg as it is. deploy/check.sh runs this.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { ROOT, Dataset } from "../support/orderflow.mjs";
import { Server } from "../support/server.mjs";
import { waitUntil } from "../support/waiting.mjs";
import { launch, LivePage, skip } from "../live_page/browser.mjs";

const FILES = ["haproxy.cfg", "live-page.cfg"].flatMap((name) => ["-f", path.join(ROOT, "deploy/haproxy", name)]);
const TOKEN = "the-control-token";

async function freePort() {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

test("the live page works on a sub-path behind HAProxy, steering and messages included", { skip }, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "flowcast-sub-path-"));
  const server = await Server.start(new Dataset(folder, { SPX: 300 }), { FLOWCAST_TRUSTED_PROXIES: "127.0.0.1/32", FLOWCAST_CONTROL_TOKEN: TOKEN });
  const [port, outside, metrics] = [await freePort(), await freePort(), await freePort()];
  const node = `127.0.0.1:${server.port}`;
  const env = { ...process.env, MAXCONN: "500", BIND: `127.0.0.1:${outside}`, METRICS_BIND: `127.0.0.1:${metrics}` };
  const proxy = spawn(process.env.HAPROXY_BIN, ["-db", ...FILES], {
    env: { ...env, INSIDE_BIND: `127.0.0.1:${port}`, FLOWCAST_NODE_1: node, FLOWCAST_NODE_2: node },
    stdio: "ignore",
  });
  const browser = await launch();
  const base = `http://localhost:${port}/flowcast`;
  try {
    await waitUntil(async () => {
      assert.equal(proxy.exitCode, null);
      return (await fetch(`${base}/healthz`).catch(() => undefined))?.status === 200;
    }, "the proxy to serve");
    assert.equal((await fetch(`http://localhost:${port}/`)).status, 404);
    const live = await LivePage.open(browser, base);
    const { page } = live;
    assert.equal(page.url(), `${base}/`);
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    page.on("websocket", (socket) => asked.push(socket.url()));
    await live.untilText("#clock", /\d/);
    await page.click("#token-open");
    await page.fill("#token", TOKEN);
    await page.keyboard.press("Enter");
    await waitUntil(() => page.isEnabled("#play"), "the controls");
    await page.click("#play");
    await waitUntil(async () => (await (await fetch(`${base}/replay`)).json()).state === "paused", "the pause");
    assert.match(await live.textOf("#snippet"), new RegExp(`${base}/v2/negotiate`));
    await page.click("#tail-start");
    await live.untilText("#tail-state", /listening/);
    await page.click("#step-on");
    await live.untilText("#tail", /"ticker":"SPX"/);
    assert.ok(asked.length > 3 && asked.every((url) => new URL(url).pathname.startsWith("/flowcast/")), asked.join("\n"));
    await live.close();
  } finally {
    await browser.close();
    proxy.kill("SIGTERM");
    await server.stop();
    rmSync(folder, { recursive: true });
  }
});
