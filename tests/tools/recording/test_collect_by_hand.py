"""tools.collect as a person has it: a real process in a pseudo-terminal, driven by keys."""

import os
import resource
import signal
import termios

import numpy as np
import pytest
from person import Session

from agent.data.episode_file import episode_paths, read_episode
from envs import make

FAKE = ["--env", "fake", "--horizon", 200, "--device", "keyboard"]


@pytest.fixture
def start():
    """start(out, *flags): a recording session, once it has shown the keys."""
    sessions = []

    def begin(out, *flags, **options):
        sessions.append(Session("tools.collect", "--out", out, *flags, **options))
        return sessions[-1]

    yield begin
    for session in sessions:
        session.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def numbers(text):
    return np.array([float(word) for word in text.split()])


def reach(session, seed, mark):
    """Drive the fake environment's point to its target, step by step, and give the word."""
    env = make("fake")
    env.reset(seed=seed)
    while not (status := session.status())["state"].startswith("ended"):
        way = env.target - numbers(status["proprio"])[:2]
        axis = int(np.abs(way).argmax())
        if abs(way[axis]) > 0.06:
            session.press(("ws", "ad")[axis][int(way[axis] < 0)])
    session.press(mark)
    return status


def test_keys_record_a_success_that_starts_with_the_first_motion(tmp_path, start):
    session = start(tmp_path, *FAKE, "--episodes", 1)
    assert "away from the robot's base" in session.until("q, Ctrl-C")
    assert session.until_state("waiting")["step"] == "0"
    status = reach(session, 0, "\r")
    assert status["state"] == "ended (success)" and status["return"] == "1"
    assert "episode 0: " in session.until("recorded 1 of 1 episode") and session.end() == 0
    episode = read_episode(tmp_path / "episode_000000.hdf5")
    assert episode.succeeded and episode.actions[0].any() and len(episode) == int(status["step"])
    assert episode.meta["policy"] == "keyboard" and episode.meta["seed"] == 0 and "marked" not in episode.meta
    assert termios.tcgetattr(session.theirs) == session.before


def test_marks_discard_and_go_on_another_day(tmp_path, start):
    session = start(tmp_path, *FAKE)
    for keys, says in ((" y", "episode 0: "), ("a\x7f", "episode 1: discarded, once more"), ("dn", "episode 1: ")):
        assert "open" in session.until_state("waiting")  # each time
        session.press(keys[0])
        session.until_state("recording")
        session.press(keys[1])
        session.until(says)
    assert session.until_state("waiting")["kept"] == 2
    session.press("q")
    assert session.end() == 0 and "stopped: recorded 2 of 30 episodes" in session.text
    again = start(tmp_path, *FAKE, "--episodes", 1)
    again.until_state("waiting")
    again.press("w")
    again.until_state("recording")
    again.press("\r")
    assert again.end() == 0
    assert names(tmp_path) == [f"episode_{k:06d}.hdf5" for k in range(3)]
    success, failure, unmarked = map(read_episode, episode_paths([tmp_path]))
    assert success.succeeded and success.meta["marked"] == "success" and success.meta["env_success"] is False
    assert not failure.succeeded and failure.meta["marked"] == "failure" and "marked" not in unmarked.meta
    assert [e.meta["seed"] for e in (success, failure, unmarked)] == [0, 1, 2]


@pytest.mark.parametrize("running", [True, False])
def test_kill_9_costs_the_running_episode_only(tmp_path, start, running):
    session = start(tmp_path, *FAKE)
    for number in range(2):
        session.until_state("waiting")
        session.press("w")
        session.until_state("recording")
        session.press("y")
        session.until(f"episode {number}: ")
    if running:
        session.until_state("waiting")
        session.press("w")
        session.until_state("recording")
    session.process.kill()
    session.process.wait()
    kept = [read_episode(path) for path in episode_paths([tmp_path])]
    assert names(tmp_path) == ["episode_000000.hdf5", "episode_000001.hdf5"] and all(e.succeeded for e in kept)
    again = start(tmp_path, *FAKE)
    again.until_state("waiting")
    again.press("w")
    again.until_state("recording")
    again.press("n")
    again.until("episode 2: ")
    again.until_state("waiting")
    again.press("q")
    assert again.end() == 0 and names(tmp_path)[2:] == ["episode_000002.hdf5"]


def test_a_line_that_drops_costs_the_running_episode_only(tmp_path, start):
    session = start(tmp_path, *FAKE)
    session.until_state("waiting")
    session.press("w")
    session.until_state("recording")
    session.press("y")
    session.until("episode 0: ")
    session.hang_up()
    assert session.process.wait(60) > 0  # an error that nobody can read, but no signal
    assert names(tmp_path) == ["episode_000000.hdf5"]


def test_a_full_disk_stops_the_recording_and_keeps_the_episode_until_there_is_room(tmp_path, start):
    session = start(tmp_path, *FAKE, "--episodes", 1, file_bytes=0)
    session.until_state("waiting")
    session.press("w")
    session.until_state("recording")
    session.press("y")
    line = session.until("Ctrl-C discards it")
    assert "episode_000000.hdf5: cannot be written: File too large" in line and names(tmp_path) == []
    resource.prlimit(session.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert session.end() == 0 and read_episode(tmp_path / "episode_000000.hdf5").succeeded


def test_who_gives_up_is_told_what_was_lost(tmp_path, start):
    session = start(tmp_path, *FAKE, "--episodes", 1, file_bytes=0)
    session.until_state("waiting")
    session.press("w")
    session.until_state("recording")
    session.press("y")
    session.until("Ctrl-C discards it")
    session.press("\x03")
    assert session.end() == 2 and "episode_000000.hdf5: cannot be written" in session.text
    assert "the episode was not saved" in session.text
    assert termios.tcgetattr(session.theirs) == session.before and names(tmp_path) == []


@pytest.mark.parametrize("how", ["key", "signal"])
def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path, start, how):
    session = start(tmp_path, *FAKE)
    session.until_state("waiting")
    session.press("w")
    session.until_state("recording")
    if how == "key":
        session.press("\x03")
    else:
        os.kill(session.process.pid, signal.SIGINT)
    assert session.end() == 130 and "stopped: no episode recorded" in session.text
    assert termios.tcgetattr(session.theirs) == session.before and names(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_episode_is_kept_when_nobody_at_the_keyboard_asked_for_the_end(tmp_path, start, number):
    session = start(tmp_path, *FAKE)
    session.until_state("waiting")
    session.press("w")
    session.until_state("recording")
    os.kill(session.process.pid, number)
    assert session.end() == 128 + number and "stopped: recorded 1 of" in session.text
    episode = read_episode(tmp_path / "episode_000000.hdf5")
    assert episode.truncated[-1] and "marked" not in episode.meta
    assert termios.tcgetattr(session.theirs) == session.before


def test_an_episode_is_kept_when_the_terminal_closes(tmp_path, start):
    session = start(tmp_path, *FAKE)
    session.until_state("waiting")
    session.press("w")
    session.until_state("recording")
    session.hang_up()
    assert session.process.wait(30) == 129
    assert read_episode(tmp_path / "episode_000000.hdf5").truncated[-1] and len(names(tmp_path)) == 1


def test_an_action_space_that_no_hand_drives_is_refused(tmp_path, start):
    session = start(tmp_path / "new", "--env", "gym:Pendulum-v1", "--device", "keyboard")
    assert session.end() == 2 and "devices move a hand" in session.text and not (tmp_path / "new").exists()
    assert termios.tcgetattr(session.theirs) == session.before


def test_a_narrow_terminal_has_one_status_line(tmp_path, start):
    session = start(tmp_path, *FAKE, columns=40)
    session.until("stop recording\r\n")
    session.until_state("waiting")
    shown = session.look()
    lines = [line for line in shown.split("\r") if "kept of" in line and line.endswith("\x1b[K")]
    assert lines and all(len(line.removesuffix("\x1b[K")) < 40 for line in lines)
    assert "\n" not in shown[shown.index("kept of") :]
    session.press("q")
    assert session.end() == 0


def test_cameras_in_the_terminal_stay_above_the_status_line(tmp_path, start):
    session = start(tmp_path, *FAKE, "--view", "terminal", columns=60)
    session.until("stop recording\r\n")
    session.until("waiting")
    session.until("waiting")
    lines = session.until("▀\x1b[0m\x1b[K\r\n\x1b")  # the first line of the second picture or later
    up = int(lines.rsplit("\r\x1b[", 1)[1].split("A")[0])
    picture = session.until("0 kept of 30").split("\r\n")
    assert len(picture) == up and all(line.count("▀") == 44 for line in picture[:-1])  # 22 lines of 24: 44 pixels
    session.press("q")
    assert session.end() == 0


def test_a_device_needs_a_terminal_and_a_window_a_display(tmp_path, refused, monkeypatch, start):
    assert "needs a terminal" in refused("collect", *FAKE, "--out", tmp_path / "new")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    session = start(tmp_path / "new", *FAKE, "--view", "window")
    assert session.end() == 2 and "there is no display here" in session.text
    assert termios.tcgetattr(session.theirs) == session.before and not (tmp_path / "new").exists()


def test_a_person_lifts_the_cube(tmp_path, start):
    """robosuite's Lift by keys alone: over the cube, down, close, up."""
    flags = ["--env", "sim", "--task", "Lift", "--image-size", 32, "--horizon", 600, "--privileged", "true", "--hz", 20]
    session = start(tmp_path, *flags, "--device", "keyboard", "--episodes", 1)
    phase, waited = "over", 0
    while not (status := session.status())["state"].startswith("ended"):
        hand, cube = numbers(status["proprio"]), numbers(status["object"])
        if phase == "over":
            target = cube + [0, 0, 0.05]
            phase = "down" if np.abs(target - hand)[:2].max() < 0.012 else phase
        elif phase == "down":
            target = cube - [0, 0, 0.005]
            if hand[2] - target[2] < 0.01:
                phase = "close"
                session.press(" ")
        elif phase == "close":
            target, waited = hand, waited + 1
            phase = "up" if waited > 15 else phase
        else:
            target = hand + [0, 0, 0.1]
        axis = int(np.abs(target - hand).argmax())
        if abs(target - hand)[axis] > 0.008:
            session.press(("ws", "ad", "rf")[axis][int((target - hand)[axis] < 0)])
    assert status["state"] == "ended (success)"
    session.press("\r")
    assert session.end() == 0, session.text
    episode = read_episode(tmp_path / "episode_000000.hdf5")
    assert episode.succeeded and episode.rewards[-1] == 1 and episode.actions.shape[1] == 4
    assert episode.actions[:, 3].min() == -1 and episode.actions[-1, 3] == 1
