"""The running episode on the robot's disk: what is damaged is not taken for a step."""

import os
import struct

import pytest

from robot_server.journal import OLD_MARK, OLD_RECORD, RECORD, Journal, Journals, _checksum, abandoned, read


@pytest.mark.parametrize("damage", ["zeros", "a bit", "the last byte", "a length"])
def test_a_damaged_record_ends_a_journal(tmp_path, damage):
    path = tmp_path / "x.journal"
    made = [[bytes([n + 1]) * 30, bytes([n + 1]) * 5003] for n in range(4)]
    journal = Journal(path)
    for frames in made:
        journal.append(frames)
    journal.close(remove=False)
    data = bytearray(path.read_bytes())
    assert read(path) == made
    record = len(data) // 4
    if damage == "zeros":  # a page that never reached the disk
        data[2 * record + 512 : 2 * record + 1024] = bytes(512)
    elif damage == "a bit":
        data[2 * record + 1000] ^= 4
    elif damage == "the last byte":
        data[3 * record - 1] ^= 1
    else:
        data[2 * record + RECORD.size] += 1
    path.write_bytes(data)
    assert read(path) == made[:2]


FRAMES = [[bytes([n + 1]) * 30, bytes([n + 1]) * 5003] for n in range(6)]


def test_nothing_of_the_episode_before_is_read_from_a_file_that_is_written_again(tmp_path):
    """At no moment of it: the file may be torn, or end, within any record."""
    journals = Journals(tmp_path, "arm~0")
    journal = journals.open("first")
    for frames in FRAMES:
        journal.append(frames)
    file = journal.path.stat()
    journals.retire(journal)
    assert not abandoned(tmp_path) and journals.spare_bytes == file.st_size
    journal = journals.open("second")
    path = tmp_path / "second.journal"
    assert path.stat().st_ino == file.st_ino and read(path) == [] and not journals.spare_bytes
    before = path.read_bytes()
    for count, frames in enumerate(reversed(FRAMES[2:]), 1):
        journal.append(frames)
        assert read(path) == FRAMES[:1:-1][:count]
    record, now = len(before) // len(FRAMES), path.read_bytes()
    assert len(now) == len(before)
    for written in range(0, 3 * record, 512):  # of what the second episode wrote so far
        path.write_bytes(now[:written] + before[written:])
        assert read(path) == FRAMES[:1:-1][: written // record]


def test_wherever_a_journal_ends_its_whole_records_are_read(tmp_path):
    """In the head, among the lengths, in the body."""
    journal = Journal(tmp_path / "x.journal")
    for frames in FRAMES[:2]:
        journal.append(frames)
    journal.close(remove=False)
    data = journal.path.read_bytes()
    record = len(data) // 2
    for end in [*range(record + 50), len(data) - 1, len(data)]:
        journal.path.write_bytes(data[:end])
        assert read(journal.path) == FRAMES[: end // record], end


def test_a_write_that_the_disk_cuts_short_is_an_error(tmp_path, monkeypatch):
    writev, journal = os.writev, Journal(tmp_path / "x.journal")
    journal.append(FRAMES[0])
    monkeypatch.setattr("robot_server.journal.os.writev", lambda file, pieces: writev(file, [b"".join(pieces)[:-1]]))
    with pytest.raises(OSError, match="No space left"):
        journal.append(FRAMES[1])
    assert read(journal.path) == FRAMES[:1]
    journal.close(remove=True)


def test_spare_files_are_few_and_gone_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("robot_server.journal.SPARE_BYTES", 12_000)
    journals = Journals(tmp_path, "arm~0")
    made = [journals.open(f"{n}") for n in range(3)]
    for journal in made:
        journal.append(FRAMES[0])
        journal.append(FRAMES[1])
    for journal in made:
        journals.retire(journal)
    spares = list(tmp_path.iterdir())
    assert len(spares) == 2 and sum(path.stat().st_size for path in spares) == journals.spare_bytes == 12_000
    assert all(path.name.startswith(".arm~0.") and path.suffix == ".part" for path in spares)
    spares[0].unlink()  # somebody tidies up
    again = [journals.open(f"again{n}") for n in range(2)]
    for journal in again:
        journal.append(FRAMES[2])
        assert read(journal.path) == [FRAMES[2]]
    assert {path.name for path in tmp_path.iterdir()} == {"again0.journal", "again1.journal"}
    for journal in again:
        journals.retire(journal)
    journals.close()
    assert not list(tmp_path.iterdir())


def test_a_journal_of_an_earlier_release_is_read(tmp_path):
    path = tmp_path / "x.journal"
    with path.open("wb") as file:
        for frames in FRAMES:
            lengths = struct.pack("<2I", *map(len, frames))
            size = sum(map(len, frames))
            file.write(OLD_RECORD.pack(OLD_MARK, size, _checksum(lengths, *frames), 2) + lengths + b"".join(frames))
    assert read(path) == FRAMES
    path.write_bytes(b"stop" + path.read_bytes()[4:])
    assert read(path) == []
