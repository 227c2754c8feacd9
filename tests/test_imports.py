"""Who may import whom, and what an import may cost (design: agent <- robot_server <- tools; envs on its own)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "agent": {"agent"},
    "envs": {"envs"},
    "robot_server": {"robot_server", "agent", "envs"},
    "tools": {"tools", "robot_server", "agent", "envs"},
}
SHARED = "agent.options"  # one check of options for agent and envs: a leaf, of which envs may know, too


def imported(path):
    """Absolute names of all that the file imports, wherever in it; relative imports resolved."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


FILES = [(package, path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize(("package", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])
def test_packages_import_only_what_they_may(package, path):
    ours = {name for name in imported(path) if name.split(".")[0] in {*PACKAGES, "tests"}}
    forbidden = {name for name in ours if name.split(".")[0] not in PACKAGES[package]}
    forbidden = {name for name in forbidden if name != SHARED and not name.startswith(f"{SHARED}.")}
    assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_what_all_share_imports_nothing_of_ours():
    assert not [name for name in imported(ROOT / "agent/options.py") if name.split(".")[0] in PACKAGES]


def test_the_check_above_sees_every_kind_of_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "agent" / "x.py"
    path.parent.mkdir()
    path.write_text("import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\ndef h():\n    import i as j")
    assert set(imported(path)) == {"a.b", "c", "c.d", "agent", "agent.e", "agent.f", "agent.f.g", "i"}


LEROBOT_PLUGIN = "lerobot_robot_rehearsal"  # a distribution of its own, which registers its classes when imported


@pytest.mark.parametrize("package", ["agent", "robot_server", "tools"])
def test_package_inits_import_nothing(package):
    inits = [path for path in (ROOT / package).rglob("__init__.py") if path.parent.name != LEROBOT_PLUGIN]
    assert ROOT / package / "__init__.py" in inits
    for path in inits:
        assert list(imported(path)) == []


def test_no_pickle_in_what_meets_the_network():
    folders = [ROOT / "agent" / "wire", ROOT / "agent" / "mailbox", ROOT / "robot_server", ROOT / "tools" / "panel"]
    names = [path.relative_to(ROOT) for folder in folders for path in folder.glob("*.py")]
    assert len(names) > 35
    for name in names:
        source = (ROOT / name).read_text()
        assert "pickle" not in {part for found in imported(ROOT / name) for part in found.split(".")}
        for word in ("send_pyobj", "recv_pyobj", "allow_pickle=True"):
            assert word not in source


def loaded_by(statement):
    """Names of the modules that are loaded after `statement` in a fresh interpreter."""
    source = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


HEAVY = {"torch", "torchvision", "h5py", "robosuite", "mujoco", "gymnasium", "cv2", "matplotlib", "tensorboard"}
SLOW = {*HEAVY - {"h5py", "cv2"}, "scipy", "aiohttp", "argcomplete", "tqdm", "pyarrow", "av", "PIL"}


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("import agent.wire.messages, agent.spec", "agent.wire.messages"),
        ("import agent.mailbox.mailbox", "agent.mailbox.mailbox"),
        ("import agent.cli, agent.config", "agent.cli"),
    ],
)
def test_light_modules_load_nothing_heavy(statement, needed):
    loaded = loaded_by(statement)
    assert needed in loaded
    assert not loaded & HEAVY


def test_the_robots_end_of_the_link_loads_what_its_spool_needs_and_no_more():
    loaded = loaded_by("import robot_server.actor, robot_server.link, envs.clock")
    assert "robot_server.actor" in loaded and loaded & HEAVY == {"h5py"}


def test_the_policy_brings_torch_but_no_training():
    loaded = loaded_by("import robot_server.actor, agent.policy")
    assert "torch" in loaded
    training = tuple(f"agent.{name}" for name in ("calql", "data.replay", "pretrain", "learner", "run", "mailbox"))
    assert not loaded & {"robosuite", "mujoco"}
    assert not [name for name in loaded if name.startswith(training)]


def test_the_robot_server_loads_no_simulator_before_it_is_asked_for():
    loaded = loaded_by("import robot_server.__main__")
    assert not loaded & {"torch", "robosuite", "mujoco"}


def test_cameras_load_opencv_and_nothing_else_that_a_robots_computer_may_lack():
    assert not loaded_by("import envs.real.camera_options") & HEAVY
    assert loaded_by("import envs.real.cameras") & HEAVY == {"cv2"}


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("agent.learner", ["--ckpt", "nothing"]),
        ("agent.learner", ["--resume", "nothing"]),
        ("agent.pretrain", ["--resume", "nothing"]),
        ("agent.pretrain", ["--data", "nothing"]),
        ("agent.pretrain", ["--config", "nothing"]),
        ("tools.evaluate", ["--ckpt", "nothing"]),
        ("tools.train_reward.__main__", ["nothing", "--out", "reward.pt"]),
        ("tools.plot", ["nothing"]),
        ("tools.panel.__main__", ["--episodes", "nothing"]),
    ],
)
def test_commands_check_their_files_before_they_load_what_is_slow(module, words):
    """A wrong name is answered in half a second, not in five."""
    source = (
        f"import sys, {module} as command\nfrom agent.spec import UserError\ntry: command.main({words})\n"
        "except UserError as error: assert 'nothing' in str(error)\nelse: raise AssertionError"
    )
    loaded = loaded_by(source)
    assert module in loaded and not loaded & SLOW
    assert "h5py" not in loaded or not module.startswith("agent.") or "--data" in words


HELP = """
import contextlib, importlib.util, io, sys
from tools.calql import COMMANDS
for module, _ in COMMANDS.values():
    if module == "tools.bench":
        continue
    package = importlib.util.find_spec(module).submodule_search_locations
    name = f"{module}.__main__" if package else module
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        importlib.import_module(name).main(["--help"])
    assert "usage: " in text.getvalue(), name
    print(name, *({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""


def test_no_help_loads_what_is_slow():
    done = subprocess.run([sys.executable, "-c", HELP, *SLOW], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = {name: words for name, *words in map(str.split, done.stdout.splitlines())}
    assert len(loaded) > 15
    assert not {name: words for name, words in loaded.items() if words}
