// The live page in a real browser: Debian's Chromium, headless, driven by Playwright. Chromium is not
// installed from here; without it these tests are skipped and say so.

import assert from "node:assert/strict";
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { Dataset } from "../support/orderflow.mjs";
import { Server } from "../support/server.mjs";
import { waitUntil } from "../support/waiting.mjs";
import { LyingServer } from "./lying_server.mjs";
import { SETTINGS, jwt, keepPublishing, streamsUrl } from "./publishing.mjs";

const PAGE = fileURLToPath(new URL("../../../examples/js/", import.meta.url));
const TYPES = { ".html": "text/html", ".css": "text/css", ".mjs": "text/javascript" };

function findChromium() {
  const given = process.env.CHROMIUM_BIN;
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  return [given, ...folders.map((folder) => path.join(folder, "chromium"))].filter(Boolean).find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const executablePath = findChromium();
const skip = executablePath ? false : "no chromium here (CHROMIUM_BIN is not set and it is not on the PATH)";

describe("the live page", { skip }, () => {
  let files;
  let browser;
  let address;
  let page;
  let complaints;

  before(async () => {
    files = createServer(async (request, response) => {
      const name = path.basename(new URL(request.url, "http://page").pathname) || "index.html";
      try {
        const body = await readFile(path.join(PAGE, name));
        response.writeHead(200, { "Content-Type": TYPES[path.extname(name)] }).end(body);
      } catch {
        response.writeHead(404).end();
      }
    });
    files.listen(0, "127.0.0.1");
    await once(files, "listening");
    address = `http://127.0.0.1:${files.address().port}/index.html`;
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  });

  after(async () => {
    await browser?.close();
    files.close();
    files.closeAllConnections();
  });

  beforeEach(async () => {
    complaints = [];
    page = await browser.newPage();
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("requestfailed", (request) => complaints.push(`${request.url()} failed`));
  });

  const textOf = (selector) => page.locator(selector).innerText();
  const untilText = (selector, expected) =>
    waitUntil(async () => expected.test(await textOf(selector)), `${expected} in ${selector}`);

  test("shows every message of the real server, and follows it over a restart", async () => {
    const dataset = new Dataset(mkdtempSync(path.join(tmpdir(), "flowcast-page-")), { SPX: 300, SPY: 7 });
    let server = await Server.start(dataset, SETTINGS);
    let stop = keepPublishing(server);
    try {
      await page.goto(`${address}?url=${encodeURIComponent(streamsUrl(server))}`);
      await page.fill("#token", jwt({ sub: "page" }));
      await page.click("#connect");
      await page.fill("#channels", "lines, price_updates, signals, trades, portfolio");
      await page.click("#subscribe");
      await untilText("#subscribed", /lines/);
      await untilText("#prices", /SPX\s+[\d,]+\.\d\d/);
      await untilText("#signals", /BUY AAPL 10 at 150\.25 \(85 %\)/);
      await untilText("#trades", /SELL 10 AAPL at 150\.25/);
      await untilText("#positions", /AAPL\s+10\s+150\.25\s+151\.50\s+12\.50/);
      await untilText("#topics", /lines: \{"game":7/);
      assert.equal(await page.locator("#state").getAttribute("data-state"), "open");

      await stop();
      const { port } = server;
      await server.kill();
      await untilText("#log", /attempt 1 in/);
      server = await Server.start(dataset, { ...SETTINGS, WS_BIND_ADDRESS: `127.0.0.1:${port}` });
      await page.evaluate(() => document.querySelector("#topics").replaceChildren());
      stop = keepPublishing(server);
      await untilText("#topics", /lines: \{"game":7/);

      await page.click("#disconnect");
      await untilText("#state", /not connected/);
      const status = async () => (await fetch(`${server.url}/websocket/status`)).json();
      await waitUntil(async () => (await status()).active_connections === 0, "the page's connection to end");
      assert.deepEqual(complaints, []);
    } finally {
      await stop();
      await server.stop();
      rmSync(dataset.directory, { recursive: true });
    }
  });

  test("reports what is out of shape, shows markup as text, and gives up on nothing", async () => {
    const server = await LyingServer.start();
    try {
      await page.goto(`${address}?url=${encodeURIComponent(server.url)}&connect`);
      await waitUntil(() => server.connections.length === 1, "the page to connect");
      const markup = "<img src=x onerror=alert(1)>";
      server.say("{");
      server.say({ type: "price_update", symbols: { [markup]: { price: 1, change: -1 } }, timestamp: "2024-12-19T12:00:00Z" });
      server.say({ type: "message", channel: markup, payload: markup, timestamp: "2024-12-19T12:00:00Z" });
      await untilText("#log", /malformed message: expected JSON/);
      await untilText("#prices", /<img src=x/);
      await untilText("#topics", /<img src=x/);
      assert.equal(await page.locator("img").count(), 0);
      assert.equal(await page.locator("#prices .down").count(), 1);
      server.last.socket.close(1008, "policy violation: slow consumer");
      await untilText("#log", /slow consumer \(1008/);
      await waitUntil(() => server.connections.length === 2, "the page to come back");
      assert.deepEqual(complaints, []);
    } finally {
      await server.stop();
    }
  });
});
