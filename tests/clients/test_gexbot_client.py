"""A client that does what GexBot's own Python client does, in both of its generations, all its categories on.

One negotiation with a header; an SDK connection for each hub that it wants and that the reply has, opened in a thread;
the groups joined one after the other in the connected handler; each message: bytes, `Any`, zstd stream reader,
protobuf, divided by the factors (in orderflow only prices before 2026-04). Written from the description of that client,
not from its code.
"""

import json
import threading
from collections import Counter
from decimal import ROUND_DOWN, Decimal

import pytest
import requests
import zstandard
from azure.messaging.webpubsubclient import WebPubSubClient
from azure.messaging.webpubsubclient.models import CallbackType, OpenClientError
from google.protobuf import any_pb2

from support.market import GEX, GREEK, GREEK_FIELD, HUBS, Gex, OptionProfile
from support.orderflow import FIELDS, Orderflow
from support.waiting import wait_until

TICKERS = ["ES_SPX", "SPX", "SPY", "NDX"]  # NDX is not loaded: its groups stay silent


class Generation2025:
    path = "/negotiate"
    headers = {"Authorization": "Basic my-key"}
    profile = "2025-11"


class Generation2026:
    path = "/v2/negotiate"
    headers = {"Authorization": "Bearer my-key", "User-Agent": "ExampleClient/1.0"}
    profile = "2026-04"


every_generation = pytest.mark.parametrize("generation", [Generation2025, Generation2026])


class GexbotClient:
    def __init__(self, server, generation):
        self.generation = generation
        reply = requests.get(server.url + generation.path, headers=generation.headers, timeout=10)
        reply.raise_for_status()
        self.prefix = reply.json().get("prefix") or "red"
        self.urls = reply.json()["websocket_urls"]
        self.closing = False
        self.wanted = []
        self.joined = []
        self.failures = []
        self.records = []
        self.clients = [self.client_of(hub) for hub in HUBS if hub in self.urls]

    def client_of(self, hub):
        package, categories = HUBS[hub]
        groups = [f"{self.prefix}_{ticker}_{package}_{category}" for ticker in TICKERS for category in categories]
        self.wanted += groups
        # The SDK's defaults but for the time after which it gets over a wake-up that it missed (30 s).
        client = WebPubSubClient(self.urls[hub], ack_timeout=5)
        client.subscribe(CallbackType.CONNECTED, lambda _event: self.join(client, groups))
        client.subscribe(CallbackType.GROUP_MESSAGE, self.on_message)
        return client

    def __enter__(self):
        for client in self.clients:
            threading.Thread(target=self.open, args=[client], daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing = True
        for client in self.clients:
            client.close()

    def open(self, client):
        try:
            client.open()
        except OpenClientError:
            # The SDK can miss its own wake-up; then `open` sits there for 30 s and may find the client closed.
            if not self.closing:
                raise

    def join(self, client, groups):
        for group in groups:
            try:
                client.join_group(group)
                self.joined.append(group)
            except Exception as error:
                if not self.closing:
                    self.failures.append(f"{group}: {error}")

    def on_message(self, event):
        try:
            package = next(name for name in ("classic", "state", "orderflow") if f"_{name}_" in event.group)
            category = event.group.split(f"_{package}_")[-1]
            assert any(category in categories for name, categories in HUBS.values() if name == package), event.group
            packed = any_pb2.Any()
            packed.ParseFromString(event.data)
            with zstandard.ZstdDecompressor().stream_reader(packed.value) as reader:
                payload = reader.read()
            self.records.append((event.group, self.values(packed.type_url, payload)))
        except Exception as error:
            self.failures.append(f"{event.group}: {error!r}")

    def values(self, type_url, payload):
        if "proto.gex" in type_url:
            return gex_values(Gex.FromString(payload))
        if "proto.greek" in type_url:
            return greek_values(OptionProfile.FromString(payload))
        assert "proto.orderflow" in type_url, type_url
        return self.orderflow_values(Orderflow.FromString(payload))

    def orderflow_values(self, message):
        values = {}
        for field in FIELDS:
            value = getattr(message, field["field"])
            divided = field["type"] == "uint32" or (field["type"] == "sint32" and self.generation is Generation2026)
            values[field["key"]] = value / 100.0 if divided else value
        return values

    def counts(self):
        """Records by group."""
        return Counter(group for group, _ in list(self.records))


def divided(message, factors, fields):
    values = {"timestamp": message.timestamp, "ticker": message.ticker}
    for key, factor in factors.items():
        values[key] = getattr(message, fields.get(key, key)) / factor
    values["min_dte"] = message.min_dte
    values["sec_min_dte"] = message.sec_min_dte or 1
    return values


def gex_values(message):
    values = divided(message, GEX, {})
    values["strikes"] = [
        [
            strike.strike_price / 100.0,
            strike.value_1 / 100.0,
            strike.value_2 / 100.0,
            [value / 100.0 for value in strike.priors.values] if strike.HasField("priors") else [],
        ]
        for strike in message.strikes
    ]
    tuples = message.max_priors.tuples if message.HasField("max_priors") else []
    values["max_priors"] = [[pair.first_value / 100.0, pair.second_value / 1000.0] for pair in tuples]
    return values


def greek_values(message):
    values = divided(message, GREEK, GREEK_FIELD)
    values["mini_contracts"] = [
        [
            row.strike / 100.0,
            row.call_ivol / 1000.0,
            row.put_ivol / 1000.0,
            row.call_cvolume / 100.0,
            [value / 100.0 for value in row.call_cvolume_priors],
            row.put_cvolume if row.HasField("put_cvolume") else None,
            list(row.put_cvolume_priors.values) if row.HasField("put_cvolume_priors") else None,
        ]
        for row in message.mini_contracts
    ]
    return values


def cut_to(number, decimals):
    return float(number.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_DOWN))


def orderflow_in_the_file(line, generation):
    """What such a client should show for a line: the numbers of the text, cut to two decimals, and in 2025
    state and orderflow fields cut to whole ones, because that generation has no scale for them."""
    source = json.loads(line, parse_int=Decimal, parse_float=Decimal)
    values = {}
    for field in FIELDS:
        value = source.get(field["key"]) or Decimal(0)
        match field["type"]:
            case "uint32":
                value = cut_to(value, 2)
            case "sint32":
                value = cut_to(value, 2 if generation is Generation2026 else 0)
        values[field["key"]] = value
    return values


def in_the_file(group, line, generation):
    """What the client should show for a line of that group: its numbers, cut to as many decimals as the wire has."""
    source = json.loads(line, parse_int=Decimal, parse_float=Decimal)
    if "_orderflow_" in group:
        return orderflow_in_the_file(line, generation)
    thousandths = ("sum_gex_vol", "sum_gex_oi", "delta_risk_reversal")
    values = {}
    for key, value in source.items():
        match key:
            case "timestamp" | "ticker" | "min_dte":
                values[key] = value
            case "sec_min_dte":
                values[key] = value or 1
            case "strikes":
                values[key] = [
                    [*(cut_to(number, 2) for number in row[:3]), [cut_to(number, 2) for number in row[3]]]
                    for row in value
                ]
            case "max_priors":
                values[key] = [[cut_to(strike, 2), cut_to(change, 3)] for strike, change in value]
            case "mini_contracts":
                values[key] = [
                    [
                        cut_to(row[0], 2),
                        cut_to(row[1], 3),
                        cut_to(row[2], 3),
                        cut_to(row[3], 2),
                        [cut_to(number, 2) for number in row[4]],
                        row[5],
                        row[6],
                    ]
                    for row in value
                ]
            case _:
                values[key] = cut_to(value, 3 if key in thousandths else 2)
    return values


def wait_for_records(client, groups, count):
    """Until all that the client wants is joined, and each of the groups has brought that many records."""
    wait_until(
        lambda: len(client.joined) == len(client.wanted) or client.failures, "all groups to be joined", seconds=90
    )
    wait_until(
        lambda: all(client.counts()[group] >= count for group in groups) or client.failures,
        f"{count} records of each group",
        seconds=90,
    )
    assert client.failures == []


@every_generation
def test_the_gexbot_client_of_either_generation_shows_the_numbers_of_the_file(market_server, market, generation):
    with GexbotClient(market_server, generation) as client:
        assert client.prefix == "blue"
        assert set(client.urls) == set(HUBS), "every hub that has records, and state_greeks has none"
        wait_for_records(client, market.groups, 3)
        records = list(client.records)
    assert {group for group, _ in records} == market.groups
    for group, values in records:
        assert values == in_the_file(group, market.line(group, values["timestamp"]), generation)


@every_generation
def test_the_gexbot_client_of_either_generation_skips_hubs_without_data(server, dataset, generation):
    with GexbotClient(server, generation) as client:
        assert list(client.urls) == ["orderflow"]
        groups = {f"blue_{ticker}_orderflow_orderflow": ticker for ticker in ("ES_SPX", "SPX", "SPY")}
        wait_for_records(client, groups, 20)
        records = list(client.records)
    assert {group for group, _ in records} == set(groups)
    for group, values in records:
        line = dataset.lines[groups[group]][values["timestamp"] - dataset.first_timestamp]
        assert values == orderflow_in_the_file(line, generation)
