"""What a case of the bench is, and the data it runs on."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import servers
from recorder import record

STREAMS = "streams"
WIRES = ("json", "json.reliable", "protobuf", "protobuf.reliable", STREAMS)
RECORDS = 2000
TICKERS_16 = "SPX,ES_SPX,NDX,SPY,QQQ,IWM,AAPL,MSFT,NVDA,AMZN,META,TSLA,GOOGL,AMD,NFLX,VIX".split(",")
TICKERS_40 = TICKERS_16 + [f"T{number:02}" for number in range(24)]


CHANNELS = [f"c{number:03}" for number in range(16)]
ENVELOPE = '{"type":"message","channel":"c000","payload":,"timestamp":"2025-11-28T14:30:02.007Z"}'
ENVELOPE_BYTES = len(ENVELOPE)


@dataclass(frozen=True)
class Goal:
    """What a figure must be; a ratio where there is somebody to divide by."""

    row: str
    figure: str
    must: float | None
    stretch: float | None
    at_least: bool = True
    contender: str = "flowcast"
    against: tuple = ()
    """The contenders to divide by; of several, the better one of the round."""


@dataclass(frozen=True)
class Case:
    """One cell of the table: contenders that take turns, and the goals their figures serve."""

    name: str
    goals: tuple
    contenders: dict
    """By name: a function that runs it once and returns figures, reasons to doubt them, and the command."""
    every: int = 1
    """Only every so many rounds."""


@dataclass(frozen=True)
class Settings:
    """What the user chose, and where data and recordings lie."""

    work: Path
    build: str
    """Which flowcast: another may frame otherwise."""
    wires: tuple
    seconds: int
    peers: bool
    program: str | None = None
    """Another flowcast to put under test than the usual one, from which data and recordings come."""
    idle_s: int = 10
    """How long the clients of W3 hear nothing before the memory is read."""

    def data(self, name, tickers, records):
        """A generated day of those tickers: orderflow, which older versions serve, too."""
        out, part = self.work / name, self.work / f"{name}.part"
        if not out.exists():
            command = [servers.FLOWCAST, "generate", "--force", "--out", part, "--tickers", ",".join(tickers)]
            subprocess.run([*command, "--categories", "orderflow", "--records", str(records)], check=True, stdout=subprocess.DEVNULL)
            part.rename(out)
        return out

    def one(self):
        """The day that rows of one group replay."""
        return self.data("orderflow-1", ["SPX"], RECORDS)

    def sixteen(self):
        """The day of the row of sixteen groups."""
        return self.data("orderflow-16", TICKERS_16, RECORDS)

    def recording(self, wire, tickers=("SPX",)):
        """What flowcast says on a wire of the hub when it replays one of those days."""
        path = self.work / f"{self.build}-{len(tickers)}-{wire}.frames"
        record(path, self.one() if len(tickers) == 1 else self.sixteen(), wire, tickers, RECORDS)
        return path

    def payload_bytes(self, tickers=("SPX",)):
        """The length of a payload whose frame on the JSON streams is as long as one of the hub's in JSON."""
        self.recording("json", tickers)
        messages = self.work.joinpath(f"{self.build}-{len(tickers)}-json.jsonl").read_bytes().splitlines()
        return round(sum(map(len, messages)) / len(messages)) - ENVELOPE_BYTES
