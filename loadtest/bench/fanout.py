#!/usr/bin/env python3
"""Runs flowcast, the floor and its peers in turn, and writes what became of the goals.

    ROWS=W1,W4 WIRES=json,protobuf ROUNDS=3 SECONDS=5 PEERS=3 python3 fanout.py

Every round runs every case once, with the contenders of a case one after the other and in the opposite
order each time. Each run is appended to a file before the next begins, and the report is written anew
after each round: stop it when you like, and run it again for more rounds. Only runs of the same flowcast
binary are put together.
"""

import hashlib
import json
import os
import resource
import secrets
import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import report
import servers
from cases import WIRES, Settings
from rows import all_cases

ROWS = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8")


def chosen(variable, known):
    """The words of an environment variable, all of them if it is not set."""
    words = tuple(filter(None, os.environ.get(variable, "").split(",")))
    for word in words:
        if word not in known:
            sys.exit(f"{variable}: expected some of {', '.join(known)}, got {word}")
    return words or known


def number(variable, default):
    """A whole number from the environment."""
    text = os.environ.get(variable, str(default))
    if not text.isdigit():
        sys.exit(f"{variable}: expected a number, got {text}")
    return int(text)


def build():
    """Names the flowcast binary by its content."""
    return hashlib.sha256(Path(servers.FLOWCAST).read_bytes()).hexdigest()[:12]


def measure(case, contender):
    """One run as it is kept."""
    begin = time.monotonic()
    try:
        figures, doubts, command = case.contenders[contender]()
    except (OSError, RuntimeError, servers.ServerError) as error:
        figures, doubts, command = {}, [str(error)], []
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "took_s": round(time.monotonic() - begin, 1),
        "case": case.name,
        "contender": contender,
        "figures": {name: value for name, value in figures.items() if value is not None},
        "invalid": doubts,
        "command": command,
    }


def rounds(file):
    """How many rounds of this binary the file holds, and the runs themselves."""
    if not file.exists():
        return 0, []
    runs = [json.loads(line) for line in file.read_text().splitlines()]
    return max((run["round"] + 1 for run in runs), default=0), runs


def main():
    """Measures round by round."""
    rows, wires = chosen("ROWS", ROWS), chosen("WIRES", WIRES)
    count, seconds, peers = number("ROUNDS", 11), number("SECONDS", 5), number("PEERS", 3)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {servers.CLIENT_CORE})
    # The swarm publishes to the JSON streams, and makes its tokens, with it.
    os.environ["WS_AUTH_SECRET"] = secrets.token_urlsafe(32)
    work = servers.ROOT / "target/bench"
    work.mkdir(parents=True, exist_ok=True)
    file = work / f"{build()}.jsonl"
    before, _ = rounds(file)
    # Earlier rounds may have had other wires.
    everything = Settings(work, build(), WIRES, seconds, True)
    for turn in range(count):
        current = before + turn
        settings = replace(everything, wires=wires, peers=peers > 0 and turn % peers == 0)
        cases = [
            case for case in all_cases(settings, current)
            if turn % case.every == 0 and any(goal.row in rows for goal in case.goals)
        ]  # fmt: skip
        for case in cases:
            order = list(case.contenders)[:: -1 if current % 2 else 1]
            for contender in order:
                run = {"round": current} | measure(case, contender)
                with file.open("a") as out:
                    out.write(json.dumps(run) + "\n")
                print(report.line(run), flush=True)
        _, runs = rounds(file)
        report.write(servers.ROOT / "benches/RESULTS.md", runs, everything)
    print(report.goals(runs, everything))


if __name__ == "__main__":
    main()
