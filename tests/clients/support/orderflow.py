"""Orderflow records, twice: as JSONL lines with what they must become, and as they come from the wire.

What a line must become is computed from its text with exact decimals and the table of the golden files.
"""

import json
import pathlib
import random
import tempfile
from decimal import ROUND_DOWN, Decimal

import zstandard
from google.protobuf import any_pb2, descriptor_pb2, message_factory
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIELDS = json.loads((ROOT / "tests/fixtures/golden/orderflow_fields.json").read_text("utf-8"))
PREFIX = "blue"


def compiled_protos():
    """The message classes of proto/*.proto, by full name."""
    with tempfile.TemporaryDirectory() as directory:
        compiled = pathlib.Path(directory) / "descriptors"
        sources = sorted(str(path) for path in (ROOT / "proto").glob("*.proto"))
        arguments = ["protoc", f"--proto_path={ROOT / 'proto'}", f"--descriptor_set_out={compiled}", *sources]
        assert protoc.main(arguments) == 0, "protoc refused proto/*.proto"
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    return message_factory.GetMessages(files)


PROTOS = compiled_protos()
Orderflow = PROTOS["orderflow_proto.Orderflow"]
UpstreamMessage = PROTOS["webpubsub.UpstreamMessage"]
DownstreamMessage = PROTOS["webpubsub.DownstreamMessage"]


def group_of(ticker):
    return f"{PREFIX}_{ticker}_orderflow_orderflow"


def decoded(any_bytes):
    """The fields of the record in a serialized `Any`, decoded as GexBot's client does it."""
    packed = any_pb2.Any()
    packed.ParseFromString(any_bytes)
    assert packed.type_url == "proto.orderflow"
    with zstandard.ZstdDecompressor().stream_reader(packed.value) as reader:
        record = Orderflow.FromString(reader.read())
    return {field["field"]: getattr(record, field["field"]) for field in FIELDS}


class Dataset:
    """A small trading day on disk: `{directory}/{date}/{ticker}/orderflow/orderflow.jsonl`."""

    date = "2025-11-28"
    first_timestamp = 1764340200

    def __init__(self, directory, lengths):
        self.directory = pathlib.Path(directory)
        self.lines = {ticker: [self._line(ticker, row) for row in range(length)] for ticker, length in lengths.items()}
        for ticker, lines in self.lines.items():
            folder = self.directory / self.date / ticker / "orderflow"
            folder.mkdir(parents=True)
            (folder / "orderflow.jsonl").write_text("".join(line + "\n" for line in lines), "utf-8")

    def row_of(self, ticker, fields, profile):
        """Which line of the ticker's file these fields are; fails unless every one of them is as it must be."""
        row = fields["timestamp"] - self.first_timestamp
        assert 0 <= row < len(self.lines[ticker]), f"{ticker} has no record of {fields['timestamp']}"
        assert fields == self.expected(ticker, row, profile)
        return row

    def expected(self, ticker, row, profile):
        """The wire integers of one line."""
        record = self.source(ticker, row)
        return {
            field["field"]: cut(record[field["key"]] * field["factor"][profile])
            if "factor" in field
            else record[field["key"]]
            for field in FIELDS
        }

    def source(self, ticker, row):
        """The line's values by JSONL key, numbers as exact decimals; what is missing or null is zero."""
        record = json.loads(self.lines[ticker][row], parse_int=Decimal, parse_float=Decimal)
        return {
            field["key"]: Decimal(0) if record.get(field["key"]) is None else record[field["key"]] for field in FIELDS
        }

    def _line(self, ticker, row):
        chance = random.Random(f"{ticker} {row}")
        members = [f'"timestamp":{self.first_timestamp + row}', f'"ticker":"{ticker}"']
        for field in FIELDS[2:]:
            number = number_text(chance, signed=field["type"] == "sint32")
            if number is not None:
                members.append(f'"{field["key"]}":{number}')
        return "{" + ",".join(members) + "}"


def cut(number):
    return int(number.to_integral_value(rounding=ROUND_DOWN))


def number_text(chance, signed):
    """A number as it may stand in a file: mostly two decimals, and everything else that is allowed. None: left out."""
    sign = "-" if signed and chance.random() < 0.5 else ""
    whole = chance.randrange(20_000)
    match chance.randrange(16):
        case 0:
            return None
        case 1:
            return "null"
        case 2:
            return f"{sign}{whole}"
        case 3:
            return f"{sign}{whole}.{chance.randrange(10)}"
        case 4:
            return f"{sign}{whole}.{chance.randrange(1000):03}"
        case 5:
            return f"{sign}{whole}.{chance.randrange(10**12):012}"
        case 6:
            return f"{sign}{whole}e-{chance.randrange(1, 5)}"
        case 7:
            return f"{sign}{chance.randrange(20)}.{chance.randrange(100):02}E+{chance.randrange(4)}"
        case 8:
            return f"{sign}0.0"
        case _:
            return f"{sign}{whole}.{chance.randrange(100):02}"


def assert_consecutive(rows, length):
    """The rows follow one another in file order, the first after the last."""
    expected = [(rows[0] + step) % length for step in range(len(rows))]
    assert rows == expected


def in_cyclic_order(rows, length):
    """The rows, each of which was there once, sorted so that a run that went over the end of the file is whole."""
    assert len(set(rows)) == len(rows), (
        f"rows that came more than once: {sorted(row for row in set(rows) if rows.count(row) > 1)}"
    )
    assert len(rows) < length, "a whole round cannot be put in order again"
    starts = [row for row in rows if (row - 1) % length not in rows]
    return sorted(rows, key=lambda row: (row - starts[0]) % length)
