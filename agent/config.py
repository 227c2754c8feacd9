"""Every number that a run depends on, as dataclasses; YAML files and flags change them, a checkpoint remembers them.

A section is one dataclass. In YAML it is a mapping under its name; as a flag every field is `--section.field VALUE`, or
just `--field VALUE` where only one section has it. Later files win over earlier ones, and flags over files. An unknown
key is an error that names the nearest known one. Sections that a command does not use are skipped, so that one file
serves every command.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_type_hints

from agent.options import build, nearest, option
from agent.spec import UserError


@dataclass(frozen=True)
class NetworkConfig:
    encoder: Literal["cnn", "resnet18", "resnet34"] = option("cnn", "image encoder, one per camera")
    encoder_weights: str = option(
        "", "resnet only: empty for random, 'imagenet', or a file with a torchvision state dict"
    )
    freeze_encoder: bool = option(False, "leave the image encoder as it was loaded")
    channels: list[int] = option([32, 32, 32, 32], "cnn: output channels of its 3x3 convolutions", low=1)
    strides: list[int] = option([2, 2, 1, 1], "cnn: their strides", low=1)
    head: Literal["spatial_softmax", "flatten"] = option("spatial_softmax", "how a feature map becomes a vector")
    features: int = option(64, "length of each camera's feature vector", low=1)
    state_features: int = option(
        64, "length of the proprioception's feature vector; 0: no layer, the states themselves", low=0
    )
    state_standardise: bool = option(True, "states: minus the mean of the demonstrations, by their deviation")
    actor_hidden: list[int] = option([256, 256], "hidden layers of the actor", low=1)
    critic_hidden: list[int] = option([256, 256], "hidden layers of each critic", low=1)
    critics: int = option(10, "E, size of the critic ensemble", low=1)
    actor_layer_norm: bool = option(True, "LayerNorm in the actor")
    critic_layer_norm: bool = option(True, "LayerNorm in the critics")
    init: Literal["torch", "orthogonal", "xavier"] = option(
        "torch",
        "initial weights of actor and critics; torch: uniform up to 1/sqrt(inputs), the actor's last layer near zero; "
        "orthogonal: gain sqrt 2; xavier: uniform in every layer; the last two with zero biases",
    )
    last_gain: float = option(0.01, "orthogonal: gain of the last layer of actor and critics", low=0)
    log_std: Literal["direct", "scaled"] = option(
        "direct",
        "the policy's log std; direct: the actor's output; scaled: multiplier x output + offset, learnt from 1 and -1",
    )

    def from_checkpoint(self) -> NetworkConfig:
        """The same networks with their weights from a checkpoint, which names no other file to read."""
        return dataclasses.replace(self, encoder_weights="")


@dataclass(frozen=True)
class CalQLConfig:
    gamma: float = option(0.95, "discount", low=0, high=0.99999)
    calibrate: bool = option(True, "Cal-QL: lift policy samples to the Monte-Carlo return; off is CQL")
    cql_actions: int = option(4, "n, actions sampled from each of uniform, pi(.|s), pi(.|s')", low=1)
    importance_sampling: bool = option(True, "subtract log-probabilities in the conservative term")
    cql_weight: float = option(1.0, "w, conservative weight offline", low=0)
    cql_weight_online: float = option(0.3, "w online; 0 leaves SAC", low=0)
    cql_decay_steps: int = option(0, "env steps over which w goes from its offline to its online value", low=0)
    cql_clip_low: float = option(float("-inf"), "lower clip of the conservative difference", infinite=True)
    cql_clip_high: float = option(float("inf"), "upper clip of the conservative difference", infinite=True)
    lagrange_threshold: float | None = option(None, "tau; set, the Lagrange form learns the conservative weight")
    max_target_backup: bool = option(False, "TD target: max over n next actions, as in the paper (off: one sample)")
    entropy_backup: bool = option(False, "SAC's entropy term in the TD target")
    n_step: int = option(
        1,
        "n-step TD target: discounted rewards of n recorded steps, then the value; no correction for the policy that "
        "acted. The conservative term's next actions and entropy_backup's entropy are those of the state n steps ahead",
        low=1,
        high=100,
    )
    target_subset: int = option(
        2, "target critics, drawn anew each update, over which the TD target takes the min", low=0
    )
    actor_q: Literal["min", "mean"] = option("mean", "what the actor maximises over the ensemble")
    bc_weight: float = option(1.0, "behaviour-cloning term on the actor, offline", low=0)
    bc_weight_online: float = option(1.0, "behaviour-cloning weight during fine-tuning", low=0)
    bc_filter: Literal["all", "success"] = option(
        "success", "which episodes are cloned; 'all' for tasks without success"
    )
    target_entropy: float = option(
        -0.5,
        "H-bar per action dimension, which alpha is tuned to if temperature_lr allows: -1 in the paper, -0.5 in RLPD",
    )
    initial_temperature: float = option(
        0.1, "alpha at the start; by the default temperature_lr nearly throughout", low=1e-8
    )
    start_at_return: bool = option(True, "before training, set the critics' last bias to the data's mean return")
    policy_average: float = option(
        0.995, "decay per update of the EMA of the policy's weights, which robots act with; 0: the newest weights",
        low=0, high=1,
    )  # fmt: skip
    target_rate: float = option(0.05, "how fast targets follow", low=0, high=1)
    actor_lr: float = option(1e-3, "learning rate of the actor", low=0)
    critic_lr: float = option(1e-3, "learning rate of critics and encoder", low=0)
    temperature_lr: float = option(
        1e-4,
        "log alpha moves by at most about so much an update. At 1e-4 alpha is in effect a setting in runs of some "
        "thousand updates; at 1e-2 the entropy follows target_entropy; 0: alpha stays as it is",
        low=0,
    )
    lagrange_lr: float = option(3e-4, "learning rate of lambda", low=0)
    gradient_clip: float = option(
        2.0,
        "gradients of critics, and of the actor, are clipped to this many times their RMS norm, above 1; 0: off",
        low=0,
        infinite=True,
    )
    augment_pad: int = option(2, "random shift of images by up to this many pixels; 0 is off", low=0)

    @property
    def algorithm(self) -> str:
        """What it is called offline: without a conservative term it is SAC."""
        if self.cql_weight == 0 and self.lagrange_threshold is None:
            return "SAC with behaviour cloning" if self.bc_weight else "SAC"
        return "Cal-QL" if self.calibrate else "CQL"


@dataclass(frozen=True)
class RewardConfig:
    scale: float = option(
        1.0, "reward seen by learning = scale * env reward + bias, applied once, in agent.data.returns"
    )
    bias: float = option(-1.0, "see scale")
    sparse: bool = option(True, "the env's reward is one of two values: failure_reward, or that of success")
    failure_reward: float = option(0.0, "sparse: the env's (raw) reward of a step without success")


@dataclass(frozen=True)
class OfflineConfig:
    data: list[str] = option([], "demonstration folders or files")
    updates: int = option(20_000, "gradient updates", low=0)
    batch: int = option(128, "transitions per update", low=1)
    successes_only: bool = option(False, "leave failed demonstrations out")
    save_every: int = option(0, "updates between two checkpoints; 0: one a minute", low=0)


@dataclass(frozen=True)
class OnlineConfig:
    env_steps: int = option(20_000, "stop after this many env steps", low=0)
    warmup_steps: int = option(0, "env steps of the frozen offline policy before the first update", low=0)
    utd: float = option(0.5, "critic updates per env step", low=0, high=1000)
    actor_every: int = option(1, "critic updates per actor update", low=1)
    batch: int = option(128, "transitions per update", low=1)
    offline_share: float = option(
        0.5, "share of each batch from the offline data, 0 to 1; -1: by size |D| / (|D| + N)", low=-1, high=1
    )
    interventions_offline: bool = option(False, "episodes in which a person drove go to the demonstrations, too")
    capacity_steps: int = option(200_000, "online steps kept; the oldest episodes go first", low=2)
    max_lead_steps: int = option(
        200, "simulation: env steps that robots may run ahead of the updates due; 0: no limit", low=0
    )
    offer_every: int = option(10, "updates between two offers of new weights", low=1)
    checkpoint_every: int = option(1000, "write a checkpoint at every multiple of this many env steps", low=1)
    keep: int = option(
        5, "how many of the newest checkpoints stay in checkpoints/, by env steps; latest.pt always", low=0
    )


@dataclass(frozen=True)
class LearnerConfig:
    run: str = option("", "folder of the run; empty: runs/<time>")
    seed: int = option(0, "random seed", low=0, high=2**62)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...")
    threads: int = option(0, "CPU threads; 0: one for each core, in fine-tuning one fewer", low=0)
    mode: Literal["eager", "compile", "graph"] = option(
        "eager", "of updates; compile: torch.compile, graph: and CUDA graphs"
    )
    bf16: Literal["off", "encoder", "all"] = option(
        "off", "bfloat16 (autocast) in the image encoder, or in every network; float32 on a CPU that is slower in it"
    )
    tf32: bool = option(False, "matrix products of float32 in TF32 (GPU)")
    storage: Literal["host", "file", "device"] = option(
        "host",
        "where frames are kept: this machine's memory, a mapped file in the run's folder, or the device's memory",
    )
    log_every: int = option(50, "updates between two log records", low=1)
    robot_gb: float = option(
        200.0, "how much of the disk one robot's episodes may take: then the others wait with it", low=0, infinite=True
    )


@dataclass(frozen=True)
class LinkConfig:
    address: str = option("tcp://127.0.0.1:5555", "where the learner listens")
    keys: str = option("", "folder with this machine's keys (tools.keys): encrypted, and for those who are known only")
    insecure: bool = option(False, "allow an address beyond this machine without keys")
    other_env: bool = option(
        False, "learner: take robots whose --env is not that of the demonstrations (the real one, say)"
    )

    def flags(self) -> list[str]:
        """The flags that make these settings out of the defaults."""
        flags: list[str] = []
        for name, value in vars(self).items():
            if value != getattr(LinkConfig(), name):
                flags += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return flags


@dataclass(frozen=True)
class RunConfig:
    """What a run of agent.pretrain or agent.learner depends on; its checkpoints store exactly this."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    calql: CalQLConfig = field(default_factory=CalQLConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    offline: OfflineConfig = field(default_factory=OfflineConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    link: LinkConfig = field(default_factory=LinkConfig)

    def checked(self) -> RunConfig:
        """Its sections as flags would have made them; one may be a mapping. Raises UserError for a value of the wrong
        type or out of range, and for fields that make no sense together.
        """
        try:
            sections: dict[str, Any] = {
                name: build(SECTIONS[name], vars(part) if dataclasses.is_dataclass(part) else part, f"{name}.")
                for name, part in vars(self).items()
            }
        except ValueError as error:
            raise UserError(str(error)) from None
        config = RunConfig(**sections)
        network, calql, online = config.network, config.calql, config.online
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
        return config


SECTIONS: dict[str, type] = get_type_hints(RunConfig)
FELL_BACK = "updates are computed in float32"  # in the log of a run that asked for bf16 where that is slower
REMOVED: dict[str, dict[str, Any]] = {  # settings that older checkpoints and results have; off by default
    "network": {"policy": "gaussian", "chunk": 1, "candidates": 8, "flow_steps": 5, "critic_bins": 0, "choose": False}
}
# Sections of the packages above, which agent may not import. Whichever command reads a file first checks all of it: a
# misspelt key of the robot's is found when training starts, not on the robot. So each needs its class, by name.
OTHER_SECTIONS = {
    "robot": "robot_server.config:RobotConfig",
    "collect": "tools.recording.config:CollectConfig",
    "success": "tools.train_reward.config:SuccessConfig",
}


def section_class(name: str, where: str = "") -> type:
    """The dataclass of the section `name`, whichever package owns it. Raises UserError, naming the nearest one."""
    if name in OTHER_SECTIONS:
        return cast(type, pkgutil.resolve_name(OTHER_SECTIONS[name]))
    if name not in SECTIONS:
        raise UserError(f"{where}unknown section '{name}'{nearest(name, [*SECTIONS, *OTHER_SECTIONS, 'env'])}")
    return SECTIONS[name]


NETWORK_FIELDS = frozenset(f"network.{field.name}" for field in dataclasses.fields(NetworkConfig))  # a checkpoint's own
FIXED_AFTER_START = frozenset({"calql.initial_temperature", "calql.start_at_return", "learner.seed"})
Changes = dict[str, tuple[Any, Any]]  # 'section.field' -> (value before, value now)


def changes(before: RunConfig, config: RunConfig, fixed: frozenset[str] = NETWORK_FIELDS) -> Changes:
    """What `config` changes. Raises UserError naming those fields among them that are `fixed`.

    Left out are encoder_weights, which a checkpoint has itself, and the link, which is never a checkpoint's.
    """
    found = {
        f"{name}.{key}": (value, getattr(getattr(config, name), key))
        for name, section in vars(before).items()
        for key, value in vars(section).items()
        if name != "link" and key != "encoder_weights"
    }
    changed = {name: values for name, values in found.items() if values[0] != values[1]}
    if refused := said({name: values for name, values in changed.items() if name in fixed}):
        raise UserError(f"cannot be changed when continuing from a checkpoint: {'; '.join(refused)}")
    return changed


def said(changed: Changes) -> list[str]:
    """A line for each of `changes`: 'calql.gamma: 0.95 -> 0.9'."""
    return [f"{name}: {before!r} -> {now!r}" for name, (before, now) in changed.items()]
