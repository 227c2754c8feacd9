"""Learning runs, task by preset by seed, through the commands that users type; results that say what came of them.

  python -m tools.learning --suite smoke                        # fake environment, a few minutes
  python -m tools.learning --suite state_lift --presets robot cql --parallel 2    # Lift without cameras
  python -m tools.learning --suite lift --parallel 6 --minutes 9     # a slice; the same command resumes
  python -m tools.learning.report runs/learning/lift            # the table and the plots, also of a part

A run's result is RESULTS/<task>-<preset>-<seed>.json (RESULTS: --out, or runs/learning/<suite>): it is never computed
again while it is there. Everything else, RESULTS/work and RESULTS/data, is what the next slice resumes; a run's part
goes when its result is there (--keep leaves it). Presets that change nothing offline share the offline training, which
goes at the end of a call after which no run of the suite needs it.

Suites: see tools/learning/suite.py. Data of your own (antmaze, kitchen, adroit) come with --source TASK=PATH;
tasks without are left out, and named. Ctrl-C, or --minutes, stops every process with a checkpoint.
"""

from __future__ import annotations

import agent.installed  # noqa: F401

import argparse
import concurrent.futures
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent import cli
from agent.spec import UserError
from tools.common.seeds import MAX_SEED
from tools.learning import data as learning_data
from tools.learning import run as learning_run
from tools.learning import suite as learning_suite
from tools.learning.process import Means, Stopped, say
from tools.learning.settings import read, same, settings
from tools.learning.suite import Job, Suite

Work = Callable[[], object]


class Outcome:
    """What became of the work of one call."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.done: set[str] = set()
        self.stopped = 0

    def side_by_side(self, works: dict[str, Work], count: int, stop: threading.Event) -> None:
        """All of it, so many at a time."""
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            running = {pool.submit(self._one, name, work, stop): name for name, work in works.items()}
            try:
                concurrent.futures.wait(running)
            except BaseException:
                stop.set()
                raise

    def _one(self, name: str, work: Work, stop: threading.Event) -> None:
        if stop.is_set():
            self.stopped += 1
            return
        began = time.monotonic()
        say(f"{name}: begins")
        try:
            work()
        except Stopped:
            self.stopped += 1
            say(f"{name}: stopped, to go on")
        except Exception as error:  # one run's end is not that of the others
            self.failed.append(name)
            say(f"{name}: FAILED: {error}")
        else:
            self.done.add(name)
            say(f"{name}: done in {(time.monotonic() - began) / 60:.1f} min")


def sources(given: list[str], suite: Suite) -> dict[str, Path]:
    """task -> the data of it that the user has. Raises UserError."""
    found = {}
    for text in given:
        name, _, path = text.partition("=")
        there = Path(os.path.expanduser(path))  # not every shell does it behind a =
        try:
            known = bool(path) and name in suite.tasks and there.exists()
        except OSError:  # no name that a file can have
            known = False
        if not known:
            raise UserError(f"--source {text}: expected TASK=PATH, of {', '.join(suite.tasks)}, and something there")
        found[name] = there.resolve()
    return found


def wanted(suite: Suite, only: dict[str, list[str]], have: dict[str, Path], root: Path) -> list[Job]:
    """The suite's runs, less those not asked for, and those whose data are not there."""
    for what, known in (("tasks", suite.tasks), ("presets", suite.presets)):
        for name in only[what]:
            if name not in known:
                raise UserError(f"--{what} {name}: there are {', '.join(known)}{cli.nearest(name, known)}")
    found = [
        job
        for job in learning_suite.jobs(suite, root)
        if job.task in (only["tasks"] or suite.tasks) and job.preset in (only["presets"] or suite.presets)
    ]
    lacking = {job.task for job in found if suite.tasks[job.task].given and job.task not in have}
    for name in sorted(lacking):
        say(f"{name}: left out, its data are yours to give: --source {name}=PATH")
    return [job for job in found if job.task not in lacking]


def done_before(job: Job, suite: Suite, root: Path, have: dict[str, Path]) -> bool:
    """Whether its result is there. Raises UserError if that is one of other settings, or of other demonstrations."""
    result = root / f"{job.name}.json"
    if result.exists():
        before, now = read(result).get("made_of", {}), learning_run.depends_on(job, suite.episodes, suite.at)
        if "data" in before:  # not in older results
            now["data"] = learning_data.depends_on(suite.tasks[job.task], job.seed, have.get(job.task))
        same(result, before, now)
    return result.exists()


def run_all(
    suite: Suite, jobs: list[Job], have: dict[str, Path], root: Path, parallel: int, means: Means, keep: bool
) -> Outcome:
    """Data first, then the runs, so many at a time. Runs whose data could not be had are left out."""
    outcome = Outcome()
    left = [job for job in jobs if not done_before(job, suite, root, have)]
    if len(left) < len(jobs):
        say(f"{len(jobs) - len(left)} of {len(jobs)} results are there")
    folders = {job: learning_data.place(root, suite, job.task, job.seed) for job in left}
    names = {job: f"data {folder.name}" for job, folder in folders.items()}
    data = {names[job]: (folder, job) for job, folder in folders.items()}

    def prepare(folder: Path, job: Job) -> Work:
        return lambda: learning_data.prepare(folder, job.task, suite.tasks[job.task], job.seed, have, means)

    def run(job: Job) -> Work:
        folder, result = root / "work" / job.name, root / f"{job.name}.json"
        return lambda: learning_run.run(
            job, folder, folders[job], result, means, episodes=suite.episodes, at=suite.at, keep=keep
        )

    outcome.side_by_side({name: prepare(*what) for name, what in data.items()}, parallel, means.stop)
    ready = [job for job in left if names[job] in outcome.done]
    outcome.stopped += sum(names[job] not in outcome.done and names[job] not in outcome.failed for job in left)
    outcome.side_by_side({job.name: run(job) for job in ready}, parallel, means.stop)
    forget_offline_parts(suite, jobs, root)
    return outcome


def forget_offline_parts(suite: Suite, jobs: list[Job], root: Path) -> None:
    """Delete those of these jobs that no unfinished run of the suite needs, unless one is to be kept."""

    def places(jobs: list[Job]) -> set[Path]:
        data = {job: learning_data.place(root, suite, job.task, job.seed) for job in jobs}
        return {learning_run.offline_part(job, root / "work", data[job], suite.episodes)[0] for job in jobs}

    wanted = [job for job in learning_suite.jobs(suite, root) if not (root / f"{job.name}.json").exists()]
    for folder in places(jobs) - places(wanted):
        if not (folder / learning_run.KEPT).exists():
            shutil.rmtree(folder, ignore_errors=True)


def main(argv: list[str] | None = None) -> int:
    flags = cli.parse(argv, __doc__, [], add_flags, prog="python -m tools.learning").flags
    if not flags.suite:
        raise UserError(f"--suite NAME is needed: {', '.join(learning_suite.names())}, or a file")
    if flags.parallel < 1:
        raise UserError(f"--parallel {flags.parallel}: at least 1")
    if not 0 <= 60 * flags.minutes <= threading.TIMEOUT_MAX:
        raise UserError(f"--minutes {flags.minutes:g}: 0 (no limit) to {threading.TIMEOUT_MAX // 60:.0f}")
    suite = learning_suite.read(flags.suite)
    suite.seeds = flags.seeds or suite.seeds
    if not 1 <= suite.seeds <= MAX_SEED + 1:  # above, demonstrations have the evaluation's scenes
        raise UserError(f"--seeds {suite.seeds}: 1 to {MAX_SEED + 1}")
    have = sources(flags.source, suite)
    root = flags.out or Path("runs/learning") / Path(flags.suite).stem
    jobs = wanted(suite, {"tasks": flags.tasks, "presets": flags.presets}, have, root)
    for job in jobs:
        settings(job.configs)  # a wrong one is reported before anything begins
    threads = max(1, len(os.sched_getaffinity(0)) // flags.parallel)
    stop = threading.Event()
    if flags.minutes:
        clock = threading.Timer(60 * flags.minutes, stop.set)
        clock.daemon = True
        clock.start()
    outcome = run_all(suite, jobs, have, root, flags.parallel, Means(stop, threads, flags.device), flags.keep)
    done = sum((root / f"{job.name}.json").exists() for job in jobs)
    say(
        f"{done} of {len(jobs)} results in {root}"
        + (f"; failed: {', '.join(outcome.failed)}" if outcome.failed else "")
    )
    if done < len(jobs) and not outcome.failed:
        print("the same command resumes", file=sys.stderr)
    return 1 if outcome.failed else 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", metavar="NAME", help=f"{', '.join(learning_suite.names())}; or a YAML file")
    parser.add_argument("--out", type=Path, metavar="RESULTS", help="folder of results (runs/learning/<suite>)")
    parser.add_argument(
        "--minutes", type=float, default=0, metavar="N", help="stop after this many; the same command resumes"
    )
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="runs side by side (1)")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="how many, instead of the suite's")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="of the suite's, only these")
    parser.add_argument("--presets", nargs="+", default=[], metavar="NAME", help="of the suite's, only these")
    parser.add_argument("--source", action="append", default=[], metavar="TASK=PATH", help="data of yours; repeatable")
    parser.add_argument("--device", default="auto", help="where learning happens: auto, cpu, cuda")
    parser.add_argument("--keep", action="store_true", help="leave checkpoints and episodes of finished runs")


if __name__ == "__main__":
    cli.run(main)
