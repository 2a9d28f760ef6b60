#!/usr/bin/env python3
"""Latency for few subscribers: the goal W13 (benches/GOALS.md). Who measures one client's latency sees wake-ups, not sweeps.

    cargo build --release --workspace --bins
    python3 loadtest/bench/latency.py
    python3 loadtest/bench/latency.py --subscribers 1 --rounds 3 --cores any
    python3 loadtest/bench/latency.py --against ../before/target/release/flowcast
    python3 loadtest/bench/latency.py --rows kafka

Each round measures, one after the other and in the opposite order each time:

ping-pong  a message of 300 bytes to another process over TCP, and back: two wake-ups and nothing else
replay     from when a tick is due, as /ticks tells it, to its frame at a subscriber of the group
publish    from before the first byte of a POST /api/publish to the message at a subscriber of /ws
kafka      from before a producer gets the message to the message at a subscriber of /ws, through a real broker, which has the
           generator's core. Divided by the same through a bare consumer that forwards it over TCP: what flowcast adds to
           Kafka. Needs Java and confluent-kafka (loadtest/bench/requirements.txt), and is measured only if asked for.

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
import sys
import time
import urllib.request
from bisect import bisect_right
from statistics import median
from urllib.parse import urlsplit

import latency_kafka
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
ROWS = (*GOALS, "kafka")
BASES = {"kafka": ("bare consumer", 1, None)}
PING_PONG = ("ping-pong", 1, None)
CORES = {"apart": SERVER_CORE, "any": f"{SERVER_CORE},{CLIENT_CORE}"}
CORE_SET = {SERVER_CORE, CLIENT_CORE}
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
    """The next message of a connection, and when recv(2) had it; `stream` keeps what came behind it."""
    at = time.monotonic_ns()
    while not (found := next(messages(bytes(stream)), None)):
        data = received(connection)
        at = time.monotonic_ns()
        stream += data
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


def stream_clients(server, clients, channel):
    """Connections that are subscribed to the channel."""
    opened = []
    for _ in range(clients):
        connection, stream = upgraded(f"{server.url}/ws?token={token()}", WIRE)
        connection.sendall(masked(1, json.dumps({"type": "subscribe", "channels": [channel]}).encode()))
        awaited(connection, stream, b'"subscribed"')
        opened.append((connection, stream))
    return opened


class Publisher:
    """Publishes over HTTP, each message as one write."""

    def __init__(self, address):
        self._address, self._request = address, b""
        self._connection = socket.create_connection((address.hostname, address.port), 10)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def prepare(self, text):
        """Writes the request."""
        body = json.dumps({"channel": CHANNEL, "data": {"text": text}}).encode()
        head = (f"POST /api/publish HTTP/1.1\r\nHost: {self._address.netloc}\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {token(role='publisher')}\r\nContent-Length: {len(body)}\r\n\r\n")  # fmt: skip
        self._request = head.encode() + body

    def send(self):
        """Sends it."""
        self._connection.sendall(self._request)

    def confirm(self):
        """Reads the answer."""
        answer = received(self._connection)
        if not re.match(rb"HTTP/1.1 200 .*\"accepted\":1", answer, re.DOTALL):
            raise RuntimeError(f"published a message, got {answer[-99:]!r}")


def from_send(asked, publisher, readers):
    """From before a message is sent to when a reader has it, one reader after the other, ns."""
    taken, pace = [], Pace(asked.rate)
    for turn in range(asked.messages):
        text, timed = f"{turn:06}".ljust(BYTES, "x"), turn % len(readers)
        publisher.prepare(text)
        pace.wait()
        begin = time.monotonic_ns()
        publisher.send()
        found, at = readers[timed]()
        taken.append(at - begin)
        publisher.confirm()
        others = (read()[0] for reader, read in enumerate(readers) if reader != timed)
        if not all(text.encode() in message for message in (found, *others)):
            raise RuntimeError("a subscriber got something else")
    return {"all": taken}


@contextlib.contextmanager
def subscribers(asked, clients, channel, command):
    """A server, and connections that are subscribed to its channel, for a block."""
    with running(command, cores=CORES[asked.cores], built=True) as server, contextlib.ExitStack() as stack:
        opened = stream_clients(server, clients, channel)
        for connection, _ in opened:
            stack.enter_context(connection)
        yield server, opened, [lambda one=one: read_message(*one) for one in opened]


def publish(asked, clients, data, program):
    """From a POST to the message at a subscriber, ns."""
    command = servers.flowcast(data, IDLE_INTERVAL, "--replay-trading", "false", program=program)
    with subscribers(asked, clients, CHANNEL, command) as (server, _, readers):
        return from_send(asked, Publisher(urlsplit(server.url)), readers)


def kafka(asked, clients, data, program):
    """From a producer to the message at a subscriber, ns."""
    topic = latency_kafka.Topic(asked.kafka)
    command = servers.flowcast(data, IDLE_INTERVAL, "--replay-trading", "false", "--kafka-brokers", asked.kafka,
                               "--kafka-topics", topic.name, program=program)  # fmt: skip
    with subscribers(asked, clients, topic.name, command) as (_, opened, readers):
        connections = [connection for connection, _ in opened]
        topic.until(lambda text: all(heard(connection, read, text) for connection, read in zip(connections, readers)))
        return from_send(asked, topic, readers)


def heard(connection, read, text):
    """Whether a message comes within a second."""
    connection.settimeout(1)
    try:
        while text.encode() not in read()[0]:
            pass
        return True
    except TimeoutError:
        return False
    finally:
        connection.settimeout(10)


def bare_consumer(asked):
    """From a producer to a message that a bare consumer forwards over TCP, ns."""
    topic = latency_kafka.Topic(asked.kafka)
    with latency_kafka.bare_consumer(topic, {SERVER_CORE} if asked.cores == "apart" else CORE_SET) as connection:
        unread = bytearray()

        def read():
            at = time.monotonic_ns()
            while b"\n" not in unread:
                data = received(connection)
                at = time.monotonic_ns()
                unread.extend(data)
            line, _, rest = bytes(unread).partition(b"\n")
            unread[:] = rest
            return line, at

        topic.until(lambda text: heard(connection, read, text))
        return from_send(asked, topic, [read])


def one_round(asked, data, contenders, turn):
    """p50 in µs by row, subscribers and program."""
    figures = {}
    for key in contenders[:: -1 if turn % 2 else 1]:
        row, clients, program = key
        if row == "ping-pong":
            measured = ping_pong(asked)
        elif row == "bare consumer":
            measured = bare_consumer(asked)
        else:
            measured = {"replay": replay, "publish": publish, "kafka": kafka}[row](asked, clients, data, program)
        figures[key] = {name: median(values) / 1000 for name, values in measured.items()}
        figures[key]["p99"] = quantile(sorted(measured["all"]), 0.99) / 1000
        print(json.dumps({"round": turn, "row": row, "subscribers": clients, "program": program or "this"}
                         | {name: round(value, 1) for name, value in figures[key].items()}), flush=True)  # fmt: skip
    return figures


def options():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=some_of(ROWS), default=tuple(GOALS), help=f"default: {','.join(GOALS)}")
    parser.add_argument("--subscribers", type=lambda text: [count(word) for word in text.split(",")], default=[1, 10, 100],
                        help="default: 1,10,100")  # fmt: skip
    parser.add_argument("--rounds", type=count, default=11, help="default: %(default)s")
    parser.add_argument("--messages", type=count, default=100, help="of a measurement; default: %(default)s")
    parser.add_argument("--rate", type=count, default=20, help="messages a second; default: %(default)s")
    parser.add_argument("--cores", choices=CORES, default="apart", help="default: %(default)s")
    parser.add_argument("--against", type=servers.program, metavar="PROGRAM", help="another flowcast to measure beside")
    return servers.asked_of(parser)


def lines(rounds, contenders):
    """The rows of the table."""
    for key in contenders:
        row, clients, program = key
        p50, p99 = (number(median(one[key][name] for one in rounds)) for name in ("all", "p99"))
        base = BASES.get(row, PING_PONG)
        if row not in ROWS:
            yield [row, "", p50, p99, "", ""]
            continue
        found = estimate([one[key]["all"] / one[base]["all"] for one in rounds])
        late = f", of which {number(median(one[key]['late'] for one in rounds))} until the tick begins" if row == "replay" else ""
        must = f"≤ {GOALS[row]:g}: {verdict(found, GOALS[row], False)}" if row in GOALS else ""
        yield [row + (f" ({program})" if program else ""), str(clients), p50 + late, p99,
               f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f}) of the {base[0]}", must]  # fmt: skip


def measure(asked):
    """The contenders, and what was found in each round."""
    work = prepare()
    if asked.cores == "any":
        os.sched_setaffinity(0, CORE_SET)
    data = Settings(work, "latency", (WIRE,), 0, False).one()
    bases = list(dict.fromkeys(BASES.get(row, PING_PONG) for row in asked.rows))
    programs = [None, asked.against] if asked.against else [None]
    contenders = bases + [(row, clients, program) for row in asked.rows for clients in asked.subscribers for program in programs]
    return contenders, [one_round(asked, data, contenders, turn) for turn in range(asked.rounds)]


def main():
    """Measures and prints."""
    asked = options()
    with contextlib.ExitStack() as stack:
        if "kafka" in asked.rows:
            if missing := latency_kafka.missing():
                sys.exit(f"latency.py: the row kafka needs confluent-kafka: {missing}")
            asked.kafka = stack.enter_context(latency_kafka.broker())
        contenders, rounds = measure(asked)
    print(f"\nMachine: {machine()}; {asked.rate} messages/s, {asked.messages} a measurement, cores: {asked.cores}, "
          f"{asked.rounds} rounds; medians of p50 and p99, µs.\n")  # fmt: skip
    print(table(["what", "subscribers", "p50", "p99", "p50 ÷ base", "must"], lines(rounds, contenders)))


if __name__ == "__main__":
    main()
