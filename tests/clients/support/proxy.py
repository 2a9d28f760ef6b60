"""A TCP proxy between a client and the server that can lose a connection, and that keeps what went through.

Its transcript is the wire itself: every WebSocket message in the order in which it was sent, whatever the client
made of it.
"""

import asyncio
import socket
import struct
import threading
import urllib.parse


class ProxiedConnection:
    def __init__(self, client, server):
        self.sockets = (client, server)
        self.upstream = bytearray()
        self.downstream = bytearray()
        self.tasks = []

    @property
    def request_line(self):
        return bytes(self.upstream).split(b"\r\n", 1)[0].decode("ascii")

    def sent_messages(self):
        """What the client sent, as (opcode, payload)."""
        return websocket_messages(bytes(self.upstream))

    def received_messages(self):
        """What the server sent, as (opcode, payload), whether the client got it or not."""
        return websocket_messages(bytes(self.downstream))


class TcpProxy:
    """Use as a context manager. All methods may be called from any thread."""

    def __init__(self, server_port):
        self.connections = []
        # Where new connections lead. A test may set another.
        self.server_port = server_port
        self._allowance = None
        self._refusals = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_):
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def through(self, url):
        """The URL that leads to the same place through this proxy."""
        return urllib.parse.urlsplit(url)._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    def hold(self, after_bytes):
        """Lets that many bytes more through to the client, then none, although the server goes on sending."""
        self._call(self._hold(after_bytes))

    def cut(self, refuse_next=0):
        """Resets every connection on both sides; the next `refuse_next` attempts are reset too."""
        self._call(self._cut(refuse_next))

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    async def _start(self):
        self._accepting = self._loop.create_task(self._accept())

    async def _stop(self):
        self._accepting.cancel()
        self._listener.close()
        await self._cut(0)

    async def _hold(self, after_bytes):
        self._allowance = after_bytes

    async def _cut(self, refuse_next):
        self._refusals = refuse_next
        self._allowance = None
        for connection in self.connections:
            for task in connection.tasks:
                task.cancel()
            await asyncio.gather(*connection.tasks, return_exceptions=True)
            for end in connection.sockets:
                if end.fileno() != -1:
                    reset(end)

    async def _accept(self):
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            if self._refusals > 0:
                self._refusals -= 1
                reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port))
            except ConnectionError:
                reset(client)
                continue
            connection = ProxiedConnection(client, server)
            for end in connection.sockets:
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.tasks = [
                self._loop.create_task(self._pump_upstream(connection)),
                self._loop.create_task(self._pump_downstream(connection)),
            ]
            self.connections.append(connection)

    async def _pump_upstream(self, connection):
        client, server = connection.sockets
        while data := await self._received(client):
            connection.upstream += data
            await self._send(server, data)
        shut(server)

    async def _pump_downstream(self, connection):
        client, server = connection.sockets
        while data := await self._received(server):
            connection.downstream += data
            if self._allowance is not None:
                data = data[: self._allowance]
                self._allowance -= len(data)
            await self._send(client, data)
        shut(client)

    async def _received(self, end):
        try:
            return await self._loop.sock_recv(end, 65536)
        except ConnectionError:
            return b""

    async def _send(self, end, data):
        try:
            await self._loop.sock_sendall(end, data)
        except ConnectionError:
            pass  # the receiving side of that socket ends the connection


def shut(end):
    try:
        end.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # gone already


def reset(end):
    """Closes with RST instead of FIN, as a broken line looks to the peer."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def websocket_messages(data):
    """The complete messages after the HTTP head, as (opcode, payload); control frames too, in their place."""
    messages = []
    partial = None
    position = data.find(b"\r\n\r\n") + 4
    if position < 4:
        return messages
    while len(data) >= position + 2:
        final, opcode = data[position] & 0x80, data[position] & 0x0F
        masked, length = data[position + 1] & 0x80, data[position + 1] & 0x7F
        position += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        key = data[position : position + 4] if masked else b"\0\0\0\0"
        position += 4 if masked else 0
        if len(data) < position + length:
            break
        payload = data[position : position + length]
        position += length
        if masked:
            payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
        if opcode >= 8:
            messages.append((opcode, payload))
            continue
        partial = (partial[0], partial[1] + payload) if opcode == 0 else (opcode, payload)
        if final:
            messages.append(partial)
            partial = None
    return messages
