import threading

import numpy as np
import pytest

from agent import cli
from agent.data.episode_file import read_episode
from agent.spec import Episode, UserError
from tools.recording import writer
from tools.recording.writer import Writer


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(writer, "RETRY_S", 0)


@pytest.fixture
def episode():
    one, no = np.ones(1), np.zeros(1, bool)
    states = {"proprio": np.ones((2, 3), np.float32)}
    return Episode(states, one[:, None].astype(np.float32), one.astype(np.float32), ~no, no, ~no,
                   np.zeros(1, np.int64), no, one, one.astype(np.float32), one.astype(np.float32))  # fmt: skip


def test_put_does_not_wait_and_settle_does(tmp_path, episode, monkeypatch):
    may_write, real = threading.Event(), writer.write_episode
    monkeypatch.setattr(writer, "write_episode", lambda *a: may_write.wait(60) and real(*a))
    path = tmp_path / "episode_000000.hdf5"
    with Writer() as writing:
        writing.put(path, episode)
        assert not path.exists()
        may_write.set()
        writing.settle()
        assert read_episode(path).equals(episode)
        writing.settle()


def test_leaving_the_block_writes_what_was_put(tmp_path, episode):
    with Writer() as writing:
        writing.put(tmp_path / "a.hdf5", episode)
    assert read_episode(tmp_path / "a.hdf5").equals(episode)


def failing(monkeypatch, times):
    """write_episode finds the disk full `times` times."""
    left, real = [times], writer.write_episode

    def write(path, episode):
        if left[0]:
            left[0] -= 1
            raise OSError(28, "No space left on device")
        real(path, episode)

    monkeypatch.setattr(writer, "write_episode", write)


def test_a_program_stops_at_a_full_disk(tmp_path, episode, monkeypatch):
    failing(monkeypatch, 1)
    with Writer() as writing:
        writing.put(tmp_path / "a.hdf5", episode)
        with pytest.raises(UserError, match=r"a\.hdf5: cannot be written: No space left on device$"):
            writing.settle()


def test_with_a_person_it_is_kept_until_the_disk_takes_it(tmp_path, episode, monkeypatch):
    failing(monkeypatch, 3)
    lines = []
    with Writer() as writing:
        writing.put(tmp_path / "a.hdf5", episode)
        writing.settle(cli.Stop(), lines.append)
    assert read_episode(tmp_path / "a.hdf5").equals(episode)
    assert len(lines) == 1 and "a.hdf5: cannot be written: No space left on device; the episode is in mem" in lines[0]


def test_a_person_may_give_it_up(tmp_path, episode, monkeypatch):
    stop = cli.Stop()
    failing(monkeypatch, 99)
    with Writer() as writing:
        writing.put(tmp_path / "a.hdf5", episode)
        with pytest.raises(UserError, match="the episode was not saved"):
            writing.settle(stop, lambda line: setattr(stop, "asked", True))


def test_who_had_stopped_before_does_not_give_it_up_by_that(tmp_path, episode, monkeypatch):
    stop = cli.Stop()
    stop.asked = True
    failing(monkeypatch, 3)
    with Writer() as writing:
        writing.put(tmp_path / "a.hdf5", episode)
        writing.settle(stop, lambda line: None)
    assert (tmp_path / "a.hdf5").exists()


def test_but_a_second_ctrl_c_does(tmp_path, episode, monkeypatch):
    stop = cli.Stop()
    stop.asked = True
    failing(monkeypatch, 99)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.time, "sleep", interrupted)
    with Writer() as writing:
        writing.put(tmp_path / "a.hdf5", episode)
        with pytest.raises(UserError, match="was not saved"):
            writing.settle(stop, lambda line: None)


def test_an_episode_that_is_lost_to_another_error_is_named(tmp_path, episode, monkeypatch, capsys):
    failing(monkeypatch, 1)
    with pytest.raises(ZeroDivisionError), Writer() as writing:
        writing.put(tmp_path / "a.hdf5", episode)
        raise ZeroDivisionError
    assert "a.hdf5: was not written: [Errno 28] No space left on device" in capsys.readouterr().err
    with pytest.raises(UserError), Writer() as writing:  # said once
        failing(monkeypatch, 1)
        writing.put(tmp_path / "a.hdf5", episode)
        writing.settle()
    assert not capsys.readouterr().err
