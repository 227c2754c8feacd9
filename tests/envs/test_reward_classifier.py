"""The classifier's word in the environment's place: real files, real networks, the fake environment."""

import pickle
import warnings
import zipfile

import gymnasium
import numpy as np
import pytest
import torch
from classifier_file import CAMERA, write
from gymnasium.utils.env_checker import check_env

import envs
import envs.scripted
from envs.reward_classifier import KofN, SuccessClassifier, network
from tools.train_reward.training import save


@pytest.fixture
def always(tmp_path):
    return write(tmp_path / "always.pt", 9.0, k=2, n=3)


@pytest.fixture
def never(tmp_path):
    return write(tmp_path / "never.pt", -9.0)


def play(env, seed=0, count=100):
    """(reward, terminated, truncated, info) of each step of the expert, until the episode ends."""
    observation, info = env.reset(seed=seed)
    assert info["success"] is False
    expert = envs.scripted.make(env)
    expert.reset()
    steps = []
    for _ in range(count):
        observation, *step = env.step(expert.act(observation))
        steps.append(step)
        if step[1] or step[2]:
            return steps
    raise AssertionError("the episode does not end")


@pytest.mark.parametrize(
    ("k", "n", "probabilities", "words"),
    [
        (1, 1, [0.49, 0.5, 0.1], [False, True, False]),
        (2, 2, [0.9, 0.1, 0.9, 0.9, 0.4], [False, False, False, True, False]),
        (2, 3, [0.9, 0.1, 0.5, 0.1, 0.1, 0.7], [False, False, True, False, False, False]),
        (3, 3, [0.9, 0.9, 0.9, 0.9, 0.0], [False, False, True, True, False]),
    ],
)
def test_k_of_n(k, n, probabilities, words):
    recent = KofN(0.5, k, n)
    for _ in range(2):
        assert [recent.add(p) for p in probabilities] == words
        recent.reset()


def test_k_of_n_forgets_at_the_reset():
    recent = KofN(0.5, 2, 3)
    recent.add(1.0)
    recent.reset()
    assert not recent.add(1.0) and recent.add(1.0)


@pytest.mark.parametrize(("k", "n"), [(0, 3), (4, 3)])
def test_a_k_beyond_n_is_refused(k, n):
    with pytest.raises(ValueError, match=f"k is {k} and n is {n}"):
        KofN(0.5, k, n)


def test_a_file_gives_back_what_was_saved(tmp_path):
    cameras = {"wrist": (20, 30, 3), "a.front": (24, 24, 3)}
    torch.manual_seed(1)
    saved = SuccessClassifier(network(cameras), cameras, 0.25, 3, 5, {"recall": 0.9})
    save(saved, tmp_path / "made" / "reward.pt")
    loaded = SuccessClassifier.load(tmp_path / "made" / "reward.pt")
    assert (loaded.threshold, loaded.k, loaded.n, loaded.report) == (0.25, 3, 5, {"recall": 0.9})
    assert list(loaded.cameras.items()) == sorted(cameras.items())
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (4, *shape), np.uint8) for name, shape in cameras.items()}
    expected = saved.probabilities(images)
    assert expected.shape == (4,) and expected.dtype == np.float32 and len(set(expected.tolist())) == 4
    assert np.array_equal(loaded.probabilities(images), expected)
    alone = loaded.probability({**{name: rows[2] for name, rows in images.items()}, "proprio": np.zeros(3)})
    assert alone == pytest.approx(expected[2], abs=1e-6)
    assert list((tmp_path / "made").iterdir()) == [tmp_path / "made" / "reward.pt"]


def test_a_look_takes_one_thread_and_gives_the_others_back(always):
    used, threads = [], torch.get_num_threads()
    classifier = SuccessClassifier.load(always)
    classifier.network.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
    classifier.probability({"top": np.zeros(CAMERA["top"], np.uint8)})
    assert used == [1] and torch.get_num_threads() == threads


def test_the_classifiers_word_pays_and_ends_and_the_true_one_is_told(always):
    steps = play(envs.make("fake", classifier=always))
    assert [(reward, terminated, truncated) for reward, terminated, truncated, _ in steps] == [
        (0.0, False, False),
        (1.0, True, False),
    ]
    assert [info["success"] for *_, info in steps] == [False, True]
    assert [info["true_success"] for *_, info in steps] == [False, False]
    assert all(info["success_probability"] > 0.99 for *_, info in steps)


def test_a_true_success_neither_pays_nor_ends_anything(never):
    bare = play(envs.make("fake", horizon=12))
    assert bare[-1][:2] == [1.0, True]  # the expert succeeds where the environment judges
    steps = play(envs.make("fake", horizon=12, classifier=never))
    assert len(steps) == 12 > len(bare)
    assert all(reward == 0.0 and not terminated for reward, terminated, *_ in steps)
    assert [truncated for _, _, truncated, _ in steps] == [False] * 11 + [True]
    assert not any(info["success"] for *_, info in steps)
    assert [info["true_success"] for *_, info in steps][: len(bare)] == [info["success"] for *_, info in bare]


def test_the_time_limit_holds_although_the_environments_own_word_is_success_there(never):
    """Ours say `terminated`, and not `truncated`, when a success comes with the last step."""
    length = len(play(envs.make("fake", horizon=30)))
    steps = play(envs.make("fake", horizon=length, classifier=never))
    assert len(steps) == length and steps[-1][:3] == [0.0, False, True] and steps[-1][3]["true_success"]


def test_the_word_at_the_last_step_terminates_and_does_not_truncate(tmp_path):
    file = write(tmp_path / "late.pt", 9.0, k=5, n=5)
    assert play(envs.make("fake", horizon=5, classifier=file))[-1][:3] == [1.0, True, False]


def test_each_episode_begins_anew(always):
    env = envs.make("fake", classifier=always)
    for seed in range(3):
        assert len(play(env, seed)) == 2
    env.reset(seed=0)
    env.step(np.zeros(2))
    assert len(play(env, 0)) == 2


def test_gymnasium_agrees(always, never):
    for file in (always, never):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_env(envs.make("fake", classifier=file, horizon=6), skip_render_check=True)


class Short(gymnasium.Env):
    """Ends at its third step: as a success with an action above 0, else as a failure."""

    observation_space = gymnasium.spaces.Box(0, 255, (24, 24, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros((24, 24, 3), np.uint8), {}

    def step(self, action):
        self.steps += 1
        ended = self.steps == 3
        seen = np.full((24, 24, 3), self.steps, np.uint8)
        return seen, 5.0, ended, False, {"is_success": ended and action[0] > 0}


gymnasium.register("test/Short-v0", Short, max_episode_steps=9)
gymnasium.register("test/Limited-v0", Short, max_episode_steps=2)


@pytest.mark.parametrize(
    ("environment", "action", "end"),
    [
        ("Short", 1.0, (0.0, False, True)),  # its success, after which it cannot go on
        ("Short", -1.0, (0.0, True, False)),  # its failure
        ("Limited", 1.0, (0.0, False, True)),
    ],
)
def test_ends_of_other_environments(tmp_path, environment, action, end):
    file = write(tmp_path / "never.pt", -9.0, {"image": (24, 24, 3)})
    env = envs.make(f"gym:test/{environment}-v0", classifier=file)
    env.reset(seed=0)
    for _ in range(5):
        _, *step, info = env.step(np.array([action]))
        if step[1] or step[2]:
            break
    assert tuple(step) == end and info["success"] is False


@pytest.mark.parametrize("after", [0, 3])
def test_after_a_success_the_episode_goes_on(after):
    bare = play(envs.make("fake", horizon=30))
    steps = play(envs.make("fake", horizon=30, after_success=after))
    assert len(steps) == len(bare) + after
    assert [terminated for _, terminated, *_ in steps] == [False] * (len(steps) - 1) + [True]
    assert not any(truncated for _, _, truncated, _ in steps)
    assert [info["success"] for *_, info in steps[: len(bare)]] == [info["success"] for *_, info in bare]
    assert [reward for reward, *_ in steps] == [float(info["success"]) for *_, info in steps]
    late = play(envs.make("fake", horizon=len(bare) + 1, after_success=3))
    assert len(late) == len(bare) + 1 and late[-1][1:3] == [False, True]


def test_what_cannot_be_asked_for_is_one_line(always, tmp_path):
    for asked, says in (
        ({"classifier": always, "after_success": 2}, "after_success is for the environment's own success"),
        ({"after_success": -1}, "after_success is -1"),
        ({"classifier": str(tmp_path / "none.pt")}, f"{tmp_path}/none.pt: no such file"),
        ({"classifier": always, "image_size": 32}, r"always.pt: camera 'top' is uint8\[32, 32, 3\] here"),
    ):
        with pytest.raises(ValueError, match=says) as error:
            envs.make("fake", **asked)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"always.pt: it looks at camera 'top', which the environment has not: image"):
        envs.make("gym:test/Short-v0", classifier=always)
    with pytest.raises(ValueError, match="cannot be stepped on after its success"):
        envs.make("gym:test/Short-v0", after_success=2)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "other", "weights", "packed", "eyes"])
def test_item_17_a_file_that_is_none_is_named(always, tmp_path, damage):
    path = tmp_path / "always.pt"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-200])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "text":
        path.write_text("no classifier")
    elif damage == "other":
        torch.save({"kind": "something else"}, path)
    elif damage == "packed":  # 400 MB of zeros in 0.4 MB
        content = torch.load(path, weights_only=True)
        torch.save({**content, "more": torch.zeros(100_000_000)}, path)
        with zipfile.ZipFile(path) as plain:
            entries = {name: plain.read(name) for name in plain.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in entries.items():
                packed.writestr(name, data)
        assert path.stat().st_size < 1_000_000
    elif damage == "eyes":
        content = torch.load(path, weights_only=True)
        torch.save({**content, "cameras": {str(number): [24, 24, 3] for number in range(20_000)}}, path)
    else:
        content = torch.load(path, weights_only=True)
        torch.save({**content, "cameras": {"top": [24, 24, 3], "wrist": [24, 24, 3]}}, path)
    words = {"packed": "unpacks to more", "eyes": "20000 cameras"}.get(damage, "")
    with pytest.raises(ValueError, match=rf"not a classifier of tools\.train_reward, or damaged.*{words}") as error:
        SuccessClassifier.load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_every_environment_has_the_common_options_and_the_same_class_each_time():
    for name in ("sim", "fake", "gym:Pendulum-v1", "mock"):
        kind = envs.options(name)
        assert kind is envs.options(name) and kind() == kind()
        assert (kind().classifier, kind().after_success) == (None, None)


def test_item_17_a_weight_that_the_table_of_contents_calls_a_folder_is_not_read_as_zeros(always, tmp_path):
    data = bytearray((tmp_path / "always.pt").read_bytes())
    data[data.rindex(b"PK\x01\x02", 0, data.rindex(b"/data/9")) + 38] ^= 0x10  # DOS's mark of a folder
    (tmp_path / "flipped.pt").write_bytes(data)
    with pytest.raises(ValueError, match=r"flipped\.pt: not a classifier .* table of contents is damaged"):
        SuccessClassifier.load(tmp_path / "flipped.pt")


class Bytes:
    def __reduce__(self):
        return bytearray, (10**9,)


def test_item_17_a_classifier_that_asks_for_memory_by_the_number_is_refused(tmp_path):
    torch.save({"kind": 1}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for name in plain.namelist():
            bomb.writestr(name, pickle.dumps({"kind": Bytes()}, 2) if name.endswith("data.pkl") else plain.read(name))
    with pytest.raises(ValueError, match=r"bomb\.pt: not a classifier .*'bytearray' in it"):
        SuccessClassifier.load(tmp_path / "bomb.pt")
