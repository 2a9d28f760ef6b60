#!/usr/bin/env python3
"""The load of the JSON streams: 5,000 clients on one topic, and the figures `docs/scaling.md` computes with.

    cargo build --release --workspace --bins
    python3 loadtest/bench/streams.py --rounds 3 --seconds 25 --rows load,idle

flowcast (one shard) on core 0, the swarm with its publisher on core 1, nothing kept from round to round.
`machine` is how many processors were busy on average, whoever used them: what exceeds the sum of server and
swarm was used by other programs.
"""

import argparse
import json
import os
import secrets
import subprocess
import tempfile
import time
from pathlib import Path

from fanout import count as whole_number, some_of
from meter import Meter
import servers
from servers import CLIENT_CORE, flowcast, pinned, running

CLIENTS, BYTES = 5_000, 300
FEW, IDLE_CLIENTS, QUIET = 5_000, 10_000, "10s"
# Messages a second: so few that each frame is sent and read alone, and the load that was asked for.
RATES = (20, 200)
LIMIT_S = 180
ROWS = ("load", "idle")


def swarm(server, *options):
    """One run; the report, and a meter that watched the server."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report, Meter(server.pid, with_memory=True) as meter:
        command = [servers.SWARM, "--quiet", "--url", server.url, "--protocols", "streams", "--workers", 1, "--claim", "latency",
                   "--server-pid", server.pid, "--json", report.name, *options]
        done = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode == 2 or not os.path.getsize(report.name):
            raise RuntimeError(f"the swarm did not run: {done.stderr[-500:]}")
        return json.load(report), meter


def load(server, seconds, rate):
    """Frames/s, CPU, latency and losses of the load of one topic."""
    report, meter = swarm(
        server, "-c", CLIENTS, "-d", f"{seconds}s", "--ramp", 1000, "--drain", "15s",
        "--channels", "lines", "--publish-rate", rate, "--publish-bytes", BYTES,
    )
    summary, facts = report["summary"], report["facts"]
    window = facts["window"]
    span = window["from_ns"], window["until_ns"]
    server_s = meter.cpu_s(*span)
    return {
        "row": f"load {rate}/s",
        "frames/s": round(summary["frames_per_s"]),
        "server CPU %": round(100 * server_s / summary["measured_s"], 1),
        "F": round(window["frames"] / server_s),
        "frames per read": round(summary["frames_per_read"], 2),
        "p50 ms": round(summary["latency"]["p50_us"] / 1e3, 2),
        "p99 ms": round(summary["latency"]["p99_us"] / 1e3, 2),
        "to last p99 ms": round(summary["last_copy"]["p99_us"] / 1e3, 2),
        "publisher p99 ms": round(summary["drift"]["p99_us"] / 1e3, 2),
        "verified": facts["verified"],
        "faults": summary["faults"],
        "delivery": summary["delivery"],
        "measurement": summary["measurement"],
        "generator busy %": round(100 * summary["busy"]),
        "generator starved %": round(100 * summary["starved"], 1),
        "machine": round(meter.machine_busy(*span) or 0, 2),
        "reasons": summary["reasons"],
    }


def idle(server, _seconds, _rate):
    """Memory per idle connection and upgrades per CPU second: nothing flows.

    Memory is told between two numbers of connections: what the server freed after its start is used again
    by the first of them, and would make them look cheap.
    """
    sizes = []
    for count in (FEW, FEW + IDLE_CLIENTS):
        report, meter = swarm(server, "-c", count, "-d", QUIET, "--ramp", 2000)
        summary, facts = report["summary"], report["facts"]
        if facts["up_at_end"] != count:
            raise RuntimeError(f"only {facts['up_at_end']} of {count} were up: {summary['reasons']}")
        window = facts["window"]["from_ns"], facts["window"]["until_ns"]
        sizes.append(meter.resident_bytes(window[1]))
    return {
        "row": "idle",
        "M, B per connection": round((sizes[1] - sizes[0]) / IDLE_CLIENTS),
        "RSS MB": [round(size / 1e6, 1) for size in sizes],
        "U": round(count / meter.cpu_s(0, window[0])),
        "quiet CPU %": round(100 * meter.cpu_s(*window) / summary["measured_s"], 2),
        "ramp/s": round(summary["ramp_per_s"]),
        "connect p99 ms": round(summary["connect"]["p99_us"] / 1e3, 2),
        "machine": round(meter.machine_busy(*window) or 0, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=whole_number, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=whole_number, default=25, help="measured time of a run; default: %(default)s")
    parser.add_argument("--rows", type=some_of(ROWS), default=ROWS, help=f"default: {','.join(ROWS)}")
    asked = servers.asked_of(parser)
    rounds, seconds, wanted = asked.rounds, asked.seconds, asked.rows
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        subprocess.run([servers.FLOWCAST, "generate", "--out", data, "--records", "600"], check=True, capture_output=True)
        os.environ |= {"WS_AUTH_SECRET": secrets.token_urlsafe(32), "FLOWCAST_REPLAY_TRADING": "false"}
        for number in range(rounds):
            runs = [(load, rate) for rate in RATES if "load" in wanted] + [(idle, 0)] * ("idle" in wanted)
            for measure, rate in runs:
                with running(flowcast(data, "1s")) as server:
                    time.sleep(1)
                    print(json.dumps({"round": number + 1} | measure(server, seconds, rate)), flush=True)


if __name__ == "__main__":
    main()
