"""Published Adroit policies: read as numbers, and no code in the file is run."""

import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.spec import UserError
from tools.bench.adroit_policy import read


class Marks:
    """Unpickled by an ordinary reader, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Writes a policy as a module that is not installed here would have it, and returns the file and its layers."""
    module = types.ModuleType("elsewhere")
    kinds = {name: type(name, (), {"__module__": "elsewhere"}) for name in ("Policy", "Network")}
    for name, kind in kinds.items():
        setattr(module, name, kind)

    def save(extra=None):
        layers = [torch.nn.Linear(3, 5), torch.nn.Linear(5, 5), torch.nn.Linear(5, 2)]
        policy, policy.model = kinds["Policy"](), kinds["Network"]()
        vars(policy.model).update(in_shift=np.ones(3), in_scale=2.0 * np.ones(3), extra=extra)
        vars(policy.model).update(out_shift=np.zeros(2), out_scale=3.0 * np.ones(2))
        policy.trainable_params = [p for layer in layers for p in layer.parameters()] + [torch.zeros(2)]
        path = tmp_path / "policy.pickle"
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "elsewhere", module)
            path.write_bytes(pickle.dumps(policy))
        return path, layers

    return save


def test_the_mean_is_that_of_the_network_in_the_file(saved):
    path, (first, second, last) = saved()
    observation = np.array([0.3, -2.0, 1.5])
    scaled = torch.tensor((observation - 1) / 2, dtype=torch.float32)
    expected = 3 * last(torch.tanh(second(torch.tanh(first(scaled)))))
    np.testing.assert_allclose(read(path)(observation), expected.detach().numpy(), rtol=1e-5)


def test_code_in_the_file_is_not_run(saved, tmp_path):
    path, _ = saved(extra=Marks(tmp_path / "made"))
    assert read(path)(np.zeros(3)).shape == (2,)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"a": 1})])
def test_another_file_is_named(content, tmp_path):
    path = tmp_path / "other.pickle"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: not a policy"):
        read(path)
    with pytest.raises(UserError, match="absent"):
        read(tmp_path / "absent")
