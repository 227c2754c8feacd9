"""Images are of the scene and of nothing else, and no OpenGL context outlives its environment."""

import gc
import subprocess
import sys

import mujoco
import numpy as np
import pytest

import envs
from envs import rendering


def lift(**options):
    return envs.make("sim", **{"task": "Lift", "image_size": 64, "cameras": ["agentview"], **options})


def still(env, seed=2):
    return env.reset(seed=seed)[0]["agentview"]


@pytest.fixture
def contexts(monkeypatch):
    """Every OpenGL context made during the test; `.freed` counts."""
    made = []

    class Context:
        def __init__(self, width, height):
            self._inner, self.freed = real(width, height), 0
            self.make_current = self._inner.make_current
            made.append(self)

        def free(self):
            self.freed += 1
            self._inner.free()

    real = rendering.gl_context
    monkeypatch.setattr(rendering, "gl_context", Context)
    return made


def test_close_frees_the_context_once_and_a_new_environment_draws_the_same(contexts):
    pictures = []
    for _ in range(3):
        env = lift()
        pictures.append(still(env))
        env.close()
        env.close()
    assert [context.freed for context in contexts] == [1, 1, 1]
    assert pictures[0].std() > 20
    assert np.array_equal(pictures[0], pictures[1]) and np.array_equal(pictures[0], pictures[2])


def test_an_environment_that_cannot_be_made_leaves_no_context(contexts, monkeypatch):
    with pytest.raises(ValueError, match="agentview"):
        lift(cameras=["agentview", "agentvew"])

    def fails(*_):
        raise RuntimeError("no memory on the card")

    monkeypatch.setattr(mujoco, "MjrContext", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        lift()
    assert [context.freed for context in contexts] == [1]


def test_a_forgotten_environment_spoils_nobodys_images_and_is_freed_later(contexts):
    env, forgotten = lift(), lift()
    reference = still(env)
    still(forgotten)
    del forgotten
    gc.collect()
    assert np.array_equal(still(env), reference)
    lift().close()
    assert [context.freed for context in contexts] == [0, 1, 1]
    assert np.array_equal(still(env), reference)
    env.close()


def test_two_environments_draw_in_turn():
    left, right = lift(), lift(image_size=40, render="stock")
    alone = [still(left, 1), still(right, 5)]
    left.reset(seed=1)
    right.reset(seed=5)
    moved = [left.step(np.array([0, 0, -1, 0]))[0]["agentview"], right.step(np.zeros(4))[0]["agentview"]]
    assert np.array_equal(still(left, 1), alone[0]) and np.array_equal(still(right, 5), alone[1])
    assert not np.array_equal(moved[0], alone[0]) and moved[1].shape == (40, 40, 3)
    right.close()
    assert np.array_equal(still(left, 1), alone[0])  # also once the other has gone
    left.close()


def test_images_given_out_do_not_change_later():
    env = lift()
    first = still(env)
    kept = first.copy()
    env.step(np.array([1, 1, -1, 1]))
    env.reset(seed=9)
    env.close()
    assert np.array_equal(first, kept)


def test_an_exit_without_close_is_silent():
    code = "import envs; env = envs.make('sim', image_size=16); env.reset(seed=0); print('reset')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "reset", "")


def test_coarse_meshes_are_lighter_and_the_simulated_model_keeps_its_own():
    env = lift(cameras=[])
    before = env.model.mesh_face.copy()
    drawn = rendering.coarse(env.model)
    assert np.array_equal(env.model.mesh_face, before)
    assert drawn.mesh_facenum.sum() < 0.2 * env.model.mesh_facenum.sum()
    assert (drawn.mesh_facenum > 0).all()
    env.close()


@pytest.mark.parametrize(("render", "times"), [("fast", 1), ("stock", 0)])
def test_only_the_fast_look_has_coarse_meshes(monkeypatch, render, times):
    calls = []
    real = rendering.coarse
    monkeypatch.setattr(rendering, "coarse", lambda model: calls.append(model) or real(model))
    lift(render=render).close()
    assert len(calls) == times
