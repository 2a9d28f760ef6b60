#!/usr/bin/env python3
"""How much memory an idle connection costs: in the kernel, in flowcast, and in HAProxy in front with TLS.

    python3 deploy/memory.py --haproxy target/tools/deploy/bin/haproxy --certificate target/tools/deploy/site.pem

The connections are WebSockets of the orderflow hub that joined no group. Both ends are on this machine,
so the kernel's share is halved. Kernel: growth of Slab, PageTables and TCP memory, in which other
processes' doings show; several rounds tell how much.
"""

import argparse
import asyncio
import os
import re
import resource
import signal
import ssl
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UPGRADE = (
    "GET /client/hubs/orderflow?access_token=k:{} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: json.webpubsub.azure.v1\r\n\r\n"
)


def anonymous(pid):
    """Memory that is the process's own, without mapped files."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def kernel():
    """Bytes of slabs and page tables, and of TCP's buffers."""
    info = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text()))
    pages = int(re.search(r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)[1])
    return (int(info["Slab"]) + int(info["PageTables"])) * 1024 + pages * os.sysconf("SC_PAGE_SIZE")


async def connect(port, context, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None)
    writer.write(UPGRADE.format(number).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head.split(b"\r\n")[0], head
    return writer


async def hold(port, context, count, measure):
    """`measure()` before, and after all connections have been quiet for five seconds."""
    before = measure()
    gate = asyncio.Semaphore(100)

    async def one(number):
        async with gate:
            return await connect(port, context, number)

    writers = await asyncio.gather(*(one(number) for number in range(count)))
    await asyncio.sleep(5)
    after = measure()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(2)
    return [(end - start) / count for start, end in zip(before, after, strict=True)]


def measured(folder, asked, tls):
    """One fresh server (and proxy) per round: nothing that an earlier round warmed up counts."""
    count = asked.connections
    log = open(Path(folder) / "log", "w")
    server = subprocess.Popen(
        [asked.flowcast, "serve"],
        env={"WS_BIND_ADDRESS": "127.0.0.1:0", "DATA_DIR": str(ROOT / "data"), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE, stderr=log, text=True,
    )
    proxy = None
    try:
        port = int(re.search(r":(\d+)$", server.stdout.readline().strip())[1])
        context, pids = None, [server.pid]
        time.sleep(12)  # until what loading needed is given back
        if tls:
            settings = {
                "FLOWCAST_NODE_1": f"127.0.0.1:{port}", "FLOWCAST_NODE_2": f"127.0.0.1:{port}", "MAXCONN": str(count + 100),
                "BIND": "127.0.0.1:18443", "METRICS_BIND": "127.0.0.1:18405", "CERTIFICATE": str(asked.certificate),
            }
            command = [asked.haproxy, "-db", "-f", str(ROOT / "deploy/haproxy/haproxy.cfg")]
            proxy = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
            context = ssl.create_default_context(cafile=asked.certificate)
            pids.append(proxy.pid)
            port = 18443
            time.sleep(6)
        return asyncio.run(hold(port, context, count, lambda: [kernel(), *map(anonymous, pids)]))
    finally:
        for process in filter(None, [proxy, server]):
            process.send_signal(signal.SIGTERM)
            process.wait()


def main():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowcast", type=Path, default=ROOT / "target/release/flowcast", help="default: %(default)s")
    parser.add_argument("--haproxy", default="haproxy", help="default: the one on the PATH")
    parser.add_argument("--certificate", type=Path, required=True, help="PEM file with the proxy's certificate and key")
    parser.add_argument("--connections", type=int, default=4000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    asked = parser.parse_args()
    count, rounds = asked.connections, asked.rounds
    with tempfile.TemporaryDirectory() as folder:
        for tls in [False, True]:
            figures = [measured(folder, asked, tls) for _ in range(rounds)]
            # Each WebSocket is two sockets here, and four with a proxy in between.
            sockets = 4 if tls else 2
            names = [f"kernel, per socket (of {sockets})", "flowcast", "haproxy"]
            print(f"{count} idle connections, {'wss:// through HAProxy' if tls else 'ws://'}, {rounds} rounds, bytes each:")
            for name, values in zip(names, zip(*figures)):
                values = [value / sockets for value in values] if name.startswith("kernel") else list(values)
                print(f"  {name:28} median {statistics.median(values):8.0f}   {min(values):8.0f} to {max(values):.0f}")


if __name__ == "__main__":
    main()
