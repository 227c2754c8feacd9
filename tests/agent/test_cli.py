import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml as pyyaml

import envs
from agent import cli, yaml_file
from agent.cli import Typed, build, coerce, nearest, parse
from agent.config import OTHER_SECTIONS, SECTIONS, CalQLConfig, NetworkConfig, section_class
from agent.env_record import EnvRecord
from agent.spec import UserError


@dataclass
class SimOptions:
    task: str = "Lift"
    size: int = 64
    cameras: list[str] = field(default_factory=lambda: ["front"])


@dataclass
class FakeOptions:
    length: int = 10


def env_options(name):
    kinds = {"sim": SimOptions, "fake": FakeOptions}
    if name not in kinds:
        raise ValueError(f"no environment '{name}'")
    return kinds[name]


def args(*argv, sections=("calql", "network", "online", "link"), env=False, **more):
    return parse(list(argv), "what it does", sections, env_options=env_options if env else None, **more)


@pytest.fixture
def yaml(tmp_path):
    def write(text, name="settings.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_defaults():
    assert args().section("calql") == CalQLConfig()
    assert args().section("network") == NetworkConfig()


def test_flags_over_later_files_over_earlier_ones_over_a_checkpoint_over_defaults(yaml):
    first = yaml("calql: {gamma: 0.5, actor_lr: 0.5, critic_lr: 0.5, target_rate: 0.5}", "first.yaml")
    second = yaml("calql: {gamma: 0.6, actor_lr: 0.6}", "second.yaml")
    asked = args("--gamma", "0.7", "--config", first, "--config", second)
    calql = asked.section("calql", base={"target_rate": 0.4, "temperature_lr": 0.4})
    found = (calql.gamma, calql.actor_lr, calql.critic_lr, calql.target_rate, calql.temperature_lr, calql.cql_actions)
    assert found == (0.7, 0.6, 0.5, 0.5, 0.4, CalQLConfig().cql_actions)


@pytest.mark.parametrize(
    ("words", "section", "name", "value"),
    [
        (["--gamma", "0.9"], "calql", "gamma", 0.9),
        (["--gamma=0.9"], "calql", "gamma", 0.9),
        (["--calql.gamma", "0.9"], "calql", "gamma", 0.9),
        (["--actor-lr", "1e-4"], "calql", "actor_lr", 1e-4),
        (["--cql-clip-low", "-5"], "calql", "cql_clip_low", -5.0),
        (["--cql-clip-low", "-1e-3"], "calql", "cql_clip_low", -1e-3),
        (["--cql-clip-low=-.inf"], "calql", "cql_clip_low", float("-inf")),
        (["--lagrange_threshold", "null"], "calql", "lagrange_threshold", None),
        (["--lagrange_threshold", "-3"], "calql", "lagrange_threshold", -3.0),
        (["--calibrate", "false"], "calql", "calibrate", False),
        (["--entropy_backup"], "calql", "entropy_backup", True),
        (["--entropy_backup", "--gamma", "0.9"], "calql", "gamma", 0.9),
        (["--channels", "8,16"], "network", "channels", [8, 16]),
        (["--channels", "[8, 16]"], "network", "channels", [8, 16]),
        (["--channels", "8"], "network", "channels", [8]),
        (["--encoder", "resnet18"], "network", "encoder", "resnet18"),
        (["--env_steps", "2e4"], "online", "env_steps", 20000),
        (["--address", "tcp://127.0.0.1:6000"], "link", "address", "tcp://127.0.0.1:6000"),
        (["--insecure"], "link", "insecure", True),
        (["--gamma", "0.1", "--gamma", "0.2"], "calql", "gamma", 0.2),
    ],
)
def test_flags(words, section, name, value):
    got = getattr(args(*words).section(section), name)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("text", ["no", "on", "007", "1_000", "2026-11-22", "null", "~", "", "1e3", "a: b", "[x]"])
def test_text_stays_as_it_was_typed(text):
    assert args("--robot_name", text, sections=["robot"]).section("robot").robot_name == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--gama", "1"], r"unknown flag --gama \(did you mean '--gamma'\?\)"),
        (["--calql.gama", "1"], r"--calql.gama \(did you mean '--calql.gamma'\?\)"),
        (["--qqqqqq", "1"], r"unknown flag --qqqqqq$"),
        (["--confg", "x"], r"'--config'"),
        (["--cql_actoins", "4"], r"unknown flag --cql-actoins \(did you mean '--cql-actions'\?\)"),
        (["--offline.updates", "1"], r"does not use section 'offline'"),
        (["stray"], r"unexpected argument 'stray'"),
        (["--gamma", "much"], r"calql.gamma is 'much'; it must be a number"),
        (["--gamma", "true"], r"calql.gamma is True; it must be a number"),
        (["--gamma"], r"calql.gamma is True"),
        (["--cql_actions", "2.5"], r"calql.cql_actions is 2.5; it must be a whole number"),
        (["--cql_actions", ".inf"], r"calql.cql_actions is inf; it must be a whole number"),
        (["--cql_actions", "null"], r"calql.cql_actions is None; it must be a whole number"),
        (["--calibrate", "1"], r"calql.calibrate is 1; it must be true or false"),
        (["--calibrate", "maybe"], r"calql.calibrate is 'maybe'"),
        (["--encoder", "resnet81"], r"network.encoder is 'resnet81'; it must be one of .*did you mean 'resnet18'"),
        (["--encoder", "[cnn]"], r"network.encoder"),
        (["--channels", "8,x"], r"network.channels\[1\] is 'x'; it must be a whole number"),
        (["--batch", "1"], r"unknown flag|--online.batch"),
        (["--config"], r"--config"),
        (["--gamma", "1"], r"calql.gamma is 1; it must be 0 or more and 0.99999 or less"),
        (["--initial-temperature", "0"], r"calql.initial_temperature is 0; it must be 1e-08 or more"),
        (["--utd", "inf"], r"online.utd is inf; it must be 0 or more and 1000 or less"),
        (["--utd", "nan"], r"online.utd is nan"),
        (["--strides", "2,0"], r"network.strides is \[2, 0\]; it must be 1 or more"),
    ],
)
def test_wrong_flags_are_one_line(words, text):
    if words == ["--batch", "1"]:
        asked = lambda: args(*words, sections=("offline", "online"))  # noqa: E731
        text = r"--batch could be --offline.batch or --online.batch"
    else:
        asked = lambda: args(*words)  # noqa: E731
    with pytest.raises(UserError, match=text) as caught:
        asked()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("calqul: {gamma: 1}", r"unknown section 'calqul' \(did you mean 'calql'\?\)"),
        ("calql: {gama: 1}", r"calql.gama: no such option .*did you mean 'gamma'"),
        ("calql: {gamma: high}", r"calql.gamma is 'high'; it must be a number"),
        ("calql: {gamma: [1]}", r"calql.gamma is \[1\]; it must be a number"),
        ("calql: {calibrate: yes please}", r"calql.calibrate"),
        ("network: {channels: {a: 1}}", r"network.channels"),
        ("calql: 3", r"expected sections"),
        ("- 1", r"expected sections"),
        ("just text", r"expected sections"),
        ("calql: {gamma: 0.9", r"not YAML"),
        ("a: b: c", r"not YAML"),
        ("!!python/object/apply:os.system ['true']", r"not YAML"),
        ("\x00", r"not YAML"),
        ("offline: {updats: 1}", r"offline.updats.*did you mean 'updates'"),  # checked though this command skips it
        ("calql: {1: 2}", r"calql\.1: no such option"),
        ("calql:\n  gamma: 0.9\n  utd: 1\n  gamma: 0.8", r"yaml: the key 'gamma' appears twice, in lines 2 and 4"),
        ("calql: {}\noffline: {}\ncalql: {}", r"yaml: the key 'calql' appears twice, in lines 1 and 3"),
        ("env:\n axes:\n  x: {low: 0,\n   low: 1}", r"yaml: the key 'low' appears twice, in lines 3 and 4"),
        ("network: {}\ncalql:\n# all of it\noffline: {}", r"section 'calql' is empty: remove it, or"),
        ("env: {cameras: {no: {device: 0}}}", r"line 1: the key `no` is False in YAML; put it in quotes"),
        ("robot:\n  robot_name: no", r"robot.robot_name is False; it must be a text \(yes, no, on, off.*in quotes\)"),
        ("robot: {robot_name: 1.10}", r"robot.robot_name is 1.1; it must be a text \(put it in quotes\)"),
        ("learner: {bf16: off}", r"learner.bf16 is False; it must be one of off, encoder, all \(yes, no, on, off"),
        ("robot: {robot_name: 010}", r"line 1: 010 is 8 in YAML; write 8, or '010' for the text"),
        ("offline: {updates: 0100}", r"line 1: 0100 is 64 in YAML; write 64"),
        ("collect: {listen: 1:30}", r"line 1: 1:30 is 90 in YAML"),
        ("calql: {target_entropy: .nan}", r"calql.target_entropy is nan; it must be a finite number"),
        ("calql: {cql_clip_low: .nan}", r"calql.cql_clip_low is nan; it must be a finite number"),
        ("reward: {scale: .inf}", r"reward.scale is inf; it must be a finite number"),
        ("robot: {hz: .inf}", r"robot.hz is inf; it must be a finite number"),
        ("1: {}", r"unknown section '1'"),
    ],
)
def test_wrong_files_are_one_line_that_names_them(yaml, content, text):
    path = yaml(content, "my_settings.yaml")
    with pytest.raises(UserError, match=text) as caught:
        args("--config", path)
    assert "my_settings.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: {c: [1, 2.5, -.inf, 0x1F, 0, 0.5, -0.5, 1e3]}",
        "&x a: {b: no}",
        "base: &b {k: 1}\nmore: {<<: *b, k: 2}",
    ],
)
def test_yaml_that_is_as_it_looks_reads_as_ever(text):
    assert yaml_file.loads(text, "x") == pyyaml.safe_load(text)


def test_a_date_is_a_text():
    assert yaml_file.loads("run: 2026-01-02", "x") == {"run": "2026-01-02"}


def test_every_config_of_ours_reads_as_ever():
    root = Path(__file__).parents[2]
    for path in [*root.glob("configs/**/*.yaml"), *root.glob("tools/learning/suites/*.yaml")]:
        assert yaml_file.load(path) == pyyaml.safe_load(path.read_text()), path


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a,b", ["a", "b"]),
        ("[a, b]", ["a", "b"]),
        ("", []),
        ("'demos/a,b', c", ["demos/a,b", "c"]),
        ('["demos/a,b",c]', ["demos/a,b", "c"]),
        ("bob's, c", ["bob's", "c"]),
        ("demos[1],c", ["demos[1]", "c"]),
    ],
)
def test_lists_in_flags(text, items):
    assert coerce(Typed(text), list[str], "x") == items


def test_a_bare_list_is_taken():
    places = [{"x": 0.5}, {"x": 0.6}]
    assert build(envs.options("real"), {"via": places}).via == places
    assert coerce(Typed("[{x: 0.5}, {x: 0.6}]"), list, "x") == places


def test_an_octal_number_in_a_flag_is_refused():
    with pytest.raises(UserError, match=r"calql\.gamma: line 1: 010 is 8 in YAML"):
        args("--gamma", "010")
    assert args("--gamma", "0.10").section("calql").gamma == 0.1


def test_files_that_cannot_be_read_are_named(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            args("--config", str(path))
    (tmp_path / "latin.yaml").write_bytes("calql: ü".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.yaml: not YAML"):
        args("--config", str(tmp_path / "latin.yaml"))


@pytest.mark.parametrize("content", ["", "# nothing", "calql: {}", "calql: {gamma: 0.95}\noffline: {updates: 5}"])
def test_files_may_say_little_or_serve_other_commands(yaml, content):
    assert args("--config", yaml(content)).section("calql") == CalQLConfig()


def test_env_name_and_options(yaml):
    assert args(env=True).env() == ("sim", {"task": "Lift", "size": 64, "cameras": ["front"]})
    assert args("--task", "Door", "--env.size", "84", env=True).env()[1] == {
        "task": "Door",
        "size": 84,
        "cameras": ["front"],
    }
    assert args("--env", "fake", "--length", "3", env=True).env() == ("fake", {"length": 3})
    path = yaml("env: {name: sim, task: Stack, size: 32}")
    assert args("--config", path, "--size", "16", env=True).env()[1] == {
        "task": "Stack",
        "size": 16,
        "cameras": ["front"],
    }
    assert args("--config", path, "--env", "fake", env=True).env() == ("fake", {"length": 10})
    sized, named = yaml("env: {size: 32}", "size.yaml"), yaml("env: {name: sim, task: Door}", "named.yaml")
    assert args("--config", sized, "--config", named, env=True).env()[1]["size"] == 32
    other = yaml("env: {name: fake}", "other.yaml")
    assert args("--config", sized, "--config", other, env=True).env() == ("fake", {"length": 10})
    recorded = EnvRecord("sim", {"task": "Door", "size": 48})
    assert args("--size", "16", env=True).env(recorded)[1] == {"task": "Door", "size": 16, "cameras": ["front"]}


def test_flags_of_the_recorded_environment_work_without_naming_it():
    recorded = EnvRecord("fake", {"length": 7})
    asked = args("--length", "3", env=True, recorded=lambda flags: recorded)
    assert asked.env() == ("fake", {"length": 3}) and asked.recorded == recorded
    assert args(env=True, recorded=lambda flags: recorded).env() == ("fake", {"length": 7})
    assert args("--env", "sim", "--size", "3", env=True, recorded=lambda flags: recorded).env()[0] == "sim"
    with pytest.raises(UserError, match="unknown flag --size"):
        args("--size", "3", env=True, recorded=lambda flags: recorded)


def test_a_recorded_environment_is_checked_wherever_it_is_used():
    record = EnvRecord("gym:os:Ant-v5")
    with pytest.raises(UserError, match="--env gym:os:Ant-v5"):
        args(env=True, recorded=lambda flags: record)
    with pytest.raises(UserError, match="--env gym:os:Ant-v5"):
        args(env=True).env(record)
    with pytest.raises(UserError, match="malformed"):
        args(env=True).env(EnvRecord.from_dict({"name": "fake", "options": 5}))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--env", "simm"], "no environment 'simm'"),
        (["--env", "fake", "--task", "Lift"], "unknown flag --task"),
        (["--tsk", "Lift"], "did you mean '--task'"),
        (["--size", "big"], "size is 'big'; it must be a whole number"),
    ],
)
def test_wrong_env_options(words, text):
    with pytest.raises(UserError, match=text):
        args(*words, env=True).env()


def test_wrong_env_options_in_a_file_are_named(yaml):
    with pytest.raises(UserError, match=r"env \(sim\) option siz: no such option .*did you mean 'size'"):
        args("--config", yaml("env: {siz: 3}"), env=True).env()


def test_own_flags_of_a_command():
    asked = args("--out", "x", "--gamma", "0.5", add_flags=lambda parser: parser.add_argument("--out"))
    assert asked.flags.out == "x" and asked.section("calql").gamma == 0.5


def test_help_fits_a_screen(capsys):
    with pytest.raises(SystemExit) as caught:
        args("--help", env=True)
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "what it does" in said and "--config" in said and "--env" in said and len(said.splitlines()) <= 24


def test_help_config_lists_every_field_with_the_values_in_force(capsys):
    with pytest.raises(SystemExit) as caught:
        args("--gamma", "0.123", "--help-config", env=True)
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for section in ("calql", "network", "online", "link"):
        for name in SECTIONS[section].__dataclass_fields__:
            assert f"  {name}:" in said
    assert "0.123" in said and "env (sim):" in said and "task:" in said


def test_every_field_has_help_and_a_default_of_its_type():
    for name, kind in {name: section_class(name) for name in (*SECTIONS, *OTHER_SECTIONS)}.items():
        default = kind()
        for key, field_ in kind.__dataclass_fields__.items():
            assert field_.metadata.get("help"), f"{name}.{key}"
        assert build(kind, {key: getattr(default, key) for key in kind.__dataclass_fields__}) == default


def test_build_and_coerce():
    assert coerce("1e-4", float, "x") == 1e-4
    assert coerce(3.0, int, "x") == 3 and type(coerce(3.0, int, "x")) is int
    assert coerce(2**60 + 1, int, "x") == 2**60 + 1
    assert coerce("a", Literal["a", "b"], "x") == "a"
    assert coerce(None, float | None, "x") is None and coerce("2", float | None, "x") == 2.0
    with pytest.raises(UserError, match=r"where\.sise.*did you mean 'size'"):
        build(SimOptions, {"sise": 1}, "where.")


def test_nearest():
    assert nearest("gama", ["gamma", "critics"]) == " (did you mean 'gamma'?)"
    assert nearest("zzz", ["gamma"]) == ""


def run_main(body, *argv):
    source = f"from agent import cli\nfrom agent.spec import UserError\ndef main(argv):\n    {body}\ncli.run(main)"
    return subprocess.run([sys.executable, "-c", source, *argv], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise UserError('no such thing: x')", 2, "error: no such thing: x\n"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_exit_codes(body, code, error):
    done = run_main(body)
    assert (done.returncode, done.stderr) == (code, error)


def test_another_exception_is_a_bug_and_keeps_its_traceback():
    done = run_main("1 / 0")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and "Traceback" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_runs_the_finally_blocks_and_is_the_exit_code(number):
    body = "import time\n    try: print('ready', flush=True); time.sleep(20)\n    finally: print('tidied', flush=True)"
    source = f"from agent import cli\ndef main(argv):\n    {body}\ncli.run(main)"
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, number)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 128 + number and said == "tidied\n"


def test_a_closed_pipe_is_not_a_traceback():
    body = "[print('x' * 1000) for _ in range(10_000)]"
    source = f"from agent import cli\ndef main(argv):\n    {body}\ncli.run(main)"
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(10) == 141


@pytest.mark.parametrize("body", ["print('a line')", "print('a line'); raise SystemExit(0)"])
def test_a_pipe_that_closed_before_the_first_line_is_silent(body):
    """What is printed stays in a buffer until the end: `--help | head -0`."""
    source = f"import sys\nfrom agent import cli\ndef main(argv):\n    sys.stdin.read(); {body}\ncli.run(main)"
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", source], text=True, **streams)
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == "" and process.wait(10) == 141


def test_another_broken_pipe_is_an_error():
    done = run_main("raise BrokenPipeError(32, 'a socket')")
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize("stops", [True, False])
def test_a_terminal_that_closes_does_not_stop_what_is_written_then(tmp_path, stops):
    """SIGHUP from the kernel, and then output to a terminal that is no more."""
    wait = "while not stop(): time.sleep(0.01)" if stops else "time.sleep(30)"
    body = f"""
import contextlib, pathlib, sys, time
from agent import cli
def main(argv):
    with cli.Stop() if {stops} else contextlib.nullcontext() as stop:
        try:
            print('ready', flush=True)
            {wait}
        finally:
            print('one more', flush=True)
            print('line', file=sys.stderr, flush=True)
            pathlib.Path(argv[0]).write_text('saved')
    return stop.exit_code
cli.run(main)"""
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", body, tmp_path / "checkpoint"], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while not shown.endswith(b"\n"):
        shown += os.read(terminal, 100)
    assert shown == b"ready\r\n"
    os.close(terminal)
    assert process.wait(10) == 129 and (tmp_path / "checkpoint").read_text() == "saved"


@pytest.mark.parametrize("block", ["with cli.Stop() as stop:", "if True:"])
def test_a_second_sighup_does_not_interrupt_what_the_first_began(block):
    """A terminal that closes sends two: the kernel's, and the shell's."""
    body = f"""
import os, signal
from agent import cli
def main(argv):
    try:
        {block}
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        os.kill(os.getpid(), signal.SIGHUP)
        print('tidied')
    return stop.exit_code
cli.run(main)"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (129, "tidied\n", "")


def test_nohup_is_respected(tmp_path):
    body = "import time\n    with cli.Stop() as stop: print('ready', flush=True); time.sleep(0.5); return int(stop())"
    source = f"from agent import cli\ndef main(argv):\n    {body}\ncli.run(main)"
    process = subprocess.Popen(["nohup", sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(10) == 0


def test_a_config_that_has_moved_is_named(tmp_path):
    (tmp_path / "configs" / "presets").mkdir(parents=True)
    (tmp_path / "configs" / "presets" / "cql.yaml").write_text("calql: {gamma: 0.9}\n")
    for old in ("configs/cql.yaml", "configs/robots/cql.yaml"):
        with pytest.raises(UserError, match=r"cql.yaml: no such file \(did you mean .*presets/cql.yaml\?\)$"):
            cli.parse(["--config", str(tmp_path / old)], "", ["calql"])
    with pytest.raises(UserError, match=r"/none.yaml: no such file$"):
        cli.parse(["--config", str(tmp_path / "none.yaml")], "", ["calql"])


def test_shipped_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/quickstart.yaml", "quickstart.yaml", "presets/cql.yaml", "configs/presets/cql.yaml"):
        assert cli.read_yaml(name)
    with pytest.raises(UserError, match=r"^configs/none.yaml: no such file$"):
        cli.read_yaml("configs/none.yaml")
    (tmp_path / "quickstart.yaml").write_text("calql: {gamma: 0.5}\n")  # one's own comes first
    assert cli.read_yaml("quickstart.yaml") == {"calql": {"gamma": 0.5}}


def test_run_leaves_the_parser_to_main(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "--gamma", "0.5"])
    monkeypatch.setattr(signal, "signal", lambda *ignored: None)
    seen = []
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda argv: seen.append(argv))
    assert caught.value.code == 0 and seen == [["--gamma", "0.5"]]


TOOLS = Path(__file__).parents[2] / "tools"
COMMANDS = ["agent.pretrain", "agent.learner", "robot_server"] + [
    f"tools.{path.parent.name if path.stem == '__main__' else path.stem}"
    for path in sorted([*TOOLS.glob("*.py"), *TOOLS.glob("*/__main__.py")])
    if "cli.run(main)" in path.read_text()
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_python_without_the_packages_says_which_to_use(command):
    """-S -I: this Python without its site-packages, as the system's is."""
    start = "import sys, runpy; sys.path.insert(0, '.'); sys.argv = ['x', '--help']"
    source = f"{start}; runpy.run_module('{command}', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", source], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: ") and "has no package '" in line, done.stderr
    assert "use .venv/bin/python" in line or "uv pip install" in line
