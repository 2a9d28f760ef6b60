// The real server as a child process, and negotiation with it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { DATE } from "./orderflow.mjs";
import { waitUntil } from "./waiting.mjs";

export const BINARY = process.env.FLOWCAST_BIN ?? fileURLToPath(new URL("../../../target/debug/flowcast", import.meta.url));
const NEGOTIATION = { "2025-11": "/negotiate", "2026-04": "/v2/negotiate" };

export class Server {
  /** `flowcast serve` on a port of its own choice, once it serves; `environment` adds and replaces settings. */
  static async start(dataset, environment = {}) {
    assert.ok(existsSync(BINARY), `${BINARY} is not there: build it (make test-programs) or set FLOWCAST_BIN`);
    const server = new Server();
    server.process = spawn(BINARY, ["serve"], {
      cwd: dataset.directory,
      env: {
        PATH: process.env.PATH,
        WS_BIND_ADDRESS: "127.0.0.1:0",
        WS_STREAM_INTERVAL: "50ms",
        DATA_DIR: dataset.directory,
        DATA_DATE: DATE,
        ...environment,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    server.log = "";
    server.process.stderr.setEncoding("utf8").on("data", (text) => (server.log += text));
    server.exited = once(server.process, "exit");
    const lines = createInterface({ input: server.process.stdout });
    const line = await Promise.race([once(lines, "line").then(([text]) => text), server.exited.then(() => undefined)]);
    const match = /^flowcast listening on (http:\/\/127\.0\.0\.1:\d+)$/.exec(line);
    assert.ok(match, `the first line on stdout was ${line}\n${server.log}`);
    server.url = match[1];
    await waitUntil(async () => (await fetch(`${server.url}/healthz`)).status === 200, "/healthz to answer 200");
    return server;
  }

  get port() {
    return Number(new URL(this.url).port);
  }

  /** A hub's URL, as a client of that generation gets it. GET names current hubs only; its token is for all. */
  async websocketUrl(profile = "2026-04", key = "test-key", hub = "orderflow") {
    const response = await fetch(this.url + NEGOTIATION[profile], { headers: { Authorization: `Bearer ${key}` } });
    assert.equal(response.status, 200);
    const current = hub.replace(/^v2_/, "");
    return (await response.json()).websocket_urls[current].replace(`/${current}?`, `/${hub}?`);
  }

  /** Ends the server without a word, as a crash does. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.exited;
  }

  /** Asks the server to stop and returns its exit code. */
  async stop() {
    this.process.kill("SIGTERM");
    const [code] = await this.exited;
    return code;
  }
}
