"""What cameras cost a control loop: `read` itself, the frames' age, and when the loop wakes up.

  python -m tools.bench.cameras [--json FILE] [--rounds 5] [--seconds 10] [--work-ms 5]

No hardware: each source sleeps for a period and decodes a JPEG of 640 x 480 with noise, as V4L2 with MJPG does; the
reader makes 128 x 128 of it. The loop runs at 50 Hz by envs.clock; late is how long after its deadline it wakes
up. It reads every camera in each step, and after that either nothing (idle) or Python without a pause (busy, --work-ms,
of CPU; the worst for readers in the same interpreter). 0 to 3 cameras take turns within a round; medians of rounds.

- threads: envs.real.cameras, as it is.
- processes: the same sources and the same Camera in a process for each camera; images in shared memory, under a
  sequence lock. What a reader outside the loop's interpreter would save.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Event

import cv2
import numpy as np

from envs.clock import Clock
from envs.real.camera_options import CameraOptions
from envs.real.cameras import Camera, Frame, start_all
from tools.common.report import Report, parser

HZ, FPS, MOST = 50, 30, 3
OPTIONS = CameraOptions(fps=FPS)
IMAGE = (OPTIONS.size, OPTIONS.size, 3)
HEAD = struct.Struct("QdQ")  # sequence, odd while it is being written; time_s; number


class Synthetic:
    """Different noise in every frame, and the work of a USB camera's driver."""

    def open(self) -> None:
        noise = np.random.default_rng()
        scene = cv2.resize(noise.integers(0, 255, (12, 16, 3), np.uint8), (OPTIONS.width, OPTIONS.height))
        frames = [cv2.add(scene, noise.integers(0, 12, scene.shape, np.uint8)) for _ in range(8)]
        self._jpegs = [cv2.imencode(".jpg", frame)[1] for frame in frames]
        self._count, self._due_s = 0, time.monotonic() + noise.random() / FPS  # cameras are not in step

    def read(self) -> np.ndarray:
        now_s = time.monotonic()
        self._due_s = max(self._due_s + 1 / FPS, now_s)
        time.sleep(self._due_s - now_s)
        self._count += 1
        return np.asarray(cv2.imdecode(self._jpegs[self._count % len(self._jpegs)], cv2.IMREAD_COLOR))

    def close(self) -> None: ...


def bytes_of(memory: SharedMemory) -> memoryview:
    assert memory.buf is not None
    return memory.buf


def shares(memory: SharedMemory, stop: Event) -> None:
    """A reader process: every new frame of a Camera goes into the shared memory."""
    camera, view = Camera("shared", OPTIONS, Synthetic()), bytes_of(memory)
    keep = camera._keep

    def keep_and_share(raw: np.ndarray, image: np.ndarray, arrived_s: float) -> None:
        keep(raw, image, arrived_s)
        sequence, _, number = HEAD.unpack_from(view)
        HEAD.pack_into(view, 0, sequence + 1, arrived_s, number)
        view[HEAD.size : HEAD.size + image.size] = image.tobytes()
        HEAD.pack_into(view, 0, sequence + 2, arrived_s, number + 1)

    camera._keep = keep_and_share  # type: ignore[method-assign]
    camera.start()
    stop.wait()
    camera.close()


def newest(view: memoryview) -> Frame:
    while True:
        sequence, time_s, number = HEAD.unpack_from(view)
        if sequence % 2 == 0:
            image = np.frombuffer(view, np.uint8, int(np.prod(IMAGE)), HEAD.size).reshape(IMAGE).copy()
            if HEAD.unpack_from(view)[0] == sequence:
                return Frame(image, time_s, number)
        time.sleep(0)


@contextlib.contextmanager
def threads(count: int) -> Iterator[list[Callable[[], Frame]]]:
    cameras = [Camera(str(number), OPTIONS, Synthetic()) for number in range(count)]
    start_all(cameras)
    yield [camera.read for camera in cameras]
    for camera in cameras:
        camera.close()


@contextlib.contextmanager
def processes(count: int) -> Iterator[list[Callable[[], Frame]]]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    memories = [SharedMemory(create=True, size=HEAD.size + int(np.prod(IMAGE))) for _ in range(count)]
    readers = [context.Process(target=shares, args=(memory, stop), daemon=True) for memory in memories]
    for reader in readers:
        reader.start()
    views = [bytes_of(memory) for memory in memories]
    for view in views:
        while not HEAD.unpack_from(view)[2]:
            time.sleep(0.01)
    yield [functools.partial(newest, view) for view in views]
    stop.set()
    for reader in readers:
        reader.join()
    for memory in memories:
        memory.close()
        memory.unlink()


def loop(
    reads: list[Callable[[], Frame]], seconds: float, work_s: float
) -> tuple[list[float], list[float], list[float]]:
    """Seconds: of each read, each frame's age, each step's lateness."""
    clock, costs, ages = Clock(HZ), [], []
    clock.start()
    for _ in range(round(seconds * HZ)):
        for read in reads:
            began = time.perf_counter()
            frame = read()
            costs.append(time.perf_counter() - began)
            ages.append(time.monotonic() - frame.time_s)
        end, total = time.thread_time() + work_s, 0
        while work_s and time.thread_time() < end:
            total += 1
        clock.wait()
    return costs, ages, list(clock.late_s)


def percentile(seconds: list[float], at: int) -> float:
    return float(np.percentile(seconds, at))


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--seconds", type=float, default=10.0, help="of the loop, for each figure of a round")
    made.add_argument("--work-ms", type=float, default=5.0, help="CPU time of a busy step")
    run(made.parse_args())


def run(flags: argparse.Namespace) -> None:
    report = Report(f"cameras: {FPS} frames a second each, a loop at {HZ} Hz")
    late: dict[str, list[float]] = {}
    rest: dict[str, list[list[float]]] = {}
    for _ in range(flags.rounds):
        for name, ways in {"threads": threads, "processes": processes}.items():
            for count in range(0 if name == "threads" else 1, MOST + 1):
                with ways(count) as reads:
                    for mood, work_s in (("idle", 0.0), ("busy", flags.work_ms / 1e3)):
                        costs, ages, lates = loop(reads, flags.seconds, work_s)
                        case = f"{mood}, {count} cameras, {name}" if count else f"{mood}, none"
                        late.setdefault(case, []).append(percentile(lates, 99))
                        if count:
                            cost = [percentile(costs, 50), percentile(costs, 99)]
                            rest.setdefault(case, []).append([*cost, percentile(ages, 50), percentile(ages, 99)])
    for case in sorted(late, reverse=True):
        report.add(f"{case}: late, p99", statistics.median(late[case]) * 1e3, "ms", 2.0)
        if case in rest:
            without = late[case.split(",")[0] + ", none"]
            ratio = statistics.median(now / before for now, before in zip(late[case], without))
            report.add(f"{case}: late, p99, over none", ratio, "x")
            columns = [statistics.median(column) for column in zip(*rest[case])]
            for name, seconds in zip(("read, p50", "read, p99", "age, p50", "age, p99"), columns):
                micro = name.startswith("read")
                report.add(f"{case}: {name}", seconds * (1e6 if micro else 1e3), "us" if micro else "ms")
    report.finish(flags.json)


if __name__ == "__main__":
    main()
