"""What the learner has not acknowledged outlives the robot server."""

import dataclasses
import errno
import shutil

import numpy as np
import pytest
from link_data import SPEC

from agent.data.episode_file import episode_paths, read_episode, read_head, write_episode
from agent.spec import Episode, UserError
from agent.wire.messages import unpack
from robot_server import outbox, spool


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
    assert names == [f"robot~{link.boot}~000000.hdf5", f"robot~{link.boot}~000001.hdf5"]
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
    (kept,) = [path.name for path in bench.spooled("**/") if path.is_file()]
    assert kept == f"robot~{again.boot}~000000.hdf5"  # in delivered/: it began before this boot had heard of a learner


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
    assert mailbox.steps == 4 and bench.spooled() == []


@pytest.mark.parametrize("restarted", [True, False])
def test_episodes_of_one_run_are_kept_from_the_next_one(bench, episode_steps, empty, restarted):
    """The robot server lives on; another run's learner takes the address. What belongs to the first one's run waits."""
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
    link.save()
    others = episode_steps(5, seed=3)
    bench.play(link, others)
    bench.turn(lambda: bench.episodes and empty(link))
    assert bench.identities(bench.episodes) == [("robot", link.boot, 2)] and bench.same(bench.episodes[0], others)
    assert bench.episodes[0].meta["run"] == "b" and link.backlog == 0
    kept = sorted(bench.spooled())
    assert [read_episode(path).meta["run"] for path in kept] == ["a", "a"]
    assert bench.same(read_episode(kept[0]), held) and bench.same(read_episode(kept[1]), running)
    bench.close(other)
    if restarted:
        bench.close(link)
    back = bench.mailbox(mailbox.address, run="a")
    again = bench.link(back) if restarted else link
    bench.turn(lambda: empty(again) and len(bench.episodes) == 3)
    assert bench.same(bench.episodes[1], held) and bench.same(bench.episodes[2], running)
    assert bench.spooled() == [] and not again.counts


def test_what_has_ended_is_kept_until_it_is_acknowledged(bench, episode_steps, empty):
    mailbox, link = bench.pair()
    bench.acknowledge = False
    ended, running = episode_steps(3, seed=1), episode_steps(3, seed=2)
    bench.play(link, ended)
    link.begin()
    link.send(running[0])
    link.save()
    (path,) = episode_paths([bench.spool])
    assert bench.same(read_episode(path), ended) and link.unsaved == 1
    bench.turn(lambda: bench.episodes)
    mailbox.acknowledge(bench.episodes[0])
    bench.turn(lambda: not list(bench.spool.glob("*.hdf5")))
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
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "gone").write_text("")  # nothing can be written there from now on, not even by root
    link.save()
    assert link.unsaved == 1 and "could not save an episode" in caplog.text and "cannot be written" in link.full
    (tmp_path / "gone").unlink()
    link.save()
    assert link.unsaved == 0 and link.full == "" and len(episode_paths([tmp_path / "gone"])) == 1


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
    assert len(bench.episodes) == 1 and mailbox.steps == 3 and bench.spooled() == []


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
    assert bench.spooled() == []
    bench.turn(lambda: not mailbox.robots)  # it said BYE


def test_foreign_files_stay_in_the_spool(bench, episode_steps, empty, caplog):
    vector = {"state": np.zeros(2, np.float32)}
    small = dataclasses.replace(episode_steps(1)[0], observation=vector, final_observation=vector)
    identity = {"robot": "robot", "boot": "b", "number": 0}
    two = episode_steps(2)
    for name, steps, meta in [
        ("other-spec", [small], identity),
        ("no-identity", two, {}),
        ("evil-identity", two, {**identity, "robot": "../r"}),
        ("other-robot", two, {**identity, "robot": "arm2"}),
    ]:
        write_episode(bench.spool / f"{name}.hdf5", Episode.from_transitions(steps, meta))
    _, link = bench.pair()
    bench.play(link, episode_steps(2))
    bench.turn(lambda: empty(link))
    assert len(bench.episodes) == 1
    for name in ("other-spec", "no-identity", "evil-identity"):
        assert (bench.spool / f"{name}.hdf5").exists() and name in caplog.text
    assert (bench.spool / "other-robot.hdf5").exists() and "1 episode of other robots" in caplog.text


def test_item_19_what_a_killed_robot_server_was_writing_is_cleared_away_and_others_is_not(bench):
    ours = [".robot~0a~000001.hdf5.7.part", ".robot-0123abcd-000001.hdf5.7.part"]  # the second of an earlier release
    others = [
        ".robot-2~deadbeef~000001.hdf5.7.part",
        ".robot-deadbeef-2~0a~000001.hdf5.7.part",
        ".robot-deadbeef-2-0123abcd-000001.hdf5.7.part",
        ".arm~0a~000001.hdf5.7.part",
    ]
    bench.spool.mkdir()
    for name in (*ours, *others):
        (bench.spool / name).write_bytes(b"half of a file")
    bench.pair()
    assert sorted(path.name for path in bench.spool.glob(".*.part")) == sorted(others)


@pytest.mark.parametrize("damage", ["foreign", "cut", "flipped"])
def test_damaged_files_of_the_spool_are_set_aside(bench, episode_steps, empty, caplog, damage):
    path, good = bench.spool / "robot-0a-000000.hdf5", episode_steps(4)
    write_episode(path, Episode.from_transitions(good, {"robot": "robot", "boot": "0a", "number": 0}))
    whole = path.read_bytes()
    place = whole.index(np.stack([step.action for step in good]).tobytes())
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    damaged = {"foreign": b"not HDF5", "cut": whole[: len(whole) // 2], "flipped": flipped}[damage]
    path.write_bytes(damaged)
    _, link = bench.pair()
    bench.play(link, good)
    bench.turn(lambda: empty(link))
    assert len(bench.episodes) == 1 and (bench.spool / "damaged" / path.name).read_bytes() == damaged
    assert path.name in caplog.text and not path.exists()


def die(bench, link):
    """As kill -9 does it: nothing is written, nothing is said."""
    if link.outbox.running and (journal := link.outbox.running.journal):
        journal.close(remove=False)
    link.connection.close(linger_ms=0)
    bench.links.remove(link)


@pytest.mark.parametrize("learner", ["stays", "dies", "never was"])
def test_a_robot_server_that_is_killed_leaves_its_running_episode(bench, episode_steps, empty, learner):
    """Whether the learner has received none, some or all of its steps, or is killed at the same moment."""
    steps = episode_steps(6)
    if learner == "never was":
        mailbox, link = None, bench.link("tcp://127.0.0.1:1")
    else:
        mailbox, link = bench.pair()
    bench.play(link, steps[:3], {"seed": 7})
    if mailbox:
        bench.turn(lambda: mailbox.steps == 3)
    for transition in steps[3:5]:
        link.send(transition)
    die(bench, link)
    if learner == "dies":
        bench.close(mailbox)
    if learner != "stays":
        mailbox = bench.mailbox()
    again = bench.link(mailbox)
    assert [path.suffix for path in bench.spooled()] == [".hdf5"]
    bench.turn(lambda: empty(again) and bench.episodes)
    (episode,) = bench.episodes
    cut = [*steps[:3], dataclasses.replace(steps[3], truncated=True, final_observation=steps[4].observation)]
    assert bench.same(episode, cut) and episode.meta["seed"] == 7 and episode.meta["boot"] == link.boot
    if learner == "never was":  # nothing proves whose learner it is that has it now
        assert [path.suffix for path in (bench.spool / "delivered").iterdir()] == [".hdf5"]
        shutil.rmtree(bench.spool / "delivered")
    assert mailbox.steps == (5 if learner == "stays" else 4) - (learner == "stays") and not bench.spooled()


@pytest.mark.parametrize("word", ["success", "failure", "discard"])
def test_a_robot_server_that_is_killed_keeps_the_verdict(bench, episode_steps, empty, word):
    """Killed after a person ended the episode, and before the spool had its file: the journal has the verdict."""
    steps, link = episode_steps(6), bench.link("tcp://127.0.0.1:1")
    bench.play(link, steps[:3], {"seed": 7})
    (journal,) = (out.journal for out in link.outbox.episodes.values())
    link.cut(steps[3].observation, word)
    journal.close(remove=False)
    link.connection.close(linger_ms=0)
    bench.links.remove(link)
    again = bench.link(bench.mailbox())
    bench.turn(lambda: empty(again) and bench.episodes)
    (episode,) = bench.episodes
    assert episode.meta["marked"] == word and episode.meta["seed"] == 7 and len(episode) == 3
    assert episode.succeeded == bool(episode.terminated[-1]) == (word == "success")


def test_a_journal_is_read_up_to_where_it_is_torn(bench, episode_steps):
    steps, link = episode_steps(6), bench.link("tcp://127.0.0.1:1")
    bench.play(link, steps[:5])
    die(bench, link)
    (path,) = bench.spooled()
    path.write_bytes(path.read_bytes()[:-3])  # the newest step was on its way
    again = bench.link("tcp://127.0.0.1:1")
    (path,) = bench.spooled()
    cut = [*steps[:2], dataclasses.replace(steps[2], truncated=True, final_observation=steps[3].observation)]
    assert again.backlog == 3 and bench.same(read_episode(path), cut)


def test_a_robot_server_that_is_killed_in_its_second_episode_leaves_that(bench, episode_steps):
    """The second one is written into the file of the first one's journal, and is shorter."""
    steps, link = episode_steps(9), bench.link("tcp://127.0.0.1:1")
    bench.play(link, steps)
    (first,) = bench.spool.glob("*.journal")
    file = first.stat().st_ino
    link.save()
    held = link.outbox._spool_bytes
    assert (
        sum(path.stat().st_size for path in bench.spooled())
        == held
        < sum(path.stat().st_size for path in bench.spool.iterdir())
    )
    bench.play(link, steps[:4])
    (second,) = bench.spool.glob("*.journal")
    assert second.stat().st_ino == file
    die(bench, link)
    again = bench.link("tcp://127.0.0.1:1")
    assert again.backlog == 9 + 3 and len(bench.spooled()) == 2
    cut = [*steps[:2], dataclasses.replace(steps[2], truncated=True, final_observation=steps[3].observation)]
    assert bench.same(read_episode(second.with_suffix(".hdf5")), cut)
    again.close(0)
    bench.links.remove(again)
    assert {path.suffix for path in bench.spool.iterdir()} == {".hdf5"}


def test_a_power_cut_does_not_bring_an_episode_back_under_the_name_of_the_next(bench, episode_steps, caplog):
    """The journal's new name is on the disk, what was written into it is not: it has the first steps of the earlier."""
    link = bench.link("tcp://127.0.0.1:1")
    link.begin()
    steps = episode_steps(9)
    for transition in steps[:5]:
        link.send(transition)
    (first,) = bench.spool.glob("*.journal")
    on_disk = first.read_bytes()
    for transition in steps[5:]:
        link.send(transition)
    link.save()
    bench.play(link, episode_steps(4, seed=1)[:3])
    (second,) = bench.spool.glob("*.journal")
    die(bench, link)
    second.write_bytes(on_disk)
    again = bench.link("tcp://127.0.0.1:1")
    (kept,) = episode_paths([bench.spool])
    assert again.backlog == 9 and bench.same(read_episode(kept), steps)
    assert (bench.spool / "damaged" / second.name).read_bytes() == on_disk and second.name in caplog.text


def test_robot_servers_leave_the_journals_of_the_living_alone(bench, episode_steps):
    link = bench.link("tcp://127.0.0.1:1")
    bench.play(link, episode_steps(6)[:5])
    for name in ("robot", "arm2"):
        assert bench.link("tcp://127.0.0.1:1", name=name).backlog == 0
    die(bench, link)
    assert bench.link("tcp://127.0.0.1:1", name="arm2").backlog == 0
    assert bench.link("tcp://127.0.0.1:1").backlog == 4


def test_a_living_robot_server_keeps_the_journal_of_its_first_step(bench, episode_steps):
    """Half an episode of one step is none: of a dead robot server it would be removed."""
    steps, link = episode_steps(6), bench.link("tcp://127.0.0.1:1")
    bench.play(link, steps[:1])
    (path,) = bench.spool.glob("*.journal")
    assert bench.link("tcp://127.0.0.1:1").backlog == 0
    assert path.exists()
    for transition in steps[1:4]:
        link.send(transition)
    die(bench, link)
    assert bench.link("tcp://127.0.0.1:1").backlog == 3


def test_a_journal_that_a_full_disk_ended_is_gone_and_its_episode_is_saved(bench, episode_steps, monkeypatch, caplog):
    """No later step goes into the file, or into another that has its descriptor by now."""
    steps, link = episode_steps(6), bench.link("tcp://127.0.0.1:1")
    bench.play(link, steps[:3])
    (path,) = bench.spool.glob("*.journal")
    with monkeypatch.context() as full:
        full.setattr("robot_server.journal.os.writev", lambda file, pieces: 0)
        link.send(steps[3])
    assert not path.exists() and caplog.text.count("no journal of the running episode") == 1
    with (bench.spool / "other").open("w+b") as other:
        for transition in steps[4:]:
            link.send(transition)
        assert (bench.spool / "other").stat().st_size == 0 and other.tell() == 0
    assert caplog.text.count("no journal of the running episode") == 1
    assert not list(bench.spool.glob("*.journal"))
    link.save()
    (kept,) = episode_paths([bench.spool])
    assert bench.same(read_episode(kept), steps)


def test_no_journal_begins_in_the_middle_of_an_episode(bench, episode_steps, monkeypatch, caplog):
    def full(name):
        raise OSError(errno.ENOSPC, "No space left on device")

    steps, link = episode_steps(6), bench.link("tcp://127.0.0.1:1")
    with monkeypatch.context() as patched:
        patched.setattr(link.outbox._journals, "open", full)
        bench.play(link, steps[:2])
    for transition in steps[2:5]:
        link.send(transition)
    assert not list(bench.spool.glob("*.journal")) and caplog.text.count("no journal of the running episode") == 1


@pytest.mark.parametrize("asked", [[13], [5, 2, 19, 11, 8, 7, 16, 0], list(range(20))])
def test_a_step_of_a_file_is_sent_as_it_was_from_memory_in_any_order(bench, episode_steps, asked):
    """A learner may ask again from any step on, not only from the first of a chunk."""
    link = bench.link("tcp://127.0.0.1:1")
    bench.play(link, episode_steps(20))
    (out,) = link.outbox.episodes.values()
    from_memory = [out.message(step) for step in range(20)]
    link.save()
    out.release()
    assert [out.message(step) for step in asked] == [from_memory[step] for step in asked]


@pytest.mark.parametrize("released", [False, True])
def test_what_a_run_shares_with_its_robot_goes_with_no_step(bench, episode_steps, released):
    """The last step has the meta a second time, where a person's verdict is in it."""
    steps, link = episode_steps(5), bench.link("tcp://127.0.0.1:1")
    link.begin({"seed": 7, "run": "r", "secret": "s"})
    for transition in steps[:4]:
        link.send(transition)
    link.cut(steps[4].observation, "success")
    (out,) = link.outbox.episodes.values()
    if released:
        link.save()
        out.release()
    metas = [unpack(out.message(step)).fields["meta"] for step in range(4)]
    assert metas[0]["seed"] == metas[3]["seed"] == 7 and metas[3]["marked"] == "success"
    assert not any({"run", "secret"} & set(meta) for meta in metas)


def test_many_kept_episodes_are_not_in_memory(bench, episode_steps, empty, monkeypatch):
    monkeypatch.setattr(outbox, "MEMORY_BYTES", 3000)
    link, made = bench.link("tcp://127.0.0.1:1"), []
    for seed in range(20):
        made.append(episode_steps(9, seed=seed))
        bench.play(link, made[-1])
        link.save()
    assert sum(episode.size for episode in link.outbox.episodes.values()) < 2 * 3000
    bench.close(link)
    mailbox = bench.mailbox()
    again = bench.link(mailbox)
    assert sum(episode.size for episode in again.outbox.episodes.values()) == 0 and again.backlog == 180
    bench.turn(lambda: empty(again))
    assert all(bench.same(*pair) for pair in zip(bench.episodes, made, strict=True))


def test_a_file_that_is_damaged_while_it_waits(bench, episode_steps, empty, monkeypatch, caplog):
    monkeypatch.setattr(outbox, "MEMORY_BYTES", 0)
    mailbox, link = bench.pair()
    bench.close(mailbox)
    for seed in range(3):
        bench.play(link, episode_steps(4, seed=seed))
        link.save()
    paths = sorted(bench.spooled())
    paths[0].write_bytes(b"not HDF5")
    paths[1].unlink()
    bench.mailbox(mailbox.address)
    bench.turn(lambda: empty(link))
    assert [episode.meta["number"] for episode in bench.episodes] == [2]
    assert [path.name for path in (bench.spool / "damaged").iterdir()] == [paths[0].name]
    assert paths[0].name in caplog.text and paths[1].name in caplog.text


def test_a_full_spool_asks_the_robot_to_stop(bench, episode_steps, empty):
    mailbox = bench.mailbox()
    link = bench.link(mailbox, spool_gb=100e-6)
    bench.close(mailbox)
    for _ in range(9):
        bench.play(link, episode_steps(9))
        link.save()
        if link.full:
            break
    kept = sum(path.stat().st_size for path in bench.spooled())
    assert "robot.spool_gb" in link.full and 70e3 < kept < 100e3  # there is no place for another one of that length
    bench.mailbox(mailbox.address)
    bench.turn(lambda: empty(link))
    assert link.full == ""
    link.begin()
    for transition in episode_steps(900)[:-1]:
        link.send(transition)
        if link.full:
            break
    assert 100e3 <= link.outbox.running.size < 101e3  # an episode that does not end


def test_an_episode_without_steps_is_dropped(bench, episode_steps, empty):
    _, link = bench.pair()
    link.begin()
    link.cut(episode_steps(1)[0].observation)
    bench.play(link, episode_steps(2))
    bench.turn(lambda: empty(link))
    assert bench.identities(bench.episodes) == [("robot", link.boot, 1)]


def test_a_file_that_another_robot_takes_away_meanwhile_is_no_damage(bench, episode_steps, monkeypatch, caplog):
    """Robots that share a spool's folder come and go: theirs are gone between listing and reading."""
    path = bench.spool / "robot~00000000~000000.hdf5"
    meta = {"robot": "robot", "boot": "00000000", "number": 0}
    write_episode(path, Episode.from_transitions(episode_steps(3), meta))

    def taken(path):
        path.unlink(missing_ok=True)
        return read_head(path)

    monkeypatch.setattr(spool, "read_head", taken)
    assert list(spool.left_behind(bench.spool, SPEC, "robot")) == []
    assert "damaged" not in caplog.text and not bench.spooled()


def test_a_journal_whose_episode_is_a_file_already_is_removed(bench, episode_steps, tmp_path):
    """Its robot server was killed between writing the file and deleting the journal: not to be sent twice."""
    bench.pair()
    link = bench.links[0]
    link.begin()
    for transition in episode_steps(4)[:3]:
        link.send(transition)
    (running,) = bench.spool.glob("*.journal")
    kept = tmp_path / "kept.journal"
    shutil.copy(running, kept)
    link.cut()
    link.save()
    (file,) = bench.spool.glob("*.hdf5")
    link.close(0)
    bench.links.remove(link)
    for journal in (True, False):
        left = file.with_suffix(".journal")
        if journal:
            shutil.copy(kept, left)
        else:
            kept.rename(left)
            file.unlink()
        found = [out.key for out in spool.left_behind(bench.spool, SPEC, "robot") if out.key[1] == link.boot]
        assert len(found) == 1 and left.exists() != journal
