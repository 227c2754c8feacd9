"""Do people's recordings still succeed? Plays robosuite's raw ones in envs.sim, by their states and open loop.

  python -m tools.interop.robosuite_human ../shared/data/robosuite_lift_3/demo.hdf5 ... [--json FILE]

By states: every stored state is set, and the task's own check asked. Open loop: from the first stored state all stored
actions are sent, clipped to [-1, 1], those after the first success too (tools.convert leaves them out).
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from agent.data.hdf5 import open_hdf5
from agent.progress import Progress
from tools.common.rollout import make_env
from tools.formats.robomimic import demos
from tools.formats.robosuite import info_of, sim_options, with_rate


def play(env: Any, states: np.ndarray, actions: np.ndarray) -> dict[str, Any]:
    env.reset(seed=0)
    by_states = [env.unwrapped.show(state)[1] for state in states]
    env.reset(seed=0, options={"state": states[0]})
    first = None
    for step, action in enumerate(np.clip(actions, -1, 1)):
        *_, info = env.step(action)
        if info["success"]:
            first = step + 1
            break
    return {
        "steps": len(actions),
        "by_states": by_states[-1],
        "from_state": int(np.argmax(by_states)),
        "open_loop": first is not None,
        "from_step": first,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    found = []
    for path in flags.paths:
        with open_hdf5(path) as file, Progress(len(demos(file, path)), path.parent.name, "demos") as progress:
            info = with_rate(path, info_of(file["data"].attrs, path), demos(file, path))
            options = {**sim_options(path, info, 1, {}), "cameras": []}
            with contextlib.closing(make_env("sim", options)) as env:
                for number, (name, demo) in enumerate(demos(file, path)):
                    figures = play(env, demo["states"][()], demo["actions"][()].astype(np.float64))
                    found.append({"file": f"{path.parent.name}/{path.name}", "demo": name, **figures})
                    progress.show(number + 1)
    for row in found:
        print(*(f"{key} {value}" for key, value in row.items()), sep="   ")
    for kind in ("by_states", "open_loop"):
        print(f"{kind}: {sum(row[kind] for row in found)} of {len(found)} succeed")
    if flags.json:
        flags.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
