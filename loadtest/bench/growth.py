#!/usr/bin/env python3
"""How cost grows: server CPU against connections, groups, memberships, message size and churn.

    python3 loadtest/bench/growth.py --series connections,groups --rounds 3 --seconds 3

Every series changes one thing. A point is the server's CPU seconds in the measured time, divided by what
was done in it; the median over rounds counts. `exponent` says how the cost of *everything* grew from the
point before: 1 is in proportion, less is better. Writes benches/GROWTH.md and benches/growth.svg.
"""

import argparse
from dataclasses import dataclass
from datetime import datetime, timezone
from inspect import cleandoc
from math import log, log10
from statistics import median

import servers
from cases import Settings
from fanout import count as whole_number, name_of, prepare, some_of
from recorder import group
from report import machine, table
from servers import running
from swarm import Load, run

BUDGET = 50_000
NAMES = [f"G{number:04}" for number in range(2000)]
MEASURED = ("frames_per_s", "server_cpu", "frames_per_read", "generator_busy")


@dataclass(frozen=True)
class Series:
    """One thing that grows."""

    name: str
    axis: str
    steps: tuple
    run: callable
    """(settings, step) to the result, and what was done in the measured time."""


def serving(settings, tickers, interval, load, *options, threads=1, cores=servers.SERVER_CORE):
    """A run on a day of so many tickers."""
    data = settings.data(f"grow-{tickers}", NAMES[:tickers], 60)
    command = servers.flowcast(data, interval)
    command[command.index("--shards") + 1] = str(threads)
    with running([*command, *options], cores=cores) as server:
        return run(server, load)


def connections(settings, count):
    """One group, ever more subscribers."""
    interval = max(10, 1000 * count // BUDGET)
    load = Load(count, "json", "all", settings.seconds, count * 1000 / interval)
    result = serving(settings, 1, f"{interval}ms", load)
    return result, result.facts["window"]["frames"]


def floor_connections(settings, count):
    """The same against the floor, which does nothing but `send(2)`: what grows here, grows in the kernel."""
    interval = max(10, 1000 * count // BUDGET)
    load = Load(count, "json", group("SPX"), settings.seconds, count * 1000 / interval)
    with running(servers.floor(settings.recording("json"), "json", f"{interval}ms")) as server:
        result = run(server, load)
    return result, result.facts["window"]["frames"]


def groups(settings, count):
    """2,000 connections with a group each, ever more groups among them."""
    load = Load(2000, "json", "all", settings.seconds, 20_000)
    result = serving(settings, count, "100ms", load, *one_each(settings, count))
    return result, result.facts["window"]["frames"]


def one_each(_settings, count):
    """Room for what is asked."""
    return ["--max-groups-per-connection", str(max(150, count))]


def memberships(settings, count):
    """500 connections, each in ever more of 150 groups, hardly two in the same ones."""
    # With the ledger the generator compares bytes; else it would decode every frame, and be at its limit.
    load = Load(500, "json", "all", settings.seconds, 500 * count * 5, groups_each=count, ledger="require",
                tells_latency=False)  # fmt: skip
    result = serving(settings, 150, "200ms", load)
    return result, result.facts["window"]["frames"]


def message_bytes(settings, size):
    """500 connections to a topic of the JSON streams, ever larger messages."""
    load = Load(500, "streams", "lines", settings.seconds, 500 * 5, publish_rate=5, publish_bytes=size)
    result = serving(settings, 1, "1h", load, "--replay-trading", "false")
    return result, result.facts["window"]["frames"]


def churn(settings, rate):
    """2,000 connections at 20,000 frames/s, while others come, join, and are gone again."""
    # Each that comes and goes stays for 500 ms on average.
    visitors = rate // 2
    load = Load(2000 + visitors, "json", "all", settings.seconds, 0, reset=100 * visitors / (2000 + visitors))
    result = serving(settings, 1, "100ms", load)
    return result, result.facts["window"]["frames"]


def shards(settings, count):
    """Ever more shards for 5,000 connections at 50,000 frames/s. Here they share two cores with the swarm, since
    a second pair for the load is not to be had: what is seen is what a shard more costs, not what two cores
    carry."""
    load = Load(5000, "json", "all", settings.seconds, 50_000)
    result = serving(settings, 1, "100ms", load, threads=count, cores="0,1")
    return result, result.facts["window"]["frames"]


CONNECTIONS = (10, 100, 1000, 5000, 10_000, 19_000)
SERIES = (
    Series("connections", "connections", CONNECTIONS, connections),
    Series("connections of the floor", "connections", CONNECTIONS, floor_connections),
    Series("groups", "groups", (1, 10, 100, 500, 2000), groups),
    Series("memberships", "groups of each connection", (1, 5, 20, 50, 150), memberships),
    Series("message size", "bytes", (100, 1024, 4096, 16_384, 65_536), message_bytes),
    Series("churn", "connections a second that come, join and go", (0, 250, 500, 1000), churn),
    Series("shards", "shards", (1, 2), shards),
)

def measure(series, settings, step):
    """One point: CPU seconds per second, per thing done, and why not to believe it."""
    result, done = series.run(settings, step)
    seconds = result.summary["measured_s"]
    cpu = result.meter.cpu_s(*result.window)
    return {"cpu": cpu / seconds, "each": cpu / done if done else 0.0, "frames": done / seconds,
            "joined": result.summary["frames_per_read"], "invalid": result.invalid}  # fmt: skip


def exponent(before, after):
    """How the whole cost grew with the thing: 1 in proportion.

    >>> round(exponent((10, 1.0), (100, 10.0)), 3), round(exponent((1, 4.0), (4, 8.0)), 3)
    (1.0, 0.5)
    """
    (few, less), (many, more) = before, after
    return log(more / less) / log(many / few)


def rows(series, points):
    """A table's rows: the step, frames/s, CPU, cost of one, and how the whole grew."""
    before = None
    for step in series.steps:
        good = [point for point in points.get(step, []) if not point["invalid"]]
        if not good:
            yield [f"{step:,}", "–", "–", "–", "–", "0"]
            continue
        frames, cpu, each = (median(point[key] for point in good) for key in ("frames", "cpu", "each"))
        # What grows is the work for one tick or message; where the rate was lowered to fit, this still holds.
        whole = each * step if series.axis == "connections" or series.name == "memberships" else each
        grew = f"{exponent(before, (step, whole)):.2f}" if before and before[0] else "–"
        before = (step, whole)
        yield [f"{step:,}", f"{frames:,.0f}", f"{100 * cpu:.1f} %", f"{1e6 * each:.2f} µs", grew, str(len(good))]


def plot(series, points, at):
    """One panel of the picture: cost of one frame over the step, both logarithmic."""
    width, height, left, top = 300, 180, 20 + at % 2 * 360, 40 + at // 2 * 260
    dots = []
    for step in series.steps:
        good = [point["each"] * 1e6 for point in points.get(step, []) if not point["invalid"] and point["each"]]
        if good:
            dots.append((max(step, 1), median(good), f"{step / 1000:g}k" if step and step % 1000 == 0 else str(step)))
    if not dots:
        return ""
    low, high = min(y for _, y, _ in dots) / 2, max(y for _, y, _ in dots) * 2
    first, last = log10(dots[0][0]), log10(dots[-1][0]) or 1

    def place(x, y):
        across = (log10(x) - first) / ((last - first) or 1)
        return left + 40 + across * (width - 50), top + height - 20 - log10(y / low) / log10(high / low) * (height - 40)

    places = [place(across, up) for across, up, _ in dots]
    path = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
    marks = "".join(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3"/>' for x, y in places)
    texts = "".join(
        f'<text x="{x:.0f}" y="{top + height - 4}" text-anchor="middle">{step}</text>'
        f'<text x="{x:.0f}" y="{y - 8:.0f}" text-anchor="middle">{value:.2f}</text>'
        for (x, y), (_, value, step) in zip(places, dots)
    )
    return (
        f'<g><text x="{left}" y="{top - 8}" font-weight="bold">{series.name}: µs of server CPU per frame</text>'
        f'<rect x="{left}" y="{top}" width="{width + 30}" height="{height}" fill="none" stroke="#ccc"/>'
        f'<polyline points="{path}" fill="none" stroke="#06c" stroke-width="2"/><g fill="#06c">{marks}</g>{texts}</g>'
    )


def write(everything, rounds, seconds):
    """Writes the page and its picture."""
    picture = "".join(plot(series, everything[series.name], at) for at, series in enumerate(SERIES))
    high = 40 + (len(SERIES) + 1) // 2 * 260
    (servers.ROOT / "benches/growth.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 {high}" font-family="sans-serif" font-size="10">'
        f'<rect width="740" height="{high}" fill="white"/>{picture}</svg>\n', encoding="utf-8",
    )  # fmt: skip
    head = ["frames/s", "server CPU", "CPU per frame", "exponent", "valid rounds"]
    parts = [
        "# Growth: how cost grows",
        "Written by `python3 loadtest/bench/growth.py`. Every series changes one thing; the cost is the CPU time of the "
        "whole server, the median over rounds. The exponent says how the cost of everything that a tick or message "
        "causes grew from the step before: 1 is in proportion, less is better.",
        f"Machine: {machine()}; server (one shard) on core 0, `swarm` on core 1; {rounds} rounds of {seconds} s; "
        f"{datetime.now(timezone.utc).date()}.",
        "![CPU per frame, by series](growth.svg)",
    ]
    for series in SERIES:
        what = cleandoc(series.run.__doc__ or "")
        parts.append(f"## {series.name.capitalize()}\n\n{what}\n\n" + table([series.axis, *head], rows(series, everything[series.name])))
    (servers.ROOT / "benches/GROWTH.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def main():
    """Measures round by round."""
    known = tuple(series.name for series in SERIES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=some_of(known), default=known, help=f"default: {','.join(known)}")
    parser.add_argument("--rounds", type=whole_number, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=whole_number, default=3, help="measured time of a run; default: %(default)s")
    asked = servers.asked_of(parser)
    names, rounds, seconds = asked.series, asked.rounds, asked.seconds
    settings = Settings(prepare(), name_of(servers.FLOWCAST), ("json",), seconds, False)
    everything = {series.name: {} for series in SERIES}
    for turn in range(rounds):
        for series in SERIES:
            if series.name not in names:
                continue
            for step in series.steps[:: -1 if turn % 2 else 1]:
                point = measure(series, settings, step)
                everything[series.name].setdefault(step, []).append(point)
                told = "; ".join(point["invalid"]) or "valid"
                print(f"round {turn}  {series.name:<13} {step:>7,}  {point['frames']:>9,.0f} frames/s  "
                      f"{100 * point['cpu']:5.1f} % CPU  {1e6 * point['each']:7.2f} µs  {told}", flush=True)  # fmt: skip
        write(everything, turn + 1, seconds)


if __name__ == "__main__":
    main()
