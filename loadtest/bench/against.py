"""Compares this tree's flowcast with another flowcast binary, case by case and round by round."""

from dataclasses import replace

import report
from cases import Case
from rows import all_cases
from stats import estimate

NEW, OLD = "flowcast", "other"
ROWS, WIRES = ("W1", "W3", "W4"), ("protobuf",)
IDLE_S = 3
"""A comparison needs no long rest: what an idle connection costs is the same after 3 s and after 10 s."""
TOLERATED = 0.02
"""A median that is worse by more than this is marked."""


def cases(settings, other, rows, turn):
    """The cases of a round in which both binaries take part; the floor and the peers do not."""
    settings = replace(settings, peers=False, idle_s=IDLE_S)
    pairs = zip(all_cases(settings, turn), all_cases(replace(settings, program=other), turn))
    for new, old in pairs:
        # Two goals may ask for one figure.
        goals = {(goal.row, goal.figure): goal for goal in new.goals if goal.row in rows and goal.contender == NEW}
        if goals:
            yield Case(new.name, tuple(goals.values()), {NEW: new.contenders[NEW], OLD: old.contenders[NEW]}, new.every)


def table(runs, compared):
    """One row per case and figure: the median over rounds of new ÷ old, with its bootstrap 95 % interval."""
    head = ["row", "case", "figure", "better", "this tree", "other", "new ÷ old: median [95 %]", "rounds", ""]
    rows = []
    for case in compared:
        for goal in case.goals:
            new, old = (report.values(runs, case.name, contender, goal.figure) for contender in (NEW, OLD))
            found = estimate(new[at] / old[at] for at in sorted(new.keys() & old.keys()) if old[at])
            unit, better = report.UNITS[goal.figure], "more" if goal.at_least else "less"
            if not found:
                invalid = sum(bool(run["invalid"]) for run in runs if run["case"] == case.name)
                rows.append([goal.row, case.name, unit, better, "–", "–", "–", "0", f"{invalid} invalid runs"])
                continue
            middle = [report.number(report.median(side.values())) for side in (new, old)]
            spread = f"{found.median:.3f} [{found.low:.3f}, {found.high:.3f}]"
            rows.append([goal.row, case.name, unit, better, *middle, spread, str(found.count), judged(found, goal)])
    return report.table(head, rows)


def judged(found, goal):
    """What the median says.

    >>> from cases import Goal; from stats import Estimate
    >>> more, less = Goal("W1", "f", None, None), Goal("W3", "b", None, None, at_least=False)
    >>> judged(Estimate(0.97, 0.95, 0.99, 11), more), judged(Estimate(0.97, 0.95, 0.99, 11), less)
    ('worse by 3.0 %', 'not worse')
    >>> judged(Estimate(1.06, 0.82, 1.08, 3), less)
    'worse by 6.0 %, but may be chance'
    """
    worse = 1 - found.median if goal.at_least else found.median - 1
    if worse <= TOLERATED:
        return "not worse"
    chance = ", but may be chance" if found.low <= 1 <= found.high else ""
    return f"worse by {100 * worse:.1f} %{chance}"
