// Makes docs/live-page.png: the live page with the sample day and the swarm's clients. SECONDS: how long the figures
// run before; CLIENTS: how many there are.
//
//   FLOWCAST_BIN=… SWARM_BIN=… node tests/clients/live_page/picture.mjs

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { statSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ROOT } from "../support/orderflow.mjs";
import { Server } from "../support/server.mjs";
import { launch, LivePage } from "./browser.mjs";

const PICTURE = path.join(ROOT, "docs/live-page.png");
const MOST_BYTES = 150_000;
const SECONDS = Number(process.env.SECONDS ?? 150);
const CLIENTS = Number(process.env.CLIENTS ?? 1000);

const server = await Server.start({ directory: path.join(ROOT, "data") }, { WS_STREAM_INTERVAL: "200ms" });
const { groups } = await (await fetch(`${server.url}/live/options`)).json();
const swarm = spawn(process.env.SWARM_BIN ?? path.join(ROOT, "target/debug/swarm"), [
  ...["--url", server.url, "--connections", `${CLIENTS}`, "--duration", `${SECONDS + 30}s`, "--groups-per-connection", "3"],
  ...["--groups", groups.filter((name) => !name.endsWith("_spot")).join(), "--protocols", "json.reliable,protobuf,json,protobuf.reliable"],
], { stdio: "ignore" });
const browser = await launch();
try {
  const live = await LivePage.open(browser, `${server.url}/`, { colorScheme: "light", viewport: { width: 1280, height: 960 } });
  await live.untilText("#clock", /\d/);
  await sleep(SECONDS * 1000);
  await live.page.screenshot({ path: PICTURE });
  await live.close();
} finally {
  await browser.close();
  swarm.kill();
  await server.stop();
}
const { size } = statSync(PICTURE);
assert.ok(size < MOST_BYTES, `${PICTURE} has ${size} bytes, of at most ${MOST_BYTES}`);
console.log(`${PICTURE}: ${size} bytes`);
