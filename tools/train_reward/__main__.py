"""Learn from recordings what a success looks like: a classifier of camera images that can give the reward.

  python -m tools.collect --env sim --task Lift --device scripted --noise 0.3 --failure-rate 0.5 --retry-rate 0.5 \\
      --after-success 6 --episodes 240 --out demos/reward                  # successes, failures, near misses
  python -m tools.train_reward demos/reward --out reward.pt
  python -m robot_server --env sim --classifier reward.pt                  # from then on it judges and pays

A frame's label is the success signal of the step that led to it. Record successes that continue for some steps
(--after-success, where the environment can), failures, and whatever nearly looks like a success; cameras and image
sizes as the policy will have them. A person's verdict labels an episode's last frame only: hold still for half a second
before it, and say --end-frames 5. Folders of a run (runs/a/episodes) can be taken along.

Episodes, not frames, are split in three, successes and failures alike: most to train on; some from which the threshold
is chosen, so that at most --max-false-positive-rate of their frames without success are at or above it; and others on
which neither depended: the figures printed are theirs. An episode is called a success once --k of its last --n frames
are at or above the threshold.

The file appears when all is done, and beside it a picture of what it got wrong or nearly so (reward_mistakes.png).
Nothing moves. --json prints one object. Ctrl-C stops at any time, and writes nothing.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent import cli
from agent.spec import UserError
from tools.common.video import GREY, RED, enlarge, with_text
from tools.inspect import write_sheet
from tools.train_reward.frames import Labelled, split

if TYPE_CHECKING:
    from envs.reward_classifier import SuccessClassifier

SHEET_COLUMNS, SHEET_ROWS, TILE_HEIGHT = 6, 6, 96


def choose_threshold(scores: np.ndarray, success: np.ndarray, max_false_positive_rate: float) -> float:
    """Of the thresholds with which at most so large a share of the frames without success is at or above it, one that
    finds most successes: midway between the last of them that it finds and the next frame without one.

    scores (N,), success bool (N,).
    """
    negatives = np.sort(scores[~success])[::-1].astype(np.float64)
    allowed = int(max_false_positive_rate * len(negatives) + 1e-9)
    barred = negatives[allowed] if allowed < len(negatives) else -np.inf  # the first that must stay below
    found = scores[success & (scores > barred)].astype(np.float64)
    if not len(found):
        return float(np.nextafter(np.float32(barred), np.float32(2)))
    lowest = found.min()
    return float((lowest + negatives[negatives < lowest].max(initial=0.0)) / 2)


def frame_figures(scores: np.ndarray, success: np.ndarray, threshold: float) -> dict[str, Any]:
    """JSON-able: counts, precision, recall and false-positive rate; None where there is nothing to divide by."""
    called = scores >= threshold
    hits, false = int((called & success).sum()), int((called & ~success).sum())
    positives, negatives = int(success.sum()), int((~success).sum())
    return {
        "frames": len(scores),
        "with_success": positives,
        "found": hits,
        "without_success": negatives,
        "false_positives": false,
        "precision": hits / (hits + false) if hits + false else None,
        "recall": hits / positives if positives else None,
        "false_positive_rate": false / negatives if negatives else None,
    }


def episode_figures(scores: np.ndarray, frames: Labelled, classifier: SuccessClassifier) -> dict[str, Any]:
    """JSON-able: what k of n would have made of each episode. late_steps: of each success that it found, in steps;
    early_steps: of each that it called before it was one.
    """
    failed = called = succeeded = 0
    late: list[int] = []
    early: list[int] = []
    for number in np.unique(frames.episode):
        mine = frames.episode == number
        recent = classifier.recent()
        fired = next((step for step, p in enumerate(scores[mine][1:], 1) if recent.add(p)), None)
        if not frames.success[mine].any():
            failed, called = failed + 1, called + (fired is not None)
            continue
        succeeded += 1
        first = int(np.argmax(frames.success[mine]))
        if fired is not None and fired < first:
            early.append(first - fired)
        elif fired is not None:
            late.append(fired - first)
    return {
        "failed": failed,
        "failed_called_success": called,
        "successful": succeeded,
        "found": len(late),
        "late_steps": late,
        "found_too_early": len(early),
        "early_steps": early,
    }


def mistakes(scores: np.ndarray, frames: Labelled, threshold: float) -> list[np.ndarray]:
    """Rows of a sheet: the frames on the wrong side of the threshold, the worst first, then those nearest to it."""
    margin = np.where(frames.success, scores - threshold, threshold - scores)
    tiles = []
    for at in np.argsort(margin, kind="stable")[: SHEET_ROWS * SHEET_COLUMNS]:
        wrong = (scores[at] >= threshold) != frames.success[at]
        views = [enlarge(rows[at], TILE_HEIGHT) for rows in frames.images.values()]
        kind = ("missed" if frames.success[at] else "false") if wrong else "right"
        name = Path(frames.names[frames.episode[at]]).stem
        text = f"{kind} {scores[at]:.3f}\n{name} {frames.step[at]}"
        tiles.append(with_text(np.concatenate(views, axis=1), text, RED if wrong else GREY, lines=2))
    tiles = [np.pad(tile, ((0, 0), (0, 6), (0, 0))) for tile in tiles]
    return [np.concatenate(tiles[at : at + SHEET_COLUMNS], axis=1) for at in range(0, len(tiles), SHEET_COLUMNS)]


def text_of(report: dict[str, Any]) -> str:
    """The report for people."""
    frames, episodes = report["test"], report["test_episodes"]

    def share(value: float | None) -> str:
        return "none" if value is None else f"{value:.2%}"

    lines = [
        f"trained on     {report['split']['train']} episodes; threshold {report['threshold']:.4f} chosen on "
        f"{report['split']['validation']}; measured on {report['split']['test']} others:",
        f"recall         {share(frames['recall'])} ({frames['found']} of {frames['with_success']} frames)",
        f"false positive {share(frames['false_positive_rate'])} ({frames['false_positives']} of "
        f"{frames['without_success']} frames)",
        f"precision      {share(frames['precision'])}",
        f"{report['k']} of {report['n']} frames    {episodes['failed_called_success']} of {episodes['failed']} failed "
        f"episodes called a success, {episodes['found_too_early']} of {episodes['successful']} successes too early",
        f"               {episodes['found']} of {episodes['successful']} successes found"
        + (
            f", {np.median(episodes['late_steps']):g} steps late (median; {max(episodes['late_steps'])} at most)"
            if episodes["late_steps"]
            else ""
        ),
    ]
    return "\n".join(lines)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="DATA", help="folders of episodes, or episode files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the classifier goes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__ or "", ["success"], add_flags, prog="python -m tools.train_reward")
    flags, config = arguments.flags, arguments.section("success")
    if not flags.out:
        raise UserError("--out FILE is needed")
    if config.k > config.n:
        raise UserError(f"success.k is {config.k}, of only n = {config.n} frames")
    frames = Labelled.read(flags.paths, config.cameras, config.end_frames)
    parts = split(frames.succeeded(), (config.validation_share, config.test_share), config.seed)
    training, validation, test = (frames.of(part) for part in parts)
    from tools.train_reward.training import save, score, train  # torch: not before what is cheap to check has been

    classifier = train(training, config)
    scores = score(classifier, validation)
    threshold = choose_threshold(scores, validation.success, config.max_false_positive_rate)
    classifier.threshold = threshold
    test_scores = score(classifier, test)
    report = {
        "data": [str(path) for path in flags.paths],
        "split": dict(zip(("train", "validation", "test"), map(len, parts))),
        "threshold": threshold,
        "k": config.k,
        "n": config.n,
        "validation": frame_figures(scores, validation.success, threshold),
        "test": frame_figures(test_scores, test.success, threshold),
        "test_episodes": episode_figures(test_scores, test, classifier),
    }
    classifier.report = report
    sheet = flags.out.with_name(f"{flags.out.stem}_mistakes.png")
    try:
        save(classifier, flags.out)
    except OSError as error:
        raise UserError(f"{flags.out}: {error.strerror}") from None
    write_sheet(sheet, mistakes(test_scores, test, threshold))
    print(json.dumps({"out": str(flags.out), "mistakes": str(sheet), **report}) if flags.json else text_of(report))
    if not flags.json:
        print(f"classifier     {flags.out}\nmistakes       {sheet}")


if __name__ == "__main__":
    cli.run(main)
