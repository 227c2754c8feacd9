"""What the learner has not acknowledged outlives the robot server."""

import dataclasses

import numpy as np
import pytest

from agent.episode_file import episode_paths, read_episode, write_episode
from agent.spec import Episode, Spec, UserError


def test_what_is_not_delivered_waits_in_the_spool(bench, episode_steps, empty, tmp_path):
    """Learner gone; one episode complete, one running. The next robot server delivers both, under their boot."""
    mailbox, link = bench.pair()
    bench.acknowledge = False
    first, second = episode_steps(3, seed=1), episode_steps(6, seed=2)
    bench.play(link, first, {"seed": 11})
    link.begin({"seed": 12})
    for transition in second[:4]:
        link.send(transition)
    bench.turn(lambda: mailbox.steps == 7)
    bench.episodes.clear()
    bench.close(mailbox)
    link.cut(second[4].observation)
    assert link.close(timeout_s=0.05) == 2
    bench.links.remove(link)
    names = [path.name for path in episode_paths([bench.spool])]
    assert names == [f"robot-{link.boot}-000000.hdf5", f"robot-{link.boot}-000001.hdf5"]
    cut = [*second[:3], dataclasses.replace(second[3], truncated=True, final_observation=second[4].observation)]
    assert bench.same(read_episode(bench.spool / names[1]), cut)

    bench.acknowledge = True
    bench.mailbox(mailbox.address)
    again = bench.link(mailbox.address)
    fresh = episode_steps(2, seed=3)
    bench.play(again, fresh)
    bench.turn(lambda: empty(again))
    expected = {("robot", link.boot, 0): first, ("robot", link.boot, 1): cut, ("robot", again.boot, 0): fresh}
    assert dict.fromkeys(bench.identities(bench.episodes)) == dict.fromkeys(expected)
    assert len(bench.episodes) == 3
    for identity, episode in zip(bench.identities(bench.episodes), bench.episodes, strict=True):
        assert bench.same(episode, expected[identity])
    assert {e.meta["number"]: e.meta["seed"] for e in bench.episodes if e.meta["boot"] == link.boot} == {0: 11, 1: 12}
    assert list(bench.spool.iterdir()) == []


def test_a_running_episode_that_the_learner_has_already_is_cut_once(bench, episode_steps, empty):
    """The learner lives on and holds all steps of the episode; the robot server is closed and started again."""
    mailbox, link = bench.pair()
    steps = episode_steps(6)
    link.begin()
    for transition in steps[:4]:
        link.send(transition)
    bench.turn(lambda: mailbox.steps == 4)
    assert link.close(timeout_s=0) == 1  # no observation after the last step: it is given up, its own is the final one
    bench.links.remove(link)
    again = bench.link(mailbox)
    bench.turn(lambda: empty(again))
    (episode,) = bench.episodes
    assert bench.same(
        episode, [*steps[:2], dataclasses.replace(steps[2], truncated=True, final_observation=steps[3].observation)]
    )
    assert mailbox.steps == 4 and list(bench.spool.iterdir()) == []


def test_episodes_of_one_run_are_kept_from_the_next_one(bench, episode_steps, empty):
    """The robot server lives on; another run's learner takes the address. What was held for the first one waits."""
    mailbox, link = bench.pair(run="a")
    bench.close(mailbox)
    held = episode_steps(3, seed=1)
    bench.play(link, held)
    link.begin()
    running = episode_steps(4, seed=2)
    link.send(running[0])
    other = bench.mailbox(mailbox.address, run="b")
    bench.turn(lambda: link.run == "b")
    for transition in running[1:]:
        link.send(transition)
    bench.turn(lambda: empty(link))
    assert bench.identities(bench.episodes) == [("robot", link.boot, 1)] and bench.same(bench.episodes[0], running)
    (path,) = bench.spool.iterdir()
    assert bench.same(read_episode(path), held) and read_episode(path).meta["run"] == "a"
    bench.close(link, other)
    back = bench.mailbox(mailbox.address, run="a")
    again = bench.link(back)
    bench.turn(lambda: empty(again) and len(bench.episodes) == 2)
    assert bench.same(bench.episodes[1], held) and list(bench.spool.iterdir()) == []


def test_what_has_ended_is_kept_until_it_is_acknowledged(bench, episode_steps, empty):
    mailbox, link = bench.pair()
    bench.acknowledge = False
    ended, running = episode_steps(3, seed=1), episode_steps(3, seed=2)
    bench.play(link, ended)
    link.begin()
    link.send(running[0])
    link.keep()
    (path,) = episode_paths([bench.spool])
    assert bench.same(read_episode(path), ended) and link.unkept == 1
    bench.turn(lambda: bench.episodes)
    mailbox.acknowledge(bench.episodes[0])
    bench.turn(lambda: not list(bench.spool.iterdir()))
    for transition in running[1:]:
        link.send(transition)
    bench.acknowledge = True
    bench.turn(lambda: empty(link))


def test_a_spool_that_cannot_be_written(bench, episode_steps, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"robot\.spool .*file: cannot be written"):
        bench.link("tcp://127.0.0.1:1", spool=tmp_path / "file")
    link = bench.link("tcp://127.0.0.1:1", spool=tmp_path / "gone")
    bench.play(link, episode_steps(3))
    (tmp_path / "gone").rmdir()
    (tmp_path / "gone").write_text("")  # nothing can be written there from now on, not even by root
    link.keep()
    assert link.unkept == 1 and "could not keep an episode" in caplog.text
    (tmp_path / "gone").unlink()
    link.keep()
    assert link.unkept == 0 and len(episode_paths([tmp_path / "gone"])) == 1


def test_the_spool_is_not_sent_twice(bench, episode_steps, empty):
    """The learner stored the episode, but its acknowledgement never came: the file is only deleted."""
    mailbox, link = bench.pair()
    bench.acknowledge = False
    bench.play(link, episode_steps(3))
    bench.turn(lambda: bench.episodes)
    assert link.close(timeout_s=0) == 1
    bench.links.remove(link)
    mailbox.acknowledge(bench.episodes[0])
    again = bench.link(mailbox)
    bench.turn(lambda: empty(again))
    assert len(bench.episodes) == 1 and mailbox.steps == 3 and list(bench.spool.iterdir()) == []


def test_close_delivers_while_the_learner_is_there(bench, episode_steps, tmp_path):
    """close() blocks, so the learner is another thread here."""
    import threading

    mailbox, link = bench.pair()
    link.begin()
    steps = episode_steps(5)
    for transition in steps[:3]:
        link.send(transition)
    link.cut(steps[3].observation)
    bench.links.remove(link)
    left = []
    closing = threading.Thread(target=lambda: left.append(link.close(5.0)))
    closing.start()
    bench.turn(lambda: left)
    closing.join()
    assert left == [0] and len(bench.episodes) == 1 and bench.episodes[0].truncated[-1]
    assert list(bench.spool.iterdir()) == []
    bench.turn(lambda: not mailbox.robots)  # it said BYE


def test_foreign_files_stay_in_the_spool(bench, episode_steps, empty, caplog):
    other = Spec({}, {"state": 2}, 2)
    step = dataclasses.replace(
        episode_steps(1)[0],
        observation={"state": np.zeros(2, np.float32)},
        final_observation={"state": np.zeros(2, np.float32)},
    )
    write_episode(
        bench.spool / "other-spec.hdf5", Episode.from_transitions([step], {"robot": "r", "boot": "b", "number": 0})
    )
    Episode.from_transitions([step]).check(other)
    write_episode(bench.spool / "no-identity.hdf5", Episode.from_transitions(episode_steps(2)))
    evil = {"robot": "../r", "boot": "b", "number": 0}
    write_episode(bench.spool / "evil-identity.hdf5", Episode.from_transitions(episode_steps(2), evil))
    (bench.spool / "damaged.hdf5").write_bytes(b"not HDF5")
    _, link = bench.pair()
    bench.play(link, episode_steps(2))
    bench.turn(lambda: empty(link))
    assert len(bench.episodes) == 1
    for name in ("other-spec", "no-identity", "evil-identity", "damaged"):
        assert (bench.spool / f"{name}.hdf5").exists() and name in caplog.text


def test_an_episode_without_steps_is_dropped(bench, episode_steps, empty):
    _, link = bench.pair()
    link.begin()
    link.cut(episode_steps(1)[0].observation)
    bench.play(link, episode_steps(2))
    bench.turn(lambda: empty(link))
    assert bench.identities(bench.episodes) == [("robot", link.boot, 1)]
