"""Tests of a consumer of market data, as yours could be: the market stands still until a test says "the next record".

    pip install -r requirements.txt
    pytest test_consumer.py                     # FLOWCAST_BIN names the program if it is not in PATH

Every test has a replay session of its own on one server, so that tests may also run side by side.
"""

import base64
import json
import os
import pathlib
import re
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import websocket
import zstandard
from google.protobuf import any_pb2, descriptor_pb2, message_factory
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
GROUP = "blue_SPX_orderflow_orderflow"


class Consumer:
    """The code under test: the highest price, how far the last one lies below it, and a warning beyond 0.05 %."""

    def __init__(self):
        self.high = self.last = None
        self.time = 0

    def take(self, record):
        if record.timestamp <= self.time:  # the market was set back
            self.high = None
        self.time = record.timestamp
        self.last = record.spot / 100
        self.high = max(self.high or 0, self.last)

    def is_falling(self):
        return self.last < self.high * 0.9995


class Market:
    """One replay session of flowcast and one socket in it."""

    def __init__(self, server, session):
        self.replay = f"{server}/replay/sessions/{session}"
        negotiate = urllib.request.Request(f"{server}/v2/negotiate?session={session}&state=paused")
        negotiate.add_header("Authorization", "Bearer any-key")
        url = json.load(urllib.request.urlopen(negotiate))["websocket_urls"]["orderflow"]
        self.socket = websocket.create_connection(url, subprotocols=["json.webpubsub.azure.v1"], timeout=10)
        self.socket.send(json.dumps({"type": "joinGroup", "group": GROUP, "ackId": 1}))
        while json.loads(self.socket.recv()).get("type") != "ack":
            pass

    def change(self, **change):
        """What flowcast answers once it is done: after a step the records are on their way."""
        request = urllib.request.Request(self.replay, json.dumps(change).encode(), method="PATCH")
        request.add_header("Content-Type", "application/json")
        return json.load(urllib.request.urlopen(request))

    def step(self, consumer, records=1):
        self.change(step=records)
        for _ in range(records):
            consumer.take(decoded(json.loads(self.socket.recv())))


def decoded(message):
    """The record in a message of the JSON protocol: base64, `Any`, zstd, protobuf."""
    packed = any_pb2.Any.FromString(base64.b64decode(message["data"]))
    return Orderflow.FromString(zstandard.ZstdDecompressor().stream_reader(packed.value).read())


def compiled(name):
    """The class of a message in proto/orderflow.proto. Your program has modules that `protoc` made."""
    out = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"orderflow-{os.getpid()}.descriptors"
    protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={out}", str(ROOT / "proto/orderflow.proto")])
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    out.unlink()
    return message_factory.GetMessages(files)[name]


Orderflow = compiled("orderflow_proto.Orderflow")


@pytest.fixture(scope="session")
def server():
    command = [os.environ.get("FLOWCAST_BIN", "flowcast"), "serve", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        while not is_ready(url):
            time.sleep(0.02)
        yield url
        process.terminate()


def is_ready(url):
    try:
        return urllib.request.urlopen(f"{url}/healthz").status == 200
    except urllib.error.HTTPError:
        return False


@pytest.fixture
def market(server, request):
    market = Market(server, request.node.name[:32])
    yield market
    market.socket.close()


def recorded(count):
    lines = (ROOT / "data/2025-11-28/SPX/orderflow/orderflow.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["spot"] for line in lines[:count]]


def test_it_knows_the_highest_price(market):
    consumer = Consumer()
    for count in range(1, 6):
        market.step(consumer)
        assert (consumer.last, consumer.high) == (recorded(count)[-1], max(recorded(count)))


def test_it_warns_when_the_price_falls(market):
    consumer = Consumer()
    market.step(consumer, 6)
    assert not consumer.is_falling()
    market.step(consumer)
    assert consumer.is_falling(), "6814.22 lies 3.80 below 6818.02"


def test_it_forgets_the_high_when_the_market_is_set_back(market):
    consumer = Consumer()
    market.step(consumer, 30)
    market.change(seek={"record": 0})
    market.step(consumer)
    assert consumer.high == recorded(1)[0]
