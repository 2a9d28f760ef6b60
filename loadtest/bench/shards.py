#!/usr/bin/env python3
"""From one shard to two: frames a second, latency and fairness, and what one shard's overload does to the other.

    cargo build --release --workspace --bins
    python3 loadtest/bench/shards.py
    python3 loadtest/bench/shards.py --rows usual --rounds 3

usual     A load that one shard carries: frames per CPU second, latency, fairness, with one shard and with two.
limit     More than any of them carries: frames a second that arrive, all of them proven.
overload  Two shards. Clients of the first are in all groups and get about what it can send, those of the second are two in one
          group: how late they get their frames, with and without the others. They are read at real-time priority, where the
          kernel allows it: otherwise they would wait for those who read the rest.

One shard has core 0; two have both cores. The swarm has core 1 each time, so two shards share it with the swarm: its share is
in the table.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import select
import time
import urllib.request
from pathlib import Path
from statistics import median

import servers
from cases import TICKERS_16, Settings
from fanout import count, prepare, some_of
from latency import read_message
from recorder import group, join, upgraded
from report import machine, number, table
from servers import CLIENT_CORE, SERVER_CORE, running
from swarm import Load, quantile, run

ROWS = ("usual", "limit", "overload")
WIRE = "protobuf"
# Its messages tell their number, and so their tick.
PROBE_WIRE = "json.reliable"
SHARDS = {1: SERVER_CORE, 2: f"{SERVER_CORE},{CLIENT_CORE}"}
# Clients, tickers, and the interval of the usual load and of the one at the limit.
SHAPES = {"one group": (5000, ["SPX"], "100ms", "2ms"), "16 groups": (1000, TICKERS_16, "50ms", "4ms")}
HEAVY, PROBES, OVERLOAD = 600, 2, "2ms"
PROBED_S = 6


def scaled(asked, settings, is_at_limit):
    """One round of a load, with one shard and with two."""
    for shape, (clients, tickers, usual, limit) in SHAPES.items():
        interval = limit if is_at_limit else usual
        data = settings.one() if len(tickers) == 1 else settings.sixteen()
        demand = clients * len(tickers) * 1000 / servers.milliseconds(interval)
        load = Load(clients, WIRE, ",".join(map(group, tickers)), asked.seconds, demand, groups_each=len(tickers),
                    ledger="require", at_limit=is_at_limit, tells_latency=False)  # fmt: skip
        for shards, cores in SHARDS.items():
            with running(servers.flowcast(data, interval, shards=shards), cores=cores, built=True) as server:
                result = run(server, load)
            figures = result.figures()
            yield (shape, shards), {name: figures[name] for name in (
                "frames_per_s", "frames_per_cpu_s", "server_cpu", "generator_busy", "latency_p50_ms", "latency_p99_ms",
                "tick_p99_ms", "fairness")} | {"doubts": result.invalid}  # fmt: skip


def drain(opened, ready):
    """Reads and forgets what clients get; ended from outside."""
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    poll, buffer = select.epoll(), bytearray(1 << 20)
    sockets = {connection.fileno(): connection for connection, _ in opened}
    for file in sockets:
        poll.register(file, select.EPOLLIN)
    ready.set()
    while True:
        for file, _ in poll.poll():
            if not sockets[file].recv_into(buffer):
                poll.unregister(file)


def shard_of(connection, stream):
    """The number of a connection's shard: the last byte of its id, which `connected` tells."""
    found, _ = read_message(connection, stream)
    return int(re.search(rb"[0-9a-f-]{34}([0-9a-f]{2})", found)[1], 16)


def by_shard(server, wanted):
    """So many connections on each of two shards; the others are closed."""
    opened = ([], [])
    while any(len(mine) < most for mine, most in zip(opened, wanted)):
        connection, stream = upgraded(f"{server.url}/client/hubs/orderflow?access_token=bench", PROBE_WIRE)
        shard = shard_of(connection, stream)
        if len(opened[shard]) < wanted[shard]:
            opened[shard].append((connection, stream))
        else:
            connection.close()
    return opened


def probed(server, probes):
    """From when ticks were due to their frames at the probes, ms."""
    arrived, end = [], time.monotonic() + PROBED_S
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    while time.monotonic() < end:
        arrived += [read_message(*probe) for probe in probes]
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    due, after = {}, 0
    while True:
        with urllib.request.urlopen(f"{server.url}/ticks?limit=1000&after={after}", timeout=10) as answer:
            ticks = json.load(answer)["ticks"]
        if not ticks:
            break
        due |= {sent["sequence_id"]: tick["scheduled_ns"] for tick in ticks for sent in tick["publications"]}
        after = ticks[-1]["seq"]
    ids = [(number_of(message), at) for message, at in arrived]
    return sorted((at - due[found]) / 1e6 for found, at in ids if found in due)


def shard_cpu_s(server, shard):
    """The CPU time of a shard's thread."""
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        name, _, figures = (task / "stat").read_text().partition(") ")
        if name.endswith(f"(shard-{shard}"):
            return sum(map(int, figures.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    raise RuntimeError(f"there is no shard {shard}")


def number_of(message):
    """The number of its publication; 0 for what is no publication."""
    found = re.search(rb'"sequenceId":(\d+)', message)
    return int(found[1]) if found else 0


def catch_up(probes):
    """Reads what came while the others joined, until all probes have read the same tick."""
    first, stream = probes[0]
    first.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            read_message(first, stream)
    first.settimeout(10)
    newest = number_of(read_message(first, stream)[0])
    for probe in probes[1:]:
        while number_of(read_message(*probe)[0]) < newest:
            pass


def overload(settings):
    """One round: how late the second shard's clients get their frames, alone and beside an overloaded shard."""
    for is_overloaded in (False, True):
        with running(servers.flowcast(settings.sixteen(), OVERLOAD, shards=2), cores=SHARDS[2], built=True) as server:
            heavy, probes = by_shard(server, (HEAVY if is_overloaded else 1, PROBES))
            ready = multiprocessing.Event()
            reader = multiprocessing.Process(target=drain, args=(heavy, ready), daemon=True)
            reader.start()
            ready.wait()
            for connection, _ in heavy:
                for ack, ticker in enumerate(TICKERS_16 if is_overloaded else TICKERS_16[:1], 1):
                    connection.sendall(join(PROBE_WIRE, group(ticker), ack))
            for connection, _ in probes:
                connection.sendall(join(PROBE_WIRE, group("SPX"), 1))
            time.sleep(1)
            catch_up(probes)
            before, began = shard_cpu_s(server, 0), time.monotonic()
            taken = probed(server, probes)
            busy = (shard_cpu_s(server, 0) - before) / (time.monotonic() - began)
            metrics = server.metrics()
            reader.terminate()
            for connection, _ in heavy + probes:
                connection.close()
        yield ("overload" if is_overloaded else "alone", 2), {
            "latency_p50_ms": median(taken), "latency_p99_ms": quantile(taken, 0.99), "frames": len(taken),
            "first_shard_busy": busy, "overruns": metrics.get("shard_overruns_total", 0), "doubts": [],
        }  # fmt: skip


def options():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=some_of(ROWS), default=ROWS, help=f"default: {','.join(ROWS)}")
    parser.add_argument("--rounds", type=count, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=count, default=6, help="measured time of a run; default: %(default)s")
    return servers.asked_of(parser)


def main():
    """Measures and prints."""
    asked = options()
    settings = Settings(prepare(), "shards", (WIRE,), asked.seconds, peers=False)
    found = {}
    for turn in range(asked.rounds):
        for row in asked.rows:
            measured = overload(settings) if row == "overload" else scaled(asked, settings, row == "limit")
            for key, figures in measured:
                print(json.dumps({"round": turn, "row": row, "what": key[0], "shards": key[1]} | figures), flush=True)
                found.setdefault((row, *key), []).append(figures)
    print(f"\nMachine: {machine()}; medians of {asked.rounds} rounds.\n")
    names = list(dict.fromkeys(name for rounds in found.values() for name in rounds[0] if name != "doubts"))
    rows = [[*map(str, key), *(number(median(one[name] for one in rounds)) if name in rounds[0] else "" for name in names)]
            for key, rounds in found.items()]  # fmt: skip
    print(table(["row", "what", "shards", *(name.replace("_", " ") for name in names)], rows))


if __name__ == "__main__":
    main()
