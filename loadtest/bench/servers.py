"""Starts and stops the servers under test, each pinned to the first core."""

import argparse
import contextlib
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
SERVER_CORE, CLIENT_CORE = 0, 1
START_S = 120
STOP_S = 10
LOG_BYTES = 1 << 20


class ServerError(Exception):
    """A server did not start, or did not stay."""


# Where the Makefile builds them; `use` names others.
FLOWCAST = str(ROOT / "target/release/flowcast")
FLOOR = str(ROOT / "target/release/floor")
SWARM = str(ROOT / "target/release/swarm")


def program(text):
    """An argument type: the absolute path of a program that is there."""
    if not os.access(text, os.X_OK) or os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text} is not a program")
    return str(Path(text).resolve())


def add_programs(parser, *names):
    """Lets the command line name other programs than this tree's: these, or all."""
    defaults = {"flowcast": FLOWCAST, "swarm": SWARM, "floor": FLOOR}
    for name in names or defaults:
        parser.add_argument(f"--{name}", type=program, metavar="PROGRAM", default=defaults[name], help="default: %(default)s")


def use(asked):
    """Takes the programs that the command line names."""
    global FLOWCAST, SWARM, FLOOR
    FLOWCAST, SWARM, FLOOR = asked.flowcast, asked.swarm, getattr(asked, "floor", FLOOR)


def asked_of(parser):
    """What the command line asks for; other programs than this tree's are taken from now on if it names them."""
    add_programs(parser)
    asked = parser.parse_args()
    use(asked)
    return asked


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen
    log: IO[bytes]
    url: str = ""
    sender_tid: int | None = None

    def text(self):
        """Everything it has printed so far."""
        return os.pread(self.log.fileno(), LOG_BYTES, 0).decode(errors="replace")

    @property
    def pid(self):
        """Its process id."""
        return self.process.pid

    def await_words(self, words):
        """Waits until it has printed them."""
        deadline = time.monotonic() + START_S
        while words not in self.text():
            if time.monotonic() > deadline:
                raise ServerError(f"it never printed {words!r}")
            time.sleep(0.01)

    def metrics(self):
        """flowcast's metrics that have no labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in re.findall(r"^flowcast_(\w+) (\S+)$", text, re.MULTILINE)}

    def metric(self, name):
        """One of them."""
        metrics = self.metrics()
        if name not in metrics:
            raise ServerError(f"no metric {name}")
        return metrics[name]


def flowcast(data, interval, *options, program=None, shards=1):
    """The command for flowcast; `program` is another one than the usual."""
    return [program or FLOWCAST, "serve", "--port", "0", "--data-dir", str(data), "--interval", interval, "--shards", str(shards),
            *options]


def floor(recording, protocol, interval, mode="send"):
    """The command for the floor; without a recording it is silent."""
    source = ["--recording", str(recording)] if recording else []
    return [FLOOR, "--protocol", protocol, "--interval", interval, "--mode", mode, *source]


def milliseconds(interval):
    """The number in `20ms` or `500us`.

    >>> milliseconds("500us"), milliseconds("20ms"), milliseconds("1h")
    (0.5, 20.0, 3600000.0)
    """
    number, unit = re.fullmatch(r"(\d+)(us|ms|s|h)", interval).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "h": 3_600_000}[unit]


def pinned(core, command):
    """A command that runs on one core and does not outlive us. Nothing is done between fork and exec: that
    would be unsafe beside threads."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", str(core), *map(str, command)]


@contextlib.contextmanager
def running(command, log_level="warn", cores=SERVER_CORE, built=False, url=None, stop_s=STOP_S):
    """Runs a server for a block; it is ready when the block begins, and if `built`, has built what it can. A server
    that does not print where it listens is told so, and looked for at `url`."""
    environment = os.environ | {"FLOWCAST_LOG_LEVEL": log_level, "FLOWCAST_LOG_FORMAT": "json"}
    # Ours; flowcast warns of settings it does not know.
    environment.pop("FLOWCAST_BIN", None)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(pinned(cores, command), stdout=log, stderr=log, env=environment)
        server = Server(process, log, url or "")
        try:
            if url:
                _await_port(server)
            else:
                _await_address(server)
                _await_health(server)
            if built:
                _await_frames(server)
            yield server
            if process.poll() is not None:
                raise ServerError(f"{command[0]} ended with {process.returncode}: {server.text()[-500:]}")
        finally:
            _end(process, stop_s)


def _await_address(server):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.process.poll() is None:
        text = server.text()
        if found := re.search(r"listening on (http://[\w.:]+)", text):
            server.url = found[1]
            sender = re.search(r"sender thread (\d+)", text)
            server.sender_tid = int(sender[1]) if sender else None
            return
        time.sleep(0.002)
    raise ServerError(f"the server did not start: {server.text()[-500:]}")


def _await_port(server):
    address = urlsplit(server.url)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port), 1):
            return
        time.sleep(0.01)
    raise ServerError(f"the server did not start: {server.text()[-500:]}")


def _await_health(server):
    """Waits until nothing is answered with 503; who has no such path serves already."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.url}/healthz", timeout=5):
                return
        except OSError as error:
            if getattr(error, "code", None) != 503:
                return
        time.sleep(0.002)
    raise ServerError(f"the server did not become ready")


def _await_frames(server):
    """Waits until nothing more is built in the background: that is no part of what sending costs."""
    name = "flowcast_builder_cpu_microseconds_total"
    deadline, before, same = time.monotonic() + START_S, None, 0
    while same < 3 and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return
        now = re.search(rf"^{name} (\S+)", text, re.MULTILINE)
        if now is None:
            return
        same = same + 1 if now[1] == before else 0
        before = now[1]
        time.sleep(0.1)


def _end(process, stop_s):
    """Interrupts our own process, and kills it if that is not enough."""
    process.terminate()
    try:
        process.wait(stop_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
