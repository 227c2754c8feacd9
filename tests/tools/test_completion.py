"""Tab completion, by the function that a real bash calls for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALQL = f"""#!{sys.executable}
import sys
sys.path[0] = {str(ROOT)!r}
from tools.calql import main
main()
"""
PRESS_TAB = """
eval "$(calql completion bash)"
function_name=$(complete -p calql | sed 's/.*-F \\([^ ]*\\).*/\\1/')
while IFS= read -r COMP_LINE; do
    COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMPREPLY=()
    read -ra COMP_WORDS <<<"$COMP_LINE"
    [[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "$function_name" calql "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    (IFS='|'; echo "${COMPREPLY[*]}")
done
"""
SHOWN = {  # typed: all that is offered, or with ... at least this
    "calql pr": "pretrain ",
    "calql ": "demo|collect|...",
    "calql bench re": "rehearsal|replay_buffer",
    "calql collect --dev": "--device ",
    "calql collect --device ": "scripted|keyboard|gamepad|spacemouse|browser|lerobot:",
    "calql collect --env ": "sim|fake|mock|real|gym:|lerobot:",
    "calql collect --task S": "Square|Stack",
    "calql collect --env mock --hor": "--horizon ",
    "calql collect --env fake --tas": "",
    "calql collect --config mi": "mine.yaml ",
    "calql collect --config=mi": "mine.yaml ",
    "calql collect --config configs/presets/rlpd_": "configs/presets/rlpd_d4rl.yaml ",
    "calql pretrain ": "--data|--out|--resume|...",
    "calql pretrain --calib": "--calibrate ",
    "calql pretrain --calibrate ": "true|false",
    "calql pretrain --calibrate --mode ": "eager|compile|graph",
    "calql pretrain --mode ": "eager|compile|graph",
    "calql learner --ckpt off": "offline.pt ",
    "calql inspect de": "demos/",
    "calql robot --while-away ": "act|wait",
    "calql keys --ro": "--robot ",
    "calql nothing --": "",
}


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    """typed -> what one press of tab offers, in a folder with a few files."""
    folder = tmp_path_factory.mktemp("completion")
    for name in ("bin", "demos"):
        (folder / name).mkdir()
    for name in ("mine.yaml", "offline.pt"):
        (folder / name).touch()
    (folder / "bin" / "calql").write_text(CALQL)
    (folder / "bin" / "calql").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    bash = [str(shutil.which("bash")), "--norc", "-c", PRESS_TAB]
    lines = "".join(f"{line}\n" for line in SHOWN)
    done = subprocess.run(bash, input=lines, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(zip(SHOWN, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("line", SHOWN)
def test_tab_offers(offered, line):
    wanted, got = SHOWN[line].split("|"), offered[line].split("|")
    if wanted[-1] == "...":
        assert set(wanted[:-1]) < set(got)
    else:
        assert sorted(wanted) == sorted(got)


def test_config_fields_wait_for_a_dash(offered):
    assert "--calibrate" not in offered["calql pretrain "].split("|")
