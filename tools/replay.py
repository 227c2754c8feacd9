"""Watch recordings again, or repeat them in the simulator and see whether the same thing happens.

  python -m tools.replay demos/lift                       recorded frames as MP4, one file an episode
  python -m tools.replay demos/lift --execute             repeat the actions and report how far the outcome is off
  python -m tools.replay demos/lift --execute --video     and write videos: recorded | re-executed

Videos go to the folder videos/ beside the episodes, or to --out. --episodes 0,5 picks some (counted in the order of
their names). The speed is the environment's own control rate where it is known, else 10 frames/s; --fps sets it.

--execute moves a simulated robot: every episode is started in its recorded environment from its recorded seed, and its
actions are sent again, one by one. Reported per episode: the largest deviation of the proprioception, the mean absolute
difference of the images (grey levels), the first step that deviates, and whether the outcome is the recorded one. A
recording of tools.collect repeats exactly (all zero); if it does not, the simulator has changed since. What
tools.convert made of robosuite's recordings starts from the recorded state, and deviates: the simulator is another.
A recording of an arm, or of an environment in a module of its own (gym:module:Id), needs --env with its name: a file
must not choose code to run. The options of an arm are flags then.
--json prints one object with the deviation of every step. Ctrl-C stops at any time; finished videos stay.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent import cli
from agent.data.episode_file import episode_paths, read_episode
from agent.env_record import EnvRecord, compare
from agent.progress import Progress
from agent.spec import Episode, Observation, Spec, UserError, plural
from envs.base import action_meaning
from tools.common.rollout import env_options, make_env, rollout
from tools.common.video import UNKNOWN_FPS, fps_of, mp4, picture, require_cameras

if TYPE_CHECKING:
    import gymnasium

Show = Callable[[int, Observation, bool], None]  # step, what the environment shows now, success so far


def show_nothing(step: int, now: Observation, success: bool) -> None:
    pass


@dataclass
class Comparison:
    """A recording against its re-execution. The lists have one entry per observation that both have."""

    file: str
    state_deviation: list[float] = field(default_factory=list)  # largest absolute deviation over all states
    image_difference: list[float] = field(default_factory=list)  # mean absolute difference over all cameras
    recorded_success: bool = False
    success: bool = False
    recorded_length: int = 0
    length: int = 0

    @property
    def exact(self) -> bool:
        same = self.success == self.recorded_success and self.length == self.recorded_length
        return same and not any(self.state_deviation) and not any(self.image_difference)

    @property
    def first_deviation(self) -> int | None:
        pairs = zip(self.state_deviation, self.image_difference, strict=True)
        return next((step for step, pair in enumerate(pairs) if any(pair)), None)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "exact": self.exact, "first_deviation": self.first_deviation}

    def add(self, recorded: Observation, now: Observation, spec: Spec) -> None:
        states = [np.abs(recorded[k].astype(np.float64) - now[k]).max(initial=0) for k in spec.states]
        images = [np.abs(recorded[k].astype(np.int16) - now[k]).mean() for k in spec.cameras]
        self.state_deviation.append(float(max(states, default=0.0)))
        self.image_difference.append(float(max(images, default=0.0)))

    def __str__(self) -> str:
        outcome = "success" if self.success else "no success"
        if self.success != self.recorded_success:
            outcome += f" (recorded: {'success' if self.recorded_success else 'no success'})"
        if self.length != self.recorded_length:
            outcome += f", ended after {self.length} of {plural(self.recorded_length, 'step')}"
        if self.exact:
            return f"{self.file}: exact, {outcome}"
        deviation = f"states up to {max(self.state_deviation):.4g}, images up to {max(self.image_difference):.4g}"
        return f"{self.file}: deviates from observation {self.first_deviation} on, {deviation}; {outcome}"


def row(episode: Episode, step: int) -> Observation:
    return {key: rows[step] for key, rows in episode.observations.items()}


def execute(env: gymnasium.Env, episode: Episode, name: str, show: Show = show_nothing) -> Comparison:
    """Send the recorded actions again, from the recorded seed or state; stops where the environment ends it."""
    spec = Spec.from_spaces(env.observation_space, env.action_space)
    if differences := episode.spec.differences(spec):
        raise UserError(f"{name}: does not fit its environment any more: {'; '.join(differences)}")
    seed, start = episode.meta.get("seed"), episode.meta.get("start")
    if not isinstance(seed, int) and not isinstance(start, dict):
        raise UserError(f"{name}: no seed and no state recorded to start from, so it cannot be repeated")
    if (cut := episode.meta.get("cut", [0, 0]))[0]:
        raise UserError(f"{name}: was cut and begins at step {cut[0]} of what was recorded, so it cannot be repeated")
    found = Comparison(name, recorded_success=episode.succeeded, recorded_length=len(episode))
    actions = iter(episode.actions)
    steps = rollout(env, lambda _: lambda _: next(actions), seed if isinstance(seed, int) else 0, start)
    for step, transition in enumerate(itertools.islice(steps, len(episode))):
        found.add(row(episode, step), transition.observation, spec)
        show(step, transition.observation, found.success)
        found.success, found.length = found.success or transition.success, step + 1
        if transition.final_observation is not None:
            found.add(row(episode, step + 1), transition.final_observation, spec)
            show(step + 1, transition.final_observation, found.success)
    return found


def recorded_picture(name: str, episode: Episode, step: int) -> np.ndarray:
    by_hand = "   person" if step < len(episode) and episode.interventions[step] else ""
    cameras = require_cameras(episode.spec, name)
    return picture(row(episode, step), cameras, f"{name}   step {step}{by_hand}", bool(episode.success[:step].any()))


def write_recorded(path: Path, episode: Episode, name: str, fps: float) -> None:
    with mp4(path, fps) as write:
        for step in range(len(episode) + 1):
            write(recorded_picture(name, episode, step))


@contextlib.contextmanager
def side_by_side(path: Path, episode: Episode, name: str, fps: float) -> Iterator[Show]:
    """A Show that writes a video of recorded | re-executed."""
    cameras = require_cameras(episode.spec, name)
    with mp4(path, fps) as write:

        def show(step: int, now: Observation, success: bool) -> None:
            executed = picture(now, cameras, "re-executed", success)
            recorded = recorded_picture(name, episode, step)
            write(np.concatenate([recorded, np.zeros((len(executed), 8, 3), np.uint8), executed], axis=1))

        yield show


class Environments:
    """The environment of each recording; kept open, because most recordings of a folder share one.

    arguments: with --env NAME, which a recording's environment that runs code of its own needs.
    """

    def __init__(self, arguments: cli.Arguments) -> None:
        self._arguments = arguments
        self._record = EnvRecord()
        self._env: gymnasium.Env | None = None

    def of(self, episode: Episode, name: str) -> gymnasium.Env:
        try:
            record = EnvRecord.of_episode(episode.meta)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        if not record.name:
            raise UserError(f"{name}: no environment recorded, so it cannot be repeated")
        if self._env is None or record != self._record:
            self.close()
            try:
                named, options = self._arguments.env(record)
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
            if named != record.name:
                raise UserError(f"{name}: recorded in '{record.name:.100}', not in '{named}'")
            self._env, self._record = make_env(named, options), record
            here = EnvRecord(actions=action_meaning(self._env))
            compare((name, record), (f"environment '{record.name}'", here))
        return self._env

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


def chosen(paths: list[Path], episodes: str | None) -> list[Path]:
    if episodes is None:
        return paths
    try:
        return [paths[int(number)] for number in episodes.split(",")]
    except (ValueError, IndexError):
        raise UserError(f"--episodes {episodes}: expected numbers from 0 to {len(paths) - 1}, such as 0,1") from None


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folders of episodes, or episode files")
    parser.add_argument("--execute", action="store_true", help="repeat the actions in the recorded environment")
    parser.add_argument("--video", action="store_true", help="with --execute: write videos too")
    parser.add_argument("--episodes", metavar="K,K,..", help="only these")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for videos")
    parser.add_argument("--fps", type=float, metavar="N", help="frames per second")
    parser.add_argument("--json", action="store_true", help="with --execute: print one JSON object")


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__, [], add_flags, env_options, "python -m tools.replay")
    flags = arguments.flags
    if flags.fps is not None and not 1 <= flags.fps <= 240:
        raise UserError(f"--fps {flags.fps:g}: expected 1 to 240")
    comparisons, videos = [], []
    paths = chosen(episode_paths(flags.paths), flags.episodes)
    with (
        contextlib.closing(Environments(arguments)) as environments,
        Progress(len(paths), "replay", "episodes") as progress,
    ):
        for number, path in enumerate(paths):
            episode, name = read_episode(path), path.name
            fps = flags.fps or fps_of(episode.meta) or UNKNOWN_FPS
            video = (flags.out or path.parent / "videos") / f"{path.stem}.mp4"
            if not flags.execute:
                write_recorded(video, episode, name, fps)
                videos.append(video)
            else:
                with contextlib.ExitStack() as stack:
                    env: gymnasium.Env = environments.of(episode, name)
                    show: Show = show_nothing
                    if flags.video:
                        show = stack.enter_context(side_by_side(video, episode, name, fps))
                        videos.append(video)
                    comparisons.append(execute(env, episode, name, show))
            progress.show(number + 1)
    if flags.json:
        print(json.dumps({"episodes": [c.to_dict() for c in comparisons], "videos": [str(v) for v in videos]}))
        return
    for comparison in comparisons:
        print(comparison)
    if comparisons:
        exact, same = sum(c.exact for c in comparisons), sum(c.success == c.recorded_success for c in comparisons)
        print(f"{exact} of {len(comparisons)} exact, {same} with the recorded outcome")
    if videos:
        print(f"{plural(len(videos), 'video')} in {videos[0].parent}")


if __name__ == "__main__":
    cli.run(main)
