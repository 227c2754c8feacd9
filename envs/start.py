"""Start a module of this project as a process, whatever the working directory holds.

`python -m envs.real.arm_process` would look into the working directory first, and take a folder `envs` there for ours.
Here the working directory is searched last, for modules of the user's own.
"""

import sys


def module_command(module: str, *words: object) -> list[str]:
    """The command that is `python -m MODULE WORDS`."""
    return [sys.executable, __file__, module, *map(str, words)]


def main() -> None:
    del sys.path[0]  # this file's folder
    import os
    import runpy

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if root not in sys.path:
        sys.path.insert(0, root)
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
