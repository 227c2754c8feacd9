"""What the motors of a LeRobot robot report besides where they are, where they are on a servo bus of LeRobot's.

LeRobot reads positions with `sync_read`, which drops the error byte of each reply; so the register that has the errors
is read, too. Units are those of the makers' tables of registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from envs.real.bus.protocol import DYNAMIXEL, FEETECH
from envs.real.bus.registers import Registers

LOAD, CURRENT, TEMPERATURE = "Present_Load", "Present_Current", "Present_Temperature"
STATUS = {"Status": FEETECH, "Hardware_Error_Status": DYNAMIXEL}
RISE = 5  # degrees C: no motor warms by more between two reads
FEETECH_MA = 6.5
# Of a Dynamixel's Present_Current. LeRobot's table has that name for all; of the XL430 and XC430 it is the load, 0.1 %.
DYNAMIXEL_MA = {"xl330": 1.0, "xc330": 1.0, "xm430": 2.69, "xm540": 2.69, "xh540": 2.69}
MAGNITUDE = {LOAD: 0x3FF, CURRENT: 0x7FFF}  # of Feetech's; LeRobot decodes the sign of some


class LeRobotMotors:
    """bus: LeRobot's, connected. axes: of the arm, of which those that are motors of `bus` report.

    read: calls what it is given with arguments, and reports a lost reply as one of lost_replies.LOST.
    """

    def __init__(self, bus: Any, axes: Sequence[str], read: Callable[..., Any]) -> None:
        self._bus, self._axes = bus, axes
        tables = getattr(bus, "model_ctrl_table", {})
        self._names = [axis for axis in axes if axis in bus.motors] if tables else []
        self._models = {name: str(bus.motors[name].model) for name in self._names}
        there = [
            register
            for register in (LOAD, CURRENT, TEMPERATURE, *STATUS)
            if self._names and all(register in tables[model] for model in self._models.values())
        ]
        self._read = read
        self._temperatures: Mapping[str, int] = {}
        self._registers = Registers(there, self._column)
        self._most_ma = self._limits() if CURRENT in there and LOAD not in there else {}

    @property
    def lost(self) -> int:
        return self._registers.lost

    def expire(self) -> None:
        """See Registers.expire."""
        self._registers.expire()

    def update(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """(effort, errors), as of a State."""
        raw = self._registers.update()
        effort: dict[str, np.ndarray] = {}
        if LOAD in raw:
            effort["load"] = (np.abs(raw[LOAD]) % (MAGNITUDE[LOAD] + 1)) / 10
        if CURRENT in raw and LOAD in raw:
            effort["current"] = FEETECH_MA * (np.abs(raw[CURRENT]) % (MAGNITUDE[CURRENT] + 1))
        elif CURRENT in raw:
            effort["load"], effort["current"] = self._dynamixel(np.abs(raw[CURRENT]))
        if TEMPERATURE in raw:
            effort["temperature"] = raw[TEMPERATURE]
        errors = {}
        for register in STATUS.keys() & raw.keys():
            for name in self._names:
                if words := STATUS[register].reports(int(raw[register][self._axes.index(name)])):
                    errors[name] = words
        return effort, errors

    def _column(self, register: str) -> np.ndarray:
        """float64 (n,), NaN for axes that are no motors of the bus. An error counts if it is read twice, and a leap of
        the temperature.

        A late reply to another request, such as the temperature's, may be taken for that of the first read.
        """
        values = self._values(register)
        if register in STATUS and any(values.values()):
            again = self._values(register)
            values = {name: int(value) & int(again.get(name, 0)) for name, value in values.items()}
        if register == TEMPERATURE:
            if any(value > self._temperatures.get(name, value) + RISE for name, value in values.items()):
                again = self._values(register)
                values = {name: min(value, again.get(name, value)) for name, value in values.items()}
            self._temperatures = values
        return np.array([float(values.get(axis, np.nan)) for axis in self._axes])

    def _values(self, register: str) -> Mapping[str, int]:
        read: Mapping[str, int] = self._read(lambda: self._bus.sync_read(register, self._names, normalize=False))
        return read

    def _limits(self) -> dict[str, float]:
        """Motor -> mA, of those whose current is measured."""
        unit = {name: DYNAMIXEL_MA.get(model.split("-")[0]) for name, model in self._models.items()}
        return {
            name: float(ma * self._bus.read("Current_Limit", name, normalize=False)) for name, ma in unit.items() if ma
        }

    def _dynamixel(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(load, %; current, mA)"""
        load, current = np.full((2, len(self._axes)), np.nan)
        for place, name in enumerate(self._axes):
            kind = self._models.get(name, "").split("-")[0]
            if kind in DYNAMIXEL_MA:
                current[place] = DYNAMIXEL_MA[kind] * raw[place]
                load[place] = 100 * current[place] / self._most_ma[name] if self._most_ma[name] else np.nan
            else:
                load[place] = raw[place] / 10
        return load, current
