// The live page in Debian's Chromium, headless. tests/clients/chromium.sh finds or installs it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { waitUntil } from "../support/waiting.mjs";

const INSTALL = fileURLToPath(new URL("../chromium.sh", import.meta.url));

function findChromium() {
  try {
    return process.env.CHROMIUM_BIN || execFileSync("bash", [INSTALL], { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }).trim();
  } catch (error) {
    // CI's machine can install it, so there its absence is a fault.
    assert.ok(!process.env.CI, error.message);
    return undefined;
  }
}

const executablePath = findChromium();
/** Why there is no browser, or false. */
export const skip = executablePath ? false : "no Chromium, and none could be installed";

/** One browser for all tests of a file. */
export const launch = () => chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });

/** A tab that has heard of the server, with whatever its console complained of. */
export class LivePage {
  complaints = [];

  static async open(browser, url, options = {}) {
    const live = new LivePage();
    live.context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true, ...options });
    live.page = await live.context.newPage();
    live.page.on("pageerror", (error) => live.complaints.push(error.stack));
    live.page.on("console", (message) => message.type() === "error" && live.complaints.push(message.text()));
    live.response = await live.page.goto(url);
    await live.untilText("#link", /^live$/);
    return live;
  }

  textOf(selector) {
    return this.page.locator(selector).innerText();
  }

  untilText(selector, expected) {
    return waitUntil(async () => expected.test(await this.textOf(selector)), `${expected} in ${selector}`);
  }

  /** The rows of a panel's table, with the texts of their cells. */
  rows(panel) {
    return this.page.locator(`#${panel} tbody tr`).evaluateAll((lines) => lines.map((line) => [...line.cells].map((cell) => cell.textContent)));
  }

  async untilRow(panel, test, what) {
    return waitUntil(async () => (await this.rows(panel)).find(test), what);
  }

  /** Says that the console was quiet, and closes the tab. */
  async close(expected = /^$/) {
    const unexpected = this.complaints.filter((complaint) => !expected.test(complaint));
    await this.context.close();
    assert.deepEqual(unexpected, []);
  }
}
