"""The servers that flowcast is compared with (loadtest/peers/README.md): how each is started, which version it
is, and a producer that publishes the same messages to all of them."""

import functools
import http.client
import json
import re
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Callable
from urllib.parse import urlsplit

import servers

PEERS = servers.ROOT / "loadtest/peers"
BUILT = servers.ROOT / "target/peers"
CHANNEL = "c000"


class Producer:
    """Publishes numbered payloads to one server at a steady rate while a block runs. What a payload says is
    when it was due: a producer that is late adds to the latency, and does not hide it."""

    def __init__(self, publish, rate, size):
        self._publish, self._period_ns, self._size = publish, 1_000_000_000 // rate, size
        self._done, self.error = threading.Event(), None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _run(self):
        seq, due_ns = 0, time.monotonic_ns()
        try:
            while not self._done.wait(max(0, due_ns - time.monotonic_ns()) / 1e9):
                seq += 1
                self._publish(payload(seq, due_ns, self._size))
                due_ns += self._period_ns
        except OSError as error:
            self.error = error


def payload(seq, due_ns, size):
    """A payload of exactly that size.

    >>> payload(1, 2, 50), len(payload(10**9, 10**15, 120))
    ('{"seq":1,"sent_ns":2,"pad":"11111111111111111111"}', 120)
    """
    head = f'{{"seq":{seq},"sent_ns":{due_ns},"pad":"'
    return head + (str(seq) * size)[: size - len(head) - 2] + '"}'


def over_http(server, body, path="/api/publish", **headers):
    """A function that publishes a payload with a POST over one kept-alive connection."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    connection.connect()

    def publish(data):
        connection.request("POST", path, body(data).encode(), {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        told = answer.read()
        if answer.status != 200 or b'"error"' in told:
            raise OSError(f"not published: HTTP {answer.status} {told[:200]!r}")

    return publish


def item(data):
    """What flowcast, the floor and our own peers are sent."""
    return f'{{"channel":"{CHANNEL}","data":{data}}}\n'


def to_flowcast(server):
    """A publisher with the role it takes there."""
    command = [servers.FLOWCAST, "token", "--sub", "bench", "--role", "publisher"]
    token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return over_http(server, item, Authorization=f"Bearer {token}")


def to_nats(port):
    """A publisher on NATS's own TCP protocol, the only way in but for other clients' WebSockets."""

    def connect(_server):
        connection = socket.create_connection(("127.0.0.1", port), 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b'CONNECT {"verbose":false}\r\n')
        return lambda data: connection.sendall(f"PUB {CHANNEL} {len(data)}\r\n{data}\r\n".encode())

    return connect


@dataclass(frozen=True)
class Peer:
    """A server to compare with."""

    name: str
    """With its version."""
    start: Callable
    """Returns the command, and the address if the server does not say where it listens."""
    publisher: Callable
    """Returns a function that publishes a payload."""
    dialect: str | None = None
    """What the swarm must speak, if not the JSON streams."""
    path: str = "/ws"


def said(*command):
    """What a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def free_port():
    """A port that nobody listened on a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def pinned_version(path, pattern):
    """The version in a lock file."""
    return re.search(pattern, (PEERS / path).read_text())[1]


def ours(name, *command):
    """A peer of a few lines in loadtest/peers: it speaks what the JSON streams speak."""
    return Peer(name, lambda: (list(command), None), lambda server: over_http(server, item))


def tungstenite():
    """tokio-tungstenite."""
    version = pinned_version("tungstenite/Cargo.lock", r'name = "tokio-tungstenite"\nversion = "(.*?)"')
    return [ours(f"tokio-tungstenite {version}", existing(BUILT / "release/tungstenite-peer"))]


def node_ws():
    """Node's ws."""
    existing(PEERS / "node_modules/ws/package.json")
    version = pinned_version("package.json", r'"ws": "(.*?)"')
    return [ours(f"ws {version}, Node {said('node', '--version')[1:]}", "node", PEERS / "ws.mjs")]


def bun():
    """Bun, which has uWebSockets inside."""
    program = existing(PEERS / "node_modules/.bin/bun")
    return [ours(f"Bun {said(program, '--version')} (uWebSockets)", program, PEERS / "bun.mjs")]


def gorilla():
    """gorilla/websocket."""
    program = existing(BUILT / "gorilla")
    version = pinned_version("gorilla/go.mod", r"gorilla/websocket v(\S+)")
    return [ours(f"gorilla/websocket {version}", program)]


def centrifugo():
    """Centrifugo, in both of its protocols."""
    program = existing(BUILT / "centrifugo")
    version = pinned_version("build.sh", r"centrifugo/v6@v([\d.]+)")

    def start():
        port = free_port()
        file = BUILT / "centrifugo.json"
        file.write_text(json.dumps({
            "http_server": {"address": "127.0.0.1", "port": port},
            "client": {"allow_anonymous_connect_without_token": True},
            "channel": {"without_namespace": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}},
            "http_api": {"insecure": True},
            "log": {"level": "error"},
        }))  # fmt: skip
        return [program, "--config", file], f"http://127.0.0.1:{port}"

    publisher = functools.partial(over_http, body=item)
    return [
        Peer(f"Centrifugo {version}, JSON", start, publisher, "centrifugo", "/connection/websocket"),
        Peer(f"Centrifugo {version}, protobuf", start, publisher, "centrifugo-protobuf",
             "/connection/websocket?cf_protocol=protobuf"),
    ]  # fmt: skip


def nats():
    """nats-server over WebSocket."""
    program = existing(BUILT / "nats-server")
    version = pinned_version("build.sh", r"nats-server/v2@v([\d.]+)")
    clients, tcp = free_port(), free_port()

    def start():
        file = BUILT / "nats.conf"
        file.write_text(
            f'listen: "127.0.0.1:{tcp}"\nwebsocket {{ listen: "127.0.0.1:{clients}", no_tls: true }}\n'
        )  # fmt: skip
        return [program, "--config", file], f"http://127.0.0.1:{clients}"

    return [Peer(f"nats-server {version}, WebSocket", start, to_nats(tcp), "nats", "/")]


def existing(path):
    """The path; raises OSError where there is nothing."""
    path.stat()
    return path


@functools.cache
def available():
    """The peers that can run here. Who cannot is named on the terminal, and left out."""
    found = []
    for find in (gorilla, centrifugo, nats, node_ws, bun, tungstenite):
        try:
            found += find()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"left out: {find.__doc__} ({error}); loadtest/peers/build.sh builds it", flush=True)
    return found
