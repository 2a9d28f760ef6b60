// The live page (src/server/http/live/page.html) in a real browser, against the real server.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { WebPubSubJsonProtocol } from "@azure/web-pubsub-client";
import { WebSocket } from "ws";
import { jwt, SECRET } from "../streams/publishing.mjs";
import { Dataset, decoded, groupOf } from "../support/orderflow.mjs";
import { Server } from "../support/server.mjs";
import { withSubscriber } from "../support/subscriber.mjs";
import { waitUntil } from "../support/waiting.mjs";
import { launch, LivePage, skip } from "./browser.mjs";

const RECORDS = 600;
const GROUP = groupOf("SPX");
const CONTROL = { FLOWCAST_CONTROL_TOKEN: "the-control-token" };
/** A name that is markup and turns the direction of writing. */
const HOSTILE = `<script>document.title="owned"</script><img/src=x/onerror=alert(1)>\u202e\u2066gpj.exe`;
/** As long as a group's name may be. */
const LONG = `blue_${"W".repeat(998)}_orderflow_orderflow`;

/** With what tests/clients/setup.sh has installed. */
const PYTHON = path.join(process.env.FLOWCAST_TEST_ENV ?? path.resolve(import.meta.dirname, "../../../target/test-env"), "bin/python");

const folder = mkdtempSync(path.join(tmpdir(), "flowcast-live-"));
const dataset = new Dataset(folder, { SPX: RECORDS, SPY: 7 });
let browser;
let server;

const replay = async (of = server) => (await fetch(`${of.url}/replay`)).json();
const patch = async (body, of = server) => {
  const answer = await fetch(`${of.url}/replay`, { method: "PATCH", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  assert.equal(answer.status, 200, await answer.text());
};
const untilReplay = (test, what) => waitUntil(async () => test(await replay()), what);

/** A client of the JSON wire that joins these groups, with any User-Agent. */
async function client(groups, agent = "test", key = "some-key") {
  const headers = { "User-Agent": Buffer.from(agent).toString("latin1") };
  const socket = new WebSocket(await server.websocketUrl("2026-04", key), "json.webpubsub.azure.v1", { headers });
  const [connected] = await once(socket, "message");
  for (const [at, group] of groups.entries()) {
    socket.send(JSON.stringify({ type: "joinGroup", group, ackId: at + 1 }));
    const [ack] = await once(socket, "message");
    assert.ok(JSON.parse(ack).success, String(ack));
  }
  return { socket, id: JSON.parse(connected).connectionId };
}

/** A program that was pasted, and what it has printed. */
function pasted(program, args) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const printed = { text: "", end: () => child.kill() };
  child.stdout.setEncoding("utf8").on("data", (text) => (printed.text += text));
  after(printed.end);
  return printed;
}

before(async () => {
  if (skip) return;
  browser = await launch();
  server = await Server.start(dataset, { FLOWCAST_SPEED: "1", WS_AUTH_SECRET: SECRET });
});

after(async () => {
  await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true });
});

/** Runs `body` with a tab, and says that nothing was wrong with it. */
async function withPage(body, url = server.url, options = {}) {
  const live = await LivePage.open(browser, `${url}/`, options);
  try {
    await body(live, live.page);
  } finally {
    await live.close(options.expected);
  }
}

describe("the file", { skip }, () => {
  test("has at most 60 KB, fetches nothing from elsewhere, and may run nothing but itself", async () => {
    await withPage(async (live, page) => {
      const body = await live.response.body();
      assert.ok(body.length <= 60 * 1024, `${body.length} bytes`);
      const policy = live.response.headers()["content-security-policy"];
      assert.match(policy, /script-src 'sha256-/);
      assert.doesNotMatch(policy, /unsafe|\*/);
      const asked = await page.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => name));
      assert.ok(asked.length > 0 && asked.every((url) => url.startsWith(server.url)), asked.join("\n"));
    });
  });

  test("names every control, and no two parts alike", async () => {
    await withPage(async (live, page) => {
      await client([GROUP]);
      await live.untilRow("connections", ([, user]) => user.startsWith("some"), "a connection");
      const nameless = await page.evaluate(() => {
        const nameOf = (control) => control.ariaLabel || control.labels?.[0]?.textContent || control.textContent;
        return [...document.querySelectorAll("button, select, input, textarea, a")].filter((control) => !nameOf(control).trim()).map((control) => control.outerHTML);
      });
      assert.deepEqual(nameless, []);
      const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map(({ id }) => id));
      assert.equal(new Set(ids).size, ids.length);
      // What the browser tells a screen reader.
      const tree = await page.locator("body").ariaSnapshot();
      assert.doesNotMatch(tree, /^\s*- (button|combobox|textbox|slider|checkbox)(:| \[|$)/m);
    });
  });

  test("can be used with the keyboard alone: every panel and control is reached, and the focus is seen", async () => {
    const { socket } = await client([GROUP], "to-be-reached");
    await withPage(async (live, page) => {
      await live.untilRow("connections", (cells) => cells.includes("to-be-reached"), "a connection");
      await live.untilText("#clock", /\d/);
      const focusable = "a[href], button:not(:disabled), select:not(:disabled), input:not(:disabled), textarea:not(:disabled), [tabindex='0']";
      await page.evaluate((selector) => {
        window.unreached = () => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.reached);
      }, focusable);
      const unseen = new Set();
      for (let presses = 0; presses < 400 && (await page.evaluate(() => window.unreached().length)) > 0; presses += 1) {
        await page.keyboard.press("Tab");
        const ring = await page.evaluate(() => {
          const { activeElement: one } = document;
          one.reached = true;
          return getComputedStyle(one).outlineStyle === "none" && one !== document.body ? one.outerHTML.slice(0, 80) : "";
        });
        if (ring) unseen.add(ring);
      }
      assert.deepEqual(await page.evaluate(() => window.unreached().map((one) => one.outerHTML.slice(0, 80))), []);
      assert.deepEqual([...unseen], []);
    });
    socket.terminate();
  });

  test("has enough contrast in light and dark, and moves nothing", async () => {
    for (const colorScheme of ["light", "dark"]) {
      await withPage(async (live, page) => {
        await live.untilText("#clock", /\d/);
        const faint = await page.evaluate(() => {
          const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          /** What is seen of colours on top of each other. */
          const seenOf = (colours) => {
            for (const colour of colours) {
              canvas.fillStyle = colour;
              canvas.fillRect(0, 0, 1, 1);
            }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const luminance = (colour) => {
            const [r, g, b] = colour.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const grounds = (element) => (element ? [...grounds(element.parentElement), getComputedStyle(element).backgroundColor] : ["white"]);
          const poor = new Map();
          const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (texts.nextNode()) {
            const element = texts.currentNode.parentElement;
            if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest(":disabled, .unseen, script")) continue;
            const under = grounds(element);
            const [one, other] = [seenOf(under), seenOf([...under, getComputedStyle(element).color])].map(luminance).sort((a, b) => b - a);
            const ratio = (one + 0.05) / (other + 0.05);
            if (ratio < 4.5) poor.set(element.outerHTML.slice(0, 80), ratio);
          }
          return [...poor];
        });
        assert.deepEqual(faint, []);
        const moving = await page.evaluate(() => [...document.querySelectorAll("*")].map((one) => getComputedStyle(one)).filter(({ animationName: name, transitionDuration: duration }) => name !== "none" || duration !== "0s").length);
        assert.equal(moving, 0);
      }, server.url, { colorScheme, reducedMotion: "reduce" });
    }
  });

  test("tells a screen reader only what is new", async () => {
    const { socket } = await client([GROUP, `blue_NOPE_orderflow_orderflow`]);
    await withPage(async (live, page) => {
      await live.untilText("#alarm", /no data/);
      await page.selectOption("#hub", "orderflow");
      await page.selectOption("#ticker", "SPX");
      await page.click("#tail-start");
      await live.untilText("#tail-count", /received/);
      const said = await page.evaluate(async () => {
        const heard = [];
        for (const region of document.querySelectorAll("[role=status], [role=alert], [aria-live=polite]")) {
          let last = region.textContent;
          const observer = new MutationObserver(() => {
            // A problem may begin or end meanwhile, and is told once.
            if (region.id !== "alarm" || region.textContent === last) heard.push(region.textContent);
            last = region.textContent;
          });
          observer.observe(region, { childList: true, characterData: true, subtree: true });
        }
        const before = tail.got;
        while (tail.got < before + 3) await new Promise((resolve) => setTimeout(resolve, 100));
        return heard;
      });
      assert.deepEqual(said, []);
    });
    socket.terminate();
  });

  test("fits a phone, in light and dark", async () => {
    for (const colorScheme of ["light", "dark"]) {
      const grounds = new Set();
      await withPage(async (live, page) => {
        await live.untilText("#clock", /\d/);
        assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0);
        grounds.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      }, server.url, { viewport: { width: 390, height: 844 }, colorScheme });
      assert.equal(grounds.size, 1);
    }
  });
});

describe("the replay", { skip }, () => {
  test("is paused, stepped, sought, sped up and played by the buttons and by the keyboard", async () => {
    await withPage(async (live, page) => {
      await live.untilText("#replay-state", /playing/);
      await page.click("#play");
      await untilReplay(({ state }) => state === "paused", "the pause");
      await live.untilText("#replay-state", /paused/);

      await page.locator("#seek").fill("300");
      await untilReplay(({ data_time: at }) => at === "2025-11-28T14:35:00Z", "the seek");
      await live.untilText("#clock", /^09:35:00$/);
      const { tick } = await replay();
      await page.click("#step-on");
      await untilReplay((now) => now.tick === tick + 1 && now.state === "paused", "the step");
      await page.locator("main").click({ position: { x: 2, y: 2 } });
      await page.keyboard.press("s");
      await untilReplay((now) => now.tick === tick + 2, "the step by key");
      const { data_time: before } = await replay();
      await page.keyboard.press("ArrowLeft");
      await untilReplay((now) => now.data_time < before, "the step back");

      await page.selectOption("#speed", "10");
      await untilReplay(({ speed }) => speed === 10, "the speed");
      await page.fill("#pause-at", "9:36:00");
      await page.click("#pause-set");
      await untilReplay(({ pause_at: at }) => at === "2025-11-28T14:36:00Z", "where to pause");
      await page.uncheck("#loop");
      await untilReplay((now) => now.loop === false, "no loop");
      await page.locator("main").click({ position: { x: 2, y: 2 } });
      await page.keyboard.press(" ");
      await untilReplay(({ state }) => state === "playing", "to play by key");
      await untilReplay(({ state, data_time: at }) => state === "paused" && at >= "2025-11-28T14:35:59Z", "to pause there");
      await page.keyboard.press("?");
      await live.untilText("#help-dialog", /one step back/);
      await page.keyboard.press("Escape");
    });
    await patch({ seek: "0%", speed: 1, loop: true, pause_at: null, state: "playing" });
  });

  test("is followed by the slider again once that was dragged away and back", async () => {
    await withPage(async (live, page) => {
      await live.untilText("#replay-state", /playing|paused/);
      await patch({ seek: "0%", state: "paused" });
      const seek = page.locator("#seek");
      await waitUntil(async () => (await seek.inputValue()) === "0", "the first record");
      // What a browser tells of such a drag: no change.
      await seek.evaluate((slider) => {
        for (const value of ["300", "0"]) {
          slider.value = value;
          slider.dispatchEvent(new Event("input", { bubbles: true }));
        }
        slider.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
      });
      await patch({ seek: "50%" });
      await waitUntil(async () => (await seek.inputValue()) !== "0", "the slider to follow");
    });
    await patch({ seek: "0%", state: "playing" });
  });

  test("needs the control token where the server wants it, keeps it for the tab, and shows it to nobody", async () => {
    const guarded = await Server.start(dataset, CONTROL);
    const asked = [];
    try {
      await withPage(async (live, page) => {
        page.on("request", (request) => asked.push(request.url()));
        await live.untilText("#replay-hint", /give the control token/);
        assert.ok(await page.isDisabled("#play"));
        await page.click("#token-open");
        await page.fill("#token", "a wrong one");
        await page.keyboard.press("Enter");
        await live.untilText("#token-error", /wrong token/);
        assert.ok(await page.isDisabled("#play"));
        await page.fill("#token", CONTROL.FLOWCAST_CONTROL_TOKEN);
        await page.keyboard.press("Enter");
        await waitUntil(() => page.isEnabled("#play"), "the controls");
        await page.click("#play");
        await waitUntil(async () => (await replay(guarded)).state === "paused", "the pause");
        await page.reload();
        await waitUntil(() => page.isEnabled("#play"), "the controls after a reload");
        assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
      }, guarded.url, { expected: /status of 401/ });
      assert.ok(asked.every((url) => !url.includes("token")), "a token in a URL");
    } finally {
      await guarded.stop();
    }
  });
});

describe("a session's clock", { skip }, () => {
  test("is chosen and steered, and the common one goes on", async () => {
    const answer = await (await fetch(`${server.url}/v2/negotiate?key=any&session=lab`)).json();
    const socket = new WebSocket(answer.websocket_urls.orderflow, "json.webpubsub.azure.v1");
    await once(socket, "open");
    await withPage(async (live, page) => {
      await page.waitForSelector("#whose-field:visible");
      await page.selectOption("#whose", "lab");
      await waitUntil(async () => (await page.isDisabled("#date")) && (await page.isEnabled("#play")), "the session's clock");
      await page.click("#play");
      await live.untilText("#replay-state", /paused/);
      assert.equal((await (await fetch(`${server.url}/replay/sessions/lab`)).json()).state, "paused");
      assert.equal((await replay()).state, "playing");
      await fetch(`${server.url}/replay/sessions/lab`, { method: "DELETE" });
      await live.untilText("#note", /Session lab has ended/);
      await live.untilText("#replay-state", /playing/);
    }, server.url, { expected: /status of 404/ });
    socket.terminate();
  });
});

describe("the last minutes", { skip }, () => {
  test("are shown though the page was not open, and a problem links to its row of the runbook", async () => {
    const { socket } = await client(["blue_NOPE_orderflow_orderflow"]);
    await waitUntil(async () => (await (await fetch(`${server.url}/live/history`)).json()).rows > 5, "some seconds");
    await withPage(async (live, page) => {
      await waitUntil(() => page.evaluate(() => gauges.every(({ points }) => points.length > 5)), "the history");
      const href = await page.locator("#problems a").first().getAttribute("href");
      const [path, fragment] = href.split("#:~:text=");
      const runbook = await (await fetch(`${server.url}/${path}`)).text();
      assert.ok(runbook.includes(decodeURIComponent(fragment)), href);
    });
    socket.terminate();
  });
});

describe("the clients", { skip }, () => {
  test("are listed, and one that is closed from the page is told why, and appears among the closed within 2 s", async () => {
    const { socket, id } = await client([GROUP], "slow-consumer/1.0");
    await withPage(async (live, page) => {
      await live.untilRow("connections", (cells) => cells.includes("slow-consumer/1.0"), "the client");
      await page.click(`[aria-label$="${id}"]`);
      await live.untilText("#connection-groups", new RegExp(GROUP));
      await page.fill("#close-code", "4001");
      await page.fill("#close-reason", "please come back later");
      const closing = once(socket, "close");
      await page.click("#connection-form .main");
      const [code, reason] = await closing;
      assert.deepEqual([code, reason.toString()], [4001, "please come back later"]);
      await live.untilRow("closed", (cells) => cells.includes("please come back later"), "the closed client");
      // On the server's clock, so that a slow browser proves nothing.
      const late = await page.evaluate(() => state.now - Math.max(...Object.values(state.closed.recent).map(({ at }) => at)));
      assert.ok(late <= 2000, `${late} ms`);
      await live.untilText("#closed-bars", /operator/);
    });
  });

  test("and groups may have hostile names, which are shown as text and break nothing", async () => {
    const { socket } = await client([`blue_${HOSTILE}_orderflow_orderflow`, LONG], HOSTILE + "W".repeat(1024), "<b>key");
    const stream = new WebSocket(`${server.url.replace("http", "ws")}/ws?client_id=${encodeURIComponent(HOSTILE)}&token=${jwt({ sub: HOSTILE })}`);
    await once(stream, "open");
    await withPage(async (live, page) => {
      await live.untilRow("connections", (cells) => cells.some((text) => text.startsWith("<script>document")), "the User-Agent");
      await live.untilRow("connections", ([, user]) => user.startsWith("<scr"), "the client of the streams");
      await live.untilRow("groups", ([name]) => name.includes("<script>"), "the group");
      await live.untilRow("groups", ([name]) => name.startsWith(LONG.slice(0, 100)), "the long group");
      await page.fill("#groups input[type=search]", "<SCRIPT>");
      await waitUntil(async () => (await live.rows("groups")).length === 1, "the filter");
      assert.equal(await page.locator("main img, main script, main b b").count(), 0);
      assert.equal(await page.title(), "flowcast");
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0);
      // The text behind the name keeps its direction and its place.
      const directions = await page.locator("#groups tbody bdi").evaluateAll((names) => names.map((name) => getComputedStyle(name).unicodeBidi));
      assert.deepEqual(directions, ["isolate"]);
    });
    socket.terminate();
    stream.terminate();
  });
});

describe("a plan of faults", { skip }, () => {
  test("is begun and ended from the page, which says whom it struck", async () => {
    const { socket } = await client([GROUP], "to-be-struck");
    await withPage(async (live, page) => {
      await live.untilText("#faults .head", /no plan/);
      const plan = { fault: [{ at: 0, who: { group: GROUP }, do: "close", code: 4002, reason: "a bad day" }] };
      await page.fill("#faults-plan", JSON.stringify(plan));
      const closing = once(socket, "close");
      await page.click("#faults-form .main");
      const [code, reason] = await closing;
      assert.deepEqual([code, reason.toString()], [4002, "a bad day"]);
      await live.untilText("#faults .head", /plan 1/);
      await live.untilRow("faults", ([fault, , , struck]) => fault.includes("a bad day") && Number(struck) >= 1, "the fault");
      await page.fill("#faults-plan", '{"fault":[{"do":"nonsense"}]}');
      await page.click("#faults-form .main");
      await live.untilText("#note", /fault 1/);
      await page.click("#faults-off");
      await live.untilText("#faults .head", /no plan/);
    }, server.url, { expected: /status of 400/ });
  });
});

describe("the messages", { skip }, () => {
  test("are those that another client receives, decoded, with the name and the lines to paste", async () => {
    await patch({ state: "paused" });
    await withPage(async (live, page) => {
      await waitUntil(async () => (await page.locator("#ticker option").count()) === 2, "the tickers");
      await page.selectOption("#hub", "orderflow");
      await page.selectOption("#ticker", "SPX");
      await live.untilText("#names", new RegExp(`${GROUP}.*SPX_orderflow_orderflow`));
      const lines = {};
      for (const name of await page.locator("#snippets option").allInnerTexts()) {
        await page.selectOption("#snippets", name);
        lines[name] = await live.textOf("#snippet");
      }
      assert.deepEqual(Object.keys(lines), ["curl", "Python SDK", "JavaScript SDK", "k6", "flowcast tail", "swarm"]);
      for (const text of Object.values(lines)) assert.match(text, /SPX/);

      await page.click("#tail-start");
      await live.untilText("#tail-state", /listening/);
      await withSubscriber(await server.websocketUrl(), WebPubSubJsonProtocol(), {}, async (subscriber) => {
        await subscriber.client.joinGroup(GROUP);
        for (let ticks = 1; ticks <= 3; ticks += 1) {
          await patch({ step: 1 });
          await subscriber.waitFor(ticks, GROUP);
        }
        await waitUntil(async () => (await page.locator("#tail summary").count()) === 3, "three messages");
        const shown = async () => (await page.locator("#tail summary bdi").allInnerTexts()).map((text) => text.startsWith("{") && JSON.parse(text));
        await waitUntil(async () => (await shown()).every(Boolean), "all to be decoded");
        const theirs = subscriber.messages(GROUP).map(({ data }) => decoded(data));
        const mine = await shown();
        assert.deepEqual(mine.map(({ timestamp }) => timestamp), theirs.map(({ timestamp }) => timestamp));
        for (const [at, { spot }] of mine.entries()) assert.equal(Math.trunc(Math.round((spot ?? 0) * 1e6) / 1e4), theirs[at].spot);

        await page.click("#tail-pause");
        await patch({ step: 1 });
        await live.untilText("#tail-state", /^paused$/);
        await live.untilText("#tail-count", /4 received, 1 not shown/);
        await page.click("#tail-clear");
        assert.equal(await page.locator("#tail summary").count(), 0);
      });
      await page.click("#tail-start");
      await live.untilText("#tail-start", /Listen/);
    });
    await patch({ state: "playing" });
  });

  test("of a stream come too, also to the pasted lines, and one can be published from the page", async () => {
    await withPage(async (live, page) => {
      await waitUntil(async () => (await page.locator("#channel option").count()) > 4, "the channels");
      await page.selectOption("#kind", "a JSON stream");
      await page.selectOption("#channel", "lines");
      const lines = {};
      for (const name of await page.locator("#snippets option").allInnerTexts()) {
        await page.selectOption("#snippets", name);
        lines[name] = await live.textOf("#snippet");
      }
      assert.deepEqual(Object.keys(lines), ["curl", "Python", "JavaScript", "k6", "swarm"]);
      for (const text of Object.values(lines)) assert.match(text, /lines/);
      const printed = pasted(PYTHON, ["-u", "-c", lines.Python.replace("TOKEN", jwt({ sub: "page" }))]);
      await waitUntil(() => /"subscribed"/.test(printed.text), "the pasted lines to subscribe");
      await page.fill("#jwt", jwt({ sub: "page" }));
      await page.click("#tail-start");
      await live.untilText("#tail-state", /listening/);
      await page.fill("#publish-to", "lines");
      await page.fill("#publish-data", '{"text":"<i>from the page</i>"}');
      await page.click("#publish .main");
      await live.untilText("#note", /Published/);
      await live.untilText("#tail", /<i>from the page<\/i>/);
      await waitUntil(() => printed.text.includes("<i>from the page</i>"), "the pasted lines to print it");
      printed.end();
      await page.fill("#tail-filter", "nothing like it");
      assert.equal(await page.locator("#tail summary:visible").count(), 0);
      await page.fill("#publish-data", "{");
      await page.click("#publish .main");
      await live.untilText("#note", /Expected JSON/);
    });
  });
});

describe("the report", { skip }, () => {
  test("opens offline, runs nothing, and has hostile names as text", async () => {
    const { socket } = await client([GROUP], HOSTILE);
    await withPage(async (live, page) => {
      await live.untilRow("connections", (cells) => cells.some((text) => text.startsWith("<script>document")), "the User-Agent");
      await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
      await page.click("#copy-report");
      await live.untilText("#note", /Copied/);
      const markdown = await page.evaluate(() => navigator.clipboard.readText());
      assert.match(markdown, /^## flowcast\n/);
      assert.match(markdown, /### Server\n\n\| what \| value \|\n\| --- \| --- \|\n/);
      assert.match(markdown, /### Connections/);
      assert.match(markdown, /\| speed \| 1 \| environment \|/);
      assert.match(markdown, /auth-secret \| ` \*\*\* ` \| environment/);
      assert.ok(!markdown.includes(SECRET));
      // Outside of code there is no markup, and nothing that turns the direction of writing anywhere.
      assert.doesNotMatch(markdown.replace(/(`+)[^\n]*?\1/g, ""), /</);
      assert.doesNotMatch(markdown, /[\u202a-\u202e\u2066-\u2069]/);
      assert.match(markdown, /\\u\{202e\}/);

      const saving = page.waitForEvent("download");
      await page.click("#save-report");
      const file = path.join(folder, "report.html");
      await (await saving).saveAs(file);
      const offline = await browser.newContext({ offline: true });
      const complaints = [];
      const report = await offline.newPage();
      report.on("console", (message) => complaints.push(message.text()));
      report.on("request", (request) => request.url().startsWith("file:") || complaints.push(request.url()));
      await report.goto(pathToFileURL(file).href);
      assert.match(await report.locator("body").innerText(), /<script>document/);
      assert.equal(await report.locator("script, img").count(), 0);
      assert.equal(await report.title(), "flowcast");
      assert.deepEqual(complaints, []);
      // The settings name the address to listen on, with port 0; no client and no page is named by its own.
      assert.doesNotMatch(readFileSync(file, "utf8"), /some-key|127\.0\.0\.1:[1-9]/);
      await offline.close();
    });
    socket.terminate();
  });
});

describe("the server", { skip }, () => {
  test("that restarts is found again, and the page says so", async () => {
    let other = await Server.start(dataset);
    const { port } = other;
    await withPage(async (live, page) => {
      await other.kill();
      await live.untilText("#link", /no answer from the server/);
      other = await Server.start(dataset, { WS_BIND_ADDRESS: `127.0.0.1:${port}` });
      await live.untilText("#link", /^live$/);
      await live.untilText("#note", /restarted/);
      await page.click("#play");
      await waitUntil(async () => (await replay(other)).state === "paused", "the pause");
    }, other.url, { expected: /Failed to load resource|ERR_/ });
    await other.stop();
  });

  test("that replays nothing and has no streams gets no panels for them", async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.route("**/live/options", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...(await response.json()), replay: false, control: "off", channels: [], hubs: [] } });
    });
    const asked = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    await page.goto(`${server.url}/`);
    await page.waitForFunction(() => about);
    await waitUntil(async () => (await page.locator("nav a").allInnerTexts()).join() === "Flow,Groups,Connections,Closed,Sources,Report", "the other panels");
    for (const panel of ["replay", "messages", "publish", "faults"]) assert.ok(await page.isHidden(`#${panel}`), panel);
    assert.deepEqual(asked.filter((asking) => /replay|faults/.test(asking)), []);
    await context.close();
  });

  test("lets no page of a foreign origin read its events or steer it", async () => {
    const foreign = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<title>foreign</title>"));
    foreign.listen(0, "127.0.0.1");
    await once(foreign, "listening");
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`http://127.0.0.1:${foreign.address().port}/`);
    const before = await replay();
    const outcome = await page.evaluate(async (url) => {
      const events = await new Promise((resolve) => {
        const source = new EventSource(`${url}/live/events`);
        source.addEventListener("snapshot", () => resolve("read"));
        source.onerror = () => resolve("refused");
      });
      const tries = [
        ["GET", "/live/events"], ["GET", "/live/options"], ["PATCH", "/replay", "application/json"], ["POST", "/replay", "text/plain"], ["POST", "/replay", "application/json"],
        ["POST", "/live/publish", "text/plain"], ["POST", "/live/decode", "text/plain"], ["DELETE", "/faults"],
      ];
      const fetched = await Promise.all(tries.map(([method, path, type]) =>
        fetch(url + path, { method, headers: type && { "Content-Type": type }, body: type && '{"state":"paused","channel":"lines","data":1}' }).then((answer) => `${method} ${path}: ${answer.status}`, () => "refused")));
      const frame = document.createElement("iframe");
      frame.src = url;
      document.body.append(frame);
      await new Promise((resolve) => (frame.onload = resolve));
      return { events, fetched, isFramed: frame.contentDocument !== null };
    }, server.url);
    assert.equal(outcome.events, "refused");
    assert.deepEqual(outcome.fetched.filter((answer) => /: 2/.test(answer)), []);
    assert.equal((await replay()).state, before.state);
    await context.close();
    foreign.close();
    foreign.closeAllConnections();
  });
});
