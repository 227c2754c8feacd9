"""A LeRobot plug-in, for tools.interop.lerobot_robot: its robot is this project's mock arm, its leader draws circles.

Registered as LeRobot's are: by a distribution called lerobot_robot_*, whose import registers the configurations.
"""

from .rehearsal_follower import RehearsalFollower, RehearsalFollowerConfig
from .rehearsal_leader import RehearsalLeader, RehearsalLeaderConfig

__all__ = ["RehearsalFollower", "RehearsalFollowerConfig", "RehearsalLeader", "RehearsalLeaderConfig"]
