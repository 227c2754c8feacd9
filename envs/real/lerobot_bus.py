"""LeRobot's own servo bus and its failures: replies that are lost, late, or another request's.

LeRobot takes what it finds in its port for the reply, and all registers look alike: a reply of before would shift every
later one by a request, and one that is too short makes the makers' libraries fail with an IndexError.
"""

from __future__ import annotations

import contextlib
import termios
import time
from collections.abc import Callable
from typing import Any

from envs.real.arm import ArmError, described
from envs.real.lost_replies import LOST

SILENCE_S, SILENCES = 0.01, 3  # after a silence no further reply comes; so many are awaited
POLL_S = 0.001  # a read of the port waits so long for its bytes
RETRIES = 2  # of what is asked once, at connect and disconnect
PLACES = ("port", "ip", "host")  # how LeRobot's options end that say where a device is


def asked(name: str, device: Any, call: Callable[..., Any], *given: Any) -> Any:
    """`call` of LeRobot's `device`. Raises one of LOST for a lost reply, ArmError with its `name` for a dead port."""
    bus = getattr(device, "bus", None)
    try:
        discard(bus)
        return call(*given)
    except LOST:
        drain(bus)
        raise
    except IndexError as error:
        drain(bus)
        raise too_short(error) from None
    except (OSError, termios.error) as error:
        raise ArmError(f"{name}: its port does not work ({error}); is its cable in?") from None


def not_connected(device: Any, error: Exception) -> str:
    """One line for an `error` of LeRobot's connect: where, what, why (its cause, too), and what to do."""
    options = vars(getattr(device, "config", None) or object)
    where = [f"{key} {value}" for key, value in options.items() if key.endswith(PLACES) and isinstance(value, str)]
    why = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    if error.__cause__ is not None:
        why += f"; {described(error.__cause__)}"
    remedy = "check power and cables, and that no other program uses it; lerobot-find-port finds a port"
    return f"LeRobot cannot connect it at {', '.join(where) or 'its address'} ({why}): {remedy}"


def too_short(error: IndexError) -> ConnectionError:
    return ConnectionError(f"a reply was too short ({described(error)})")


def wait_for_replies(bus: Any) -> None:
    """Before `bus` connects: let the maker's library, which asks its port again and again, sleep until bytes come.

    In real time it would keep the processor from the system's own thread that has to bring them: they came too late.
    """
    handler: Any = getattr(bus, "port_handler", None)
    setup = getattr(handler, "setupPort", None)
    if setup is None or getattr(handler, "waits", False):
        return

    def with_timeout(*given: Any) -> Any:
        done = setup(*given)  # a new port, whose reads do not wait
        handler.ser.timeout = POLL_S
        return done

    handler.waits, handler.setupPort = True, with_timeout


def discard(bus: Any) -> None:
    """What has come at LeRobot's `bus` since the last reply. A robot without a serial port has none."""
    port: Any = getattr(getattr(bus, "port_handler", None), "ser", None)
    if getattr(port, "in_waiting", 0):
        port.reset_input_buffer()


def drain(bus: Any) -> None:
    """Discard what comes too late at LeRobot's `bus`: it would be taken for the reply to the next request."""
    with contextlib.suppress(Exception):  # no such bus
        port = bus.port_handler.ser
        port.reset_input_buffer()
        for _ in range(SILENCES):
            time.sleep(SILENCE_S)
            if not port.in_waiting:
                break
            port.reset_input_buffer()


def prepare(bus: Any) -> None:
    """Make LeRobot's `bus` repeat what it configures, and enable torque only with the goal where each servo is."""
    if getattr(bus, "prepared", False):
        return
    bus.prepared = True
    enable = bus.enable_torque

    def enable_where_it_is(motors: Any = None, num_retry: int = 0) -> None:
        discard(bus)
        places = bus.sync_read("Present_Position", motors, normalize=False, num_retry=RETRIES)
        bus.sync_write("Goal_Position", places, normalize=False)
        enable(motors, num_retry)

    bus.enable_torque = enable_where_it_is
    for name in ("ping", "read", "write"):
        setattr(bus, name, repeated(bus, getattr(bus, name)))


def repeated(bus: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` of `bus` with at least RETRIES tries more, each after what has come since the last reply was discarded."""

    def with_retries(*given: Any, num_retry: int = 0, **named: Any) -> Any:
        for left in reversed(range(1 + RETRIES)):
            discard(bus)
            try:
                return call(*given, num_retry=max(num_retry, RETRIES), **named)
            except IndexError as error:
                drain(bus)
                if not left:
                    raise too_short(error) from None

    return with_retries
