"""What states are divided by, and which of their numbers hold still."""

import numpy as np
import pytest

from agent.data.state_statistics import StateStatistics

RNG = np.random.default_rng(0)


def statistics(*columns, parts=1):
    rows = np.stack(columns, -1).astype(np.float32)
    found = StateStatistics({"a": rows.shape[1]})
    for part in np.array_split(rows, parts):
        found.add({"a": part, "camera": np.zeros(1)})
    return found


def divided(column):
    mean, divisor = (values[0] for values in statistics(column).standardisation())
    return (column - mean) / divisor


def heights(world_z=0.0):
    """A cube that some demonstrations lift by 2 cm at their end: its deviation is 3 mm."""
    z = np.full(1500, 0.82) + RNG.normal(0, 1e-4, 1500)
    z[::30] += 0.02
    return z + world_z - 0.82


@pytest.mark.parametrize("world_z", [-0.09, 0.82])
def test_a_cubes_height_counts_as_much_as_anything(world_z):
    z = heights(world_z)
    assert 0.003 < z.std() < 0.004
    assert divided(z).std() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("column", [RNG.normal(3, 2, 4000), RNG.uniform(-1e-2, 1e-2, 4000)])
def test_common_distributions_get_unit_deviation(column):
    assert divided(column).std() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.5, -2.0, 2048.0])
def test_what_never_changes_is_zero_and_stays_small_when_it_moves(value):
    found = statistics(np.full(500, value))
    mean, divisor = found.standardisation()
    assert (value - mean[0]) / divisor[0] == 0
    assert abs(0.1 * max(1, abs(value)) / divisor[0]) == pytest.approx(2)  # by a tenth of what it is


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_noise_of_what_holds_still_is_not_made_large(value):
    assert abs(divided(value + RNG.normal(0, 1e-4, 5000))).max() < 0.02


def test_a_single_wrong_reading_stays_bounded():
    column = np.full(100_000, 0.3)
    column[17] = 0.8
    assert abs(divided(column)).max() == pytest.approx(20, rel=1e-2)


def test_parts_give_what_the_whole_gives():
    columns = [RNG.normal(50, 1e-2, 1000), RNG.exponential(1, 1000)]
    whole, parts = statistics(*columns), statistics(*columns, parts=7)
    assert parts.rows == 1000
    for name in ("mean", "std", "low", "high"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)
    np.testing.assert_allclose(whole.std, np.stack(columns).astype(np.float32).std(1, dtype=np.float64), rtol=1e-9)


def test_the_report_is_one_line_with_key_index_and_number():
    moves, zero = RNG.normal(size=200), np.zeros(200)
    line = statistics(zero, zero, moves, zero + 0.25, 1 + 1e-4 * moves).report()
    expected = "states that hardly vary in 200 rows: a[0..1] = 0, a[3] = 0.25, a[4] = 1 +- 0.0001; check their sensors"
    assert line.startswith(expected) and "\n" not in line
    assert statistics(moves).report() == StateStatistics({"a": 2}).report() == ""


def test_many_still_numbers_are_counted():
    line = statistics(*(np.full(9, float(number)) for number in range(30))).report()
    assert "a[7] = 7 and 22 more; check" in line and "a[8]" not in line
