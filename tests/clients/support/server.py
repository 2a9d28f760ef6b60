"""The real server as a child process, and negotiation with it."""

import os
import pathlib
import queue
import re
import signal
import subprocess
import threading

import requests

from support.waiting import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = pathlib.Path(os.environ.get("FLOWCAST_BIN", ROOT / "target/debug/flowcast"))
LISTENING = re.compile(r"flowcast listening on (http://127\.0\.0\.1:\d+)\n")


class Server:
    """`flowcast serve` on a port of its own choice. Use as a context manager: leaving it demands a clean exit."""

    def __init__(self, dataset, directory, interval="50ms", settings=()):
        assert BINARY.is_file(), f"{BINARY} is not there: build it (make test-programs) or set FLOWCAST_BIN"
        self.log = pathlib.Path(directory) / "server.log"
        self.process = subprocess.Popen(
            [BINARY, "serve"],
            cwd=directory,
            env={
                "PATH": os.environ["PATH"],
                "WS_BIND_ADDRESS": "127.0.0.1:0",
                "WS_STREAM_INTERVAL": interval,
                "DATA_DIR": str(dataset.directory),
                "DATA_DATE": dataset.date,
                **dict(settings),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            text=True,
        )
        self.output = []
        lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._reader.start()
        try:
            first = lines.get(timeout=30)
            match = LISTENING.fullmatch(first)
            assert match, f"the first line on stdout was {first!r}\n{self.log.read_text('utf-8')}"
            self.url = match[1]
            wait_until(self._is_serving, "/healthz to answer 200")
        except BaseException:
            self.process.kill()
            raise

    def _read(self, lines):
        for line in self.process.stdout:
            self.output.append(line)
            lines.put(line)
        lines.put("")

    def _is_serving(self):
        assert self.process.poll() is None, f"the server has exited\n{self.log.read_text('utf-8')}"
        return requests.get(f"{self.url}/healthz", timeout=10).status_code == 200

    @property
    def port(self):
        return int(self.url.rsplit(":", 1)[1])

    def websocket_url(self, path="/v2/negotiate", key="test-key", hub="orderflow"):
        """A hub's URL, as a client of that generation gets it. GET names current hubs only; its token is for all."""
        response = requests.get(self.url + path, headers={"Authorization": f"Bearer {key}"}, timeout=10)
        response.raise_for_status()
        current = hub.removeprefix("v2_")
        return response.json()["websocket_urls"][current].replace(f"/{current}?", f"/{hub}?")

    def stop(self):
        """Asks the server to stop and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        self._reader.join()
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            code = self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if kind is None:
            assert code == 0, f"exit code {code}\n{self.log.read_text('utf-8')}"
