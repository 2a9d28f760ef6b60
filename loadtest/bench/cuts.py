#!/usr/bin/env python3
"""Reliable clients whose connections are cut in the middle of frames, again and again: nothing is lost, nothing comes twice.

    cargo build --release --workspace --bins
    python3 loadtest/bench/cuts.py
    python3 loadtest/bench/cuts.py --cuts 100 --clients 50

The clients of both reliable wires (`json.reliable`, `protobuf.reliable`) speak through a proxy that cuts at a random byte of a random
frame, in both directions, also while a client comes back (see cutter.py). They recover their sessions as Azure's clients do, and
throw away what came before. The swarm proves against the tick ledger that each got everything once. The exit code is 1 if not, or
if a session was lost.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import servers
from cutter import MANNERS, Cutter

WIRES = "json.reliable,protobuf.reliable"
CALM_S = 3
"""At the end, in which everybody comes back."""
PER_SECOND = 40
"""Cuts that are made at the least, for a machine with other work."""
GRACE_S = 120


def cut(asked, folder):
    """The run: the swarm's report, and the cutter."""
    made = [servers.FLOWCAST, "generate", "--out", folder / "data", "--records", "600", "--tickers", "SPX,NDX", "--categories", "orderflow"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    seconds = CALM_S + 2 + asked.cuts // PER_SECOND
    report = folder / "cuts.json"
    with servers.running(servers.flowcast(folder / "data", asked.interval), cores=asked.cores) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with Cutter(host, int(port), asked.cuts) as cutter:
            command = [
                servers.SWARM, "--url", cutter.url, "--connections", asked.clients, "--duration", f"{seconds}s", "--protocols", WIRES,
                "--groups", "orderflow/*", "--ledger", "require", "--reconnect", "--sequence-ack-interval", "200ms", "--ramp", 500,
                "--setup-timeout", "30s", "--drain", "20s", "--workers", 1, "--processes", 1, "--quiet", "--json", report,
            ]  # fmt: skip
            began = time.monotonic()
            calm = threading.Timer(seconds + asked.clients / 500 - CALM_S + 1, cutter.stop)
            calm.start()
            done = subprocess.run(servers.pinned(asked.cores, command), capture_output=True, text=True, timeout=seconds + GRACE_S, check=False)
            calm.cancel()
            took = time.monotonic() - began
        metrics = server.metrics()
    if not report.exists():
        raise RuntimeError(f"the swarm did not run: {done.stderr[-500:]}")
    return json.loads(report.read_text()), cutter, metrics, took


def problems(told, cutter, metrics, asked):
    """What is wrong; empty if nothing was lost and nothing came twice."""
    summary, facts = told["summary"], told["facts"]
    wrong = list(summary["reasons"])
    if summary["delivery"] != "proven":
        wrong.append(f"delivery is {summary['delivery']}")
    if cutter.total < asked.cuts:
        wrong.append(f"only {cutter.total} of {asked.cuts} connections were cut")
    if facts["reconnected"]:
        wrong.append(f"{facts['reconnected']} clients lost their session and connected anew")
    if metrics["recovery_gap_frames_total"]:
        wrong.append(f"{metrics['recovery_gap_frames_total']:.0f} frames were gone before their sessions were recovered")
    if cut_wires := set(WIRES.split(",")) - {wire for wire, _, _ in cutter.made}:
        wrong.append(f"no connection was cut of {', '.join(sorted(cut_wires))}")
    return wrong


def table(cutter):
    """How often each wire was cut, by direction and manner."""
    lines = [f"| wire | direction | {' | '.join(MANNERS)} |", "|---|---|" + "---|" * len(MANNERS)]
    counts = Counter(cutter.made)
    for wire, way in sorted({(wire, way) for wire, way, _ in counts}):
        lines.append(f"| {wire} | {way} | {' | '.join(str(counts[wire, way, manner]) for manner in MANNERS)} |")
    return "\n".join(lines)


def arguments():
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cuts", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--clients", type=int, default=200, help="reliable clients (%(default)s)")
    parser.add_argument("--interval", default="100ms", help="time between two ticks (%(default)s)")
    parser.add_argument("--cores", default="0-1", help="for server and swarm (%(default)s)")
    servers.add_programs(parser, "flowcast", "swarm")
    return parser.parse_args()


def main():
    """Cuts, and says what came of it."""
    asked = arguments()
    servers.use(asked)
    with tempfile.TemporaryDirectory() as folder:
        told, cutter, metrics, took = cut(asked, Path(folder))
    facts, wrong = told["facts"], problems(*(told, cutter, metrics, asked))
    print(table(cutter))
    print(f"\n{cutter.total:,} cuts in {took:.0f} s, {facts['recovered']:,} sessions recovered, {facts['reconnected']} lost, "
          f"{facts['resent']:,} frames came again and were known by their number, {facts['verified']:,} copies proven")  # fmt: skip
    print("CUTS: " + ("0 lost, 0 twice" if not wrong else "FAILED"))
    for problem in wrong:
        print(f"- {problem}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
