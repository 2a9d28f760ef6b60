"""A day of the whole market on disk, and what its records must be on the wire.

A payload and the line that it was made from are both turned into the same thing: the line's JSON with the integers of
the wire in place of its numbers. For a line they are computed from its text with exact decimals.
"""

import json
import pathlib
import re
import subprocess
from decimal import Decimal

import zstandard
from google.protobuf import any_pb2

from support.orderflow import FIELDS, PREFIX, PROTOS, ROOT, Orderflow, cut
from support.server import BINARY

FIXTURES = ROOT / "tests/fixtures/gexbot"
GREEKS = ("delta", "gamma", "vanna", "charm")
HUBS = {
    "classic": ("classic", ["gex_full", "gex_zero", "gex_one"]),
    "state_gex": ("state", ["gex_full", "gex_zero", "gex_one"]),
    "state_greeks_zero": ("state", [f"{greek}_zero" for greek in GREEKS]),
    "state_greeks_one": ("state", [f"{greek}_one" for greek in GREEKS]),
    "orderflow": ("orderflow", ["orderflow"]),
}

Gex = PROTOS["gex_profile.Gex"]
OptionProfile = PROTOS["option_profile.OptionProfile"]
SpotPrice = PROTOS["spot_price.SpotPrice"]

# Factors by key, and the field that has another name than its key.
GEX = {"min_dte": 1, "sec_min_dte": 1, "spot": 100, "zero_gamma": 100, "major_pos_vol": 100, "major_pos_oi": 100}
GEX |= {"major_neg_vol": 100, "major_neg_oi": 100, "sum_gex_vol": 1000, "sum_gex_oi": 1000, "delta_risk_reversal": 1000}
GREEK = {"min_dte": 1, "sec_min_dte": 1, "spot": 100, "major_positive": 100, "major_negative": 100}
GREEK |= {"major_long_gamma": 100, "major_short_gamma": 100}
GREEK_FIELD = {"major_positive": "major_call_gamma", "major_negative": "major_put_gamma"}


def groups_of(ticker, hub):
    """The full names of the ticker's groups on a hub of either generation, without spot."""
    package, categories = HUBS[hub.removeprefix("v2_")]
    return [f"{PREFIX}_{ticker}_{package}_{category}" for category in categories]


def spot_group_of(ticker):
    return f"{PREFIX}_{ticker}_spot"


def unpacked(any_bytes):
    """(type URL, payload) of a serialized `Any`."""
    packed = any_pb2.Any.FromString(any_bytes)
    with zstandard.ZstdDecompressor().stream_reader(packed.value) as reader:
        return packed.type_url, reader.read()


def decoded(any_bytes):
    """The record in a serialized `Any`, in the shape of its line, with the wire's integers."""
    type_url, payload = unpacked(any_bytes)
    return {
        "proto.gex": decoded_gex,
        "proto.greek": decoded_greek,
        "proto.spot": decoded_spot,
        "proto.orderflow": decoded_orderflow,
    }[type_url](payload)


def decoded_gex(payload):
    message = Gex.FromString(payload)
    return {
        "timestamp": message.timestamp,
        "ticker": message.ticker,
        **{key: getattr(message, key) for key in GEX},
        "strikes": [
            [strike.strike_price, strike.value_1, strike.value_2, list(strike.priors.values)]
            for strike in message.strikes
        ],
        "max_priors": [[pair.first_value, pair.second_value] for pair in message.max_priors.tuples],
    }


def decoded_greek(payload):
    message = OptionProfile.FromString(payload)
    return {
        "timestamp": message.timestamp,
        "ticker": message.ticker,
        **{key: getattr(message, GREEK_FIELD.get(key, key)) for key in GREEK},
        "mini_contracts": [
            [
                row.strike,
                row.call_ivol,
                row.put_ivol,
                row.call_cvolume,
                list(row.call_cvolume_priors),
                row.put_cvolume if row.HasField("put_cvolume") else None,
                list(row.put_cvolume_priors.values) if row.HasField("put_cvolume_priors") else None,
            ]
            for row in message.mini_contracts
        ],
    }


def decoded_spot(payload):
    message = SpotPrice.FromString(payload)
    return {"timestamp": message.timestamp, "ticker": message.ticker, "spot": message.spot}


def decoded_orderflow(payload):
    message = Orderflow.FromString(payload)
    return {field["key"]: getattr(message, field["field"]) for field in FIELDS}


def expected(line, kind, profile="2026-04"):
    """What a line of that kind must be on the wire, in the shape of `decoded`."""
    record = json.loads(line, parse_int=Decimal, parse_float=Decimal)
    head = {"timestamp": int(record["timestamp"]), "ticker": record["ticker"]}
    match kind:
        case "gex":
            return {
                **head,
                **scaled_members(record, GEX),
                "strikes": [[*scaled(row[:3], 100), scaled(row[3], 100)] for row in record["strikes"]],
                "max_priors": [
                    [*scaled([strike], 100), *scaled([change], 1000)] for strike, change in record["max_priors"]
                ],
            }
        case "greek":
            contracts = [
                [
                    *scaled([row[0]], 100),
                    *scaled(row[1:3], 1000),
                    *scaled([row[3]], 100),
                    scaled(row[4], 100),
                    None if row[5] is None else cut(row[5]),
                    None if row[6] is None else scaled(row[6], 1),
                ]
                for row in record["mini_contracts"]
            ]
            return {**head, **scaled_members(record, GREEK), "mini_contracts": contracts}
        case "spot":
            return {**head, **scaled_members(record, {"spot": 100})}
        case "orderflow":
            factors = {field["key"]: field["factor"][profile] for field in FIELDS if "factor" in field}
            return {**head, **scaled_members(record, factors)}


def scaled(numbers, factor):
    return [cut(number * factor) for number in numbers]


def scaled_members(record, factors):
    return {key: cut(record[key] * factor) for key, factor in factors.items()}


def kind_of(series):
    """The kind of the records of `{package}_{category}`."""
    if series == "orderflow_orderflow":
        return "orderflow"
    return "gex" if "_gex_" in series else "greek"


class Market:
    """ES_SPX with all fifteen categories, made by `flowcast generate`; SPX with the two records that have golden
    payloads; SPY with the same records with digits that are too fine for the wire."""

    date = "2025-11-28"
    records = 120  # of ES_SPX in each file
    golden = {"classic_gex_full": "gex_full", "state_gamma_zero": "gamma_zero"}

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        options = ["--date", self.date, "--tickers", "ES_SPX", "--records", str(self.records)]
        command = [BINARY, "generate", "--categories", "all", "--strikes", "12", "--out", self.directory, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for series, name in self.golden.items():
            line = (FIXTURES / f"{name}.jsonl").read_text("utf-8")
            self._write("SPX", series, line)
            self._write("SPY", series, re.sub(r"\d\.\d+", r"\g<0>9999", line).replace('"SPX"', '"SPY"'))
        self._lines = {}
        for path in (self.directory / self.date).glob("*/*/*.jsonl"):
            ticker, package, category = path.relative_to(self.directory / self.date).with_suffix("").parts
            if package != "streams":
                lines = path.read_text("utf-8").splitlines()
                self._lines[f"{PREFIX}_{ticker}_{package}_{category}"] = {
                    json.loads(line)["timestamp"]: line for line in lines
                }

    def _write(self, ticker, series, line):
        package, category = series.split("_", 1)
        path = self.directory / self.date / ticker / package / f"{category}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line, "utf-8")

    @property
    def groups(self):
        """The full names of the groups that have records."""
        return set(self._lines)

    def line(self, group, timestamp):
        return self._lines[group][timestamp]

    def row_of(self, group, any_bytes, profile="2026-04"):
        """Which line of the group's file these data are; fails unless every number is as it must be. A spot price is
        a line of the ticker's first file."""
        record = decoded(any_bytes)
        ticker, timestamp = record["ticker"], record["timestamp"]
        if group == spot_group_of(ticker):
            group, kind = self.spot_source_of(ticker), "spot"
        else:
            kind = kind_of(group.removeprefix(f"{PREFIX}_{ticker}_"))
        assert record == expected(self.line(group, timestamp), kind, profile)
        return list(self._lines[group]).index(timestamp)

    def spot_source_of(self, ticker):
        sources = [f"{PREFIX}_{ticker}_orderflow_orderflow", f"{PREFIX}_{ticker}_classic_gex_full"]
        return next(source for source in sources if source in self._lines)
