"""Medians of paired ratios, their bootstrap interval, and the rule for when a goal counts as met."""

import random
from dataclasses import dataclass
from statistics import median

RESAMPLES = 4000
ENOUGH = 11


@dataclass(frozen=True)
class Estimate:
    """The median of some values and its bootstrap 95 % interval."""

    median: float
    low: float
    high: float
    count: int


def estimate(values):
    """Median and interval; `None` without values. The same values always give the same interval.

    >>> estimate([2.0, 2.0, 2.0])
    Estimate(median=2.0, low=2.0, high=2.0, count=3)
    >>> estimate([]) is None
    True
    """
    values = list(values)
    if not values:
        return None
    chance = random.Random(len(values))
    medians = sorted(median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    low, high = medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975) - 1]
    return Estimate(median(values), low, high, len(values))


def verdict(found, goal, at_least):
    """Met if the median meets the goal, missed if the whole interval does not, else undecided.

    >>> verdict(Estimate(0.96, 0.9, 1.0, 11), 0.95, at_least=True)
    'met'
    >>> verdict(Estimate(0.94, 0.9, 1.0, 11), 0.95, at_least=True)
    'undecided'
    >>> verdict(Estimate(1.2, 1.15, 1.3, 3), 1.1, at_least=False)
    'missed (3 rounds)'
    >>> verdict(Estimate(1.0, 1.0, 1.0, 1), 1.1, at_least=False)
    'met (1 round)'
    """
    if found is None:
        return "not measured"
    meets = (lambda value: value >= goal) if at_least else (lambda value: value <= goal)
    best = found.high if at_least else found.low
    word = "met" if meets(found.median) else "undecided" if meets(best) else "missed"
    return word if found.count >= ENOUGH else f"{word} ({found.count} round{'s' * (found.count > 1)})"
