"""docs/architecture.md: its picture and its file names are those of the repository."""

import ast
import re
from pathlib import Path

from test_imports import PACKAGES, SHARED, imported

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def room(path):
    """The picture's name for the place of a source file."""
    package, *rest = path.relative_to(ROOT).parts
    if package == "agent":
        return rest[0] if len(rest) > 1 else "programs" if rest[0] in ("learner.py", "pretrain.py") else "agent"
    if package == "envs":
        return rest[0] if len(rest) > 1 else "make" if path.name in MAKERS else "envs"
    return package


MAKERS = ("__init__.py", "arm.py")  # of envs: they load envs/real for others


def source_of(module):
    """The file of one of our modules, None for another's and for names inside modules."""
    path = ROOT / module.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def arrows():
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for name in imported(path):
                target = source_of(name)
                empty = target and target.name == "__init__.py" and not ast.parse(target.read_text()).body
                if target and not empty and room(target) != room(path) and target != source_of(SHARED):
                    found.setdefault((room(path), room(target)), f"{path.relative_to(ROOT)} imports {name}")
    return found


def test_the_picture_has_the_arrows_of_the_imports():
    drawn = set(re.findall(r"^ *(\w+)(?:\[[^\]]*\])? --> (\w+)$", PAGE, re.M))
    found = arrows()
    assert len(drawn) > 20
    assert not {arrow: why for arrow, why in found.items() if arrow not in drawn}
    assert not drawn.difference(found)


def test_no_arrow_has_its_way_back():
    found = arrows()
    order = [
        "agent",
        "wire",
        "data",
        "calql",
        "mailbox",
        "run",
        "programs",
        "envs",
        "real",
        "make",
        "robot_server",
        "tools",
    ]
    assert not {
        arrow: why
        for arrow, why in found.items()
        if arrow[0] in order and order.index(arrow[0]) < order.index(arrow[1])
    }


def test_every_file_on_the_page_exists():
    named = set(re.findall(r"`((?:agent|robot_server|envs|tools|configs|tests)/[\w./]*)`", PAGE))
    assert len(named) > 25
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_code_on_the_page_is_the_learners():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    source = [line.strip() for line in (ROOT / "agent" / "run" / "learner.py").read_text().splitlines()]
    assert len(blocks) == 2
    for block in blocks:
        lines = [line.strip() for line in block.splitlines()]
        assert any(source[at : at + len(lines)] == lines for at in range(len(source))), block
