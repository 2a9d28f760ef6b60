"""A TCP proxy that cuts WebSocket connections in the middle of frames.

It knows where frames begin and end, in both directions, so that a cut is at a random byte of a random frame: in its header or
in its payload. What was sent before that byte is passed on; then the connection is lost in one of several manners.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

CHUNK = 65536
HEAD_END = b"\r\n\r\n"
MAX_HEAD = 65536
LATE_S = 0.5
# Frames that pass before a cut. A first connection must have joined its groups; one that comes back may be cut at once.
SPARED_DOWN, SPARED_UP = 12, 4
FRAMES_DOWN, FRAMES_UP = 60, 6
MANNERS = ("reset", "end", "unnoticed", "late")
"""reset: both sides are reset. end: both are closed. unnoticed: the client is reset, and the server's side stays as it is.
late: the server is reset, and the client half a second later."""


@dataclass
class Cut:
    """Where a connection is cut: at `byte` of the frame after so many."""

    way: str
    frames: int
    manner: str


@dataclass
class Frames:
    """One direction of a connection, frame by frame."""

    pending: bytearray = field(default_factory=bytearray)
    left: int = 0
    """Bytes of the frame under way that are still to come."""
    count: int = 0

    def until(self, data, frames, choose):
        """How much of `data` belongs to before the cut, and whether it is there: `choose(header, size)` tells the byte at
        which frame number `frames` is cut.

        >>> two = bytes([0x81, 3]) + b"abc" + bytes([0x81, 4]) + b"defg"
        >>> Frames().until(two, 1, lambda header, size: 3)
        (8, True)
        >>> frames = Frames()
        >>> [frames.until(two[at : at + 1], 1, lambda header, size: 3) for at in range(8)][-2:]
        [(1, False), (1, True)]
        """
        at, size = 0, len(data)
        while at < size:
            if self.left:
                step = min(self.left, size - at)
                self.left -= step
                at += step
                if not self.left and self.count == frames + 1:
                    return at, True
                continue
            begin = at
            while (length := frame_size(self.pending)) is None and at < size:
                self.pending.append(data[at])
                at += 1
            if length is None:
                break
            header, whole = len(self.pending), length
            self.pending.clear()
            self.count += 1
            if self.count == frames + 1:
                # The header was passed on as it came; a cut within it is possible as far as it is in this piece.
                keep = choose(header, whole)
                if keep <= header:
                    return max(begin, at - header + keep), True
                self.left = keep - header
                continue
            self.left = whole - header
        return at, False


def frame_size(header):
    """The size of a frame with its header, as soon as that is known.

    >>> frame_size(b"\\x81"), frame_size(b"\\x81\\x03"), frame_size(b"\\x81\\x83mask"), frame_size(b"\\x82\\x7e\\x01\\x00")
    (None, 5, 9, 260)
    """
    if len(header) < 2:
        return None
    mask, short = 4 if header[1] & 0x80 else 0, header[1] & 0x7F
    extended = {126: 2, 127: 8}.get(short, 0)
    if len(header) < 2 + extended + mask:
        return None
    return 2 + extended + mask + (int.from_bytes(header[2 : 2 + extended], "big") if extended else short)


class Cutter:
    """The proxy, in a thread of its own while a block runs. It cuts while `cuts` are left and until `stop`."""

    def __init__(self, host, port, cuts, seed=15):
        self.upstream, self.left, self.made, self.url = (host, port), cuts, Counter(), ""
        self._random = random.Random(seed)
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._unnoticed, self._tasks = [], set()

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def total(self):
        """Cuts so far."""
        return sum(self.made.values())

    def stop(self):
        """No more cuts; connections go on."""
        self.left = 0

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def _accept(self, reader, writer):
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.upstream)
            await self._relay(reader, writer, server_reader, server_writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()

    async def _relay(self, reader, writer, server_reader, server_writer):
        head = b""
        while HEAD_END not in head and len(head) < MAX_HEAD:
            data = await reader.read(CHUNK)
            if not data:
                break
            head += data
        server_writer.write(head)
        cut = self._plan(head)
        ways = [
            self._pump("down", server_reader, writer, cut, is_upgrade=cut is not None),
            self._pump("up", reader, server_writer, cut, is_upgrade=False),
        ]
        pumps = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
        # The one that was cancelled, or met a socket that is gone, has cut nothing.
        if True in await asyncio.gather(*pumps, return_exceptions=True):
            self.made[(wire_of(head), cut.way, cut.manner)] += 1
            await self._lose(cut.manner, writer, server_writer)
        else:
            writer.close()
            server_writer.close()

    def _plan(self, head):
        """Where an upgrade's connection will be cut; none for requests."""
        if b"upgrade: websocket" not in head.lower():
            return None
        way = "up" if self._random.random() < 0.3 else "down"
        most, spared = (FRAMES_UP, SPARED_UP) if way == "up" else (FRAMES_DOWN, SPARED_DOWN)
        least = 0 if b"awps_reconnection_token=" in head else spared
        return Cut(way, least + self._random.randrange(most), self._random.choice(MANNERS))

    def _byte(self, header, size):
        """Where in a frame: a quarter of the cuts are in its header. An empty frame is cut before its end, too."""
        if self._random.random() < 0.25:
            return self._random.randint(1, header - 1)
        return self._random.randint(min(header, size - 1), size - 1)

    async def _pump(self, way, reader, writer, cut, is_upgrade):
        """Passes on until the end, or until the cut; tells whether it was one."""
        frames = Frames()
        if is_upgrade:
            writer.write(await reader.readuntil(HEAD_END))
        while data := await reader.read(CHUNK):
            if cut is None or cut.way != way:
                writer.write(data)
            else:
                size, is_there = frames.until(data, cut.frames, self._byte)
                if is_there and self.left > 0:
                    self.left -= 1
                    writer.write(data[:size])
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    return True
                if is_there:
                    cut = None
                writer.write(data)
            await writer.drain()
        return False

    async def _lose(self, manner, writer, server_writer):
        if manner == "end":
            writer.close()
            server_writer.close()
            return
        if manner == "late":
            server_writer.transport.abort()
            await asyncio.sleep(LATE_S)
        writer.transport.abort()
        if manner == "reset":
            server_writer.transport.abort()
        elif manner == "unnoticed":
            # Nobody reads, nobody writes, nobody closes.
            server_writer.transport.pause_reading()
            self._unnoticed.append(server_writer)


def wire_of(head):
    """The subprotocol that a request asks for.

    >>> wire_of(b"GET / HTTP/1.1\\r\\nSec-WebSocket-Protocol: json.reliable.webpubsub.azure.v1\\r\\n\\r\\n")
    'json.reliable'
    """
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "sec-websocket-protocol":
            return value.strip().removesuffix(".webpubsub.azure.v1")
    return ""
