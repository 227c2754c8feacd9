"""How costs grow: the exponents are those of the costs measured, and every part runs in small."""

import json

import numpy as np
import pytest
import torch

from tools.bench import growth
from tools.common.report import Report


@pytest.fixture(autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def values(report):
    return {figure.name: figure.value for figure in report.figures}


@pytest.mark.parametrize("power", [0.0, 1.0, 2.05])
def test_the_exponent_is_that_of_the_costs(power):
    sizes = [2.0, 4.0, 8.0, 16.0]
    costs = [3 * size**power * factor for size, factor in zip(sizes, (1.1, 0.9, 0.9, 1.1), strict=True)]
    assert growth.exponent(sizes, costs) == pytest.approx(power)
    assert growth.exponent(sizes, [5 + size for size in sizes]) < 1  # a fixed cost beside it


def test_a_row_has_the_median_of_the_rounds_and_the_costs_at_its_ends():
    report = Report("growth")
    growth.add(report, "x", [{10.0: factor, 100.0: factor * 10**power} for factor, power in ((1, 1), (2, 2), (3, 9))])
    assert values(report) == {
        "x: exponent": 2, "x: exponent, 10th percentile": 1.2, "x: exponent, 90th percentile": 7.6,
        "x: at 10": 2000.0, "x: at 100": 200_000.0,
    }  # fmt: skip


def test_sizes_take_turns_and_the_warm_up_does_not_count():
    calls = []

    def cost(size):
        calls.append(size)
        return len(calls)

    found = growth.in_turn({size: lambda size=size: cost(size) for size in (1.0, 2.0, 3.0)}, rounds=4, warm_up=2)
    assert len(calls) == 18 and all(sorted(calls[n : n + 3]) == [1.0, 2.0, 3.0] for n in range(0, 18, 3))
    assert len({tuple(calls[n : n + 3]) for n in range(0, 18, 3)}) > 1
    assert [list(each) for each in found] == [[1.0, 2.0, 3.0]] * 4
    assert sorted(found[0].values()) == [7, 8, 9]


def test_every_part_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "SIDES", (8, 16))
    monkeypatch.setattr(growth, "BATCHES", (2, 4))
    monkeypatch.setattr(growth, "CRITICS", (2, 3))
    monkeypatch.setattr(growth, "ACTIONS", (1, 2))
    monkeypatch.setattr(growth, "HELD_EPISODES", (1, 2))
    monkeypatch.setattr(growth, "INDEXED_STEPS", (200, 400))
    monkeypatch.setattr(growth, "ROBOTS", (1, 2))
    monkeypatch.setattr(growth, "PACED_S", 0.2)
    monkeypatch.setattr(growth, "UPDATES_PER_EPISODE", (2, 1))
    monkeypatch.chdir(tmp_path)
    growth.main(["--rounds", "1", "--json", "growth.json"])
    rows = {row["name"]: row["value"] for row in json.loads((tmp_path / "growth.json").read_text())["results"]}
    exponents = [name for name in rows if name.endswith(": exponent")]
    assert len(exponents) == 11 and all(np.isfinite(rows[name]) for name in exponents)
    assert {"update, image side: at 8", "update, image side: at 16", "learner's CPU at 20 Hz, robots: at 2"} <= set(
        rows
    )
    assert "the loop waits, episodes a minute: at 2000" in rows and rows["a batch of 256 pairs, steps held: at 200"] > 0
