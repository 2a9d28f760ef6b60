#!/usr/bin/env python3
"""Runs flowcast, the floor and its peers in turn, and writes what became of the goals (benches/GOALS.md).

    python3 loadtest/bench/fanout.py --rows W1,W4 --wires json,protobuf --rounds 3 --seconds 5 --peers 3
    python3 loadtest/bench/fanout.py --against ../before/target/release/flowcast --rounds 11

Every round runs every case once, with the contenders of a case one after the other and in the opposite
order each time. Each run is appended to a file before the next begins, and the report is written anew
after each round: stop it when you like, and run it again for more rounds. Only runs of the same flowcast
binary are put together.

With --against only this tree's flowcast and the other binary run, by turns, and a table of the medians of
new ÷ old is printed; no report is written.
"""

import argparse
import hashlib
import json
import os
import resource
import secrets
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import against
import report
import servers
from cases import WIRES, Settings
from rows import all_cases

ROWS = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "peers")


def some_of(known):
    """An argument type: words separated by commas, each of them one that is known.

    >>> some_of(("a", "b"))("b")
    ('b',)
    """

    def parse(text):
        words = tuple(filter(None, text.split(",")))
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
        return words or known

    return parse


def count(text):
    """An argument type: a whole number, not negative.

    >>> count("11")
    11
    """
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def options():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=some_of(ROWS), help=f"rows of benches/GOALS.md; default: all, with --against "
                        f"{','.join(against.ROWS)}")  # fmt: skip
    parser.add_argument("--wires", type=some_of(WIRES), help=f"default: {','.join(WIRES)}, with --against "
                        f"{','.join(against.WIRES)}")  # fmt: skip
    parser.add_argument("--rounds", type=count, default=11, help="default: %(default)s; further rounds add up")
    parser.add_argument("--seconds", type=count, default=5, help="measured time of a run; default: %(default)s")
    parser.add_argument("--peers", type=count, default=3,
                        help="run the peers (loadtest/peers) every so many rounds, 0 for never; "
                        "default: %(default)s")  # fmt: skip
    parser.add_argument("--against", type=servers.program, metavar="PROGRAM", help="another flowcast to compare with")
    return servers.asked_of(parser)


def name_of(binary):
    """Names a flowcast binary by its content."""
    return hashlib.sha256(Path(binary).read_bytes()).hexdigest()[:12]


def prepare():
    """Raises the limit of open files, takes the client's core, and returns the folder for what is kept."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {servers.CLIENT_CORE})
    # The swarm publishes to the JSON streams, and makes its tokens, with it.
    os.environ["WS_AUTH_SECRET"] = secrets.token_urlsafe(32)
    work = servers.ROOT / "target/bench"
    work.mkdir(parents=True, exist_ok=True)
    return work


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


def measure_round(file, number, cases):
    """Runs every contender of every case once, and keeps each run in the file."""
    for case in cases:
        for contender in list(case.contenders)[:: -1 if number % 2 else 1]:
            run = {"round": number} | measure(case, contender)
            with file.open("a") as out:
                out.write(json.dumps(run) + "\n")
            print(report.line(run), flush=True)


def rounds(file):
    """How many rounds the file holds, and the runs themselves."""
    if not file.exists():
        return 0, []
    runs = [json.loads(line) for line in file.read_text().splitlines()]
    return max((run["round"] + 1 for run in runs), default=0), runs


def against_floor(asked, settings):
    """Measures flowcast, the floor and the peers; writes benches/RESULTS.md."""
    rows, wires = asked.rows or ROWS, asked.wires or WIRES
    file = settings.work / f"{settings.build}.jsonl"
    before, runs = rounds(file)
    for turn in range(asked.rounds):
        current = before + turn
        now = replace(settings, wires=wires, peers=asked.peers > 0 and turn % asked.peers == 0)
        cases = [
            case for case in all_cases(now, current)
            if turn % case.every == 0 and any(goal.row in rows for goal in case.goals)
        ]  # fmt: skip
        measure_round(file, current, cases)
        _, runs = rounds(file)
        # Earlier rounds may have had other wires.
        report.write(servers.ROOT / "benches/RESULTS.md", runs, settings)
    print(report.goals(runs, settings))


def against_other(asked, settings):
    """Measures this tree's flowcast and the other one; prints the ratios."""
    rows = asked.rows or against.ROWS
    settings = replace(settings, wires=asked.wires or against.WIRES)
    file = settings.work / f"{settings.build}-against-{name_of(asked.against)}.jsonl"
    before, runs = rounds(file)
    compared = {}
    try:
        for current in range(before, before + asked.rounds):
            cases = [case for case in against.cases(settings, asked.against, rows, current)
                     if current % case.every == 0]  # fmt: skip
            compared |= {case.name: case for case in cases}
            measure_round(file, current, cases)
    except KeyboardInterrupt:
        print("stopped; what was measured so far:")
    _, runs = rounds(file)
    print(against.table(runs, compared.values()))


def main():
    """Measures round by round."""
    asked = options()
    work = prepare()
    settings = Settings(work, name_of(servers.FLOWCAST), WIRES, asked.seconds, True)
    (against_other if asked.against else against_floor)(asked, settings)


if __name__ == "__main__":
    main()
