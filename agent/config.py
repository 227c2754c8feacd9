"""Every number that a run depends on, as dataclasses; YAML files and flags change them, a checkpoint remembers them.

A section is one dataclass. In YAML it is a mapping under its name; as a flag every field is `--section.field VALUE`, or
just `--field VALUE` where only one section has it. Later files win over earlier ones, and flags over files. An unknown
key is an error that names the nearest known one. Sections that a command does not use are skipped, so that one file
serves every command.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.spec import UserError


def _f(default: Any, help: str, low: float | None = None, high: float | None = None, infinite: bool = False) -> Any:
    """A field with its help; `low` and `high` are the ends of what makes sense, for each number in a list too.

    infinite: inf makes sense, too.
    """
    metadata = {"help": help, "low": low, "high": high, "infinite": infinite}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class NetworkConfig:
    encoder: Literal["cnn", "resnet18", "resnet34"] = _f("cnn", "image encoder, one per camera")
    encoder_weights: str = _f("", "resnet only: empty for random, 'imagenet', or a file with a torchvision state dict")
    freeze_encoder: bool = _f(False, "leave the image encoder as it was loaded")
    channels: list[int] = _f([32, 32, 32, 32], "cnn: output channels of its 3x3 convolutions", low=1)
    strides: list[int] = _f([2, 2, 1, 1], "cnn: their strides", low=1)
    head: Literal["spatial_softmax", "flatten"] = _f("spatial_softmax", "how a feature map becomes a vector")
    features: int = _f(64, "length of each camera's feature vector", low=1)
    state_features: int = _f(
        64, "length of the proprioception's feature vector; 0: no layer, the standardised numbers themselves", low=0
    )
    actor_hidden: list[int] = _f([256, 256], "hidden layers of the actor", low=1)
    critic_hidden: list[int] = _f([256, 256], "hidden layers of each critic", low=1)
    critics: int = _f(10, "E, size of the critic ensemble", low=1)
    actor_layer_norm: bool = _f(True, "LayerNorm in the actor")
    critic_layer_norm: bool = _f(True, "LayerNorm in the critics")


@dataclass
class CalQLConfig:
    gamma: float = _f(0.95, "discount", low=0, high=0.99999)
    calibrate: bool = _f(True, "Cal-QL: lift policy samples to the Monte-Carlo return; off is CQL")
    cql_actions: int = _f(4, "n, actions sampled from each of uniform, pi(.|s), pi(.|s')", low=1)
    importance_sampling: bool = _f(True, "subtract log-probabilities in the conservative term")
    cql_weight: float = _f(1.0, "w, conservative weight offline", low=0)
    cql_weight_online: float = _f(0.3, "w online; 0 leaves SAC", low=0)
    cql_decay_steps: int = _f(0, "env steps over which w goes from its offline to its online value", low=0)
    cql_clip_low: float = _f(float("-inf"), "lower clip of the conservative difference", infinite=True)
    cql_clip_high: float = _f(float("inf"), "upper clip of the conservative difference", infinite=True)
    lagrange_threshold: float | None = _f(None, "tau; set, the Lagrange form learns the conservative weight")
    max_target_backup: bool = _f(False, "TD target: max over n next actions, as in the paper (off: one sample)")
    entropy_backup: bool = _f(False, "SAC's entropy term in the TD target")
    target_subset: int = _f(2, "target critics, drawn anew each update, over which the TD target takes the min", low=0)
    actor_q: Literal["min", "mean"] = _f("mean", "what the actor maximises over the ensemble")
    bc_weight: float = _f(1.0, "behaviour-cloning term on the actor, offline", low=0)
    bc_weight_online: float = _f(1.0, "the same online", low=0)
    bc_filter: Literal["all", "success"] = _f("success", "which episodes are cloned; 'all' for tasks without success")
    target_entropy: float = _f(-0.5, "H-bar per action dimension: -1 in the paper, -0.5 in RLPD")
    initial_temperature: float = _f(0.1, "alpha at the start", low=1e-8)
    start_at_return: bool = _f(True, "before training, set the critics' last bias to the data's mean return")
    policy_average: float = _f(
        0.995, "what acts is a running mean of the policy's weights, of which each update keeps so much; 0: the newest",
        low=0, high=1,
    )  # fmt: skip
    target_rate: float = _f(0.05, "how fast targets follow", low=0, high=1)
    actor_lr: float = _f(1e-3, "learning rate of the actor", low=0)
    critic_lr: float = _f(1e-3, "learning rate of critics and encoder", low=0)
    temperature_lr: float = _f(1e-4, "learning rate of log alpha", low=0)
    lagrange_lr: float = _f(3e-4, "learning rate of lambda", low=0)
    gradient_clip: float = _f(
        2.0,
        "gradients of critics, and of the actor, are cut at so many times their usual length, above 1; 0: off",
        low=0,
        infinite=True,
    )
    augment_pad: int = _f(2, "random shift of images by up to this many pixels; 0 is off", low=0)

    @property
    def algorithm(self) -> str:
        """What it is called offline: without a conservative term it is SAC."""
        if self.cql_weight == 0 and self.lagrange_threshold is None:
            return "SAC with behaviour cloning" if self.bc_weight else "SAC"
        return "Cal-QL" if self.calibrate else "CQL"


@dataclass
class RewardConfig:
    scale: float = _f(1.0, "reward seen by learning = scale * env reward + bias, applied once, in agent.data.returns")
    bias: float = _f(-1.0, "see scale")
    sparse: bool = _f(True, "the env's reward is one of two values: failure_reward, or that of success")
    failure_reward: float = _f(0.0, "sparse: the env's (raw) reward of a step without success")


@dataclass
class OfflineConfig:
    data: list[str] = _f([], "demonstration folders or files")
    updates: int = _f(20_000, "gradient updates", low=0)
    batch: int = _f(128, "transitions per update", low=1)
    successes_only: bool = _f(False, "leave failed demonstrations out")
    save_every: int = _f(0, "updates between two checkpoints; 0: one a minute", low=0)


@dataclass
class OnlineConfig:
    env_steps: int = _f(20_000, "stop after so many env steps", low=0)
    warmup_steps: int = _f(0, "env steps of the frozen offline policy before the first update", low=0)
    utd: float = _f(0.5, "critic updates per env step", low=0, high=1000)
    actor_every: int = _f(1, "critic updates per actor update", low=1)
    batch: int = _f(128, "transitions per update", low=1)
    offline_share: float = _f(
        0.5, "share of each batch from the offline data, 0 to 1; -1: by size |D| / (|D| + N)", low=-1, high=1
    )
    interventions_offline: bool = _f(False, "episodes in which a person drove go to the demonstrations, too")
    capacity_steps: int = _f(200_000, "online steps kept; the oldest episodes go first", low=2)
    max_lead_steps: int = _f(
        200, "simulation: env steps that robots may run ahead of the updates due; 0: no limit", low=0
    )
    offer_every: int = _f(10, "updates between two offers of new weights", low=1)
    checkpoint_every: int = _f(1000, "a checkpoint after every multiple of so many env steps", low=1)
    keep: int = _f(5, "how many of the newest checkpoints stay in checkpoints/, by env steps; latest.pt always", low=0)


@dataclass
class LearnerConfig:
    run: str = _f("", "folder of the run; empty: runs/<time>")
    seed: int = _f(0, "random seed", low=0, high=2**62)
    device: str = _f("auto", "auto, cpu, cuda, cuda:1, ...")
    threads: int = _f(0, "CPU threads; 0: torch's choice", low=0)
    mode: Literal["eager", "compile", "graph"] = _f(
        "eager", "of updates; compile: torch.compile, graph: and CUDA graphs"
    )
    bf16: Literal["off", "encoder", "all"] = _f("off", "bfloat16 (autocast) in the image encoder, or in every network")
    tf32: bool = _f(False, "matrix products of float32 in TF32 (GPU)")
    storage: Literal["host", "file", "device"] = _f(
        "host",
        "where frames are kept: this machine's memory, a mapped file in the run's folder, or the device's memory",
    )
    log_every: int = _f(50, "updates between two log records", low=1)
    robot_gb: float = _f(
        200.0, "how much of the disk one robot's episodes may take: then the others wait with it", low=0, infinite=True
    )


@dataclass
class LinkConfig:
    address: str = _f("tcp://127.0.0.1:5555", "where the learner listens")
    keys: str = _f("", "folder with this machine's keys (tools.keys): encrypted, and for those who are known only")
    insecure: bool = _f(False, "allow an address beyond this machine without keys")
    other_env: bool = _f(
        False, "learner: take robots whose --env is not that of the demonstrations (the real one, say)"
    )


@dataclass
class RobotConfig:
    robot_name: str = _f("robot", "this robot's name; unique among the robots of one learner")
    hz: float = _f(0.0, "control rate in real time; 0: as fast as the environment goes", low=0)
    seed: int | None = _f(
        None, "seed of the first episode, each next one adds 1; empty: drawn at start", low=0, high=2**31
    )
    episodes: int = _f(0, "stop after so many episodes; 0: go on", low=0)
    max_backlog_steps: int = _f(500, "simulation: wait once so many steps could not be sent (no learner)", low=1)
    threads: int = _f(1, "CPU threads for the policy", low=1)
    deterministic: bool = _f(False, "act with the mean of the policy instead of a sample")
    spool: str = _f("spool", "folder for what the learner has not acknowledged yet")
    spool_gb: float = _f(
        20.0, "how much may be there: from then on the robot waits for the learner", low=0, infinite=True
    )
    while_away: Literal["act", "wait"] = _f(
        "act", "while the learner is away: go on with the last policy, or finish the episode and wait"
    )
    control: str = _f(
        "auto",
        "the operator's socket (tools.panel, tools.teleop), on this computer: auto (ipc, named after the robot), "
        "ipc://<path> or tcp://127.0.0.1:<port>; empty: none",
    )


@dataclass
class CollectConfig:
    episodes: int = _f(30, "episodes to add", low=0)
    noise: float = _f(0.0, "scripted: standard deviation of the action noise, in action units", low=0)
    failure_rate: float = _f(0.0, "scripted: share of episodes that are spoilt on purpose", low=0, high=1)
    retry_rate: float = _f(0.0, "scripted: share of the others that miss once, then try again", low=0, high=1)
    seed: int = _f(0, "seed of the first episode; each next one adds 1", low=0, high=2**31)
    leader: dict = _f({}, "device lerobot:<type>: options of that teleoperator, such as {port: /dev/ttyACM1}")
    hz: float = _f(0.0, "by hand: steps a second; 0: the environment's own rate, else 20", low=0)
    speed: float = _f(
        0.5, "by hand: the hand's speed at full deflection, as a share of what an action can ask", low=0.01, high=1
    )
    rotation_speed: float = _f(0.3, "by hand: the same of rotations", low=0, high=1)
    dead_band: float = _f(
        0.1, "gamepad, spacemouse: share of the deflection about the middle that is none", low=0, high=0.9
    )
    smoothing_s: float = _f(
        0.05, "by hand: time constant of the motion's rise; a release stops at once", low=0, high=10
    )
    enable_key: bool = _f(False, "by hand: the arm moves only while the device's enable key is held (keyboard: is on)")
    listen: str = _f("127.0.0.1:8080", "browser: where the page is; see tools.panel")
    confirm: bool = _f(True, "by hand: an episode that the environment ends waits for your key")
    idle_steps: bool = _f(False, "by hand: also make and record the steps before the first motion")
    view: Literal["line", "terminal", "window"] = _f(
        "line", "by hand: a status line; with the cameras above it, in the terminal (24-bit colour); or in a window"
    )


@dataclass
class SuccessConfig:
    cameras: list[str] = _f([], "those that the classifier looks at; empty: all of the recordings")
    end_frames: int = _f(1, "of an episode that ends as a success so many last frames show one", low=1)
    updates: int = _f(3000, "gradient updates", low=1)
    batch: int = _f(64, "frames per update", low=2)
    negatives: float = _f(2.5, "frames without success for each with, in a batch", low=0.1, high=100)
    lr: float = _f(2e-3, "learning rate at its highest, a third of the way", low=0)
    augment_pad: int = _f(2, "random shift of images by up to this many pixels; 0 is off", low=0)
    jitter: float = _f(0.2, "brightness, contrast and each colour vary by up to this share; 0 is off", low=0, high=1)
    validation_share: float = _f(0.2, "of the episodes, from which the threshold is chosen", low=0.01, high=0.8)
    test_share: float = _f(0.2, "of the episodes, on which it is measured", low=0.01, high=0.8)
    max_false_positive_rate: float = _f(
        0.005, "of frames without success, by which the threshold is chosen", low=0, high=1
    )
    k: int = _f(3, "frames of the last n that must show a success", low=1)
    n: int = _f(3, "see k", low=1)
    seed: int = _f(0, "random seed", low=0, high=2**31)
    threads: int = _f(0, "CPU threads; 0: torch's choice", low=0)


SECTIONS: dict[str, type] = {
    "network": NetworkConfig,
    "calql": CalQLConfig,
    "reward": RewardConfig,
    "offline": OfflineConfig,
    "online": OnlineConfig,
    "learner": LearnerConfig,
    "link": LinkConfig,
    "robot": RobotConfig,
    "collect": CollectConfig,
    "success": SuccessConfig,
}


def check(config: Mapping[str, Any]) -> None:
    """Raise UserError for fields that make no sense together. config: name -> section, of a run, complete."""
    network, calql, online = config["network"], config["calql"], config["online"]
    if network.encoder == "cnn" and network.encoder_weights:
        raise UserError(f"network.encoder_weights is '{network.encoder_weights}', but encoder cnn has none to load")
    if 0 < calql.gradient_clip <= 1:
        raise UserError(f"calql.gradient_clip is {calql.gradient_clip}; it must be above 1, or 0 for off")
    if calql.cql_clip_low > calql.cql_clip_high:
        raise UserError(f"calql.cql_clip_low is {calql.cql_clip_low}, above cql_clip_high {calql.cql_clip_high}")
    if calql.target_subset > network.critics:
        raise UserError(f"calql.target_subset is {calql.target_subset}, of only {network.critics} network.critics")
    if -1 < online.offline_share < 0:
        raise UserError(f"online.offline_share is {online.offline_share}; it must be 0 to 1, or -1")


NETWORKS = frozenset(f"network.{field.name}" for field in dataclasses.fields(NetworkConfig))  # a checkpoint is made of
SPENT = frozenset({"calql.initial_temperature", "calql.start_at_return", "learner.seed"})  # when a run has begun


def changes(
    before: Mapping[str, Any], config: Mapping[str, Any], fixed: frozenset[str] = NETWORKS
) -> dict[str, tuple[Any, Any]]:
    """'section.field' -> (value before, value now), of the sections in both; before, config: name -> section.

    Raises UserError naming those among them that are `fixed`. encoder_weights are left out: a checkpoint has its own.
    """
    found = {
        f"{name}.{field.name}": (getattr(section, field.name), getattr(config[name], field.name))
        for name, section in before.items()
        for field in dataclasses.fields(section)
    }
    del found["network.encoder_weights"]
    changed = {name: values for name, values in found.items() if values[0] != values[1]}
    if refused := said({name: values for name, values in changed.items() if name in fixed}):
        raise UserError(f"cannot be changed when going on from a checkpoint: {'; '.join(refused)}")
    return changed


def said(changed: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """A line for each of `changes`: 'calql.gamma: 0.95 -> 0.9'."""
    return [f"{name}: {before!r} -> {now!r}" for name, (before, now) in changed.items()]
