"""Each registered format has the functions of its Protocol; each module in tools/formats is a format or part of one."""

import importlib
import inspect
from pathlib import Path

import pytest

import tools.formats
from tools.formats.format import READERS, WRITERS, Reader, Writer

FOLDER = Path(tools.formats.__file__).parent


def functions(protocol):
    return {name: member for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"}


@pytest.mark.parametrize(
    ("name", "protocol"), [*((name, Reader) for name in READERS), *((name, Writer) for name in WRITERS)]
)
def test_a_format_has_the_functions_of_its_protocol(name, protocol):
    module = importlib.import_module(f"tools.formats.{name}")
    expected = functions(protocol)
    assert expected
    for function, wanted in expected.items():
        found = inspect.signature(getattr(module, function))
        _, *parameters = inspect.signature(wanted).parameters.values()  # without self
        assert list(found.parameters) == [each.name for each in parameters], (name, function)
        assert [each.annotation for each in found.parameters.values()] == [each.annotation for each in parameters]


def test_a_module_is_a_format_or_named_after_one():
    names = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "format"}
    assert {*READERS, *WRITERS} <= names
    assert not [name for name in names if name.partition("_")[0] not in {*READERS, *WRITERS}]


def test_nothing_in_common_is_a_format():
    for path in (FOLDER / "common").glob("*.py"):
        module = importlib.import_module(f"tools.formats.common.{path.stem}")
        assert not [name for name in ("detects", "parts", "write") if hasattr(module, name)], path
