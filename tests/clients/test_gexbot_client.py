"""A client that does what GexBot's own Python client does, in both of its generations.

One negotiation with a header; one SDK connection with the SDK's defaults, opened in a thread; the groups joined one
after the other in the connected handler; each message: bytes, `Any`, zstd stream reader, protobuf, divided by 100 (all
fields since 2026-04, prices only before). Written from the description of that client, not from its code.
"""

import threading
from decimal import ROUND_DOWN, Decimal

import pytest
import requests
import zstandard
from azure.messaging.webpubsubclient import WebPubSubClient
from azure.messaging.webpubsubclient.models import CallbackType, OpenClientError
from google.protobuf import any_pb2

from support.orderflow import FIELDS, Orderflow
from support.waiting import wait_until

TICKERS = ["ES_SPX", "SPX", "NDX"]  # NDX is not loaded: its group stays silent


class Generation2025:
    path = "/negotiate"
    headers = {"Authorization": "Basic my-key"}
    profile = "2025-11"


class Generation2026:
    path = "/v2/negotiate"
    headers = {"Authorization": "Bearer my-key", "User-Agent": "ExampleClient/1.0"}
    profile = "2026-04"


class GexbotClient:
    def __init__(self, server, generation):
        self.generation = generation
        reply = requests.get(server.url + generation.path, headers=generation.headers, timeout=10)
        reply.raise_for_status()
        self.prefix = reply.json().get("prefix") or "red"
        self.urls = reply.json()["websocket_urls"]
        self.groups = [f"{self.prefix}_{ticker}_orderflow_orderflow" for ticker in TICKERS]
        self.closing = False
        self.joined = []
        self.failures = []
        self.records = []
        self.client = WebPubSubClient(self.urls["orderflow"])
        self.client.subscribe(CallbackType.CONNECTED, self.on_connected)
        self.client.subscribe(CallbackType.GROUP_MESSAGE, self.on_message)

    def __enter__(self):
        threading.Thread(target=self.open, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing = True
        self.client.close()

    def open(self):
        try:
            self.client.open()
        except OpenClientError:
            # The SDK can miss its own wake-up; then `open` sits there for 30 s and may find the client closed.
            if not self.closing:
                raise

    def on_connected(self, _event):
        for group in self.groups:
            try:
                self.client.join_group(group)
                self.joined.append(group)
            except Exception as error:
                self.failures.append(f"{group}: {error}")

    def on_message(self, event):
        try:
            packed = any_pb2.Any()
            packed.ParseFromString(event.data)
            assert "proto.orderflow" in packed.type_url, packed.type_url
            assert event.group.split("_orderflow_")[-1] == "orderflow", event.group
            with zstandard.ZstdDecompressor().stream_reader(packed.value) as reader:
                message = Orderflow()
                message.ParseFromString(reader.read())
            self.records.append(self.values(message))
        except Exception as error:
            self.failures.append(f"{event.group}: {error!r}")

    def values(self, message):
        values = {}
        for field in FIELDS:
            value = getattr(message, field["field"])
            divided = field["type"] == "uint32" or (field["type"] == "sint32" and self.generation is Generation2026)
            values[field["field"]] = value / 100.0 if divided else value
        return values


def cut_to(number, decimals):
    return number.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_DOWN)


def values_in_the_file(dataset, ticker, row, generation):
    """What such a client should show for a line: the numbers of the text, cut to two decimals, and in 2025
    state and orderflow fields cut to whole ones, because that generation has no scale for them."""
    source = dataset.source(ticker, row)
    values = {}
    for field in FIELDS:
        value = source[field["key"]]
        match field["type"]:
            case "uint32":
                value = float(cut_to(value, 2))
            case "sint32":
                value = float(cut_to(value, 2 if generation is Generation2026 else 0))
        values[field["field"]] = value
    return values


@pytest.mark.parametrize("generation", [Generation2025, Generation2026])
def test_the_gexbot_client_of_either_generation_shows_the_numbers_of_the_file(server, dataset, generation):
    with GexbotClient(server, generation) as client:
        wait_until(lambda: len(client.joined) == len(TICKERS), "all groups to be joined", seconds=90)
        for ticker in ("ES_SPX", "SPX"):
            wait_until(
                lambda ticker=ticker: sum(record["ticker"] == ticker for record in list(client.records)) >= 20,
                f"20 records of {ticker}",
                seconds=90,
            )
        assert client.failures == []
        assert client.prefix == "blue"
        assert list(client.urls) == ["orderflow"]
        records = list(client.records)
    assert {record["ticker"] for record in records} == {"ES_SPX", "SPX"}
    for record in records:
        row = record["timestamp"] - dataset.first_timestamp
        assert record == values_in_the_file(dataset, record["ticker"], row, generation)
