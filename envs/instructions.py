"""The task of an environment in words, for the operator's page and for datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gymnasium

MAX_LENGTH = 200  # characters
RESET = "put the scene back"  # of a reset policy's episodes
KNOWN = {  # task_name of an environment -> its task
    "Lift": "lift the cube",
    "Can": "put the can into its bin",
    "Square": "put the square nut on its peg",
    "Door": "open the door",
    "Stack": "put the red cube on the green cube",
    "Wipe": "wipe the table clean",
    "Milk": "put the milk carton into its bin",
    "Bread": "put the bread into its bin",
    "Cereal": "put the cereal box into its bin",
    "PickPlace": "put each of the four objects into its bin",
    "Round": "put the round nut on its peg",
    "NutAssembly": "put both nuts on their pegs",
    "NutAssemblySingle": "put the nut on its peg",
    "PickPlaceSingle": "put the object into its bin",
    "reach": "move the point to the coloured target",
    "AdroitHandDoor-v1": "open the door",
    "AdroitHandHammer-v1": "hammer the nail into the board",
    "AdroitHandPen-v1": "turn the pen as the target is turned",
    "AdroitHandRelocate-v1": "move the ball to the target",
}


def in_words(env: gymnasium.Env, chosen: str | None, resets: bool) -> str:
    """`chosen`, the option `instruction`; without one what is known of a simulator's task, or "".

    resets: the task is to put the scene back, so that nothing is known of it. Raises ValueError unless `chosen` is one
    line of at most MAX_LENGTH printable characters.
    """
    if text := (chosen or "").strip():
        if len(text) > MAX_LENGTH or not text.isprintable():
            raise ValueError(f"instruction: one line of at most {MAX_LENGTH} characters")
        return text
    return "" if resets else KNOWN.get(str(_attribute(env, "task_name")).rpartition(":")[2], "")


def instruction(env: gymnasium.Env) -> str:
    """The task of an environment of envs.make, or ""."""
    return str(_attribute(env, "instruction") or "")


def _attribute(env: gymnasium.Env, name: str) -> object:
    try:
        return env.get_wrapper_attr(name)
    except (AttributeError, TypeError):  # unknown to it, or to a stand-in for an environment
        return None
