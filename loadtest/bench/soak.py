#!/usr/bin/env python3
"""A long day: thousands of clients that come and go, ordered faults and a seek a minute, and nothing may be lost or grow.

    cargo build --release --workspace --bins
    python3 loadtest/bench/soak.py --hours 1
    python3 loadtest/bench/soak.py --minutes 6 --clients 400      # a rehearsal

Four kinds of clients share a server that plays a record a second:

struck    more than half of them, all four subprotocols on two hubs; the plan of faults strikes some at a time, and a
          tenth come and go. The swarm proves that exactly what was ordered happened, and that no connection ended without
          an order (`swarm --faults expected`).
streams   a fifth, the same on /ws, with resumption.
well      a fifth, whom no fault selects: they must get everything on the connection that they began with.
visitors  the rest: groups of new clients that connect, join, stay half a minute and leave, one group after the other. No
          fault selects them.

The run is good (exit code 0) if every swarm says so, if the memory of the server in the last part of the run is not more
than 2 % above what it was after the warm-up (medians; runs of less than half an hour are not judged by it), and if at the end,
when everybody has left, the server's own figures are back at nothing. Other work on the machine makes nothing fail: no latency is claimed.
"""

import argparse
import contextlib
import json
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import servers
from meter import Sampler, cpu_s, resident_bytes

HUB_WIRES = "json,json.reliable,protobuf,protobuf.reliable"
GROUPS = "classic/gex_full,orderflow/*"
PARTS, WARM_PARTS = 6, 2
"""The run is looked at in so many parts; the first ones are the warm-up."""
GROWTH = 0.02
SHORTEST_S = 1800
"""The warm-up of a shorter run says nothing about memory."""
VISIT_S = 30
SEEK_S = 60
SAMPLE_S = 1.0
SETTLE_S = 120
TOLD_EVERY = 60
"""Samples between two lines about how it goes."""
GRACE_S = 180
# What the server remembers is full long before the warm-up ends, and whoever reads late still finds it. A swarm that other
# work on the machine keeps from its processor for a minute is not thrown out.
SETTINGS = (
    "--interval", "1s", "--shards", "2", "--ledger-publications", "2048", "--recovery-frames", "256",
    "--client-buffer", "256", "--history-age", "60s", "--pong-timeout-seconds", "180", "--websocket-ping-interval", "120",
)  # fmt: skip
# Whom faults select. The hubs know clients by their key, which a swarm chooses; /ws by their client_id, `swarm-N`.
STRUCK_KEY, STRUCK = "struck", "s*-*"
FAULTS = {
    "drop": {}, "duplicate": {}, "reorder": {}, "corrupt": {}, "truncate": {}, "split": {},
    "delay": {"by": "700ms", "jitter": "300ms"}, "reset": {}, "close": {"code": 1011}, "reset-mid-frame": {},
    "stall": {"for": "3s"}, "ping-flood": {"count": 50}, "late-ack": {"by": "500ms", "for": 5}, "no-ack": {"times": 1},
    "refuse-negotiate": {"status": 429, "for": 5}, "refuse-upgrade": {"status": 503, "for": 5},
    "refuse-recovery": {"for": 5},
}  # fmt: skip
EVERY, APART = 120, 6
# What must be back at nothing when everybody has left; the one HTTP connection is that of the question.
EMPTY = ("connections", "stream_connections", "subscribers", "sessions_detached", "fault_held_bytes", "hub_connections", "held_bytes")
# What must be nothing all the time.
NEVER = ("fault_ticks_missed_total", "held_refused_total", "http_connections_dropped_total", "bad_input_total")
# Endings of connections that this run has no reason for.
UNEXPECTED = ("protocol", "unfinished", "lag", "replies", "pong_timeout", "write_timeout", "errors", "operator", "token_expired")


def tell(line):
    """How it goes, for those who wait."""
    print(line, file=sys.stderr, flush=True)


def plan():
    """Every kind of fault in turn, for a few of the selected clients each."""
    who = {"key": STRUCK, "share": 0.02}
    faults = [{"at": 10 + APART * at, "every": EVERY, "who": who, "do": kind, **takes} for at, (kind, takes) in enumerate(FAULTS.items())]
    silent = {"at": 7, "every": EVERY, "for": 2, "who": who | {"group": "*SPX*"}, "do": "silence"}
    return {"seed": 15, "fault": [*faults, silent]}


def ask(server, method, path, body):
    """A request with JSON; returns the JSON of the answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}{path}", json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def figures(server):
    """All metrics: name -> labels -> value."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    told = {}
    for name, labels, value in re.findall(r"^flowcast_(\w+?)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        told.setdefault(name, {})[labels] = float(value)
    return told


def total(told, name):
    """The sum over all labels."""
    return sum(told[name].values())


@dataclass
class Crowd:
    """One swarm, and what it said."""

    name: str
    command: list
    report: Path
    process: subprocess.Popen = None
    told: dict = field(default_factory=dict)
    output: str = ""

    def start(self, cores):
        """Begins it; its output goes to a file, so that no pipe fills."""
        with self.report.with_suffix(".txt").open("wb") as file:
            self.process = subprocess.Popen(servers.pinned(cores, self.command), stdout=file, stderr=file)

    def wait(self, seconds):
        """Waits for its end and reads what it proved."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output = self.report.with_suffix(".txt").read_text(errors="replace")
        with contextlib.suppress(OSError, ValueError):
            self.told = json.loads(self.report.read_text())

    def problems(self):
        """What is wrong with it; empty if it has proven its clients' delivery."""
        if not self.told:
            return [f"{self.name}: the swarm ended with {self.process.returncode}: {self.output[-500:]}"]
        summary, facts = self.told["summary"], self.told["facts"]
        if summary["delivery"] == "proven" and self.process.returncode == 0:
            return []
        orders = (facts.get("orders") or {}).get("problems", [])
        return [f"{self.name}: {reason}" for reason in [*summary["reasons"], *orders[:20]] or [self.output[-500:]]]


def swarm(name, asked, folder, seconds, clients, *more):
    """A swarm of that many clients, for that long."""
    report = Path(folder) / f"{name}.json"
    command = [
        servers.SWARM, "--url", asked.url, "--connections", str(clients), "--duration", f"{seconds}s", "--ramp", "200",
        "--setup-timeout", "60s", "--drain", "60s", "--workers", "1", "--processes", "1", "--quiet", "--json", str(report), *more,
    ]  # fmt: skip
    return Crowd(name, command, report)


def lasting(asked, folder):
    """The swarms that are there all the time."""
    hubs = ["--protocols", HUB_WIRES, "--groups", GROUPS, "--ledger", "require"]
    churn = ["--faults", "expected", "--reset", "10", "--reset-after", "60s"]
    streams = ["--protocols", "streams", "--channels", "lines", "--publish-rate", "1", "--resume", "--secret", asked.secret]
    seconds, clients = asked.seconds, asked.clients
    return [
        swarm("struck", asked, folder, seconds, clients * 11 // 20, *hubs, *churn, "--key", STRUCK_KEY),
        swarm("streams", asked, folder, seconds, clients // 5, *streams, *churn),
        swarm("well", asked, folder, seconds, clients // 5, *hubs, "--key", "well"),
    ]


class Visitors(threading.Thread):
    """Groups of clients that come, stay a while and go, until they are told to end."""

    def __init__(self, asked, folder):
        super().__init__(daemon=True)
        self.asked, self.folder = asked, folder
        self.visits, self.proven, self.problems = 0, 0, []
        self._over = threading.Event()

    def run(self):
        while not self._over.is_set():
            wires = HUB_WIRES if self.visits % 2 else "json,protobuf.reliable"
            how = ["--protocols", wires, "--groups", GROUPS, "--ledger", "require", "--key", "visitor"]
            crowd = swarm("visitors", self.asked, self.folder, VISIT_S, self.asked.clients // 20, *how)
            crowd.report.unlink(missing_ok=True)
            crowd.start(self.asked.cores)
            crowd.wait(VISIT_S + GRACE_S)
            self.visits += 1
            problems = [f"visit {self.visits}: {problem}" for problem in crowd.problems()]
            self.problems += problems
            for problem in problems:
                tell(problem)
            if crowd.told:
                self.proven += crowd.told["facts"]["verified"]

    def end(self):
        """Lets the last ones leave."""
        self._over.set()
        self.join()


class Seeker(Sampler):
    """Jumps to a random place of the day."""

    def __init__(self, server):
        super().__init__(SEEK_S)
        self.server, self.seeks, self.problems = server, 0, []
        self._random = random.Random(15)

    def sample(self):
        try:
            ask(self.server, "PATCH", "/replay", {"seek": f"{self._random.randrange(95)}%"})
            self.seeks += 1
        except (OSError, ValueError) as error:
            self.problems.append(f"a seek failed: {error!r}")


class Memory(Sampler):
    """Resident memory of the server over time."""

    def __init__(self, pid):
        super().__init__(SAMPLE_S)
        self.pid, self.samples = pid, []

    def sample(self):
        self.samples.append((time.monotonic(), resident_bytes(self.pid)))
        if len(self.samples) % TOLD_EVERY == 0:
            minutes, size = (self.samples[-1][0] - self.samples[0][0]) / 60, self.samples[-1][1]
            tell(f"{minutes:.0f} min: {size / (1 << 20):.1f} MiB")

    def medians(self, begin, end):
        """One for each part of the span."""
        length = (end - begin) / PARTS
        parts = [[] for _ in range(PARTS)]
        for at, size in self.samples:
            if begin <= at < end:
                parts[min(int((at - begin) / length), PARTS - 1)].append(size)
        return [median(part) for part in parts if part]


def left_alone(server):
    """Waits until nobody is left; returns the metrics then, or as they are after a while."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        told = figures(server)
        if not any(total(told, name) for name in EMPTY) or time.monotonic() > deadline:
            return told
        time.sleep(1)


def inconsistent(told):
    """What is wrong with the server's figures after the end."""
    problems = [f"{name} is {total(told, name):.0f} after everybody has left" for name in EMPTY if total(told, name)]
    problems += [f"{name} is {total(told, name):.0f}, not 0" for name in NEVER if total(told, name)]
    closed = told["connections_closed_total"]
    for reason in UNEXPECTED:
        if count := closed[f'reason="{reason}"']:
            problems.append(f"{count:.0f} connections were closed with the reason {reason}")
    opened, ended = total(told, "connections_opened_total"), total(told, "connections_closed_total")
    if opened != ended:
        problems.append(f"{opened:.0f} connections were opened and {ended:.0f} closed")
    if told["http_connections"][""] > 1:
        problems.append(f"{told['http_connections'][''] - 1:.0f} HTTP connections are left")
    return problems


def grown(medians):
    """The growth from the first part after the warm-up to the last one.

    >>> round(grown([80, 90, 100, 100, 100, 101]), 3), grown([1, 2])
    (0.01, 0.0)
    """
    return medians[-1] / medians[WARM_PARTS] - 1 if len(medians) > WARM_PARTS else 0.0


@dataclass
class Day:
    """Everything that came of it."""

    crowds: list
    visitors: Visitors
    seeks: int
    medians: list
    after: int
    told: dict
    server_cpu: float
    seconds: float
    problems: list


def soak(asked, folder):
    """The run."""
    command = [servers.FLOWCAST, "serve", "--port", "0", "--data-dir", str(folder / "data"), "--auth-secret", asked.secret, *SETTINGS]
    with servers.running(command, cores=asked.cores) as server:
        asked.url = server.url
        crowds, visitors, seeker, memory = lasting(asked, folder), Visitors(asked, folder), Seeker(server), Memory(server.pid)
        ask(server, "PUT", "/faults", plan())
        begin, used = time.monotonic(), cpu_s(server.pid)
        with seeker, memory:
            for crowd in crowds:
                crowd.start(asked.cores)
            visitors.start()
            for crowd in crowds:
                crowd.wait(begin + asked.seconds + GRACE_S - time.monotonic())
            end, used = time.monotonic(), cpu_s(server.pid) - used
            visitors.end()
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/faults", method="DELETE"), timeout=60).close()
        told = left_alone(server)
        after = resident_bytes(server.pid)
        log = [line for line in server.text().splitlines() if '"level":"ERROR"' in line or "panicked" in line]
    problems = [problem for crowd in crowds for problem in crowd.problems()]
    problems += visitors.problems + seeker.problems + inconsistent(told) + [f"log: {line[:300]}" for line in log[:10]]
    medians = memory.medians(begin, end)
    if asked.seconds >= SHORTEST_S and grown(medians) > GROWTH:
        problems.append(f"memory grew by {grown(medians):.1%} after the warm-up (limit {GROWTH:.0%})")
    return Day(crowds, visitors, seeker.seeks, medians, after, told, used / (end - begin), end - begin, problems)


def report(day, asked):
    """The run in Markdown."""
    mib = [f"{size / (1 << 20):.1f}" for size in day.medians]
    closed = {name: count for name, count in day.told["connections_closed_total"].items() if count}
    ordered = sum(total for total in day.told["faults_total"].values())
    lines = [
        f"# Soak: {'PASSED' if not day.problems else 'FAILED'}", "",
        f"{asked.clients:,} clients, {day.seconds / 60:.0f} minutes, {day.seeks} seeks, {ordered:,.0f} faults struck, "
        f"{total(day.told, 'connections_opened_total'):,.0f} connections opened, server {day.server_cpu:.1%} of a core.", "",
        "| clients | how many | copies proven | resets | recovered | connected anew | orders seen | verdict |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for crowd in day.crowds:
        facts = crowd.told.get("facts", {})
        kinds = (facts.get("orders") or {}).get("kinds", {}).values()
        seen = f"{sum(kind['seen'] for kind in kinds):,} of {sum(kind['ordered'] for kind in kinds):,}" if kinds else "–"
        cells = [f"{facts.get(name, 0):,}" for name in ("verified", "resets", "recovered", "reconnected")]
        clients = crowd.command[crowd.command.index("--connections") + 1]
        verdict = crowd.told.get("summary", {}).get("delivery", "no report")
        lines.append(f"| {crowd.name} | {clients} | {' | '.join(cells)} | {seen} | {verdict} |")
    visitors = "proven" if not day.visitors.problems else "failed"
    lines += [
        f"| visitors | {day.visitors.visits} × {asked.clients // 20} | {day.visitors.proven:,} | – | – | – | – | {visitors} |", "",
        f"Resident memory, medians of {PARTS} parts: {', '.join(mib)} MiB; growth after the warm-up {grown(day.medians):+.2%}; "
        f"{day.after / (1 << 20):.1f} MiB when all had left.",
        f"Ends of connections: {', '.join(f'{name.split(chr(34))[1]} {count:,.0f}' for name, count in closed.items())}.",
    ]  # fmt: skip
    if day.problems:
        lines += ["", *(f"- {problem}" for problem in day.problems[:50])]
    return "\n".join(lines) + "\n"


def arguments():
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hours", type=float, default=1.0, help="how long (%(default)s)")
    parser.add_argument("--minutes", type=float, help="the same in minutes")
    parser.add_argument("--clients", type=int, default=2000, help="how many (%(default)s)")
    parser.add_argument("--cores", default=f"0-{(os.cpu_count() or 1) - 1}", help="for server and swarms (%(default)s)")
    parser.add_argument("--report", type=Path, help="write the report there too")
    servers.add_programs(parser, "flowcast", "swarm")
    asked = parser.parse_args()
    asked.seconds = int(60 * asked.minutes if asked.minutes else 3600 * asked.hours)
    asked.secret = secrets.token_urlsafe(32)
    return asked


def main():
    """Makes the data, runs the day, says what came of it."""
    asked = arguments()
    servers.use(asked)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [servers.FLOWCAST, "generate", "--out", folder / "data", "--records", "600", "--tickers", "SPX,NDX",
                "--categories", "orderflow,classic/gex_full"]  # fmt: skip
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        day = soak(asked, folder)
        text = report(day, asked)
    print(text, end="", flush=True)
    if asked.report:
        asked.report.write_text(text)
    return 1 if day.problems else 0


if __name__ == "__main__":
    sys.exit(main())
