// Waiting for something that another part of the program or another process does.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

/** The first true value of `condition()`. The deadline is only there to end a test that has failed. */
export async function waitUntil(condition, what, seconds = 30) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) {
      return value;
    }
    assert.ok(Date.now() < deadline, `waited ${seconds} s in vain for ${what}`);
    await sleep(5);
  }
}
