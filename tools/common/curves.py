"""How curves look in every picture: a colour for each algorithm, and names as people say them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

COLOURS = {  # Okabe and Ito's
    "Cal-QL": "#0072B2",
    "CQL": "#D55E00",
    "RLPD": "#009E73",
    "WSRL": "#CC79A7",
    "SAC": "#E69F00",
    "behaviour cloning": "#000000",
    "Cal-QL (paper)": "#56B4E9",
}
OTHERS = ["#882255", "#999933", "#332288", "#DDCC77", "#44AA99", "#AA4499", "#888888"]  # Tol's: of no algorithm
WORDS = {  # in the name of a preset or a run -> its algorithm; the default recipe is Cal-QL
    "robot": "Cal-QL",
    "calql": "Cal-QL",
    "paper": "Cal-QL (paper)",
    "cql": "CQL",
    "rlpd": "RLPD",
    "wsrl": "WSRL",
    "sac": "SAC",
    "bc": "behaviour cloning",
}
MARKERS, DASHES = "osD^vPX", ["-", "--", "-."]
Curve = tuple[np.ndarray, np.ndarray]  # env steps, values


class Look(NamedTuple):
    colour: str
    dash: str
    marker: str


def words(name: str) -> list[str]:
    return re.split(r"[\W_]+", name.lower().replace("cal-ql", "calql"))


def people_say(preset: str) -> str:
    """A preset's name in a legend: "cql_max_backup" is "CQL, max backup"."""
    first, *more = words(preset)
    parts = [WORDS[first], " ".join(more)] if first in WORDS else [" ".join([first, *more])]
    return ", ".join(filter(None, parts))


def task_in_words(env: str, options: Mapping[str, Any]) -> str:
    """An environment's name and options as a title: "Lift from 2 cameras, 64 px"."""
    if env != "sim" or "task" not in options:
        name = re.sub(r"-v\d+$", "", env.split(":")[-1])
        return re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", name)  # AdroitHandDoor-v1: Adroit Hand Door
    cameras = len(options.get("cameras", []))
    size = f", {options['image_size']} px" if "image_size" in options else ""
    return f"{options['task']} from " + (f"{cameras} cameras{size}" if cameras else "states, without cameras")


def looks(names: Iterable[str]) -> dict[str, Look]:
    """name (of a preset, a run, an algorithm) -> how its curve looks; no two of some twenty alike."""
    found: dict[str, Look] = {}
    used: Counter[str] = Counter()
    algorithms, others = list(COLOURS), 0
    for name in names:
        known = next((WORDS[word] for word in words(name) if word in WORDS), None)
        number, colour = (algorithms.index(known), COLOURS[known]) if known else (others, OTHERS[others % len(OTHERS)])
        others += not known
        again = used[colour]
        used[colour] += 1
        found[name] = Look(colour, DASHES[again % len(DASHES)], MARKERS[(number + again) % len(MARKERS)])
    return found


def mean(curves: list[Curve]) -> Curve:
    """Mean of several curves, where all of them have values."""
    begin, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    steps = np.unique(np.concatenate([x for x, _ in curves]))
    steps = steps[(steps >= begin) & (steps <= end)]
    return steps, np.mean([np.interp(steps, x, y) for x, y in curves], 0)


def mean_points(curves: list[Curve]) -> Curve:
    """Mean of curves of single points: first with first and so on, since runs stop at slightly other steps; of
    curves that differ in their number of points, `mean`.
    """
    if len({len(x) for x, _ in curves}) > 1:
        return mean(curves)
    return np.mean([x for x, _ in curves], 0), np.mean([y for _, y in curves], 0)
