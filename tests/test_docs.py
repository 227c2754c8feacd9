"""README.md, CONTRIBUTING.md, docs/: links and pages exist, what is generated is current. `make docs` checks more."""

import re
from pathlib import Path

import pytest
import yaml

from tools.docs import configuration

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page):
    """The anchors of its headings, as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_and_pictures_of_a_page_exist(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1500


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r'= "([\w/]+\.md)"', (ROOT / "zensical.toml").read_text()))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in PAGES[2:]}


INTERNAL = {
    "tools.setup.system_packages",
    "tools.setup.cpu_lock",
    "tools.learning.peer_d3rlpy_train",
    "envs.real.arm_process",
    "envs.real.ur_sdk",
    "tools.stress.bus_drive",
    "envs.start",
}  # started by others


def test_every_command_is_on_the_cheat_sheet():
    modules = set()
    for package in ("agent", "robot_server", "envs", "tools"):
        for path in (ROOT / package).rglob("*.py"):
            if "interop/lerobot_robot_rehearsal" not in str(path) and '__name__ == "__main__"' in path.read_text():
                modules.add(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"))
    sheet = (ROOT / "docs" / "commands.md").read_text()
    assert len(modules) > 30
    missing = sorted(name for name in modules - INTERNAL if not re.search(rf"\b{name}\b(?!\.)", sheet))
    assert not missing, "name them in docs/commands.md"


def test_the_configuration_page_is_current():
    assert configuration.PAGE.read_text() == configuration.page(), "run: python -m tools.docs.configuration"


def test_hosted_ci_runs_every_python_that_the_project_supports():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    first, after = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()
    ).groups()
    supported = [f"3.{minor}" for minor in range(int(first), int(after))]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == supported


def test_the_animated_picture_is_small():
    assert (ROOT / "docs" / "before_after.webp").stat().st_size < 3e6
