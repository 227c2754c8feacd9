"""A stand-in for the lerobot package: its registry, its base classes and its functions, with a robot that remembers."""

import importlib
import sys

FILES = {
    "draccus.py": """
class DecodingError(Exception): ...

def decode(base, given):
    given = dict(given)
    kind = base.choices[given.pop("type")]
    try:
        return kind(**given)
    except TypeError as error:
        raise DecodingError(f"The fields are not those of {kind.__name__}:\\n {error}")
""",
    "lerobot/__init__.py": "",
    "lerobot/robots/__init__.py": """
import numpy as np

class RobotConfig:
    choices = {}
    get_known_choices = classmethod(lambda cls: cls.choices)

class Robot:
    is_connected = False
    action_features = {"pan.pos": float, "lift.pos": float}

    def __init__(self, config):
        self.config, self.is_calibrated, self.sent = config, config.calibrated, []
        self.at = {"pan.pos": 1.0, "lift.pos": 2.0}

    def connect(self, calibrate=True):
        assert calibrate is False
        self.is_connected = True

    def get_observation(self):
        if self.config.broken:
            raise ConnectionError("Failed to sync read")
        return {**self.at, "front": np.full((4, 6, 3), 7, np.uint8), "pan.current": 0.1}

    def send_action(self, action):
        self.sent.append(action)
        self.at = {key: min(value, self.config.most) for key, value in action.items()}
        return self.at

    def disconnect(self):
        self.is_connected = False

def make_robot_from_config(config):
    if not config.port:
        raise ImportError("feetech-servo-sdk is required:\\n pip install it")
    return Robot(config)
""",
    "lerobot/robots/so9.py": """
from dataclasses import dataclass
from lerobot.robots import RobotConfig

@dataclass
class SO9(RobotConfig):
    port: str = "/dev/x"
    most: float = 100.0
    calibrated: bool = True
    broken: bool = False

RobotConfig.choices["so9_follower"] = SO9
""",
    "lerobot/robots/needs_a_driver.py": "import a_driver_that_is_not_there",
    "lerobot/teleoperators/__init__.py": """
class TeleoperatorConfig:
    choices = {}
    get_known_choices = classmethod(lambda cls: cls.choices)

class Leader:
    connected, broken = False, False

    def connect(self, calibrate=True):
        self.connected = True

    def get_action(self):
        if self.broken:
            raise ConnectionError("no answer from motor 2")
        return {"pan.pos": 3.0, "lift.pos": -4.0}

    def disconnect(self):
        self.connected = False

def make_teleoperator_from_config(config):
    if config.port == "/dev/none":
        raise ConnectionError("could not open /dev/none")
    return Leader()
""",
    "lerobot/teleoperators/so9.py": """
from dataclasses import dataclass
from lerobot.teleoperators import TeleoperatorConfig

@dataclass
class SO9Leader(TeleoperatorConfig):
    port: str = "/dev/y"

TeleoperatorConfig.choices["so9_leader"] = SO9Leader
""",
}


def install(folder, monkeypatch):
    """From then on `import lerobot` finds it, until the end of the test."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in list(sys.modules):
        if name.split(".")[0] in ("lerobot", "draccus"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()


def forget():
    for name in list(sys.modules):
        if name.split(".")[0] in ("lerobot", "draccus"):
            del sys.modules[name]
