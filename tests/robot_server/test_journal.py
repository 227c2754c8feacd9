"""The running episode on the robot's disk: what is damaged is not taken for a step."""

import pytest

from robot_server.journal import RECORD, Journal, read


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
