#!/usr/bin/env python3
"""Latency for few subscribers: the goal W13 (benches/GOALS.md). Who measures one client's latency sees wake-ups, not sweeps.

    cargo build --release --workspace --bins
    python3 loadtest/bench/latency.py
    python3 loadtest/bench/latency.py --subscribers 1 --rounds 3 --cores any
    python3 loadtest/bench/latency.py --against ../before/target/release/flowcast

Each round measures, one after the other and in the opposite order each time:

ping-pong  a message of 300 bytes to another process over TCP, and back: two wake-ups and nothing else
replay     from when a tick is due, as /ticks tells it, to its frame at a subscriber of the group
publish    from before the first byte of a POST /api/publish to the message at a subscriber of /ws

A message comes when everybody sleeps, every 50 ms at the usual rate. One subscriber after the other is timed: it waits
in recv(2) for the message; the others are read when it has it, so no turn of this program is in a figure, and each
subscriber of a sweep counts equally. With `--cores apart` the servers have core 0 and this program has core 1, as in all
benchmarks here; with `any` the kernel chooses.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import multiprocessing
import os
import re
import socket
import time
import urllib.request
from bisect import bisect_right
from statistics import median
from urllib.parse import urlsplit

import servers
from cases import Settings
from fanout import count, prepare, some_of
from recorder import group, join, masked, messages, received, upgraded
from report import machine, number, table
from servers import CLIENT_CORE, SERVER_CORE, running
from stats import estimate, verdict
from swarm import quantile

BYTES, CHANNEL, WIRE = 300, "lines", "protobuf"
GOALS = {"replay": 1.4, "publish": 2.5}
CORES = {"apart": SERVER_CORE, "any": f"{SERVER_CORE},{CLIENT_CORE}"}
IDLE_INTERVAL = "1h"


def part(data):
    """A part of a token."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(**claims):
    """A token for /ws, or to publish."""
    content = ".".join(part(json.dumps(each).encode()) for each in ({"alg": "HS256"}, {"sub": "latency"} | claims))
    secret = os.environ["WS_AUTH_SECRET"].encode()
    return f"{content}.{part(hmac.new(secret, content.encode(), hashlib.sha256).digest())}"


def echo(listener, core):
    """Sends back what comes, until the other end closes."""
    os.sched_setaffinity(0, core)
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(4096):
        connection.sendall(data)


class Pace:
    """The moments at which messages leave: when everybody has long been asleep."""

    def __init__(self, rate):
        self._period_s, self._next_s = 1 / rate, time.monotonic()

    def wait(self):
        """Sleeps until the next one."""
        self._next_s += self._period_s
        time.sleep(max(self._next_s - time.monotonic(), 0))


def ping_pong(asked):
    """Round trips of a message between two processes, ns."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cores = {SERVER_CORE} if asked.cores == "apart" else os.sched_getaffinity(0)
        process = multiprocessing.get_context("fork").Process(target=echo, args=(listener, cores), daemon=True)
        process.start()
        taken, pace, message = [], Pace(asked.rate), b"x" * BYTES
        with socket.create_connection(listener.getsockname()) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(asked.messages):
                pace.wait()
                begin = time.monotonic_ns()
                connection.sendall(message)
                length = BYTES
                while length:
                    length -= len(received(connection))
                taken.append(time.monotonic_ns() - begin)
        process.join()
    return {"all": taken}


def read_message(connection, stream):
    """The next message of a connection, and when it was there; `stream` keeps what came behind it."""
    while not (found := next(messages(bytes(stream)), None)):
        stream += received(connection)
    at = time.monotonic_ns()
    del stream[: stream.index(found) + len(found)]
    return found, at


def awaited(connection, stream, words):
    """Reads until a message has these words: answers come before data, or between."""
    while words not in (found := read_message(connection, stream)[0]):
        pass
    return found


def hub_clients(server, clients):
    """Connections that have joined a group."""
    opened = []
    for _ in range(clients):
        connection, stream = upgraded(f"{server.url}/client/hubs/orderflow?access_token=bench", WIRE)
        connection.sendall(join(WIRE, group("SPX"), 1))
        opened.append((connection, stream))
    return opened


def replay(asked, clients, data, program):
    """From when ticks were due to their frames, ns; and how late the ticks began."""
    command = servers.flowcast(data, f"{round(1000 / asked.rate)}ms", "--wait-for", clients, program=program)
    with running(command, cores=CORES[asked.cores], built=True) as server, contextlib.ExitStack() as stack:
        opened = hub_clients(server, clients)
        for connection, stream in opened:
            stack.enter_context(connection)
            # `connected`, the ack, and the first tick: the clock waits for the last of them.
            for _ in range(3):
                read_message(connection, stream)
        arrived = []
        for turn in range(asked.messages):
            timed = turn % clients
            arrived.append(read_message(*opened[timed])[1])
            for at, other in enumerate(opened):
                if at != timed:
                    read_message(*other)
        with urllib.request.urlopen(f"{server.url}/ticks?limit=1000", timeout=10) as answer:
            ticks = [tick for tick in json.load(answer)["ticks"] if tick["publications"]]
    due = [tick["scheduled_ns"] for tick in ticks]
    places = [bisect_right(due, at) - 1 for at in arrived]
    if places != list(range(places[0], places[0] + len(places))):
        raise RuntimeError("a frame took longer than a tick: nothing can be said of its latency")
    late = [ticks[place]["published_ns"] - due[place] for place in places]
    return {"all": [at - due[place] for at, place in zip(arrived, places)], "late": late}


def stream_clients(server, clients):
    """Connections that are subscribed to the channel."""
    opened = []
    for _ in range(clients):
        connection, stream = upgraded(f"{server.url}/ws?token={token()}", WIRE)
        connection.sendall(masked(1, json.dumps({"type": "subscribe", "channels": [CHANNEL]}).encode()))
        awaited(connection, stream, b'"subscribed"')
        opened.append((connection, stream))
    return opened


def post(address, text):
    """A request that publishes a message, as one write."""
    body = json.dumps({"channel": CHANNEL, "data": {"text": text}}).encode()
    head = (f"POST /api/publish HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token(role='publisher')}\r\nContent-Length: {len(body)}\r\n\r\n")  # fmt: skip
    return head.encode() + body


def publish(asked, clients, data, program):
    """From a POST to the message at a subscriber, and to the answer, ns."""
    command = servers.flowcast(data, IDLE_INTERVAL, "--replay-trading", "false", program=program)
    with running(command, cores=CORES[asked.cores], built=True) as server, contextlib.ExitStack() as stack:
        opened = stream_clients(server, clients)
        for connection, _ in opened:
            stack.enter_context(connection)
        address = urlsplit(server.url)
        publisher = stack.enter_context(socket.create_connection((address.hostname, address.port), 10))
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken, pace = [], Pace(asked.rate)
        for turn in range(asked.messages):
            text = f"{turn:06}".ljust(BYTES, "x")
            request, timed = post(address, text), turn % clients
            pace.wait()
            begin = time.monotonic_ns()
            publisher.sendall(request)
            found, at = read_message(*opened[timed])
            taken.append(at - begin)
            answer = received(publisher)
            if text.encode() not in found or not re.match(rb"HTTP/1.1 200 .*\"accepted\":1", answer, re.DOTALL):
                raise RuntimeError(f"published {text[:6]}, got {found[:99]!r} and {answer[-99:]!r}")
            for other, opened_other in enumerate(opened):
                if other != timed and text.encode() not in read_message(*opened_other)[0]:
                    raise RuntimeError("a subscriber got something else")
    return {"all": taken}


def one_round(asked, data, contenders, turn):
    """p50 in µs by row, subscribers and program."""
    figures = {}
    for key in contenders[:: -1 if turn % 2 else 1]:
        row, clients, program = key
        if row == "ping-pong":
            measured = ping_pong(asked)
        else:
            measured = {"replay": replay, "publish": publish}[row](asked, clients, data, program)
        figures[key] = {name: median(values) / 1000 for name, values in measured.items()}
        figures[key]["p99"] = quantile(sorted(measured["all"]), 0.99) / 1000
        print(json.dumps({"round": turn, "row": row, "subscribers": clients, "program": program or "this"}
                         | {name: round(value, 1) for name, value in figures[key].items()}), flush=True)  # fmt: skip
    return figures


def options():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=some_of(tuple(GOALS)), default=tuple(GOALS), help=f"default: {','.join(GOALS)}")
    parser.add_argument("--subscribers", type=lambda text: [count(word) for word in text.split(",")], default=[1, 10, 100],
                        help="default: 1,10,100")  # fmt: skip
    parser.add_argument("--rounds", type=count, default=11, help="default: %(default)s")
    parser.add_argument("--messages", type=count, default=100, help="of a measurement; default: %(default)s")
    parser.add_argument("--rate", type=count, default=20, help="messages a second; default: %(default)s")
    parser.add_argument("--cores", choices=CORES, default="apart", help="default: %(default)s")
    parser.add_argument("--against", type=servers.program, metavar="PROGRAM", help="another flowcast to measure beside")
    return servers.asked_of(parser)


def lines(rounds, contenders, base):
    """The rows of the table."""
    for key in contenders:
        row, clients, program = key
        if key == base:
            yield ["ping-pong, round trip", "", number(median(one[key]["all"] for one in rounds)), "", "", ""]
            continue
        found = estimate([one[key]["all"] / one[base]["all"] for one in rounds])
        late = f", of which {number(median(one[key]['late'] for one in rounds))} until the tick begins" if row == "replay" else ""
        yield [
            row + (f" ({program})" if program else ""), str(clients),
            number(median(one[key]["all"] for one in rounds)) + late, number(median(one[key]["p99"] for one in rounds)),
            f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})",
            f"≤ {GOALS[row]:g}: {verdict(found, GOALS[row], False)}",
        ]  # fmt: skip


def main():
    """Measures and prints."""
    asked = options()
    work = prepare()
    if asked.cores == "any":
        os.sched_setaffinity(0, {SERVER_CORE, CLIENT_CORE})
    data = Settings(work, "latency", (WIRE,), 0, False).one()
    base = ("ping-pong", 1, None)
    programs = [None, asked.against] if asked.against else [None]
    contenders = [base] + [(row, clients, program) for row in asked.rows for clients in asked.subscribers for program in programs]
    rounds = [one_round(asked, data, contenders, turn) for turn in range(asked.rounds)]
    print(f"\nMachine: {machine()}; {asked.rate} messages/s, {asked.messages} a measurement, cores: {asked.cores}, "
          f"{asked.rounds} rounds; medians of p50 and p99, µs.\n")  # fmt: skip
    print(table(["what", "subscribers", "p50", "p99", "p50 ÷ ping-pong", "must"], lines(rounds, contenders, base)))


if __name__ == "__main__":
    main()
