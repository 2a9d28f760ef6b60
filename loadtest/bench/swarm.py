"""Runs the swarm against a server, and says what the run is worth."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field

from meter import Meter
import servers
from servers import CLIENT_CORE, pinned

GRACE_S = 90
MERGED = 1.03
DELIVERED = 0.98
STARVED = 0.1


@dataclass
class Load:
    """What the swarm is asked for."""

    connections: int
    wire: str
    groups: str
    seconds: int
    demand: float = 0.0
    """Data frames per second that should arrive; 0 if none."""
    groups_each: int = 1
    """Groups that each client joins, spread evenly; 0 for all of them."""
    ledger: str = "off"
    ramp: int = 5000
    stalled: float = 0.0
    at_limit: bool = False
    """Whether more is asked for than may be possible: ticks may merge, and the generator be busy."""
    tells_latency: bool = True
    """Whether latency is asked for: then the generator's own delay counts."""
    reset: float = 0.0
    """Percent of clients that reset their connection every 500 ms on average, and come again."""
    publish_rate: int = 0
    """JSON streams: messages per second that the swarm publishes to each of the groups, which are channels."""
    publish_bytes: int = 0
    """Bytes of each of their payloads."""
    external: bool = False
    """JSON streams: somebody else publishes, with the numbers that the swarm expects."""
    dialect: str | None = None
    """What the server speaks in place of the JSON streams."""
    path: str = ""
    """Where its sockets are."""

    def claims_latency(self):
        """Whether the run is worth nothing without valid latencies: they come from the ledger."""
        return self.ledger != "off" and self.tells_latency and not self.at_limit

    def options(self):
        """What the swarm is told about the load, whatever the server."""
        told = [
            "--connections", str(self.connections), "--protocols", self.wire, "--duration", f"{self.seconds}s",
            "--ramp", str(self.ramp), "--setup-timeout", "30s", "--workers", "1",
            "--claim", "latency" if self.claims_latency() else "delivery",
        ]  # fmt: skip
        if self.reset:
            told += ["--reset", f"{self.reset:.2f}", "--reset-after", "500ms"]
        if self.wire != "streams":
            told += ["--groups", self.groups, "--groups-per-connection", str(self.groups_each)]
            return [*told, "--ledger", self.ledger, "--stalled", str(self.stalled)]
        told += ["--channels", self.groups]
        if self.publish_rate:
            told += ["--publish-rate", str(self.publish_rate), "--publish-bytes", str(self.publish_bytes)]
        told += ["--external-producer"] if self.external else []
        return told + (["--dialect", self.dialect] if self.dialect else [])

    def command(self, server, report):
        """The swarm's whole command line."""
        url = server.url.replace("http", "ws") + self.path if self.path else server.url
        return [servers.SWARM, "--url", url, *self.options(), "--server-pid", str(server.pid), "--json", report, "--quiet"]


@dataclass
class Run:
    """What came of it."""

    command: list
    summary: dict
    facts: dict
    meter: Meter
    invalid: list = field(default_factory=list)
    """Why its figures must not be used; empty for a good run."""

    @property
    def window(self):
        """The measured time, monotonic ns."""
        return self.facts["window"]["from_ns"], self.facts["window"]["until_ns"]

    def figures(self):
        """What every run tells."""
        window, ticks = self.facts["window"], self.last_copies_ms()
        frames, cpu_s = window["frames"], self.meter.cpu_s(*self.window)
        return {
            "frames_per_cpu_s": frames / cpu_s,
            "frames_per_thread_cpu_s": frames / self.meter.thread_cpu_s(*self.window),
            "frames_per_s": self.summary["frames_per_s"],
            "bytes_per_frame": window["bytes"] / max(frames, 1),
            "server_cpu": cpu_s / self.summary["measured_s"],
            "fairness": self.summary["fairness"],
            "frames_per_read": self.summary["frames_per_read"],
            "latency_p50_ms": self.summary["latency"]["p50_us"] / 1000,
            "latency_p99_ms": self.summary["latency"]["p99_us"] / 1000,
            "tick_p50_ms": quantile(ticks, 0.5),
            "tick_p99_ms": quantile(ticks, 0.99),
            "generator_busy": self.summary["busy"],
            "generator_starved": self.summary["starved"],
            "machine_busy": self.meter.machine_busy(*self.window),
        }

    def last_copies_ms(self):
        """Per tick due in the window: from when it was due to its last copy; empty without a ledger."""
        begin, end = self.window
        rows = self.facts["ticks"]["rows"].values()
        return sorted(
            (row["last_ns"] - row["scheduled_ns"]) / 1e6 for row in rows if begin <= row["scheduled_ns"] < end
        )


def quantile(ordered, share):
    """A quantile of sorted values; 0 of none.

    >>> quantile([1, 2, 3, 4], 0.5), quantile([1, 2, 3, 4], 0.99), quantile([], 0.5)
    (2, 4, 0.0)
    """
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)] if ordered else 0.0


def run(server, load, with_memory=False):
    """One run of the swarm."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        with Meter(server.pid, server.sender_tid, with_memory) as meter:
            limit_s = load.seconds + 3 * load.connections / load.ramp + GRACE_S
            command = pinned(CLIENT_CORE, load.command(server, report.name))
            done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
        if done.returncode == 2 or not os.path.getsize(report.name):
            raise RuntimeError(f"the swarm did not run: {done.stderr.decode(errors='replace')[-500:]}")
        told = json.load(report)
    result = Run(load.options(), told["summary"], told["facts"], meter)
    result.invalid = doubts(result, load)
    return result


def doubts(result, load):
    """Why a run's figures must not be used."""
    summary, window, reasons = result.summary, result.facts["window"], []
    if summary["delivery"] == "failed":
        reasons += summary["reasons"]
    # Where everything may be at its limit, what arrived has arrived.
    if not load.at_limit and window["saturated"] * 20 > window["worker_seconds"]:
        reasons.append(f"the generator was saturated: busy {summary['busy']:.0%}")
    if summary["starved"] > STARVED:
        reasons.append(f"the generator waited for a processor {summary['starved']:.0%} of the time")
    if load.claims_latency() and summary["measurement"] != "valid":
        reasons += [reason for reason in summary["reasons"] if reason not in reasons]
    if load.demand and not load.at_limit and summary["frames_per_s"] < DELIVERED * load.demand:
        reasons.append(f"{summary['frames_per_s']:.0f} of {load.demand:.0f} frames/s arrived")
    if load.demand and not load.at_limit and summary["frames_per_read"] > MERGED * load.groups_each:
        reasons.append(f"ticks merged: {summary['frames_per_read']:.2f} frames per read")
    return reasons
