"""Reading files of torch.save that may come from anybody: nothing is executed, or unpacks to more than the file."""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

ALLOWED = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage")
VALUES = 1_000_000  # numbers, texts, tensors, lists and dicts in one file
DEPTH = 32
PLAIN = (str, int, float, bool, type(None), torch.Tensor)


def read_torch_file(path: str | Path) -> Any:
    """What torch.save wrote to `path`: plain values and tensors, these on the CPU.

    Checksums are verified. Raises ValueError, or an error of zipfile, torch or the disk, for a file that is damaged,
    compressed, of another kind, or that would take more memory than its own size.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":  # torch takes anything else for an older format
            raise ValueError("not a file of torch.save")
    with zipfile.ZipFile(path) as archive:  # torch.save writes checksums, and torch.load does not look at them
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > Path(path).stat().st_size:
            raise ValueError("it unpacks to more than its size")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} does not have its checksum")
        if any(entry.external_attr for entry in entries):  # torch.load takes one of them for a folder
            raise ValueError("its table of contents is damaged")
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                _check_names(archive.read(entry))
    data = torch.load(path, map_location="cpu", weights_only=True)
    _check_values(data)
    return data


def read_weights(path: str | Path) -> Any:
    """The same, and files of torch before 1.6, as which some of torchvision's weights are published.

    Of those, the size is not checked.
    """
    if zipfile.is_zipfile(path):
        return read_torch_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_names(program: bytes) -> None:
    """Some of what torch allows takes memory by the number: bytearray(10 ** 11)."""
    for operation, argument, _ in pickletools.genops(program):
        if operation.name in ("GLOBAL", "STACK_GLOBAL", "INST") and not ALLOWED.fullmatch(str(argument)):
            raise ValueError(f"'{argument!s:.60}' in it")


def _check_values(data: Any) -> None:
    """Lists may hold one list many times, and tensors repeat one number: small in the file, endless when copied."""
    count, rest = 0, [(data, 0)]
    while rest:
        value, depth = rest.pop()
        count += 1
        if count > VALUES or depth > DEPTH:
            raise ValueError("too many values, or too deeply nested")
        if isinstance(value, dict):
            rest += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, (list, tuple)):
            rest += [(part, depth + 1) for part in value]
        elif not isinstance(value, PLAIN):
            raise ValueError(f"{type(value).__name__} in it")
        elif isinstance(value, torch.Tensor) and value.nbytes > value.untyped_storage().nbytes():
            raise ValueError("a tensor that is larger than what is stored of it")
