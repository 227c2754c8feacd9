"""Is a robot that LeRobot drives fine-tuned, and taken over by one of LeRobot's teleoperators? Exits with 1 if not.

  python -m tools.interop.lerobot_robot CKPT --lerobot LEROBOT/bin/python [--seconds 60]

The robot is a LeRobot plug-in without hardware (tools/interop/lerobot_robot_rehearsal: the mock arm behind LeRobot's
own Robot class, with cameras that its driver reads), the leader another. Robot server and teleoperation run in
LeRobot's environment, learner and mock world in this one. CKPT comes from demonstrations of `--env mock`. Once:

  python -m venv LEROBOT && LEROBOT/bin/pip install lerobot h5py pyyaml gymnasium pyzmq msgpack
  LEROBOT/bin/pip install --no-deps tools/interop/lerobot_robot_rehearsal
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from agent.data.episode_file import episode_paths, read_episode
from agent.run.records import read_log
from envs.real.mock_arm import MockArmOptions, MockCamera, start_world
from envs.real.options import MOCK_AXES
from envs.start import module_command
from tools.common.process import free_port
from tools.common.report import machine, parser

ROOT = Path(__file__).parents[2]
VIEWS = ("agentview", "robot0_eye_in_hand")


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("ckpt", type=Path)
    made.add_argument("--lerobot", required=True, metavar="PYTHON")
    made.add_argument("--seconds", type=float, default=60.0)
    flags = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        socket, run = str(at / "mock.sock"), at / "run"
        address, control = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        start_world({**vars(MockArmOptions()), "socket": socket})
        someone = MockCamera(VIEWS[0], socket, MockArmOptions().size)
        someone.open()  # the world ends when nobody is there
        cameras = json.dumps({view: {"source": "arm", "size": 84} for view in VIEWS})
        robot = [
            "--env",
            "lerobot:rehearsal_follower",
            "--arm-options",
            json.dumps({"id": "rehearsal", "socket": socket}),
        ]
        robot += ["--axes", json.dumps(MOCK_AXES), "--cameras", cameras, "--horizon", "60", "--address", address]
        robot += ["--control", control, "--spool", str(at / "spool")]
        learner = ["--ckpt", str(flags.ckpt), "--run", str(run), "--address", address, "--other-env"]
        theirs = {**os.environ, "PYTHONPATH": str(ROOT)}
        log, robot_log = (at / "log").open("w"), (at / "robot.log").open("w")
        processes = [
            subprocess.Popen(module_command("agent.learner", *learner), stdout=log, stderr=log),
            subprocess.Popen(
                [flags.lerobot, "-m", "robot_server", *robot], stdout=robot_log, stderr=robot_log, env=theirs
            ),
        ]
        time.sleep(flags.seconds / 2)
        terminal, inside = pty.openpty()
        words = [flags.lerobot, "-m", "tools.teleop", "--device", "lerobot:rehearsal_leader", "--control", control]
        processes.insert(0, subprocess.Popen(words, stdin=inside, stdout=log, stderr=log, env=theirs))
        time.sleep(8.0)
        os.write(terminal, b"e")
        time.sleep(flags.seconds / 2)
        for process in reversed(processes):  # the robot server first, so that the learner takes its last episode
            process.terminate()
            process.wait(60)
        someone.close()
        print((at / "robot.log").read_text()[-3000:])
        episodes = [read_episode(path) for path in episode_paths([run / "episodes"])]
        last = read_log(run)[-1]
    steps, by_hand = sum(map(len, episodes)), sum(int(e.interventions.sum()) for e in episodes)
    versions = Counter(int(v) for e in episodes for v in e.policy_versions)
    print(
        f"{machine()}\n{len(episodes)} episodes, {steps} steps, {by_hand} by the leader, {len(versions)} policies acted"
    )
    print(f"the learner's last line: { {key: last[key] for key in ('env_steps', 'updates') if key in last} }")
    return 0 if steps and by_hand and len(versions) > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
