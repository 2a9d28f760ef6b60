#!/usr/bin/env python3
"""The clock under load: the goals W11 and W12 (benches/GOALS.md), and a thousand requests to it beside clients.

    cargo build --release --workspace --bins
    python3 loadtest/bench/clock.py
    python3 loadtest/bench/clock.py --rows W12 --clients 500 --requests 50

W11      Speed 1 and 100: how late ticks begin (p99 of the last ticks, as GET /replay tells it once a second) and how
         fast recorded time goes by.
W12      A market that stands still: `seek` with a step, and a step alone, by turns. From the jump to the last client's
         frame, divided by what a step's sweep takes: from the moment that it is due to the last client's frame.
control  Random requests (seek, step, pause, play, interval) to a market of 16 groups that plays. In every epoch each group
         must have been published from the record that the request named, one after the other, and the swarm proves
         that every client got that. Before and after: the same load without requests.

flowcast has one shard and one core, the swarm and this program have the other.
"""

import argparse
import json
import random
import threading
import time
import urllib.request
from datetime import datetime
from statistics import median

import servers
from cases import Settings
from fanout import count, prepare, some_of
from report import show
from servers import running
from swarm import Load, quantile, run

ROWS = ("W11", "W12", "control")
WIRES = "json,json.reliable,protobuf,protobuf.reliable"
FIRST = 1764340200
RECORDS = 2000
PAIRS = 40
TICK = "50ms"
RATE_S = 25
LATE_US, SPEED_OFF, SEEKS = 500, 0.001, 2.0


def serve(data, *options):
    """The command for flowcast, and the cost of a tick's frames on nobody but its clients."""
    return [servers.FLOWCAST, "serve", "--port", "0", "--data-dir", str(data), "--shards", "1", "--control-rate", "1000",
            *map(str, options)]  # fmt: skip


def ask(server, change=None):
    """What the clock says, or says to a change."""
    body = None if change is None else json.dumps(change).encode()
    request = urllib.request.Request(f"{server.url}/replay", body, {"Content-Type": "application/json"})
    request.method = "GET" if change is None else "PATCH"
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


class Beside:
    """Does something in a thread while the swarm measures; an error is raised when the block ends."""

    def __init__(self, work):
        self._work, self._error, self._over = work, None, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self._work(self._over)
        except (OSError, ValueError, AssertionError) as error:
            self._error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._over.set()
        self._thread.join()
        if kind is None and self._error:
            raise RuntimeError(f"beside the swarm: {self._error!r}")


def joined(server, clients, over):
    """Waits until so many clients are there: requests before that would not be measured."""
    while server.metric("subscribers") < clients and not over.wait(0.2):
        pass
    over.wait(1)


def load_of(asked, seconds):
    """The swarm's share."""
    return Load(asked.clients, WIRES, "orderflow/*", seconds, ledger="require", tells_latency=False)


def remarks(row, result):
    """Why a run's figures do not count."""
    summary = result.summary
    doubts = [] if summary["delivery"] == "proven" else [f"delivery is {summary['delivery']}", *summary["reasons"]]
    return [f"{row}: {doubt}" for doubt in doubts]


def accuracy(asked, settings):
    """W11."""
    rows, notes, commands = [], [], []
    for speed in (1, 100):
        command = serve(settings.one(), "--speed", speed, "--wait-for", asked.clients)
        heard = []

        def listen(over):
            joined(server, asked.clients, over)
            while not over.wait(1):
                heard.append((time.monotonic_ns(), ask(server)))

        with running(command, built=True) as server, Beside(listen):
            result = run(server, load_of(asked, asked.seconds))
        begin, end = result.window
        told = [clock for at, clock in heard if begin < at < end and clock["achieved_speed"] is not None]
        late = [clock["late_us_p99"] for clock in told]
        off = [abs(clock["achieved_speed"] / speed - 1) for clock in told]
        name = f"speed {speed}, {asked.clients:,} clients"
        rows.append(("W11", f"{name}: late, p99", late, "µs", LATE_US))
        rows.append(("W11", f"{name}: achieved ÷ asked speed, less 1", off, "", SPEED_OFF))
        rows.append(("W11", f"{name}: frames/s proven", [result.summary["frames_per_s"]], "", None))
        notes += remarks(name, result)
        commands.append(command)
    return rows, notes, commands


def seeks(asked, settings):
    """W12."""
    command = serve(settings.one(), "--interval", TICK, "--start-paused")
    chance, answered_ms = random.Random(12), {True: [], False: []}

    def steer(over):
        joined(server, asked.clients, over)
        for turn in range(2 * PAIRS):
            seek = {"seek": {"record": chance.randrange(RECORDS - 100)}} if turn % 2 else {}
            sent_ns = time.monotonic_ns()
            ask(server, seek | {"step": 1})
            answered_ms[bool(seek)].append((time.monotonic_ns() - sent_ns) / 1e6)
            if over.wait(0.25):
                break

    with running(command, built=True) as server, Beside(steer):
        result = run(server, load_of(asked, PAIRS // 2 + 5))
    begin, end = result.window
    ticks = sorted(result.facts["ticks"]["rows"].values(), key=lambda row: row["scheduled_ns"])
    # The swarm keeps the first ticks of epochs apart from all others.
    jump_ms = [
        epoch["to_last_copy_us"] / 1000
        for epoch in result.facts["epochs"]
        if epoch["cause"] == "seek" and epoch["to_last_copy_us"] is not None
    ]
    stepped = [row for row in ticks if begin <= row["scheduled_ns"] < end - 1e9]
    sweep_ms = [(row["last_ns"] - row["scheduled_ns"]) / 1e6 for row in stepped]
    sweep = median(sweep_ms)
    name = f"{asked.clients:,} clients"
    rows = [
        ("W12", f"{name}: a step's sweep, to the last client", sweep_ms, "ms", None),
        ("W12", f"{name}: from the jump to the last client's frame", jump_ms, "ms", None),
        ("W12", f"{name}: from the request to its answer, a step", answered_ms[False], "ms", None),
        ("W12", f"{name}: the same, a seek with a step", answered_ms[True], "ms", None),
        ("W12", f"{name}: the one divided by the other's median", [jump / sweep for jump in jump_ms], "", SEEKS),
    ]
    return rows, remarks("W12", result), [command]


class Model:
    """What the market must have published, by epoch: from which record on, and where it stood when it was paused."""

    def __init__(self):
        self.begins = {}

    def answered(self, change, clock):
        """Remembers what a request that was executed must lead to."""
        record = change.get("seek", {}).get("record")
        if record is not None:
            self.begins[clock["epoch"]] = FIRST + record

    def check(self, ticks):
        """Every epoch's publications, group by group. Returns how many epochs and publications there were."""
        epoch, begin, nexts, epochs, publications = None, None, {}, 0, 0
        for tick in ticks:
            if opens := tick.get("opens"):
                epoch, epochs, to = opens["epoch"], epochs + 1, unix(opens["to"])
                if opens["cause"] == "pace":
                    continue  # it goes on where it was
                nexts = {}
                wanted = self.begins.get(epoch, to)
                assert to == wanted, f"epoch {epoch} begins with {to}, asked for was {wanted}"
                # The first one began when nobody was there yet.
                begin = to if epochs > 1 else None
            for publication in tick["publications"]:
                group, at = publication["group"], publication["record_timestamp"]
                due = nexts.get(group, begin or at)
                assert at == due, f"epoch {epoch}: {group} was published with {at} where {due} was due"
                nexts[group] = at + 1
                publications += 1
        return epochs, publications


def unix(text):
    """Unix seconds of a UTC time.

    >>> unix("2025-11-28T14:30:00Z") == FIRST
    True
    """
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def ledger(server, after):
    """All ticks after a position."""
    ticks = []
    while True:
        with urllib.request.urlopen(f"{server.url}/ticks?after={after}&limit=1000", timeout=30) as answer:
            told = json.load(answer)
        if not told["ticks"]:
            return ticks
        ticks += told["ticks"]
        after = ticks[-1]["seq"]


def drawn(chance, is_paused):
    """A request at random."""
    kinds = ["seek"] * 5 + (["step"] * 4 + ["play"] * 3 if is_paused else ["pause"] * 2 + ["interval"])
    match chance.choice(kinds):
        case "seek":
            return {"seek": {"record": chance.randrange(RECORDS - 200)}}
        case "step":
            return {"step": chance.randint(1, 5)}
        case "play":
            return {"state": "playing"}
        case "pause":
            return {"state": "paused"}
        case _:
            return {"interval": chance.choice(["40ms", "50ms", "60ms"])}


def control(asked, settings):
    """A thousand requests beside clients."""
    command = serve(settings.sixteen(), "--interval", TICK, "--ledger-publications", 1 << 20)
    seconds = asked.requests // RATE_S + 8
    quiet, steered, notes, counts = [], [], [], []
    for turn in range(2 * asked.rounds):
        model, chance, is_steered = Model(), random.Random(turn), bool(turn % 2)

        def steer(over):
            joined(server, asked.clients, over)
            is_paused = False
            for _ in range(asked.requests):
                change = drawn(chance, is_paused)
                model.answered(change, ask(server, change))
                is_paused = change.get("state", "paused" if is_paused else "") == "paused"
                if over.wait(1 / RATE_S):
                    break
            ask(server, {"state": "playing"})

        with running(command, built=True) as server, Beside(steer if is_steered else lambda over: None):
            result = run(server, load_of(asked, seconds))
            missing = server.metric("blocks_missing_total")
            assert missing == 0, f"{missing:.0f} records were left out, because their blocks were not built in time"
            epochs, publications = model.check(ledger(server, 0))
        ticks = result.last_copies_ms()
        (steered if is_steered else quiet).append(quantile(ticks, 0.99))
        notes += remarks(f"control, round {turn}", result)
        if is_steered:
            counts.append((epochs, publications, result.facts["verified"]))
        print(json.dumps({"round": turn, "steered": is_steered, "tick_p99_ms": quantile(ticks, 0.99), "epochs": epochs}))
    rows = [
        ("control", "epochs", [one[0] for one in counts], "", None),
        ("control", "publications, all as the model says", [one[1] for one in counts], "", None),
        ("control", "frames proven", [one[2] for one in counts], "", None),
        ("control", "tick p99 with requests ÷ without", [one / other for one, other in zip(steered, quiet)], "", 1.1),
    ]
    return rows, notes, [command]


def options():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=some_of(ROWS), default=ROWS, help=f"default: {','.join(ROWS)}")
    parser.add_argument("--clients", type=count, default=5000, help="default: %(default)s")
    parser.add_argument("--requests", type=count, default=1000, help="of a round of control; default: %(default)s")
    parser.add_argument("--rounds", type=count, default=1, help="of control; default: %(default)s")
    parser.add_argument("--seconds", type=count, default=25, help="of W11; default: %(default)s")
    return servers.asked_of(parser)


def main():
    """Measures and prints."""
    asked = options()
    settings = Settings(prepare(), "clock", tuple(WIRES.split(",")), asked.seconds, peers=False)
    found, notes, commands = [], [], []
    for row, measure in zip(ROWS, (accuracy, seeks, control)):
        if row not in asked.rows:
            continue
        try:
            rows, more, used = measure(asked, settings)
            found, notes, commands = found + rows, notes + more, commands + used
        except (OSError, RuntimeError, AssertionError, servers.ServerError) as error:
            notes.append(f"{row} was not measured: {error}")
    show(found, commands, notes)


if __name__ == "__main__":
    main()
