import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import envs
from agent.options import build, converted, option
from envs.real.camera_options import CameraOptions
from envs.real.mock_arm import MockArmOptions
from envs.real.options import Axis


@dataclass
class Options:
    rate: float = option(1.0, "steps a second", above=0, high=10)
    share: float | None = option(None, "of them", low=0, high=1)
    limit: float = option(math.inf, "at most", infinite=True)
    sizes: list[int] = option([4, 4], "of layers", low=1)
    device: int | str = option(0, "number or path")
    task: str = option("lift", "to do", choices=("lift", "stack"))
    mode: Literal["fast", "slow"] = option("fast", "how")
    more: dict = option({"a": [1]}, "of the arm")


def test_values_become_the_type_of_their_field():
    given = {"rate": 2, "sizes": (3.0, np.int64(5)), "device": "/dev/x", "share": np.float32(0.5)}
    options = build(Options, given)
    assert options == replace(Options(), rate=2.0, sizes=[3, 5], device="/dev/x", share=0.5)
    assert [type(value) for value in (options.rate, *options.sizes, options.share)] == [float, int, int, float]
    assert build(Options, {"sizes": 7}).sizes == [7] and converted(Path("a"), str, "x") == "a"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"rate": 0}, "arm: rate is 0; it must be above 0 and 10 or less"),
        ({"rate": math.nan}, "arm: rate is nan; it must be above 0 and 10 or less"),
        ({"rate": True}, "arm: rate is True; it must be a number"),
        ({"rate": "1"}, "arm: rate is '1'; it must be a number"),
        ({"share": "half"}, "arm: share is 'half'; it must be a number or empty"),
        ({"share": -1}, "arm: share is -1; it must be 0 or more and 1 or less"),
        ({"limit": math.nan}, "arm: limit is nan; it must be a finite number"),
        ({"sizes": [4, 0]}, "arm: sizes is [4, 0]; it must be 1 or more"),
        ({"sizes": [4, 0.5]}, "arm: sizes[1] is 0.5; it must be a whole number"),
        ({"device": 1.5}, "arm: device is 1.5; it must be a whole number or a text"),
        ({"task": "lifd"}, "arm: task is 'lifd'; it must be one of lift, stack (did you mean 'lift'?)"),
        ({"mode": "slo"}, "arm: mode is 'slo'; it must be one of fast, slow (did you mean 'slow'?)"),
        ({"more": [1]}, "arm: more is [1]; it must be `key: value` lines"),
        ({"rat": 1}, "arm: rat: no such option (did you mean 'rate'?)"),
        ({"xyz": 1}, "arm: xyz: no such option; there are rate, share, limit, sizes, device, task, mode, more"),
        (3, "arm: expected `key: value` lines, not 3"),
    ],
)
def test_a_mistake_is_one_line(given, line):
    with pytest.raises(ValueError) as caught:
        build(Options, given, "arm: ")
    assert str(caught.value) == line


def test_defaults_are_not_shared():
    Options().more["a"].append(2)
    assert Options().more == {"a": [1]}


KINDS = [envs.options(name) for name in ("sim", "fake", "gym:x", "real", "mock")] + [
    CameraOptions,
    MockArmOptions,
    Axis,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_option_of_envs_has_help_and_a_default_that_makes_sense(kind):
    assert build(kind, asdict(kind())) == kind()
    assert all(field.metadata.get("help") for field in kind.__dataclass_fields__.values())
