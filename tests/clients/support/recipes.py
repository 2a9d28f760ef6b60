"""The recipes of docs/faults.md: plans of faults, and what a client made of each.

A client is watched from the outside: which records it was handed, whether it has a new connection, whether anything comes
at the end. What is seen is put into the words of the table in docs/faults.md.
"""

import pathlib
import re
import threading
import time
import tomllib

import requests

from support.orderflow import decoded, group_of
from support.server import Server

ROOT = pathlib.Path(__file__).resolve().parents[3]
PLANS = ROOT / "examples/faults"
PAGE = ROOT / "docs/faults.md"

# Of these plans everything happens before a client has its groups.
FROM_THE_START = {"rate-limited", "slow-start", "lost-acks", "late-acks"}
ENDINGS = {"reset", "reset-mid-frame", "close"}
# Which group is watched, and which is beside it.
WATCHED, BESIDE = "SPX", "SPY"
# How long nothing may come before a client counts as hanging: Azure's SDK for Python tries to recover for 30 s.
PATIENCE_S = 70
LATE_S = 22
# How long a join may wait for its answer.
ANSWER_S = 20


def recipes():
    """The names of all plans."""
    names = sorted(path.stem for path in PLANS.glob("*.toml"))
    assert len(names) >= 20, f"{PLANS} has {names}"
    return names


def told():
    """The table of docs/faults.md: what each client does, by recipe and the head of the column."""
    text = PAGE.read_text("utf-8").split("### What the clients do", 1)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    head, _, *body = rows
    return {re.sub(r"[`\[\]]|\(.*\)", "", row[0]): dict(zip(head[1:], row[1:], strict=True)) for row in body}


class Watched:
    """What a client was handed. Clients say `connected`, `handed` and `stopped`."""

    def __init__(self, dataset, key):
        self.dataset = dataset
        # What a plan draws depends on it: the same bit is flipped in every run.
        self.key = key
        self.connections = 0
        self.has_started = False
        self.has_stopped = False
        self.failure = None
        self.rows = []
        self.broken = 0

    def handed(self, group, data):
        if group == group_of(BESIDE):
            return
        try:
            assert group == group_of(WATCHED), group
            self.rows.append(self.dataset.row_of(WATCHED, decoded(data), "2026-04"))
        except Exception:  # whatever a consumer would stumble over
            self.broken += 1

    def wait_for_more(self, count, seconds):
        deadline = time.monotonic() + seconds
        wanted = len(self.rows) + count
        while len(self.rows) < wanted and time.monotonic() < deadline and not self.failure:
            time.sleep(0.02)
        return len(self.rows) >= wanted

    def in_words(self, plan, resumed_s):
        """What it did, as the table says it. `resumed_s`: when records came again after the plan; None: never."""
        if self.failure:
            return "does not start"
        if resumed_s is None:
            return "stops" if self.has_stopped else "hangs"
        # The SDK hands out neighbours in any order, so the last ones may still be on their way.
        rows = self.rows[:]
        seen = set(rows)
        lost = [row for row in range(min(rows), max(rows) - 8) if row not in seen]
        words = []
        if any(fault["do"] in ENDINGS for fault in plan["fault"]):
            words.append("recovers" if self.connections == 1 or not lost else "connects anew")
        if resumed_s > LATE_S:
            words.append("after half a minute")
        if not self.has_started:
            words.append("waits for an answer for ever")
        if self.broken:
            words.append("hands on what is broken")
        if lost:
            words.append("loses records")
        if len(rows) > len(seen):
            words.append("hands on both")
        return ", ".join(words) or "nothing lost"


def run(name, dataset, directory, kinds):
    """Plays a recipe to one client of each kind at once, and returns what each made of it, in words."""
    text = (PLANS / f"{name}.toml").read_text("utf-8")
    plan = tomllib.loads(text)
    with Server(dataset, directory) as server:
        put = lambda: requests.put(  # noqa: E731
            f"{server.url}/faults", text, headers={"Content-Type": "application/toml"}, timeout=10
        ).raise_for_status()
        if name in FROM_THE_START:
            put()
        clients = {
            kind: start(Watched(dataset, f"recipe-{number}"), server) for number, (kind, start) in enumerate(kinds.items())
        }
        try:
            for client in clients.values():
                client.watched.wait_for_more(5, PATIENCE_S)
            if name not in FROM_THE_START:
                put()
                wait_for_the_end(server, plan)
            began = time.monotonic()
            words = {}
            waiting = [
                threading.Thread(target=settle, args=(kind, client.watched, plan, began, words))
                for kind, client in clients.items()
            ]
            for thread in waiting:
                thread.start()
            for thread in waiting:
                thread.join()
            return words
        finally:
            for client in clients.values():
                client.close()


def settle(kind, watched, plan, began, words):
    resumed_s = time.monotonic() - began if watched.wait_for_more(15, PATIENCE_S) else None
    while not watched.has_started and not watched.failure and time.monotonic() - began < ANSWER_S:
        time.sleep(0.05)
    words[kind] = watched.in_words(plan, resumed_s)


def wait_for_the_end(server, plan):
    """Until the last fault has done its work."""
    last_ms = max(until_ms(fault) for fault in plan["fault"])
    while requests.get(f"{server.url}/faults", timeout=10).json()["elapsed_ms"] < last_ms:
        time.sleep(0.05)


def until_ms(fault):
    end = ms(fault["until"]) if "until" in fault else ms(fault["at"]) + ms(fault.get("for", 0))
    # And a little for what it leads to.
    return end + 800


def ms(moment):
    if isinstance(moment, int):
        return moment * 50
    number, unit = re.fullmatch(r"(\d+)(ms|s)", moment).groups()
    return int(number) * (1000 if unit == "s" else 1)
