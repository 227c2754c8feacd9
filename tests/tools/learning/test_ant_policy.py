"""The ant's policy: the same towards all sides, and its training."""

import numpy as np
import pytest

from tools.learning.adroit_policy import read
from tools.learning.ant_walker import ACTIONS, ANKLES, FEATURES, action, features, turned

mujoco = pytest.importorskip("mujoco")
ant_policy = pytest.importorskip("tools.learning.ant_policy")


@pytest.fixture
def ants(monkeypatch):
    monkeypatch.setattr(ant_policy, "ANTS", 1)
    return ant_policy.Ants(np.random.default_rng(0))


def product(p, q):
    (a, b), (c, d) = (p[0], p[1:]), (q[0], q[1:])
    return np.array([a * c - b @ d, *(a * d + c * b + np.cross(b, d))])


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_an_ant_turned_by_a_quarter_with_its_legs_renamed_sees_and_does_the_same(ants, quarter):
    random, data, offset = np.random.default_rng(1), ants.data[0], np.array([[1.0, 0.3]])
    acted = random.uniform(-1, 1, (1, ACTIONS))
    data.qpos[:7], data.qvel[:] = (0, 0, 0.6, 0.93, 0.1, -0.2, 0.28), random.normal(size=14)
    data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
    before = data.qpos.copy(), data.qvel.copy()

    def after_some_steps():
        seen = [ants.seen()]
        for _ in range(6):
            data.ctrl[:] = action(acted, seen[-1][1])[0]
            mujoco.mj_step(ants.model, data, 5)
            seen.append(ants.seen())
        assert len({int(number[0]) for _, number in seen}) == 1
        return np.concatenate([rows for rows, _ in seen]), data.qpos[:3].copy()

    ants.waypoints[:] = 100 * offset
    seen, place = after_some_steps()
    data.qpos[:], data.qvel[:] = before
    half = quarter * np.pi / 4
    data.qpos[3:7] = product(data.qpos[3:7], np.array([np.cos(half), 0, 0, np.sin(half)]))
    data.qvel[3:6] = turned(data.qvel[None, 3:6], np.array([quarter]))[0]
    for joints in (data.qpos[7:], data.qvel[6:]):
        legs = joints.reshape(4, 2) * np.stack([np.ones(4), ANKLES], 1)
        joints[:] = (np.roll(legs, -quarter, 0) * np.stack([np.ones(4), ANKLES], 1)).ravel()
    turned_seen, turned_place = after_some_steps()
    assert np.allclose(seen, turned_seen, atol=1e-6) and np.allclose(place, turned_place, atol=1e-6)
    assert np.linalg.norm(place[:2]) > 0.01


def test_what_an_ant_sees_is_ahead_of_it():
    random = np.random.default_rng(2)
    state = random.normal(size=(200, 27))
    state[:, 1:5] = np.array([1, 0, 0, 1]) * random.normal(size=(200, 4))  # upright
    state[:, 1:5] /= np.linalg.norm(state[:, 1:5], axis=1, keepdims=True)
    seen, quarter = features(state, random.normal(size=(200, 2)))
    assert seen.shape == (200, FEATURES) and set(quarter) == {0, 1, 2, 3}
    ahead = seen[:, 10:12]
    assert np.allclose(np.linalg.norm(ahead, axis=1), 1, atol=1e-3) and ahead[:, 0].min() > np.cos(np.pi / 4) - 1e-3
    assert np.allclose(seen[:, 1:4], [0, 0, 1])  # where the ceiling is


def test_its_training_leaves_a_policy_the_same_for_a_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ant_policy, "ANTS", 4)
    monkeypatch.setattr(ant_policy, "LENGTH", 8)
    out = tmp_path / "ant.npz"
    made = {}
    for seed in ("0", "0", "1"):
        assert ant_policy.main(["--steps", "96", "--seed", seed, "--out", str(out)]) == 0
        mean = read(out)(np.zeros(FEATURES))
        assert mean.shape == (ACTIONS,) and np.isfinite(mean).all()
        made.setdefault(seed, []).append(mean)
    assert np.array_equal(*made["0"]) and not np.array_equal(made["0"][0], made["1"][0])
    assert "96 steps" in capsys.readouterr().out
