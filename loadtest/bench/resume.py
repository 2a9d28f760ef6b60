#!/usr/bin/env python3
"""Everybody resumes at once: the goal W15 (benches/GOALS.md).

    cargo build --release --workspace --bins
    python3 loadtest/bench/resume.py
    python3 loadtest/bench/resume.py --clients 500 --behind 100 --rounds 1

A channel has some thousand messages of 300 bytes in its history. Each client of /ws subscribes to it with a position that
many messages back, all in the same moment. It must get exactly those, in their order: its bytes are compared with those of
a client that did so alone, whose numbers are checked one by one. The others, clients of another channel at 20 messages a
second, are the swarm's: their latency is told with and without the resumption. They are measured over the same time, and
the clients that resume take their messages at the lowest priority: core 1 is the swarm's, too.

flowcast has one shard and core 0, the swarm and this program have core 1.
"""

import argparse
import json
import os
import select
import subprocess
import tempfile
import threading
import time
import urllib.request

import servers
from cases import Settings
from fanout import count, prepare
from latency import WIRE, awaited, token
from meter import Meter
from recorder import masked, messages, received, upgraded
from report import machine, number, table
from servers import CLIENT_CORE, flowcast, pinned, running
from stats import estimate, verdict

BYTES, CHANNEL, OTHERS_CHANNEL, OTHERS_RATE = 300, "lines", "others", 20
TIMES_P99 = 2.0
BATCH, LIMIT_S = 500, 300
# A ping would stand somewhere between the messages that are compared.
QUIET_S = 3600


def publish(server, first, last):
    """Publishes the messages with these numbers."""
    for begin in range(first, last + 1, BATCH):
        lines = (json.dumps({"channel": CHANNEL, "data": {"n": at, "text": "x" * BYTES}})
                 for at in range(begin, min(begin + BATCH, last + 1)))  # fmt: skip
        request = urllib.request.Request(f"{server.url}/api/publish", "\n".join(lines).encode(), {
            "Authorization": f"Bearer {token(role='publisher')}", "Content-Type": "application/x-ndjson"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()


def subscribe(since=None):
    """The request, with a position or without."""
    more = {"since": since} if since else {}
    return masked(1, json.dumps({"type": "subscribe", "channel": CHANNEL} | more).encode())


def connected(server):
    """A client of /ws that has asked for nothing yet."""
    connection, stream = upgraded(f"{server.url}/ws?token={token()}", WIRE)
    return connection, stream


def position(server):
    """The epoch of the channel."""
    connection, stream = connected(server)
    with connection:
        connection.sendall(subscribe())
        return json.loads(awaited(connection, stream, b'"subscribed"'))["positions"][CHANNEL]


def alone(server, since, wanted):
    """The bytes that a client gets that resumes alone: the answer, and each of the messages, whose numbers are checked."""
    connection, stream = connected(server)
    with connection:
        connection.sendall(subscribe(since))
        while len(found := list(messages(bytes(stream)))) < wanted + 1:
            stream += received(connection)
    answer = json.loads(found[0])
    if not answer["positions"][CHANNEL]["recovered"]:
        raise RuntimeError(f"the messages are not there: {found[0][:300]!r}")
    numbers = [json.loads(message)["payload"]["n"] for message in found[1:]]
    if numbers != list(range(numbers[0], numbers[0] + wanted)):
        raise RuntimeError(f"lost alone: {numbers[:3]} to {numbers[-1]}, {len(numbers)} of {wanted}")
    return bytes(stream)


class Storm(threading.Thread):
    """All clients resume at once, and read until each has what it must get."""

    def __init__(self, clients, since, expected):
        super().__init__()
        self._clients, self._request, self._expected = clients, subscribe(since), expected
        self.seconds, self.wrong = None, []

    def run(self):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        poll, places, buffer = select.epoll(), {}, bytearray(1 << 20)
        for connection, _ in self._clients:
            connection.setblocking(False)
            poll.register(connection, select.EPOLLIN)
            places[connection.fileno()] = [connection, 0]
        begin = time.monotonic()
        for connection, _ in self._clients:
            connection.send(self._request)
        expected, left = memoryview(self._expected), len(places)
        while left and time.monotonic() < begin + LIMIT_S:
            for file, _ in poll.poll(1):
                place = places[file]
                length = place[0].recv_into(buffer)
                end = place[1] + length
                is_right = length and memoryview(buffer)[:length] == expected[place[1] : end]
                place[1] = end
                if not is_right or end == len(expected):
                    self.wrong += [] if is_right else [(file, end)]
                    poll.unregister(file)
                    left -= 1
        self.seconds = time.monotonic() - begin
        if left:
            self.wrong.append((f"{left} clients were not served", LIMIT_S))


def others(server, asked, storm=None):
    """The latency of the clients of another channel, p50 and p99 in ms."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [servers.SWARM, "--quiet", "--url", server.url, "--protocols", "streams", "--workers", "1",
                   "--claim", "delivery", "--connections", str(asked.others), "--duration", f"{asked.seconds}s",
                   "--channels", OTHERS_CHANNEL, "--publish-rate", str(OTHERS_RATE), "--publish-bytes", str(BYTES),
                   "--ramp", "2000", "--json", report.name]  # fmt: skip
        process = subprocess.Popen(pinned(CLIENT_CORE, command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if storm:
            # The swarm is up, and measures.
            time.sleep(asked.others / 2000 + 1.5)
            storm.start()
        _, error = process.communicate(timeout=LIMIT_S + asked.seconds)
        if storm:
            storm.join()
        if process.returncode == 2 or not os.path.getsize(report.name):
            raise RuntimeError(f"the swarm did not run: {error[-500:]!r}")
        summary = json.load(report)["summary"]
    if summary["delivery"] != "proven":
        raise RuntimeError(f"the others' delivery is {summary['delivery']}: {summary['reasons']}")
    return summary["latency"]["p50_us"] / 1000, summary["latency"]["p99_us"] / 1000


def one_round(asked, data):
    """The figures of a round."""
    total = asked.behind + 100
    command = flowcast(data, "1h", "--replay-trading", "false", "--kafka-topics", f"{CHANNEL},{OTHERS_CHANNEL}",
                       "--history-messages", total, "--websocket-ping-interval", QUIET_S)  # fmt: skip
    with running(command, built=True) as server:
        publish(server, 1, total)
        begin = position(server)
        since = {"epoch": begin["epoch"], "seq": begin["seq"] - asked.behind}
        expected = alone(server, since, asked.behind)
        before = others(server, asked)
        clients = [connected(server) for _ in range(asked.clients)]
        storm = Storm(clients, since, expected)
        with Meter(server.pid) as meter:
            began = time.monotonic_ns()
            during = others(server, asked, storm)
            ended = time.monotonic_ns()
        for connection, _ in clients:
            connection.close()
    if storm.wrong:
        raise RuntimeError(f"{len(storm.wrong)} clients got something else: {storm.wrong[:3]}")
    return {
        "seconds": storm.seconds, "messages/s": asked.clients * asked.behind / storm.seconds,
        "MB": len(expected) * asked.clients / 1e6, "server CPU s": meter.cpu_s(began, ended),
        "others p50 before": before[0], "others p50 during": during[0],
        "others p99 before": before[1], "others p99 during": during[1], "p99 ratio": during[1] / before[1],
    }  # fmt: skip


def options():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=count, default=5000, help="that resume; default: %(default)s")
    parser.add_argument("--behind", type=count, default=1000, help="messages each; default: %(default)s")
    parser.add_argument("--others", type=count, default=500, help="clients of another channel; default: %(default)s")
    parser.add_argument("--seconds", type=count, default=10, help="that the others are measured; default: %(default)s")
    parser.add_argument("--rounds", type=count, default=3, help="default: %(default)s")
    return servers.asked_of(parser)


def main():
    """Measures and prints."""
    asked = options()
    data = Settings(prepare(), "resume", (WIRE,), 0, False).one()
    rounds = []
    for turn in range(asked.rounds):
        rounds.append(one_round(asked, data))
        print(json.dumps({"round": turn} | {name: round(value, 2) for name, value in rounds[-1].items()}), flush=True)
    print(f"\nMachine: {machine()}; {asked.clients:,} clients, each {asked.behind:,} messages behind, 0 lost.\n")
    rows = []
    for name in rounds[0]:
        found = estimate([one[name] for one in rounds])
        judged = f"< {TIMES_P99:g}: {verdict(found, TIMES_P99, False)}" if name == "p99 ratio" else ""
        rows.append([name, f"{number(found.median)} ({number(found.low)} to {number(found.high)})", judged])
    print(table(["what", "median (interval)", "must"], rows))


if __name__ == "__main__":
    main()
