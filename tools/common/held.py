"""A real arm in a tool that records or evaluates."""

from __future__ import annotations

from typing import Any

import gymnasium

from agent.spec import UserError
from envs.base import Info, RobotFault


class Held(gymnasium.Wrapper):
    """A RobotFault ends a tool: there is nobody that it could ask to look."""

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        try:
            return self.env.reset(seed=seed, options=options)
        except RobotFault as fault:
            raise UserError(f"the arm is held: {fault}") from None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        try:
            return self.env.step(action)
        except RobotFault as fault:
            raise UserError(f"the arm is held: {fault}") from None
