#!/usr/bin/env python3
"""Counts the instructions that flowcast executes in user space for one frame, one client and one record, and fails
where one of them is more than 3 % above the figure in benches/cost.json.

    make test-cost                                    compares
    python3 loadtest/bench/cost.py --renew            writes the file anew
    python3 loadtest/bench/cost.py --rounds 10        how far the figures are apart

valgrind's callgrind counts, so the machine does not matter, and what else runs on it hardly does. The program is the one that the
tests have built (target/debug/flowcast), with debug assertions and little optimization: the figures tell whether a
change costs something, not what it costs in a release. The kernel's part is not in them.

What is counted is the difference between two runs that differ only in how much was done, so the start cancels. The
kept figures are the highest of a few rounds. A compiler of another version makes another program: then the figures are
shown and nothing fails.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import queue
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import recorder
import servers
from peers import CHANNEL, to_flowcast
from servers import running

FIGURES = servers.ROOT / "benches/cost.json"
DEBUG = servers.ROOT / "target/debug/flowcast"
TOLERATED, IDLE_S = 0.03, 8
HUB, STREAMS, TICKS, MESSAGES, MORE_CLIENTS, RECORDS, MORE_RECORDS = 300, 128, 150, 200, 300, 200, 2200
CORES = queue.SimpleQueue()
PAYLOAD = '{"seq":%d,"pad":"' + "x" * 240 + '"}'


class Client:
    """A client that reads message by message."""

    def __init__(self, url, wire, *requests):
        self.socket, self.unread = recorder.upgraded(url, wire)
        for request in requests:
            self.socket.sendall(request)

    def next(self):
        """The next message."""
        while (message := next(recorder.messages(self.unread), None)) is None:
            self.unread += recorder.received(self.socket)
        self.unread = self.unread[self.unread.index(message) + len(message) :]
        return message

    def until(self, *words):
        """Reads until a message has one of the words."""
        while not any(word in self.next() for word in words):
            pass
        return self


def negotiated(server):
    """Where a client of the hub connects to."""
    answer = json.loads(server.http("GET", "/v2/negotiate", headers={"Authorization": "Bearer cost"}))
    return answer["websocket_urls"]["orderflow"].replace("ws://", "http://")


def joined(url, number):
    """A client of the hub. The subprotocols take turns."""
    wire = list(recorder.SUBPROTOCOLS)[number % len(recorder.SUBPROTOCOLS)]
    client = Client(url, wire, recorder.join(wire, recorder.group("SPX"), 1))
    client.next()
    client.next()
    return client


def subscribed(server, token):
    """A client of the JSON streams."""
    request = recorder.masked(1, json.dumps({"type": "subscribe", "channels": [CHANNEL]}).encode())
    return Client(f"{server.url}/ws?token={token}", None, request).until(b'"subscribed"')


def kept_alive(server):
    """A function for requests over one connection."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)

    def request(method, path, body=None, headers={}):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: HTTP {answer.status} {told[:200]!r}")
        return told

    return request


def count(valgrind, folder, name, records=RECORDS, **work):
    """The instructions of one run of the server, and how many seconds it took."""
    log = folder / f"{name}.log"
    callgrind = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}"]
    options = ["--start-paused", "--control-rate", "100000", "--io-uring", "false", "--replay-trading", "false", "--kafka-topics", CHANNEL]
    command = [*callgrind, *servers.flowcast(folder / f"{records}", "1s", *options)]
    # One core, so that there are as many threads everywhere; whichever one is free.
    core = CORES.get()
    begin = time.monotonic()
    try:
        exercise(command, core, **work)
    finally:
        CORES.put(core)
    return int(re.search(r"Collected : (\d+)", log.read_text())[1]), time.monotonic() - begin


def exercise(command, core, ticks=0, messages=0, clients=0, idle_s=0):
    """Starts the server, does with it what is counted, and ends it."""
    with running(command, log_level="info", cores=core, stop_s=60) as server:
        server.await_words('"loaded"')
        server.http = kept_alive(server)
        token = subprocess.run([servers.FLOWCAST, "token", "--sub", "cost"], check=True, capture_output=True, text=True).stdout.strip()
        url = negotiated(server)
        hub = [joined(url, number) for number in range(HUB)]
        streams = [subscribed(server, token) for _ in range(STREAMS)]
        publish = to_flowcast(server)
        # Everybody has one of what is counted before the counting.
        for _ in range(1 + ticks):
            # Tick by tick, so that no two leave in one send.
            server.http("PATCH", "/replay", '{"step":1}', {"Content-Type": "application/json"})
            for client in hub:
                client.next()
        for number in range(1 + messages):
            publish(PAYLOAD % number)
            for client in streams:
                client.until(b'"message"')
        late = [joined(negotiated(server), number) for number in range(clients)]
        time.sleep(idle_s)
        for client in [*hub, *streams, *late]:
            client.socket.close()


def figures(valgrind):
    """Instructions per frame of the hub, per frame of the JSON streams, per client, per record."""
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(CORES.qsize()) as pool:
        for records in (RECORDS, MORE_RECORDS):
            subprocess.run([servers.FLOWCAST, "generate", "--out", f"{folder}/{records}", "--tickers", "SPX", "--categories",
                            "orderflow", "--records", str(records)], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        runs = {
            "hub, per frame, stepped over HTTP": ({"ticks": TICKS}, TICKS * HUB),
            "streams, per frame, published over HTTP": ({"messages": MESSAGES}, MESSAGES * STREAMS),
            "negotiate, upgrade and join, per client": ({"clients": MORE_CLIENTS}, MORE_CLIENTS),
            "line to frames, per record": ({"records": MORE_RECORDS}, MORE_RECORDS - RECORDS),
        }
        base = pool.submit(count, valgrind, Path(folder), "base")
        idle = pool.submit(count, valgrind, Path(folder), "idle", idle_s=IDLE_S)
        done = {name: pool.submit(count, valgrind, Path(folder), str(at), **more)
                for at, (name, (more, _)) in enumerate(runs.items())}  # fmt: skip
        begin, begin_s = base.result()
        # A server that only waits looks around now and then; on a busy machine a run takes longer, and more of that.
        idle_per_s = (idle.result()[0] - begin) / (idle.result()[1] - begin_s)

        def each(name):
            end, end_s = done[name].result()
            return round((end - begin - idle_per_s * (end_s - begin_s)) / runs[name][1])

        return {name: each(name) for name in runs}


def compare(found, kept):
    """Prints the table; returns the names of what became more expensive."""
    worse = []
    print(f"{'instructions in user space':<42} {'now':>9} {'kept':>9}")
    for name, now in found.items():
        change = now / kept["instructions"][name] - 1
        worse += [name] if change > TOLERATED else []
        print(f"{name:<42} {now:>9,} {kept['instructions'][name]:>9,} {change:+7.1%}")
    return worse


def rustc():
    """The compiler's version."""
    return subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowcast", type=servers.program, default=str(DEBUG), metavar="PROGRAM", help="default: %(default)s")
    parser.add_argument("--renew", action="store_true", help="write the figures to benches/cost.json")
    parser.add_argument("--rounds", type=int, default=1, help="count so often, and show all figures")
    asked = parser.parse_args()
    servers.FLOWCAST = asked.flowcast
    os.environ["WS_AUTH_SECRET"] = secrets.token_urlsafe(32)
    valgrind = subprocess.run(["bash", servers.ROOT / "tests/valgrind.sh"], stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    if not valgrind:
        print("not counted: there is no valgrind")
        return 0
    for core in os.sched_getaffinity(0):
        CORES.put(core)
    for turn in range(asked.rounds):
        found = figures(valgrind)
        if asked.rounds > 1:
            print(f"round {turn + 1}: {found}", flush=True)
    if asked.renew:
        FIGURES.write_text(json.dumps({"rustc": rustc(), "instructions": found}, indent=2) + "\n")
    kept = json.loads(FIGURES.read_text())
    if any(now > kept["instructions"][name] * (1 + TOLERATED) for name, now in found.items()):
        # A machine that is very busy shifts the figures by some percent, once.
        again = figures(valgrind)
        found = {name: min(now, again[name]) for name, now in found.items()}
    worse = compare(found, kept)
    if rustc() != kept["rustc"]:
        print(f"the kept figures are of {kept['rustc']}, this is {rustc()}: nothing fails")
        return 0
    if worse:
        print(f"more than {TOLERATED:.0%} above what is kept in benches/cost.json: {', '.join(worse)}.\n"
              "If that is worth it, run `make test-cost RENEW=1` and commit the file with the reason.")  # fmt: skip
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
