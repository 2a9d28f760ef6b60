"""Records what flowcast sends to one client, for servers that have no data of their own."""

import base64
import os
import re
import socket
import struct
from urllib.parse import urlsplit

from servers import flowcast, running

SUBPROTOCOLS = {
    "json": "json.webpubsub.azure.v1",
    "json.reliable": "json.reliable.webpubsub.azure.v1",
    "protobuf": "protobuf.webpubsub.azure.v1",
    "protobuf.reliable": "protobuf.reliable.webpubsub.azure.v1",
}
INTERVAL = "1ms"
TIMEOUT_S = 30


def group(ticker):
    """The group of a ticker."""
    return f"blue_{ticker}_orderflow_orderflow"


def masked(opcode, payload):
    """A client's frame of less than 64 KiB, with the masking key 0."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack(">BH", 0x80 | 126, len(payload))
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def join(wire, name, ack_id):
    """A request to join a group."""
    if wire.startswith("json"):
        return masked(1, f'{{"type":"joinGroup","group":"{name}","ackId":{ack_id}}}'.encode())
    # UpstreamMessage { join_group (6): { group (1), ack_id (2) } }
    message = bytes([0x0A, len(name)]) + name.encode() + bytes([0x10, ack_id])
    return masked(2, bytes([0x32, len(message)]) + message)


def messages(stream):
    """The payloads of the text and binary frames in a stream that may end within a frame.

    >>> list(messages(b"\\x81\\x02hi\\x89\\x00\\x82\\x01"))
    [b'hi']
    """
    at = 0
    while at + 4 <= len(stream):
        head, length = 2, stream[at + 1]
        if length == 126:
            head, length = 4, int.from_bytes(stream[at + 2 : at + 4], "big")
        end = at + head + length
        if end > len(stream):
            return
        if stream[at] & 0xF in (1, 2):
            yield stream[at + head : end]
        at = end


def upgraded(url, wire):
    """A connection to a hub, and what came behind the handshake."""
    address = urlsplit(url)
    offer = f"Sec-WebSocket-Protocol: {SUBPROTOCOLS[wire]}\r\n" if wire in SUBPROTOCOLS else ""
    connection = socket.create_connection((address.hostname, address.port), TIMEOUT_S)
    connection.sendall(
        f"GET {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
        f"{offer}\r\n".encode()
    )
    stream = b""
    while b"\r\n\r\n" not in stream:
        stream += received(connection)
    head, stream = stream.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"flowcast refused the upgrade: {head[:200]!r}")
    return connection, bytearray(stream)


def received(connection):
    """The next bytes of a connection that must not end."""
    read = connection.recv(1 << 20)
    if not read:
        raise ConnectionError("flowcast closed the connection")
    return read


def listen(url, wire, tickers, ticks):
    """The bytes behind the handshake, until they hold that many ticks."""
    connection, stream = upgraded(f"{url}/client/hubs/orderflow?access_token=bench", wire)
    with connection:
        for ack_id, ticker in enumerate(tickers, 1):
            connection.sendall(join(wire, group(ticker), ack_id))
        # One tick may be cut off at either end; connected and acks come beside.
        enough = (ticks + 2) * len(tickers) + len(tickers) + 1
        seen, at = 0, 0
        while seen < enough:
            stream += received(connection)
            for message in messages(bytes(stream[at:])):
                seen += 1
                at = stream.index(message, at) + len(message)
        return bytes(stream)


def record(path, data, wire, tickers, ticks):
    """Writes a recording to `path`, unless it is there; beside it the messages alone if they are text."""
    if path.exists():
        return
    with running(flowcast(data, INTERVAL)) as server:
        stream = listen(server.url, wire, tickers, ticks)
    if wire == "json":
        lines = [message for message in messages(stream) if re.match(rb'.*"type":"message"', message)]
        path.with_suffix(".jsonl").write_bytes(b"\n".join(lines) + b"\n")
    path.write_bytes(stream)
