"""envs.real.arm, under the name that it had before: drivers of users' own arms import it."""

from envs.real.arm import Arm, ArmError, State, make_arm

__all__ = ["Arm", "ArmError", "State", "make_arm"]
