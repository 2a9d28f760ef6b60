#!/usr/bin/env python3
"""A whole market, 5 tickers × 15 categories × 23,400 records, some 10 GB: the goals W9 and W10 (benches/GOALS.md).

    cargo build --release --workspace --bins
    python3 loadtest/bench/market.py
    python3 loadtest/bench/market.py --records 600 --rounds 2 --seconds 10 --clients 50

The set is generated into --work, and removed at the end unless --keep is given. Rows:

W9     How long flowcast takes from its start to serving, until it acknowledges a join of a GEX group, and until that
       client has its first frame. *Cold*: the pages of the files were dropped from the page cache before. The
       program, the folders and the inodes stay cached, and so may the disk of a virtual machine on its host: a disk
       that nobody has read from since the boot is slower. *Restart*: the same again, without dropping anything.
W10    Memory at speed 10 (a tick each 100 ms) with --arena-bytes 1GiB: 500 clients, each in the 15 groups of one
       ticker, so that all 75 groups have members.
mixed  2,000 clients, each in all 75 groups, one record a second, everything proven by the swarm, in as much memory.

flowcast has one shard and one core, the swarm and this program have the other. W9 runs --rounds times, the others
once. Where the machine is busy with other programs, wall times are spoilt and CPU times are not.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import servers
from cases import TICKERS_16
from fanout import count, prepare, some_of
from market_set import GB, NoRoom, drop_from_cache, files_of, market_set
from meter import Sampler, cpu_s, peak_resident_bytes
from recorder import join, messages, received, upgraded
from report import machine, number, shown, table
from servers import flowcast, running
from stats import estimate, verdict
from swarm import Load, run

ROWS = ("W9", "W10", "mixed")
WIRES = "json,json.reliable,protobuf,protobuf.reliable"
ALL_GROUPS = "classic/*,state/*,orderflow/*"
CATEGORIES = 15
ARENA, SPEED_10, SPEED_1 = "1GiB", "100ms", "1s"
SOON = "10ms"
"""The interval of W9: the wait for the next tick should add nothing."""
GIB, MS = 1 << 30, 1000
RAMP = 1000
WATCH_S = 1.0


@dataclass
class Row:
    """A line of the table."""

    row: str
    what: str
    values: list
    """One per round."""
    unit: str
    must: float | None = None
    stretch: float | None = None
    """What it may be at the most; `None` where there is no such goal."""

    def cells(self):
        """As the table shows it.

        >>> Row("W9", "start, cold", [41.2, 35.0, 52.5], "ms", 300, 50).cells()
        ['W9', 'start, cold', '41.2 ms (35.0 to 52.5)', '3', '≤ 300: met (3 rounds)', '≤ 50: met (3 rounds)']
        >>> Row("W10", "records left out", [2], "", 0).cells()
        ['W10', 'records left out', '2', '1', '≤ 0: missed (1 round)', '']
        """
        found = estimate(self.values)
        spread = f" ({number(min(self.values))} to {number(max(self.values))})" if found.count > 1 else ""
        figure = " ".join(filter(None, [whole_or(found.median), self.unit])) + spread
        verdicts = [
            "" if limit is None else f"≤ {limit:g}: {verdict(found, limit, at_least=False)}"
            for limit in (self.must, self.stretch)
        ]  # fmt: skip
        return [self.row, self.what, figure, str(found.count), *verdicts]


@dataclass
class Found:
    """What a row of the bench contributes to the report."""

    rows: list
    commands: list
    remarks: list = field(default_factory=list)


def whole_or(value):
    """A figure; whole numbers as such.

    >>> whole_or(0), whole_or(12.0), whole_or(1.0625), whole_or(150000.0)
    ('0', '12', '1.062', '150,000')
    """
    return f"{value:,.0f}" if value == int(value) else number(value)


def options():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=some_of(ROWS), default=ROWS, help=f"default: {','.join(ROWS)}")
    parser.add_argument("--tickers", type=count, default=5, help=f"at most {len(TICKERS_16)}; default: %(default)s")
    parser.add_argument("--records", type=count, default=23_400, help="in each file; default: %(default)s")
    parser.add_argument("--rounds", type=count, default=11, help="of W9; default: %(default)s")
    parser.add_argument("--seconds", type=count, help="measured time; default: 600 for W10, 60 for the mixed load")
    parser.add_argument("--clients", type=count, help="default: 500 for W10, 2000 for the mixed load")
    parser.add_argument("--groups-each", type=count, metavar="GROUPS",
                        help="of each client, 0 for all; default: 15 for W10, all for the mixed load")  # fmt: skip
    parser.add_argument("--wires", default=WIRES, help="subprotocols, spread over the clients; default: all four")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the set lies; default: target/bench")
    parser.add_argument("--keep", action="store_true", help="leave the set there, for the next run")
    servers.add_programs(parser)
    asked = parser.parse_args()
    if not 1 <= asked.tickers <= len(TICKERS_16) or not asked.records or not asked.rounds:
        parser.error(f"expected 1 to {len(TICKERS_16)} tickers, and at least one record and one round")
    servers.use(asked)
    return asked


def first_frame(server, ticker):
    """Joins a GEX group as a client does, and returns when the join was acknowledged and the first frame there."""
    request = urllib.request.Request(f"{server.url}/v2/negotiate", headers={"Authorization": "Bearer bench"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        told = json.load(answer)
    connection, stream = upgraded(told["websocket_urls"]["classic"], "json")
    with connection:
        connection.sendall(join("json", f"{told['prefix']}_{ticker}_classic_gex_full", 1))
        acknowledged, seen = None, 0
        while True:
            stream += received(connection)
            there = list(messages(bytes(stream)))
            for message in there[seen:]:
                kind = json.loads(message)
                if kind["type"] == "ack":
                    if not kind["success"]:
                        raise servers.ServerError(f"the join was refused: {message!r}")
                    acknowledged = time.monotonic()
                elif kind["type"] == "message":
                    return acknowledged or time.monotonic(), time.monotonic()
            seen = len(there)


def started(data, ticker):
    """Starts flowcast once: how long until it serves, acknowledges and sends, in ms, and its CPU time until then."""
    command = flowcast(data, SOON)
    begin = time.monotonic()
    with running(command) as server:
        serving = time.monotonic()
        acknowledged, received_at = first_frame(server, ticker)
        used = cpu_s(server.pid)
    spans = [at - begin for at in (serving, acknowledged, received_at)]
    return [round(span * MS, 1) for span in (*spans, used)], command


def start_up(asked, data):
    """W9: from the start to serving, cold and again."""
    ticker, files = TICKERS_16[0], sorted(data.rglob("*.jsonl"))
    cold, again, left = [], [], 0
    for turn in range(asked.rounds):
        left = max(left, drop_from_cache(files))
        for runs in (cold, again):
            figures, command = started(data, ticker)
            runs.append(figures)
            name = "cold" if runs is cold else "restart"
            told = dict(zip(("serving_ms", "acknowledged_ms", "first_frame_ms", "cpu_ms"), figures))
            print(json.dumps({"row": "W9", "round": turn, "start": name} | told), flush=True)
    rows = []
    for name, runs in (("cold", cold), ("restart", again)):
        serving, acknowledged, frame, used = map(list, zip(*runs))
        rows += [
            Row("W9", f"start to serving, {name}", serving, "ms", 300, 50),
            Row("W9", f"start to the ack of a join of a GEX group, {name}", acknowledged, "ms"),
            Row("W9", f"start to that client's first frame, a tick each {SOON}, {name}", frame, "ms"),
            Row("W9", f"CPU time of the server until then, {name}", used, "ms"),
        ]
    remarks = []
    if left:
        remarks.append(f"W9: up to {left / GB:.3f} GB of the set stayed in the page cache: *cold* is not quite that.")
    return Found(rows, [command], remarks)


class Watch(Sampler):
    """Reads flowcast's metrics once a second while a block runs."""

    def __init__(self, server):
        super().__init__(WATCH_S)
        self._server = server
        self.samples = []

    def sample(self):
        """Goes on without an answer: a server that is too busy for one is seen in what the swarm receives."""
        with contextlib.suppress(OSError):
            self.samples.append((time.monotonic_ns(), self._server.metrics()))

    def between(self, name, span):
        """A metric's values in a span of monotonic ns."""
        return [metrics[name] for at, metrics in self.samples if span[0] <= at <= span[1] and name in metrics]


def loaded(asked, data, row, load, interval, *more):
    """Runs the swarm against the market, and tells what every load does."""
    command = flowcast(data, interval, *more)
    with running(command) as server:
        with Watch(server) as watch:
            result = run(server, load)
        peak, end = peak_resident_bytes(server.pid), server.metrics()
        log = [line for line in server.text().splitlines() if line and "listening on" not in line]
    span, summary, facts = result.window, result.summary, result.facts
    measured_s = summary["measured_s"]
    cpu = result.meter.cpu_s(*span)
    builders = watch.between("builder_cpu_microseconds_total", span)
    builder_s = (max(builders, default=0) - min(builders, default=0)) / 1e6
    held = max(watch.between("arena_bytes", (0, span[1])), default=0)
    latency = summary["latency"]
    groups, sockets = len(facts["setup"]["groups"]), facts["setup"]["sockets"]
    each = load.groups_each or groups
    clients = f"{load.connections:,} clients with {each} of {groups} groups each, {sockets:,} sockets"
    rows = [
        Row(row, f"measured: {clients}, a tick each {interval}", [round(measured_s)], "s"),
        Row(row, "from connecting to the ack of the last join, p50", [summary["connect"]["p50_us"] / MS],
            f"ms; p99 {summary['connect']['p99_us'] / MS:,.0f} ms"),  # fmt: skip
        Row(row, "frames a second", [round(summary["frames_per_s"])], f"({summary['bytes_per_s'] / 1e6:,.0f} MB/s)"),
        Row(row, "lost, doubled, out of order or wrong, of all that clients should have received", [summary["faults"]],
            f"({facts['verified']:,} verified, delivery {summary['delivery']})", 0),  # fmt: skip
        Row(row, "records left out because their blocks were missing", [end["blocks_missing_total"]], "", 0),
        Row(row, "most frames in memory (`flowcast_arena_bytes`)", [held / GIB],
            f"GiB of {end['arena_limit_bytes'] / GIB:.2f} allowed"),  # fmt: skip
        Row(row, "the peak of resident memory less that: rings of reliable clients, sessions, ledger, program",
            [(peak - held) / GIB], "GiB"),  # fmt: skip
        Row(row, "least that frames were built ahead of the clock (whole seconds)",
            [min(watch.between("window_ahead_seconds", span), default=0)], "s"),  # fmt: skip
        Row(row, "CPU of the server; of its builders", [100 * cpu / measured_s],
            f"% of a core; {100 * builder_s / measured_s:.1f} %"),  # fmt: skip
        Row(row, "latency p50", [latency["p50_us"] / MS], f"ms; p99 {latency['p99_us'] / MS:,.1f} ms"),
        Row(row, "processors busy on average, whoever used them", [result.meter.machine_busy(*span) or 0],
            f"of {os.cpu_count()}"),  # fmt: skip
        Row(row, "late publication p99 (drift)", [summary["drift"]["p99_us"] / MS], "ms"),
        Row(row, "generator busy", [100 * summary["busy"]], f"%; it waited for a processor {summary['starved']:.0%}"),
    ]
    # The swarm says most of it itself.
    doubts = list(dict.fromkeys([*summary["reasons"], *summary["warnings"]])) or result.invalid
    remarks = [f"{row}: {reason}." for reason in doubts]
    if summary["delivery"] != "proven":
        remarks.append(f"{row}: the run does not count, since its delivery is {summary['delivery'].replace('_', ' ')}.")
    remarks += [f"{row}: {ticks:.0f} ticks were given up." for ticks in [end["ticks_missed_total"]] if ticks]
    remarks += [f"{row}: the server logged `{line[:300]}`" for line in log[-5:]]
    told = {"row": row, "peak_bytes": peak, "end": end, "doubts": doubts, "failures": facts["failures"],
            "drops": facts["drops"], "silent": facts["silent"], "summary": summary}  # fmt: skip
    print(json.dumps(told), flush=True)
    return Found(rows, [command, result.command], remarks), peak


def bounded(asked, data):
    """W10: memory while a market plays ten times as fast as it was recorded."""
    each = CATEGORIES if asked.groups_each is None else asked.groups_each
    load = Load(500 if asked.clients is None else asked.clients, asked.wires, ALL_GROUPS, asked.seconds or 600,
                groups_each=each, ledger="require", ramp=RAMP, tells_latency=False)  # fmt: skip
    found, peak = loaded(asked, data, "W10", load, SPEED_10, "--arena-bytes", ARENA)
    what = f"most resident memory (VmHWM), `--arena-bytes {ARENA}`"
    found.rows.insert(1, Row("W10", what, [peak / GIB], "GiB", 1.2, 1.1))
    return found


def mixed(asked, data):
    """The mixed load: every client wants the whole market."""
    load = Load(2000 if asked.clients is None else asked.clients, asked.wires, ALL_GROUPS, asked.seconds or 60,
                groups_each=asked.groups_each or 0, ledger="require", ramp=RAMP, tells_latency=False)  # fmt: skip
    found, peak = loaded(asked, data, "mixed", load, SPEED_1, "--arena-bytes", ARENA)
    what = f"most resident memory (VmHWM), `--arena-bytes {ARENA}`"
    found.rows.insert(1, Row("mixed", what, [peak / GIB], "GiB"))
    return found


def attempt(row, asked, data):
    """Measures a row. One that fails must not cost the others."""
    try:
        return {"W9": start_up, "W10": bounded, "mixed": mixed}[row](asked, data)
    except (OSError, RuntimeError, servers.ServerError) as error:
        return Found([], [], [f"{row} was not measured: {error}"])


def write(asked, data, found):
    """Prints the report."""
    size = sum(path.stat().st_size for path in files_of(data))
    files = f"{asked.tickers} tickers × {CATEGORIES} categories × {asked.records:,} records"
    print(f"\n### {files}, {size / GB:.2f} GB\n")
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Machine: {machine()}; server on core 0, `swarm` and driver on core 1. Load averages at the end: {load}.\n")
    head = ["row", "what", "figure: median (range)", "rounds", "must", "stretch"]
    print(table(head, [row.cells() for part in found for row in part.rows]))
    print()
    for command in dict.fromkeys(shown(list(map(str, command))) for part in found for command in part.commands):
        print(f"- `{command}`")
    for remark in (remark for part in found for remark in part.remarks):
        print(f"- {remark}")


def main():
    """Makes the set, measures, prints, removes the set."""
    asked = options()
    # So that the set is removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = prepare()
    if asked.work:
        asked.work.mkdir(parents=True, exist_ok=True)
        work = asked.work
    tickers = TICKERS_16[: asked.tickers]
    try:
        with market_set(work, tickers, asked.records, asked.keep) as data:
            write(asked, data, [attempt(row, asked, data) for row in ROWS if row in asked.rows])
    except NoRoom as error:
        sys.exit(f"market: {error}")


if __name__ == "__main__":
    main()
