import contextlib
import io
import json

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from agent.data.episode_file import episode_paths, read_episode, write_episode
from agent.spec import Episode, Transition, UserError
from envs.reward_classifier import SuccessClassifier, network
from tools import evaluate as evaluation
from tools.collect import collect
from tools.evaluate import evaluate
from tools.recording.config import CollectConfig
from tools.train_reward.__main__ import choose_threshold, episode_figures, frame_figures, main
from tools.train_reward.config import SuccessConfig
from tools.train_reward.frames import Labelled, labels, split
from tools.train_reward.training import draw_batch, jitter, save

SIZE = {"image_size": 32}
TRAINING = ["--updates", "250", "--lr", "0.003", "--augment-pad", "1", "--threads", "1"]


def episode(words, meta=None, cameras=("front",)):
    """Its images show the number of the frame; words: of success, step by step."""
    steps = [
        Transition(look(t, cameras), np.zeros(1, np.float32), 0.0, False, last, word,
                   final_observation=look(t + 1, cameras) if last else None)
        for t, word in enumerate(words) for last in [t == len(words) - 1]
    ]  # fmt: skip
    return Episode.from_transitions(steps, meta)


def look(number, cameras):
    return {**{name: np.full((8, 8, 3), number, np.uint8) for name in cameras}, "q": np.zeros(1, np.float32)}


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        write_episode(tmp_path / f"success_{number}.hdf5", episode([False, True, True]))
        write_episode(tmp_path / f"failure_{number}.hdf5", episode([False] * 4))
    return tmp_path


def test_the_word_after_a_step_is_about_the_frame_after_it():
    assert labels(episode([False, False, True])).tolist() == [False, False, False, True]
    assert labels(episode([True, False])).tolist() == [False, True, False]


def test_a_persons_word_at_the_end_is_about_some_frames_before_it_too():
    assert labels(episode([False] * 4 + [True]), 3).tolist() == [False, False, False, True, True, True]
    assert labels(episode([False, True]), 9).tolist() == [False, True, True]  # the reset never is one
    assert labels(episode([True, False]), 3).tolist() == [False, True, False]  # did not end as one


def test_frames_keep_their_images_words_and_places(folder):
    frames = Labelled.read([folder])
    assert len(frames.success) == 6 * 5 + 6 * 4 and list(frames.images) == ["front"]
    assert np.array_equal(frames.images["front"][:, 0, 0, 0], frames.step)
    for number, name in enumerate(frames.names):
        mine = frames.episode == number
        assert frames.step[mine].tolist() == list(range(mine.sum()))
        expected = [False, False, True, True] if "success_" in name else [False] * 5
        assert frames.success[mine].tolist() == expected
    assert frames.succeeded().tolist() == ["success_" in name for name in frames.names]
    some = frames.of(np.array([1, 7]))
    assert set(some.episode) == {1, 7} and len(some.images["front"]) == len(some.success) == 9


def test_the_split_is_by_episode_and_of_both_kinds_alike():
    succeeded = np.arange(50) < 20
    parts = split(succeeded, (0.2, 0.3), seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(50))
    assert [(int(succeeded[part].sum()), int((~succeeded[part]).sum())) for part in parts] == [(10, 15), (4, 6), (6, 9)]
    assert all(np.array_equal(a, b) for a, b in zip(parts, split(succeeded, (0.2, 0.3), seed=3)))
    assert not np.array_equal(parts[2], split(succeeded, (0.2, 0.3), seed=4)[2])


def test_no_frame_of_an_episode_is_in_two_parts(folder):
    frames = Labelled.read([folder])
    parts = [frames.of(part) for part in split(frames.succeeded(), (0.3, 0.3), seed=0)]
    assert sum(len(part.success) for part in parts) == len(frames.success)
    episodes = [set(part.episode) for part in parts]
    assert not episodes[0] & episodes[1] and not episodes[0] & episodes[2] and not episodes[1] & episodes[2]
    for part in parts:
        assert {"success" in part.names[number] for number in part.episode} == {True, False}


@pytest.mark.parametrize(
    ("negatives", "positives", "rate", "threshold"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0.8, 0.9], 0.25, 0.6),  # apart: midway, and none of the four is given away
        ([0.1, 0.2, 0.3, 0.6], [0.5, 0.9], 0.0, 0.75),  # the 0.5 cannot be had
        ([0.1, 0.2, 0.3, 0.6], [0.5, 0.9], 0.25, 0.4),  # at the price of one of four it can
        ([0.1, 0.2, 0.3, 0.6], [0.5, 0.9], 0.24, 0.75),
        ([0.1, 0.5, 0.5, 0.5], [0.5, 0.9], 0.5, 0.7),  # of equal ones none, or all
    ],
)
def test_the_threshold_by_hand(negatives, positives, rate, threshold):
    scores = np.array(negatives + positives)
    success = np.arange(len(scores)) >= len(negatives)
    found = choose_threshold(scores, success, rate)
    assert found == pytest.approx(threshold)
    assert frame_figures(scores, success, found)["false_positive_rate"] <= rate


def test_a_threshold_that_finds_nothing_still_lets_no_false_one_through():
    scores, success = np.array([0.9, 0.1], np.float32), np.array([False, True])
    found = choose_threshold(scores, success, 0.0)
    figures = frame_figures(scores, success, found)
    assert (figures["false_positives"], figures["found"], figures["recall"], figures["precision"]) == (0, 0, 0.0, None)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 1.0])
def test_the_rate_holds_on_random_scores(rate):
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.uniform(size=120).round(2).astype(np.float32)
        success = rng.random(120) < 0.3
        found = choose_threshold(scores, success, rate)
        assert frame_figures(scores, success, found)["false_positive_rate"] <= rate + 1e-9


def test_figures_by_hand():
    scores = np.array([0.1, 0.9, 0.8, 0.2, 0.9])
    success = np.array([False, False, True, True, True])
    found = frame_figures(scores, success, 0.8)
    assert (found["with_success"], found["found"], found["without_success"], found["false_positives"]) == (3, 2, 2, 1)
    assert (found["precision"], found["recall"], found["false_positive_rate"]) == pytest.approx((2 / 3, 2 / 3, 0.5))


def test_episodes_by_hand():
    words = [
        ([0, 0, 0, 0], [1, 1, 0, 1]),  # failed; two of the last three: called a success
        ([0, 0, 0, 0], [1, 1, 0, 0]),  # failed; the frame of the reset does not count
        ([0, 0, 1, 1], [0, 0, 1, 1]),  # found, one step late
        ([0, 0, 1, 1, 1], [0, 0, 0, 1, 1]),  # two steps late
        ([0, 0, 0, 1], [0, 1, 1, 1]),  # too early
        ([0, 0, 0, 1], [0, 0, 0, 1]),  # not found: it ends too soon
    ]
    success, scores = (np.concatenate([pair[i] for pair in words]).astype(float) for i in (0, 1))
    lengths = [len(pair[0]) for pair in words]
    frames = Labelled({}, success > 0, np.repeat(range(6), lengths), np.concatenate([range(n) for n in lengths]), [])
    classifier = SuccessClassifier(network({"front": (8, 8, 3)}), {"front": (8, 8, 3)}, 0.5, 2, 3)
    assert episode_figures(scores, frames, classifier) == {
        "failed": 2, "failed_called_success": 1, "successful": 4, "found": 2, "late_steps": [1, 2],
        "found_too_early": 1, "early_steps": [1],
    }  # fmt: skip


def test_a_batch_is_balanced_whatever_the_recordings_are():
    success = np.arange(1000) < 10
    rng, config = np.random.default_rng(0), SuccessConfig(batch=70, negatives=2.5)
    drawn = np.stack([draw_batch(success, config, rng) for _ in range(50)])
    assert drawn.shape == (50, 70) and (success[drawn].sum(1) == 20).all()
    assert set(drawn[success[drawn]]) == set(range(10))


def test_another_light_changes_within_its_bounds_and_image_by_image():
    images = torch.full((64, 4, 4, 3), 100, dtype=torch.uint8)
    changed = jitter(images, 0.2, torch.Generator().manual_seed(0))
    assert changed.dtype == torch.uint8 and changed.shape == images.shape
    assert 63 <= changed.min() < 80 and 120 < changed.max() <= 144
    assert len({tuple(image[0, 0].tolist()) for image in changed}) > 32
    assert torch.equal(jitter(images, 0.0, torch.Generator()), images)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of recordings, classifier's file, report) on the fake environment."""
    place = tmp_path_factory.mktemp("trained")
    config = CollectConfig(episodes=80, noise=0.3, failure_rate=0.4)
    collect("fake", {**SIZE, "after_success": 4}, "scripted", config, place / "demos")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main([str(place / "demos"), "--out", str(place / "reward.pt"), "--json", *TRAINING])
    return place / "demos", place / "reward.pt", json.loads(said.getvalue())


def test_from_recordings_to_a_classifier(trained):
    demos, file, report = trained
    episodes = [read_episode(path) for path in episode_paths([demos])]
    assert report["out"] == str(file) and sum(report["split"].values()) == len(episodes) == 80
    frames = report["test"]
    assert frames["frames"] == frames["with_success"] + frames["without_success"]
    assert frames["recall"] > 0.5 and frames["false_positive_rate"] < 0.1
    assert report["validation"]["false_positive_rate"] <= 0.01
    ended = report["test_episodes"]
    assert ended["failed"] + ended["successful"] == report["split"]["test"]
    loaded = SuccessClassifier.load(file)
    assert loaded.report["test"] == frames and loaded.threshold == report["threshold"]
    sheet = iio.imread(report["mistakes"])
    assert report["mistakes"] == str(file.parent / "reward_mistakes.png") and sheet.shape[0] > 6 * 96


def test_a_policy_is_measured_by_the_truth_and_the_classifier_is_told_beside_it(trained, capsys):
    _, file, _ = trained
    plain = evaluate("scripted", "fake", SIZE, episodes=12)
    judged = evaluate("scripted", "fake", {**SIZE, "classifier": str(file)}, episodes=12)
    assert plain.classifier_success is None and plain.success == 1.0
    assert judged.success > 0.8 and judged.classifier_success == np.mean(
        [attempt.classifier_success for attempt in judged.attempts]
    )
    assert judged.episode_return == judged.classifier_success  # it pays, and nothing else does
    flags = ["--policy", "scripted", "--env", "fake", "--episodes", "4"]
    evaluation.main([*flags, "--image-size", "32", "--classifier", str(file)])
    assert "wrongly called a success" in capsys.readouterr().out
    evaluation.main([*flags, "--json"])
    assert json.loads(capsys.readouterr().out)["classifier_success"] is None


def test_a_classifier_that_calls_everything_a_success_gains_nothing(trained, tmp_path):
    loaded = SuccessClassifier.load(trained[1])
    loaded.threshold = 0.0
    save(loaded, tmp_path / "blind.pt")
    found = evaluate("random", "fake", {**SIZE, "classifier": str(tmp_path / "blind.pt")}, episodes=5)
    assert (found.success, found.classifier_success, found.length) == (0.0, 1.0, 3.0)
    assert "5 wrongly called a success, 0 successes missed" in found.verdicts()


def test_recordings_know_their_classifier_and_those_without_go_on(trained, tmp_path):
    demos, file, _ = trained
    options = {**SIZE, "classifier": str(file)}
    collect("fake", options, "scripted", CollectConfig(episodes=1), tmp_path / "judged")
    (path,) = episode_paths([tmp_path / "judged"])
    assert read_episode(path).meta["env"]["options"]["classifier"] == str(file)
    with pytest.raises(UserError, match="classifier"):
        collect("fake", SIZE, "scripted", CollectConfig(episodes=1), tmp_path / "judged")
    says = refusal(path, "--out", tmp_path / "again.pt")
    assert str(path) in says and "that of classifier" in says
    old = read_episode(episode_paths([demos])[0])
    for option in ("classifier", "after_success"):
        del old.meta["env"]["options"][option]
    write_episode(tmp_path / "old" / "episode_000000.hdf5", old)
    collect("fake", SIZE, "scripted", CollectConfig(episodes=1), tmp_path / "old")


def refusal(*arguments):
    """The line with which train_reward refuses."""
    with pytest.raises(UserError) as error:
        main([str(argument) for argument in arguments])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_too_few_episodes_are_one_line(folder):
    for number in range(1, 6):
        (folder / f"success_{number}.hdf5").unlink()
    assert "1 successful episodes are too few" in refusal(folder, "--out", folder / "reward.pt")
    assert not (folder / "reward.pt").exists()


def test_what_is_wrong_is_named(folder, refused, tmp_path):
    assert "--out FILE is needed" in refused("train_reward", folder)
    assert f"{tmp_path}/none" in refusal(tmp_path / "none", "--out", "x.pt")
    says = refusal(folder, "--out", "x.pt", "--cameras", "frnt")
    assert "no camera 'frnt' (did you mean 'front'?)" in says and ".hdf5" in says
    assert "success.k is 4" in refusal(folder, "--out", "x.pt", "--k", 4)
    write_episode(folder / "wide.hdf5", episode([False], cameras=("front", "wrist")))
    assert f"{folder}/wide.hdf5: differs from" in refusal(folder, "--out", "x.pt")
    (folder / "wide.hdf5").write_bytes(b"cut")
    assert f"{folder}/wide.hdf5" in refusal(folder, "--out", "x.pt")
