"""Receipts: how a robot knows that it is its own run's learner that has stored an episode, where no keys tell.

Each run has a random secret that leaves the learner's machine in no message. WELCOME gives a robot the secret of its
boot, made of it, and the robot keeps that with the episodes of this boot. The receipt in an ACK is made of the boot's
secret; whoever else listens at the learner's address cannot make one, not even for episodes of earlier boots.

It is no encryption: who reads the traffic, or says HELLO in a robot's name and boot, learns that boot's secret. Against
those there are keys (agent.wire.keys).
"""

from __future__ import annotations

import hmac

LOCAL = ("run", "secret")  # in the meta of an episode on the robot's side; not in any message of the robot


def boot_secret(run_secret: str, robot: str, boot: str) -> str:
    """The secret of one boot of `robot` in the run that has `run_secret`."""
    return _digest(run_secret, f"{robot}/{boot}")  # names contain no '/'


def receipt(secret: str, number: int, steps: int) -> str:
    """That `steps` steps of episode `number` of the boot with this `secret` are stored."""
    return _digest(secret, f"{number}/{steps}")


def is_receipt(text: str, secret: str, number: int, steps: int) -> bool:
    return hmac.compare_digest(text.encode(errors="replace"), receipt(secret, number, steps).encode())


def _digest(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()[:32]
