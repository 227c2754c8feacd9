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
    assert abs(divided(value + RNG.normal(0, 1e-4, 5000))).max() < 0.5


@pytest.mark.parametrize("value", [0.0, 30.0])
def test_a_little_less_motion_is_a_little_less_input(value):
    """No range makes the divisor jump, down to what float32 resolves."""
    ranges = max(1, value) * np.geomspace(1e-2, 4e-6, 200)
    shape = np.linspace(-0.5, 0.5, 501)
    divisors = [statistics(value + span * shape).standardisation()[1][0] for span in ranges]
    steps = np.divide(divisors[1:], divisors[:-1])
    assert steps.max() <= 1.001 and steps.min() > 0.9
    assert divisors[-1] == pytest.approx(1e-3 * max(1, value), rel=1e-3)


@pytest.mark.parametrize("half_range_mm", [1.0, 0.8, 3.5])
def test_a_motion_of_a_millimetre_is_seen(half_range_mm):
    column = RNG.uniform(-1e-3, 1e-3, 4000) * half_range_mm
    assert divided(column).std() == pytest.approx(min(1, column.std() / 1e-3), rel=1e-3)


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
