"""YAML as people mean it: what YAML 1.1 would change in silence is refused, with its line.

Refused are a key that is there twice (the last would win: an arm's limits), a key that is a boolean or nothing (`no:`),
and numbers that are not read as they look (010 is 8, 1:30 is 90). Dates stay text. Otherwise as yaml.safe_load.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

import yaml

from agent.spec import UserError

MISREAD = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")  # octal, base 60
CONFIGS = Path(__file__).parent / "configs"  # in a checkout a link to configs/
MERGE = "tag:yaml.org,2002:merge"


class _Refused(Exception):
    """One line, without the file's name."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            if key_node.tag == MERGE or not isinstance(key_node, yaml.ScalarNode):
                continue
            key, line = self.construct_object(key_node), _line(key_node)
            if key is None or isinstance(key, bool):
                raise _Refused(f"line {line}: the key `{key_node.value}` is {key} in YAML; put it in quotes")
            if key in lines:
                raise _Refused(f"the key '{key}' appears twice, in lines {lines[key]} and {line}; remove one")
            lines[key] = line
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> Any:
        text = self.construct_scalar(node)
        plain = yaml.SafeLoader.construct_yaml_int if node.tag.endswith("int") else yaml.SafeLoader.construct_yaml_float
        value = plain(self, node)
        if MISREAD.fullmatch(text):
            raise _Refused(f"line {_line(node)}: {text} is {value} in YAML; write {value}, or '{text}' for the text")
        return value

    def construct_text(self, node: Any) -> str:
        return str(self.construct_scalar(node))


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_text)


def loads(text: str, where: str) -> Any:
    """The value of a YAML document. Raises UserError, one line that begins with `where`."""
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except _Refused as error:
        raise UserError(f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    finally:
        if loader:
            loader.dispose()


def shipped(path: str | Path) -> Path:
    """`path`, or where it does not exist the project's own file of that name: `configs/lift.yaml`, `lift.yaml`."""
    path = Path(path)
    name = path.relative_to("configs") if path.is_relative_to("configs") else path
    ours = CONFIGS / name
    return ours if not path.exists() and not name.is_absolute() and ours.is_file() else path


def load(path: str | Path) -> Any:
    """The value of a YAML file. Raises UserError naming the file, and one of its name in a folder beside it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = next((each for each in Path(path).parents if each.is_dir()), Path())
        there = sorted(folder.rglob(glob.escape(Path(path).name))) if folder.name == "configs" else []
        raise UserError(f"{path}: no such file" + (f" (did you mean {there[0]}?)" if there else "")) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    return loads(text, str(path))
