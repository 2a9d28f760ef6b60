"""Turns runs into tables: the goals and what became of them, and every figure behind that."""

import os
import platform
from pathlib import Path
from statistics import median

from cases import Case, Goal
from rows import SELDOM, all_cases
from stats import estimate, verdict

UNITS = {
    "frames_per_cpu_s": "frames/CPU-s",
    "tick_p99_ms": "ms p99",
    "bytes_per_connection": "B/connection",
    "frames_per_s": "frames/s",
    "fairness": "fewest ÷ most",
    "shed_to_bound": "last drop ÷ bound",
    "clients_per_cpu_s": "clients/CPU-s",
    "records_per_s": "records/s",
    "start_ms": "ms to serving",
    "resident_to_frames": "RSS ÷ frames",
}
SHOWN = ("frames_per_cpu_s", "frames_per_thread_cpu_s", "frames_per_s", "bytes_per_frame", "tick_p50_ms", "tick_p99_ms",
         "bytes_per_connection", "clients_per_cpu_s", "records_per_s", "start_ms", "resident_to_frames",
         "peak_to_frames", "generator_busy")  # fmt: skip


def number(value):
    """A figure with three digits that matter.

    >>> number(231456.7), number(0.98765), number(12.3456)
    ('231,457', '0.988', '12.3')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def line(run):
    """One run for the terminal."""
    name = f"round {run['round']:2}  {run['case']:<34} {run['contender']:<22}"
    shown = [f"{UNITS[key]} {number(value)}" for key, value in run["figures"].items() if key in UNITS]
    shown += [run["figures"]["ended"]] if "ended" in run["figures"] else []
    doubts = [f"INVALID: {'; '.join(run['invalid'])}"] if run["invalid"] else []
    return f"{name} {run['took_s']:5.1f} s  {'  '.join(shown + doubts)}"


def values(runs, case, contender, figure):
    """A figure of the valid runs of a contender, by round."""
    return {
        run["round"]: run["figures"][figure]
        for run in runs
        if (run["case"], run["contender"]) == (case, contender) and not run["invalid"] and figure in run["figures"]
    }


def judged(runs, case, goal):
    """What became of a goal: own values, the others', and what is compared with the goal."""
    own = values(runs, case.name, goal.contender, goal.figure)
    if not goal.against:
        return own, {}, own
    others = [values(runs, case.name, name, goal.figure) for name in goal.against]
    best = max if goal.at_least else min
    other = {at: best(side[at] for side in others) for at in set.intersection(*(set(side) for side in others))}
    return own, other, {at: own[at] / other[at] for at in own.keys() & other.keys() if other[at]}


def cases_of(runs, settings):
    """The cases that any run belongs to, in the order of the table; wires that take turns all appear."""
    names = {run["case"] for run in runs}
    turns = range(len(settings.wires) * SELDOM)
    found = {case.name: case for turn in turns for case in all_cases(settings, turn)}
    return [found[name] for name in found if name in names]


def against(goal):
    """What a figure is divided by.

    >>> from cases import Goal
    >>> against(Goal("W1", "f", 1, 1, against=("a",))), against(Goal("W1", "f", 1, 1, against=("a", "b")))
    (' ÷ a', ' ÷ the better of a; b')
    """
    several = "the better of " if len(goal.against) > 1 else ""
    return f" ÷ {several}{'; '.join(goal.against)}" if goal.against else ""


def goal_rows(runs, settings):
    """The rows of the goal table."""
    for case in cases_of(runs, settings):
        for goal in case.goals:
            own, other, compared = judged(runs, case, goal)
            found = estimate(compared.values())
            sign = "≥" if goal.at_least else "≤"
            wanted = [f"{sign} {number(limit)}" if limit else "–" for limit in (goal.must, goal.stretch)]
            said = [
                verdict(found, limit, goal.at_least) if limit else "–" for limit in (goal.must, goal.stretch)
            ]  # fmt: skip
            spread = f"{number(found.median)} [{number(found.low)}, {number(found.high)}]" if found else "–"
            figures = [number(median(side.values())) if side else "–" for side in (own, other)]
            what = UNITS[goal.figure] + against(goal)
            yield [goal.row, case.name, what, *figures, spread, str(found.count if found else 0), wanted[0], said[0],
                   wanted[1], said[1]]  # fmt: skip


def table(head, rows):
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def goals(runs, settings):
    """The goal table, sorted by row."""
    head = ["row", "case", "figure", "flowcast", "other", "compared: median [95 %]", "rounds", "must", "", "stretch", ""]
    return table(head, sorted(goal_rows(runs, settings), key=lambda row: row[0]))


def details(runs, settings):
    """Per case every contender's figures, medians of valid rounds."""
    for case in cases_of(runs, settings):
        mine = [run for run in runs if run["case"] == case.name]
        contenders = [name for name in case.contenders if any(run["contender"] == name for run in mine)]
        contenders += sorted({run["contender"] for run in mine} - set(contenders))
        found = {name: {key: values(runs, case.name, name, key) for key in SHOWN} for name in contenders}
        keys = [key for key in SHOWN if any(found[name][key] for name in contenders)]
        rows = []
        for name in contenders:
            cells = []
            for key in keys:
                side = list(found[name][key].values())
                cells.append(f"{number(median(side))} ({number(min(side))}–{number(max(side))})" if side else "–")
            bad = sum(1 for run in mine if run["contender"] == name and run["invalid"])
            good = sum(1 for run in mine if run["contender"] == name and not run["invalid"])
            rows.append([name, str(good), str(bad), *cells])
        command = next((shown(run["command"]) for run in reversed(mine) if run["command"]), "")
        yield f"### {case.name}\n\n`{command}`\n\n" + table(["server", "valid", "invalid", *keys], rows)


def shown(command):
    """A command as anybody would type it: no path of this machine.

    >>> shown(["--connections", "5"]), shown(["/x/target/release/flowcast", "serve", "/x/day"])
    ('swarm --connections 5', 'flowcast serve day')
    """
    words = [Path(word).name if word.startswith("/") else word for word in command]
    return " ".join(words if command[0].startswith("/") else ["swarm", *words])


PEER_FIGURES = {
    "frames_per_cpu_s": "frames per CPU-second",
    "latency_p50_ms": "p50, ms",
    "latency_p99_ms": "p99, ms",
    "loaded_bytes_per_connection": "RSS, B per connection",
    "frames_per_s": "frames/s arrived",
    "bytes_per_frame": "B per frame",
}


def peers(runs):
    """One table per case of the servers side by side: medians of valid rounds; losses of all rounds together."""
    cases = sorted({run["case"] for run in runs if run["case"].startswith("peers")})
    for case in cases:
        mine = [run for run in runs if run["case"] == case]
        rows = []
        for name in dict.fromkeys(run["contender"] for run in sorted(mine, key=lambda run: run["round"])):
            found = [values(runs, case, name, key) for key in PEER_FIGURES]
            lost, dropped = (sum(values(runs, case, name, key).values()) for key in ("lost", "clients_dropped"))
            ratio = estimate(judged(runs, Case(case, (), {}), Goal("peers", "frames_per_cpu_s", None, None, contender=name,
                                                                   against=("flowcast",)))[2].values())  # fmt: skip
            cells = [number(median(side.values())) if side else "–" for side in found]
            cells.insert(1, number(ratio.median) if ratio else "–")
            cells.append(f"{lost:.0f}" + (f", {dropped:.0f} clients dropped" if dropped else ""))
            rows.append((median(found[0].values()) if found[0] else 0, [name, str(len(found[0])), *cells]))
        head = list(PEER_FIGURES.values())
        head.insert(1, "÷ flowcast")
        rows = [row for _, row in sorted(rows, key=lambda row: -row[0])]
        yield f"### {case}\n\n" + table(["server", "rounds", *head, "lost"], rows)


def machine():
    """What it was measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release()}"


def cells(row):
    """A row of figures: their name, what they are, the values, the unit, and the most that is allowed, or None."""
    name, what, values, unit, limit = row
    found = estimate(values)
    if found is None:
        return [name, what, "not measured", "0", ""]
    spread = f" ({number(min(values))} to {number(max(values))})" if found.count > 1 else ""
    figure = f"{number(found.median)} {unit}".strip() + spread
    return [name, what, figure, str(found.count), "" if limit is None else f"≤ {limit:g}: {verdict(found, limit, False)}"]


def show(found, commands, notes):
    """Prints figures with the machine, the commands behind them, and why some do not count."""
    print(f"\nMachine: {machine()}; server on core 0, `swarm` and driver on core 1. Load averages at the end: "
          f"{' '.join(f'{value:.1f}' for value in os.getloadavg())}.\n")  # fmt: skip
    print(table(["row", "what", "figure: median (range)", "values", "must"], map(cells, found)))
    for command in commands:
        print(f"- `{shown(list(map(str, command)))}`")
    for note in notes:
        print(f"- {note}")


def write(path, runs, settings):
    """Writes the report."""
    dates = sorted(run["at"] for run in runs)
    parts = [
        "# Fan-out: flowcast against the floor",
        "Written by `make bench-fanout`; the goals and their definitions are in [GOALS.md](GOALS.md). The *floor* is one "
        "pinned thread that does nothing but `send(2)` of ready bytes to every socket "
        "(`loadtest/src/bin/floor`). Frames are equally long: the floor and the peers send what flowcast sent.",
        f"Machine: {machine()}; server on core 0, `swarm` and driver on core 1.\\\n"
        f"Measured: {dates[0]} to {dates[-1]}, {max(run['round'] for run in runs) + 1} rounds, "
        f"{settings.seconds} s each, contenders in turn and in alternating order.\\\n"
        "Compared is the median over rounds of the ratio within a round (or of the figure itself), with its "
        "bootstrap 95 % interval. A goal is *met* if the median meets it, *missed* if the whole interval does not, "
        "else *undecided*; fewer than 11 valid rounds are said beside it. Rounds in which the generator was the "
        "bottleneck, ticks merged or anything was lost are not counted.",
        "## Goals",
        goals(runs, settings),
        "## Peers",
        "The same load for everyone: one channel, messages as long as the hub's in JSON, published one by one by the driver, all "
        "checked by the swarm. Times are from when a message was due. What differs: [loadtest/peers](../loadtest/peers/README.md).",
        *peers(runs),
        "## Figures",
        "Medians over valid rounds, with smallest and largest. `frames_per_thread_cpu_s` divides by the CPU time of "
        "the floor's sending thread alone, without its reading of acks.",
        *details(runs, settings),
    ]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
