#!/usr/bin/env python3
"""Two minutes, five ratios: whether a change cost something.

    make bench-quick

Each ratio is flowcast's figure divided by that of something that does not change, in the same round: the floor, which
only sends, or zlib on the same core. So the machine's own ups and downs cancel. Earlier runs are kept in
target/bench/quick.jsonl, and the last one of another build is shown beside; a change counts when it is larger than the
rounds are apart, and shows again. `make bench-fanout AGAINST=…` measures it properly.
"""

import argparse
import json
import os
import time
import zlib
from statistics import median

import report
import servers
from cases import STREAMS, TICKERS_16, WIRES, Settings
from fanout import count, name_of, prepare
from meter import cpu_s
from recorder import group
from rows import QUIET, one_group, ours, sixteen_groups, the_floor
from servers import running
from swarm import Load, run

WIRE = "protobuf"
ZLIB_BYTES = 32 << 20


def fan_out(settings):
    """One group of 5,000 clients: frames per CPU second."""
    yield from pair(one_group(settings, 5000, WIRE))


def joined(settings):
    """16 groups on each of 1,000 clients: frames per CPU second."""
    yield from pair(sixteen_groups(settings, WIRE))


def pair(case):
    """flowcast's figure and the floor's."""
    for contender in ("flowcast", "floor"):
        figures, doubts, _ = case.contenders[contender]()
        yield figures["frames_per_cpu_s"], doubts


def publish(settings):
    """5,000 messages a second to few clients of the JSON streams: messages per CPU second, mostly the way in."""
    clients, rate = 4, 5_000
    load = Load(clients, STREAMS, "c000", settings.seconds, clients * rate, at_limit=True, publish_rate=rate,
                publish_bytes=settings.payload_bytes())  # fmt: skip
    for command in (ours(settings, STREAMS, settings.one(), QUIET), the_floor(settings, STREAMS, QUIET)):
        with running(command, built=True) as server:
            result = run(server, load)
        yield result.figures()["frames_per_cpu_s"] / clients, result.invalid


def joins(settings):
    """Clients that negotiate, connect and join: clients per CPU second."""
    load = Load(5000, WIRE, group("SPX"), 1, ramp=100_000)
    for command in (ours(settings, WIRE, settings.one(), QUIET), the_floor(settings, WIRE, QUIET)):
        with running(command, built=True) as server:
            result = run(server, load)
        # From the meter's first sample, just before the first client, until all are up.
        yield load.connections / result.meter.cpu_s(0, result.window[0]), result.invalid


def encode(settings):
    """Lines to finished frames: bytes of JSONL per CPU second, divided by those of zlib's level 1."""
    data = settings.data("encode", TICKERS_16[:8], 23_400)
    files = sorted(data.rglob("*.jsonl"))
    size = sum(file.stat().st_size for file in files)
    with running(servers.flowcast(data, QUIET), log_level="info") as server:
        server.await_words('"loaded"')
        yield size / cpu_s(server.pid), []
    lines = files[0].read_bytes()[:ZLIB_BYTES]
    os.sched_setaffinity(0, {servers.SERVER_CORE})
    before = time.thread_time()
    zlib.compress(lines, 1)
    used = time.thread_time() - before
    os.sched_setaffinity(0, {servers.CLIENT_CORE})
    yield len(lines) / used, []


ROWS = (fan_out, joined, publish, encode, joins)


def other_build(file, build):
    """The ratios of the last run of another build on this machine, by row."""
    runs = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    others = [run for run in runs if run["build"] != build]
    return others[-1]["ratios"] if others else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=2, help="default: %(default)s")
    asked = servers.asked_of(parser)
    begin = time.monotonic()
    settings = Settings(prepare(), name_of(servers.FLOWCAST), WIRES, 3, False)
    found = {row.__name__: [] for row in ROWS}
    for turn in range(asked.rounds):
        for row in ROWS:
            (mine, doubts), (other, more_doubts) = row(settings)
            if mine and other:
                found[row.__name__].append((mine, other))
            for doubt in {*doubts, *more_doubts}:
                print(f"round {turn + 1}, {row.__name__}: {doubt}", flush=True)
    file = settings.work / "quick.jsonl"
    before, rows = other_build(file, settings.build), []
    ratios = {name: median(mine / other for mine, other in runs) for name, runs in found.items() if runs}
    for row in (row for row in ROWS if row.__name__ in ratios):
        name, runs = row.__name__, found[row.__name__]
        change = f"{ratios[name] / before[name] - 1:+.1%}" if name in before else "–"
        rows.append([row.__doc__.rstrip("."), *(report.number(median(side)) for side in zip(*runs)), f"{ratios[name]:.3f}",
                     ", ".join(f"{mine / other:.3f}" for mine, other in runs),
                     f"{before[name]:.3f}" if name in before else "–", change])  # fmt: skip
    with file.open("a") as out:
        out.write(json.dumps({"build": settings.build, "ratios": ratios}) + "\n")
    print(report.table(["what", "flowcast", "floor or zlib", "ratio", "by round", "another build", "change"], rows))
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
