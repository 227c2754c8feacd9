"""WSRL's Cal-QL and hil-serl's SAC from images, in JAX, as steps that the benchmarks time. Neither is of this project.

Each runs in a process of an environment of its own (tools.bench.jax_updates), with our sizes, and makes an update when
it is asked to. The environment, with the JAX that hil-serl's README names (both call jax.tree_map, which JAX 0.10 has
no more):

  python3.11 -m venv jax-peers
  jax-peers/bin/pip install "jax[cpu]==0.4.35" flax==0.8.5 distrax==0.1.5 optax==0.2.5 chex==0.1.90 \\
      ml_collections==1.1.0 einops==0.8.2 overrides==7.7.0 absl-py==2.5.1
  git clone https://github.com/zhouzypaul/wsrl-robot
  git clone https://github.com/rail-berkeley/hil-serl
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from agent.config import CalQLConfig, NetworkConfig
from agent.spec import Spec
from tools.common.report import Missing

ROOT = Path(__file__).parents[2]
CALL = "from tools.bench.jax_updates import serve; serve()"
AGENT = "serl_launcher/serl_launcher/agents/continuous"  # the folder of their agents
FOLDERS = {
    "WSRL": (f"{AGENT}/calql.py", "give a clone of github.com/zhouzypaul/wsrl-robot with --wsrl FOLDER"),
    "hil-serl": (f"{AGENT}/sac.py", "give a clone of github.com/rail-berkeley/hil-serl with --hil-serl FOLDER"),
}


class JaxPeer:
    """A process that makes updates of `name`, WSRL or hil-serl; one of a CPU takes as many threads as it may use cores.

    Raises Missing, with how to get it, when it can't be started.
    """

    def __init__(
        self,
        name: str,
        folder: str | None,
        python: str,
        spec: Spec,
        network: NetworkConfig,
        config: CalQLConfig,
        batch: int,
        device: str = "cpu",
        updates: int = 4,
    ) -> None:
        """python: of the environment. device: cpu or cuda. updates: made before any is timed; JAX compiles in three."""
        file, remedy = FOLDERS[name]
        if folder is None:
            raise Missing(remedy)
        if not Path(folder, file).is_file():
            raise Missing(f"{folder} has no {file}: {remedy}")
        job = _job(name, folder, spec, network, config, batch)
        env = {**os.environ, "JAX_PLATFORMS": device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (close() does)
        try:
            self._process = subprocess.Popen(
                [python, "-c", CALL],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                cwd=ROOT,
                env=env,
            )
        except OSError as error:
            raise Missing(f"--jax-python {python}: {error.strerror}") from None
        self.name = name
        try:
            self.about: dict[str, str] = json.loads(self._ask(json.dumps(job)))
            for _ in range(updates):
                self.step()
        except BaseException:
            self.close()
            raise

    def step(self) -> None:
        """One update."""
        self._ask("")

    def cpu_s(self) -> float:
        """CPU seconds that the process has taken, all of its threads (Linux)."""
        return time.clock_gettime((~self._process.pid << 3) | 2)  # as clock_getcpuclockid makes it

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> JaxPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, line: str) -> str:
        process = self._process
        assert process.stdin and process.stdout
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: so does its output
        answer = process.stdout.readline()
        if not answer:
            process.wait()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or [f"it ended with {process.returncode}"]
            raise Missing(f"{lines[-1]} (in --jax-python; its packages: python -m tools.bench.learner --help)")
        return answer


def _job(name: str, folder: str, spec: Spec, network: NetworkConfig, config: CalQLConfig, batch: int) -> dict[str, Any]:
    """What tools.bench.jax_updates needs to know. Raises Missing for networks that it can't make."""
    if network.encoder != "cnn" or network.head != "spatial_softmax" or network.state_features != 64:
        raise Missing("its networks are cnn, with head spatial_softmax and state_features 64")
    return {
        "peer": name,
        "source": str(Path(folder).absolute()),
        "cameras": spec.cameras,
        "states": sum(spec.states.values()),
        "actions": spec.action_dim,
        "batch": batch,
        "pad": config.augment_pad,
        "channels": network.channels,
        "strides": network.strides,
        "features": network.features,
        "actor_hidden": network.actor_hidden,
        "critic_hidden": network.critic_hidden,
        "critics": network.critics,
        "cql_actions": config.cql_actions,
        "max_target_backup": config.max_target_backup,
    }
