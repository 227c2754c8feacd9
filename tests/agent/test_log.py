"""A run's log: every record a line, every tensor of it read at once."""

import json

import torch

from agent.log import RunLog


def test_tensors_of_every_type_and_shape_are_read_in_one_wait(tmp_path, monkeypatch):
    reads = []
    for name in ("cpu", "item", "tolist"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda tensor, plain=plain, name=name: (reads.append(name), plain(tensor))[1]
        )
    log = RunLog(tmp_path)
    values = {
        "td_loss": torch.tensor(0.5),
        "rates": torch.tensor([0.25, 0.75, 0.5]),
        "half": torch.tensor(2.0, dtype=torch.bfloat16),
        "one": torch.tensor([3.0]),
    }
    log.write("update", 7, 3, stage="online", **values, speed=1.5)
    assert reads.count("cpu") == 1 and "item" not in reads  # lists are made of what is on the host by then
    log.write("episode", 8, 3, length=4)
    log.close()
    first, second = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (first["td_loss"], first["rates"], first["half"], first["one"]) == (0.5, [0.25, 0.75, 0.5], 2.0, [3.0])
    assert (first["stage"], first["speed"], first["env_steps"], second["length"]) == ("online", 1.5, 7, 4)
