"""One set-up of logging for every command: time, robot, level and message on stderr; results alone go to stdout.

A function logs its result by `result`: a command prints it, and a program that imports the function prints nothing.
"""

from __future__ import annotations

import logging
import sys

PACKAGES = ("agent", "robot_server", "envs", "tools")
DATE = "%Y-%m-%d %H:%M:%S"


class _Formatter(logging.Formatter):
    """One line: `2026-01-31 14:02:11 arm1 warning: message`; without the level when it is INFO."""

    def __init__(self, robot: str) -> None:
        super().__init__(datefmt=DATE)
        self._robot = f" {robot}" if robot else ""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        line = f"{self.formatTime(record, DATE)}{self._robot} {level}{record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Handler(logging.Handler):
    """Writes above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "result", False):
            print(record.getMessage(), flush=True)
            return
        try:
            from tqdm import tqdm  # not for --help, or an error in a flag

            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except Exception:  # neither a terminal that has closed nor an odd argument may stop what is logged
            pass


def result(logger: logging.Logger, line: str) -> None:
    """Log what a command has come to; where logging is configured it goes to stdout, bare."""
    logger.info("%s", line, extra={"result": True})


def configured() -> bool:
    """Whether a command has called `configure` in this process."""
    return any(isinstance(each, _Handler) for each in logging.getLogger().handlers)


def configure(robot: str = "") -> None:
    """Log our packages from INFO on, others from WARNING on. robot: named in each line. May be called again."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(handler)
    handler = _Handler()
    handler.setFormatter(_Formatter(robot))
    root.addHandler(handler)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
