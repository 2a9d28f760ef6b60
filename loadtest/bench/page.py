#!/usr/bin/env python3
"""What an open live page costs: with 10,000 connections under 0.5 % of a core, and W1 moves by less than 1 %.

    cargo build --release --workspace --bins
    python3 loadtest/bench/page.py
    python3 loadtest/bench/page.py --rows W1 --clients 5000 --windows 10

idle   Clients that receive nothing.
W1     The load of W1 (benches/GOALS.md): one group, 50,000 frames a second.

While one swarm runs, a page is open for a window and closed for the next one, by turns. The page opens as a browser opens
it: the file, what it asks for, then its events, which are read to the end. Each window with a page is compared with the one
before it: the server's CPU time at the same demand, and the time from when a tick was due to its last copy.
flowcast has one shard and one core, the swarm and this program have the other.
"""

import argparse
import socket
import threading
import time
import urllib.request
from urllib.parse import urlsplit

import servers
from cases import Settings
from clock import Beside, joined
from fanout import count, prepare, some_of
from report import show
from servers import running
from swarm import Load, quantile, run

ROWS = ("idle", "W1")
FRAMES_PER_S = 50_000
SETTLE_S = 2.0
COST_PERCENT, MOVED = 0.5, 0.01


class Page:
    """An open page; what comes is counted."""

    def __init__(self, server):
        self.bytes = 0
        self._at = urlsplit(server.url)
        for path in ("/live", "/live/options", "/live/history", "/faults"):
            urllib.request.urlopen(server.url + path, timeout=10).read()

    def __enter__(self):
        self._socket = socket.create_connection((self._at.hostname, self._at.port))
        self._socket.sendall(f"GET /live/events HTTP/1.1\r\nHost: {self._at.netloc}\r\n\r\n".encode())
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def _read(self):
        while piece := self._socket.recv(1 << 16):
            self.bytes += len(piece)

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


class Windows:
    """When a page was open, and when none was."""

    def __init__(self, asked, server):
        self._asked, self._server = asked, server
        self.without, self.watched, self.sizes = [], [], []

    def __call__(self, over):
        joined(self._server, self._asked.clients, over)
        for _ in range(self._asked.windows):
            self.without.append(self._window(over))
            with Page(self._server) as page:
                over.wait(SETTLE_S)
                before = page.bytes
                self.watched.append(self._window(over))
                self.sizes.append((page.bytes - before) / self._asked.window_s)
            if over.wait(SETTLE_S):
                break

    def _window(self, over):
        begin = time.monotonic_ns()
        over.wait(self._asked.window_s)
        return begin, time.monotonic_ns()

    def pairs(self, result):
        """Those that lie in the measured time."""
        begin, end = result.window
        both = zip(self.without, self.watched, self.sizes)
        return [pair for pair in both if begin <= pair[0][0] and pair[1][1] <= end]


def percent(result, window):
    """CPU time of the server in a window, % of a core."""
    begin, end = window
    return result.meter.cpu_s(begin, end) / ((end - begin) / 1e9) * 100


def tick_p99_ms(result, window):
    """The 99th percentile over the ticks due in a window, from due to last copy."""
    begin, end = window
    rows = result.facts["ticks"]["rows"].values()
    return quantile(sorted((row["last_ns"] - row["scheduled_ns"]) / 1e6 for row in rows if begin <= row["scheduled_ns"] < end), 0.99)


def measure(row, asked, settings):
    """Rows of the table, remarks and the command."""
    is_idle = row == "idle"
    interval = "1h" if is_idle else f"{max(10, 1000 * asked.clients // FRAMES_PER_S)}ms"
    command = servers.flowcast(settings.one(), interval)
    seconds = int(asked.windows * (2 * asked.window_s + 2 * SETTLE_S)) + 5
    load = Load(asked.clients, asked.wire, "orderflow/*", seconds, 0.0 if is_idle else FRAMES_PER_S,
                ledger="off" if is_idle else "require", tells_latency=False)  # fmt: skip
    with running(command, built=True) as server:
        windows = Windows(asked, server)
        with Beside(windows):
            result = run(server, load)
    pairs = windows.pairs(result)
    costs = [percent(result, watched) - percent(result, without) for without, watched, _ in pairs]
    name = f"{asked.clients:,} clients"
    rows = [
        (row, f"{name}: CPU time without a page", [percent(result, without) for without, _, _ in pairs], "% of a core", None),
        (row, f"{name}: what an open page adds", costs, "% of a core", COST_PERCENT),
        (row, f"{name}: bytes to a page", [size for _, _, size in pairs], "/s", None),
    ]
    if not is_idle:
        cpu = [percent(result, watched) / percent(result, without) - 1 for without, watched, _ in pairs]
        late = [tick_p99_ms(result, watched) / tick_p99_ms(result, without) - 1 for without, watched, _ in pairs]
        rows.append((row, f"{name}: CPU time of a frame, with a page ÷ without, less 1", cpu, "", MOVED))
        rows.append((row, f"{name}: tick to last copy, p99, with a page ÷ without, less 1", late, "", 0.02))
    delivery = result.summary["delivery"]
    notes = [] if is_idle or delivery == "proven" else [f"{row}: delivery is {delivery}"]
    return rows, notes, command


def options():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=some_of(ROWS), default=ROWS, help=f"default: {','.join(ROWS)}")
    parser.add_argument("--clients", type=count, default=10_000, help="default: %(default)s")
    parser.add_argument("--wire", default="protobuf", help="of the clients; default: %(default)s")
    parser.add_argument("--windows", type=count, default=12, help="with a page, and as many without; default: %(default)s")
    parser.add_argument("--window-s", type=count, default=5, help="seconds of a window; default: %(default)s")
    return servers.asked_of(parser)


def main():
    """Measures and prints."""
    asked = options()
    settings = Settings(prepare(), "page", (asked.wire,), asked.window_s, peers=False)
    found, notes, commands = [], [], []
    for row in asked.rows:
        try:
            rows, more, command = measure(row, asked, settings)
            found, notes, commands = found + rows, notes + more, [*commands, command]
        except (OSError, RuntimeError, servers.ServerError) as error:
            notes.append(f"{row} was not measured: {error}")
    show(found, commands, notes)


if __name__ == "__main__":
    main()
