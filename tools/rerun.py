"""Episodes, or the robot that acts now, for the Rerun viewer: one .rrd file each.

  python -m tools.rerun demos/lift/episode_000003.hdf5
  python -m tools.rerun runs/lift --newest 5 --ckpt runs/lift/latest.pt
  python -m tools.rerun --live                       beside python -m robot_server, until Ctrl-C

A place is an episode file, a folder of them, or the folder of a run. A file has the cameras, the states, the actions
with the names that the recording has for them, reward, success, interventions and the policy's version. --ckpt adds, of
that checkpoint: Q of the recorded actions, Q of the policy's own action, and the discounted return that followed.

Writes into --out (rrd/) only, over files that already exist there; `rerun rrd/*.rrd` shows them. --live only asks the
robot server's socket, which answers between control steps. Install the viewer first: uv pip install rerun-sdk.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import contextlib
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent import cli
from agent.data.episode_file import episode_paths, read_episode
from agent.data.frames import blocks
from agent.env_record import EnvRecord, compare, meaning_of_episode
from agent.files import appearing
from agent.spec import Episode, Observation, Spec, UserError, plural
from envs.clock import Clock
from robot_server.control_address import find
from robot_server.control_client import Operator
from tools.common.video import jpeg

QUALITY = 90  # of the JPEG images
LIVE_HZ = 10.0
LIVE_FIGURES = ("return", "success", "policy_version")  # of the robot server's state
Values = Callable[[Episode], dict[str, np.ndarray]]  # curve -> (T,)


def installed() -> Any:
    """The package rerun. Raises UserError when it is not installed."""
    try:
        return importlib.import_module("rerun")
    except ModuleNotFoundError as error:
        if error.name != "rerun":
            raise
        raise UserError("tools.rerun needs the package rerun-sdk: uv pip install rerun-sdk") from None


@contextlib.contextmanager
def recording(path: Path, name: str, spec: Spec, action_names: Sequence[str]) -> Iterator[Any]:
    """A rerun.RecordingStream into the new file `path`. Raises UserError where it cannot be written."""
    rr = installed()
    stream = rr.RecordingStream("calql", recording_id=name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream.save(path, default_blueprint=blueprint(spec))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be written: {error}") from None
    stream.send_recording_name(name)
    if len(action_names) == spec.action_dim:
        stream.log("actions", rr.SeriesLines(names=list(action_names)), static=True)
    try:
        yield stream
    finally:
        stream.flush()
        stream.disconnect()


def blueprint(spec: Spec) -> Any:
    """Cameras above, curves below."""
    import rerun.blueprint as rrb

    cameras = [rrb.Spatial2DView(origin=f"cameras/{name}", name=name) for name in spec.cameras]
    curves = [rrb.TimeSeriesView(origin=name, name=name) for name in ("actions", "states", "outcome", "q")]
    rows = [rrb.Horizontal(*cameras)] if cameras else []
    return rrb.Blueprint(rrb.Vertical(*rows, rrb.Grid(*curves)), collapse_panels=True)


def write_episode(path: Path, episode: Episode, values: Values | None = None) -> None:
    """`episode`, whose images may be Frames, as `path`. values: further curves, under "q".

    Its timelines are "step" and "time" (as recorded, Unix time); the final observation is one step after the last.
    """
    rr = installed()
    steps, times = len(episode), np.append(episode.times_s, episode.times_s[-1])
    if steps > 1:
        times[-1] += np.median(np.diff(episode.times_s))
    outcome = {
        "reward": episode.rewards,
        "success": episode.success,
        "intervention": episode.interventions,
        "policy_version": episode.policy_versions,
    }
    curves = {f"outcome/{name}": rows for name, rows in outcome.items()}
    curves |= {f"states/{name}": episode.observations[name] for name in episode.spec.states}
    curves |= {f"q/{name}": rows for name, rows in (values(episode) if values else {}).items()}
    names = meaning_of_episode(episode.meta).names
    with appearing(path) as aside, recording(aside, path.stem, episode.spec, names) as stream:

        def columns(name: str, count: int, made: Any) -> None:
            index = [rr.TimeColumn("step", sequence=range(count)), rr.TimeColumn("time", timestamp=times[:count])]
            stream.send_columns(name, index, made)

        for name in episode.spec.cameras:
            images = [jpeg(image, QUALITY) for _, block in blocks(episode.observations[name]) for image in block]
            types = ["image/jpeg"] * len(images)
            columns(f"cameras/{name}", len(images), rr.EncodedImage.columns(blob=images, media_type=types))
        for name, rows in {"actions": episode.actions, **curves}.items():
            columns(name, len(rows), rr.Scalars.columns(scalars=rows.astype(np.float64)))


def values_of(checkpoint: Path) -> Values:
    """Q of a checkpoint's critics, as their mean, on the CPU. Raises UserError, and for episodes that do not fit."""
    import torch

    from agent.calql.algorithm import CalQL
    from agent.calql.values import episode_values
    from agent.run.checkpoint import load

    start = load(checkpoint)
    start.check_sizes()
    network, config = start.section("network").from_checkpoint(), start.section("calql")
    agent = CalQL(start.spec, network, config, torch.device("cpu"), seed=0)
    start.restore(agent)
    agent.policy.eval()
    agent.average.eval()

    def values(episode: Episode) -> dict[str, np.ndarray]:
        if differences := start.spec.differences(episode.spec):
            raise UserError(f"{checkpoint} and the episode: {'; '.join(differences)}")
        compare((str(checkpoint), start.env), ("the episode", EnvRecord.of_episode(episode.meta)))
        return episode_values(agent, start.section("reward"), episode)

    return values


def places(given: Iterable[Path], newest: int) -> list[Path]:
    """Episode files; of each folder, of a run also, at most the `newest`, by name; 0: all."""
    found: list[Path] = []
    for place in given:
        inside = place / "episodes"
        found += episode_paths([inside if inside.is_dir() else place])[-newest:]
    return found


def targets(sources: Iterable[Path], out: Path) -> dict[Path, Path]:
    """Episode file -> its .rrd file. Raises UserError where two would have the same."""
    found: dict[Path, Path] = {}
    for source in sources:
        path = out / f"{source.stem}.rrd"
        if path in found.values():
            raise UserError(f"{source}: another episode has this name; give its folder an --out of its own")
        found[source] = path
    return found


def watch(path: Path, operator: Operator, stop: Callable[[], bool], hz: float = LIVE_HZ) -> int:
    """How many observations were written until `stop()`; each is what the robot server has, `hz` times a second."""
    rr = installed()
    told: dict[str, Any] = {}
    while "observation" not in told:
        if stop():
            raise UserError(f"no robot server showed an observation at {operator.address}")
        told = operator.ask("frames", timeout_s=0.5, have=-1)
    clock, count, number = Clock(hz), 0, -1
    clock.start()
    with recording(path, path.stem, spec_of(told), ()) as stream:
        while not stop():
            if "observation" in told:
                number, count = told["number"], count + 1
                stream.set_time("time", timestamp=time.time())
                log_observation(rr, stream, told["observation"])
                log_state(rr, stream, told["state"])
            clock.wait()
            told = operator.ask("frames", timeout_s=0.5, have=number)
    return count


def spec_of(told: Mapping[str, Any]) -> Spec:
    seen, action = told["observation"], told["state"].get("action")
    cameras = {name: rows.shape for name, rows in seen.items() if rows.ndim == 3}
    states = {name: len(rows) for name, rows in seen.items() if rows.ndim == 1}
    return Spec(cameras, states, len(action) if action is not None else 0)


def log_observation(rr: Any, stream: Any, observation: Observation) -> None:
    for name, rows in observation.items():
        if rows.ndim == 3:
            image = rr.EncodedImage(contents=jpeg(rows, QUALITY), media_type="image/jpeg")
            stream.log(f"cameras/{name}", image)
        else:
            stream.log(f"states/{name}", rr.Scalars(rows.astype(np.float64)))


def log_state(rr: Any, stream: Any, state: Mapping[str, Any]) -> None:
    figures = {f"outcome/{name}": state[name] for name in LIVE_FIGURES if state.get(name) is not None}
    if state.get("action") is not None:
        figures["actions"] = state["action"]
    figures["outcome/intervention"] = bool(state.get("driven"))
    for name, value in figures.items():
        stream.log(name, rr.Scalars(np.asarray(value, np.float64)))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("places", nargs="*", type=Path, metavar="PLACE", help="episode files, folders, runs")
    parser.add_argument("--newest", type=int, default=0, metavar="N", help="of each folder the last N (all)")
    parser.add_argument("--ckpt", type=Path, metavar="FILE", help="a checkpoint: adds its Q")
    parser.add_argument("--live", action="store_true", help="the robot server of this computer, until Ctrl-C")
    parser.add_argument("--out", type=Path, default=Path("rrd"), metavar="FOLDER", help="where to (rrd)")


def main(argv: list[str] | None = None) -> None:
    arguments = cli.parse(argv, __doc__, ["robot"], add_flags, prog="python -m tools.rerun")
    flags = arguments.flags
    if flags.newest < 0:
        raise UserError(f"--newest {flags.newest}: at least 0")
    if bool(flags.places) == flags.live or (flags.live and flags.ckpt):
        raise UserError("name episodes or runs, or give --live alone")
    installed()
    if flags.live:
        path = flags.out / time.strftime("live-%Y%m%d-%H%M%S.rrd")
        with contextlib.closing(Operator(find(arguments))) as operator, cli.Stop() as stop:
            count = watch(path, operator, stop)
        print(f"{path}: {plural(count, 'observation')}")
        return
    values = values_of(flags.ckpt) if flags.ckpt else None
    for source, path in targets(places(flags.places, flags.newest), flags.out).items():
        write_episode(path, read_episode(source, stream=True), values)
        print(path)


if __name__ == "__main__":
    cli.run(main)
