"""Published Adroit policies: read as numbers, and no code in the file is run."""

import io
import os
import pickle
import random
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.spec import UserError
from tools.learning.adroit_policy import read


class Marks:
    """Unpickled by an ordinary reader, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Built:
    """Pickled as this call, and as this state that its result is then given."""

    def __init__(self, *parts) -> None:
        self.parts = parts

    def __reduce__(self):
        return self.parts


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
        vars(policy.model).update(in_shift=torch.ones(3), in_scale=2.0 * torch.ones(3), extra=extra)
        vars(policy.model).update(out_shift=torch.zeros(2), out_scale=3.0 * torch.ones(2))
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


def test_a_policy_may_be_plain_arrays(saved, tmp_path):
    pickled, layers = saved()
    arrays = {
        f"{number}.{name}": p.detach().numpy() for number in range(3) for name, p in layers[number].named_parameters()
    }
    scales = {"in_shift": np.ones(3), "in_scale": 2 * np.ones(3), "out_shift": np.zeros(2), "out_scale": 3 * np.ones(2)}
    np.savez(tmp_path / "policy.npz", **arrays, **scales)
    observation = np.array([0.3, -2.0, 1.5])
    np.testing.assert_allclose(read(tmp_path / "policy.npz")(observation), read(pickled)(observation), rtol=1e-6)
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(UserError, match=r"other\.npz: not a policy"):
        read(tmp_path / "other.npz")


def test_code_in_the_file_is_not_run(saved, tmp_path):
    path, _ = saved(extra=Marks(tmp_path / "made"))
    assert read(path)(np.zeros(3)).shape == (2,)
    assert not (tmp_path / "made").exists()


def test_code_in_a_tensor_is_not_run(saved, tmp_path):
    """Storages of tensors are pickles in the pickle."""
    content = io.BytesIO()
    torch.save(Marks(tmp_path / "made"), content, _use_new_zipfile_serialization=False)
    path, _ = saved(extra=Built(torch.storage._load_from_bytes, (content.getvalue(),)))
    with pytest.raises(UserError, match="not a policy"):
        read(path)
    assert not (tmp_path / "made").exists()


def test_a_dtype_that_lies_about_its_fields_is_not_made(tmp_path):
    """Two addresses would be taken for objects, and end the process."""
    fields = {"a": (np.dtype("O"), 0), "b": (np.dtype("O"), 8)}
    dtype = Built(np.dtype, ("V16", False, True), (3, "|", None, ("a", "b"), fields, 16, 1, 0))
    empty, addresses = (np.ndarray, (0,), b"b"), struct.pack("<2Q", 0x4141414141414141, 0x4242424242424242)
    array = Built(np.array([]).__reduce__()[0], empty, (1, (1,), dtype, False, addresses))
    path = tmp_path / "policy.pickle"
    path.write_bytes(pickle.dumps(Built(OrderedDict, (array,))))
    with pytest.raises(UserError, match="not a policy"):
        read(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_named_in_one_line_whatever_is_wrong_with_it(saved):
    path, _ = saved()
    content, refused = path.read_bytes(), 0
    damaged = [content[:size] for size in range(1, len(content), 97)]
    for at in random.Random(0).sample(range(len(content)), 100):
        damaged.append(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
    for each in damaged:
        path.write_bytes(each)
        try:
            assert read(path)(np.zeros(3)).shape == (2,)  # only a number is another, or a name that is not looked at
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path}: not a policy") and "\n" not in str(error)
    assert refused > len(damaged) / 2


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"a": 1})])
def test_another_file_is_named(content, tmp_path):
    path = tmp_path / "other.pickle"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: not a policy"):
        read(path)
    with pytest.raises(UserError, match="absent"):
        read(tmp_path / "absent")
