#!/usr/bin/env python3
"""What strangers can do to a server: one flood after the other, beside well clients whose delivery the swarm proves.

Each flood has a fresh server. Printed is, for each: how much was thrown at it, memory before, at most and after, how
long a new client waited for an answer meanwhile, and what the well clients lost. The exit code is 1 if they lost
anything, or if memory passed the limit.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import resource
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import servers
from meter import peak_resident_bytes, resident_bytes
from swarm import Load, run

SECRET = "the floods' own secret, 32 bytes or more"
JSON_WIRE = "json.webpubsub.azure.v1"
RELIABLE = "json.reliable.webpubsub.azure.v1"
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
WELL_WIRES = "json,json.reliable,protobuf,protobuf.reliable"
MIB = 1 << 20
BLANKS = b" " * 65536


@dataclass
class Target:
    """The server under attack, and how much has been done to it."""

    host: str
    port: int
    opened: int = 0
    sent_bytes: int = 0

    async def connect(self):
        """One more connection, with a small receive buffer."""
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=4096)
        self.opened += 1
        return reader, writer

    async def send(self, writer, data):
        """Sends, waits until the kernel has most of it, and lets the other attackers have their turn."""
        writer.write(data)
        self.sent_bytes += len(data)
        await writer.drain()
        await asyncio.sleep(0)

    async def send_blanks(self, writer, size):
        """Sends so many, a little at a time: a thousand attackers have no memory for more."""
        for _ in range(size // 65536):
            await self.send(writer, BLANKS)

    async def begin(self, line, *headers):
        """A connection on which a request's head was sent."""
        reader, writer = await self.connect()
        head = "\r\n".join([f"{line} HTTP/1.1", "Host: flood", *headers])
        await self.send(writer, f"{head}\r\n\r\n".encode())
        return reader, writer

    async def upgrade(self, wire=JSON_WIRE, query="access_token=flood:1"):
        """A WebSocket connection to the hub."""
        line = f"GET /client/hubs/orderflow?{query}"
        reader, writer = await self.begin(line, UPGRADE.strip(), f"Sec-WebSocket-Protocol: {wire}")
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def stream(self, token):
        """A WebSocket connection to /ws."""
        reader, writer = await self.begin(f"GET /ws?token={token}", UPGRADE.strip())
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer


def frame(payload, first=0x81):
    """A client's frame, masked with zeros.

    >>> frame(b"ab"), frame(bytes(126))[:4], frame(bytes(65536))[:10]
    (b'\\x81\\x82\\x00\\x00\\x00\\x00ab', b'\\x81\\xfe\\x00~', b'\\x81\\xff\\x00\\x00\\x00\\x00\\x00\\x01\\x00\\x00')
    """
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size <= 0xFFFF:
        length = b"\xfe" + struct.pack(">H", size)
    else:
        length = b"\xff" + struct.pack(">Q", size)
    return bytes([first]) + length + bytes(4) + payload


JOIN = frame(b'{"type":"joinGroup","group":"blue_SPX_orderflow_orderflow","ackId":1}')


def token():
    """A publisher's, which is a reader's as well."""

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    content = ".".join(part(json.dumps(each).encode()) for each in ({"alg": "HS256"}, {"sub": "f", "role": "publisher"}))
    return f"{content}.{part(hmac.new(SECRET.encode(), content.encode(), hashlib.sha256).digest())}"


def bearer():
    """The header with it."""
    return f"Authorization: Bearer {token()}"


async def silent(target):
    """connections that say nothing"""
    reader, _ = await target.connect()
    await reader.read()


async def slow_head(target):
    """a byte of a head per second"""
    _, writer = await target.connect()
    for byte in b"GET /healthz HTTP/1.1\r\nHost: flood\r\nX: " + b"x" * 600:
        await target.send(writer, bytes([byte]))
        await asyncio.sleep(1)


async def large_head(target):
    """heads of 64 KiB"""
    reader, _ = await target.begin("GET /healthz", f"X: {'x' * 65536}")
    await reader.read()


async def strange_body(target):
    """bodies of 8 MiB without a token"""
    _, writer = await target.begin("POST /api/publish", f"Content-Length: {8 * MIB}")
    await target.send_blanks(writer, 8 * MIB)


async def endless_body(target):
    """publishers' bodies of 8 MiB that stop in the middle"""
    reader, writer = await target.begin("POST /api/publish", bearer(), f"Content-Length: {8 * MIB}")
    await target.send_blanks(writer, 4 * MIB)
    await reader.read()


async def slow_body(target):
    """a byte of a publisher's body per second"""
    reader, writer = await target.begin("POST /api/publish", bearer(), "Content-Length: 600")
    reading = asyncio.ensure_future(drain(reader))
    while not reading.done():
        await target.send(writer, b" ")
        await asyncio.sleep(1)


async def large_body(target):
    """bodies announced with 1 GiB"""
    reader, writer = await target.begin("POST /api/publish", bearer(), f"Content-Length: {1 << 30}")
    await target.send_blanks(writer, 65536)
    await reader.read()


async def byte_wise_body(target):
    """bodies of single bytes, a chunk each"""
    _, writer = await target.begin("POST /api/publish", bearer(), "Transfer-Encoding: chunked")
    writer.transport.set_write_buffer_limits(0)
    while True:
        await target.send(writer, b"1\r\n \r\n")
        await asyncio.sleep(0)


async def stalled_ticks(target):
    """readers of /ticks that do not read"""
    await target.begin("GET /ticks?after=0")
    await asyncio.sleep(3600)


async def stalled_download(target):
    """downloads that nobody reads"""
    await target.begin("GET /download/2025-11-28/FLOOD/orderflow?key=flood")
    await asyncio.sleep(3600)


async def upgrade_churn(target):
    """upgrades that are reset at once"""
    _, writer = await target.upgrade()
    writer.transport.abort()


async def half_closed(target):
    """subscribers that close their half, and keep the other open"""
    reader, writer = await target.upgrade()
    await target.send(writer, JOIN)
    writer.write_eof()
    await drain(reader)


async def bad_text(target):
    """upgrades, then text that is not UTF-8"""
    reader, writer = await target.upgrade()
    await target.send(writer, frame(b"\xff"))
    await reader.read()


async def wrong_recoveries(target):
    """recoveries with wrong tokens"""
    query = "awps_connection_id=11111111-2222-3333-4444-555555555555&awps_reconnection_token=x"
    reader, _ = await target.upgrade(RELIABLE, query)
    await reader.read()


async def wrong_tokens(target):
    """upgrades of /ws with tokens that somebody else has signed"""
    _, writer = await target.stream(token()[:-4] + "AAAA")
    writer.close()


async def large_messages(target):
    """messages of 1 MiB, twice what is allowed"""
    reader, writer = await target.upgrade()
    await target.send(writer, frame(bytes(MIB))[:14])
    await target.send_blanks(writer, MIB)
    await reader.read()


async def unfinished_messages(target):
    """messages of 448 KiB that are never finished"""
    reader, writer = await target.upgrade()
    header = frame(bytes(7 * 65536), first=0x01)[:14]
    await target.send(writer, header)
    await target.send_blanks(writer, 7 * 65536)
    await reader.read()


async def join_flood(target):
    """joins and leaves without end"""
    reader, writer = await target.upgrade()
    reading = asyncio.ensure_future(drain(reader))
    number = 0
    while not reading.done():
        requests = []
        for _ in range(100):
            number += 1
            group = f"blue_T{number % 3000}_orderflow_orderflow"
            for kind in ("joinGroup", "leaveGroup"):
                requests.append(frame(json.dumps({"type": kind, "group": group, "ackId": number}).encode()))
        await target.send(writer, b"".join(requests))


async def unread_acks(target):
    """joins without end, no answer read"""
    _, writer = await target.upgrade()
    while True:
        await target.send(writer, JOIN * 500)


async def subscribe_flood(target):
    """subscriptions on /ws without end, with what each begins with"""
    reader, writer = await target.stream(token())
    reading = asyncio.ensure_future(drain(reader))
    asked = {"channels": ["price_updates", "signals", "trades", "portfolio"]}
    both = b"".join(frame(json.dumps({"type": kind, **asked}).encode()) for kind in ("subscribe", "unsubscribe"))
    while not reading.done():
        await target.send(writer, both * 50)


async def ping_flood(target):
    """pings and sequence acks without end, no answer read"""
    _, writer = await target.upgrade(RELIABLE)
    ack = frame(json.dumps({"type": "sequenceAck", "sequenceId": 1}).encode())
    while True:
        await target.send(writer, (frame(b"ping", first=0x89) + ack) * 500)


async def never_reading(target):
    """subscribers that never read"""
    _, writer = await target.upgrade()
    await target.send(writer, JOIN)
    writer.transport.pause_reading()
    await asyncio.sleep(3600)


async def byte_reading(target):
    """subscribers that read a byte a second"""
    reader, writer = await target.upgrade()
    await target.send(writer, JOIN)
    while await reader.read(1):
        await asyncio.sleep(1)


async def drain(reader):
    """Reads to the end, whatever it is."""
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


# Each with the number of clients that do it at the same time.
FLOODS = {
    silent: 4200, slow_head: 4200, large_head: 200, strange_body: 200, endless_body: 1000, slow_body: 1000,
    large_body: 1000, byte_wise_body: 100, stalled_ticks: 1000, stalled_download: 1000, upgrade_churn: 200,
    half_closed: 1000, bad_text: 200, wrong_recoveries: 200, wrong_tokens: 200, large_messages: 200,
    unfinished_messages: 1500, join_flood: 50, unread_acks: 50, subscribe_flood: 50, ping_flood: 50,
    never_reading: 1000, byte_reading: 1000,
}  # fmt: skip


async def again_and_again(flood, target):
    """One attacker: when it is thrown out, it comes again."""
    while True:
        try:
            await flood(target)
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await asyncio.sleep(0.01)


async def attack(flood, target, clients, seconds):
    """All attackers for a while."""
    attackers = []
    for _ in range(clients):
        attackers.append(asyncio.ensure_future(again_and_again(flood, target)))
        await asyncio.sleep(0)
    await asyncio.sleep(seconds)
    for attacker in attackers:
        attacker.cancel()
    for ended in await asyncio.gather(*attackers, return_exceptions=True):
        if not isinstance(ended, asyncio.CancelledError):
            raise RuntimeError("an attacker gave up") from ended


class Prober(threading.Thread):
    """Asks for /healthz again and again, each time as a new client."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.slowest_s, self.failed = url, 0.0, 0
        self._done = threading.Event()

    def run(self):
        while not self._done.wait(0.1):
            begun = time.monotonic()
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=10) as answer:
                    answer.read()
            except OSError:
                self.failed += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)

    def end(self):
        """Stops asking."""
        self._done.set()
        self.join()


def one(flood, clients, data, asked):
    """Runs one flood; returns its row and whether the server stood it."""
    load = Load(asked.clients, WELL_WIRES, "SPX", asked.seconds + 4, ledger="require", tells_latency=False)
    command = servers.flowcast(data, "100ms", "--auth-secret", SECRET)
    with servers.running(command) as server, ThreadPoolExecutor(1) as pool:
        well = pool.submit(run, server, load)
        time.sleep(3)
        before = resident_bytes(server.pid)
        host, port = server.url.removeprefix("http://").split(":")
        target, prober = Target(host, int(port)), Prober(server.url)
        prober.start()
        asyncio.run(attack(flood, target, clients, asked.seconds))
        prober.end()
        proven = well.result()
        after, most = resident_bytes(server.pid), peak_resident_bytes(server.pid)
        log_bytes = os.fstat(server.log.fileno()).st_size
    delivered = proven.summary["delivery"] != "failed"
    stood = delivered and most < asked.limit * MIB and prober.failed == 0
    row = [
        flood.__doc__, f"{clients:,}", f"{target.opened:,}", f"{target.sent_bytes / MIB:,.0f} MiB",
        *(f"{size / MIB:.0f}" for size in (before, most, after)), f"{1000 * prober.slowest_s:.0f} ms",
        f"{log_bytes / MIB:.1f} MiB", f"{proven.facts['window']['frames']:,}",
        "nothing" if delivered else "; ".join(proven.summary["reasons"]),
    ]  # fmt: skip
    return row, stood


def sample_day(folder):
    """A day with the group of the well clients, and a large file to download."""
    for ticker, lines in (("SPX", 2000), ("FLOOD", 100_000)):
        path = Path(folder) / "2025-11-28" / ticker / "orderflow" / "orderflow.jsonl"
        path.parent.mkdir(parents=True)
        with path.open("w", encoding="ascii") as file:
            for at in range(lines):
                record = {"timestamp": 1764340200 + at, "ticker": ticker, "spot": 6800 + at / 100, "pad": "x" * 100}
                file.write(json.dumps(record) + "\n")
    return folder


def arguments():
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    names = [flood.__name__ for flood in FLOODS]
    parser.add_argument("--floods", type=lambda text: text.split(","), default=names, help="comma-separated names")
    parser.add_argument("--seconds", type=int, default=20, help="of each flood (%(default)s)")
    parser.add_argument("--clients", type=int, default=500, help="well clients (%(default)s)")
    parser.add_argument("--limit", type=int, default=400, help="MiB that the server may take (%(default)s)")
    servers.add_programs(parser, "flowcast", "swarm")
    asked = parser.parse_args()
    if unknown := set(asked.floods) - set(names):
        parser.error(f"no such flood: {', '.join(unknown)}; there are {', '.join(names)}")
    return asked


def main():
    """Runs the floods that are asked for, and prints the table."""
    asked = arguments()
    servers.use(asked)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("| flood | clients | connections | sent | MiB before | most | after | a new client waits at most | log | "
          "frames to well clients | they lost |\n|" + "---|" * 11)  # fmt: skip
    all_stood = True
    with tempfile.TemporaryDirectory() as folder:
        data = sample_day(folder)
        for flood, clients in FLOODS.items():
            if flood.__name__ in asked.floods:
                row, stood = one(flood, clients, data, asked)
                all_stood &= stood
                print(f"| {' | '.join(row)} |", flush=True)
    return 0 if all_stood else 1


if __name__ == "__main__":
    sys.exit(main())
