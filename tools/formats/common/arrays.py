"""Arrays in an HDF5 source: numbers are read at once, images as Frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.data.frames import Frames
from tools.formats.common.foreign import FormatError
from tools.formats.common.pictures import check_fits, picture

JPEG = b"\xff\xd8"


def flat(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets below `group` under their names, joined by dots; spaces in names are "_"."""
    for key, item in group.items():
        name = prefix + key.replace(" ", "_")
        if isinstance(item, h5py.Group):
            yield from flat(item, f"{name}.")
        else:
            yield name, item


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Raises FormatError unless `group` has the dataset `name`."""
    found = group.get(name)
    if not isinstance(found, h5py.Dataset):
        raise FormatError(f"'{name}' is {'missing' if found is None else 'a group, and no array'}")
    return found


def numbers(group: h5py.Group, name: str) -> np.ndarray:
    """The array `name` of numbers, read whole. Raises FormatError."""
    found = dataset(group, name)
    if found.dtype.kind not in "biuf" or found.shape is None:
        raise FormatError(f"'{name}' is {found.dtype}, and no numbers")
    check_fits(found.size * found.dtype.itemsize)
    return np.asarray(found[()])


def rows(path: Path, found: h5py.Dataset) -> Any:
    """An observation's rows: an array, or Frames for RGB images and for encoded ones (JPEG). Raises FormatError."""
    if found.ndim == 4 and found.dtype == np.uint8 and found.shape[3] == 3:
        return Frames.of_dataset(path, found)
    if found.shape and len(found) and _encoded(found):
        shape = picture(_bytes(found[0])).shape

        def read(first: int, end: int) -> np.ndarray:
            with h5py.File(path, "r") as file:
                cells = file[name][first:end]
            images = [picture(_bytes(cell)) for cell in cells]
            if any(image.shape != shape for image in images):
                raise FormatError(f"{path}: {name}: images of several sizes")
            return np.stack(images)

        name = found.name
        return Frames((len(found), *shape), read)
    if found.dtype.kind not in "biuf" or found.shape is None:
        return np.empty((0,), np.object_)  # neither images nor numbers
    check_fits(found.size * found.dtype.itemsize)
    return found[()]


def _encoded(found: h5py.Dataset) -> bool:
    if h5py.check_vlen_dtype(found.dtype) == np.uint8:
        return True
    return bool(found.dtype == np.uint8 and found.ndim == 2 and found[0, :2].tobytes() == JPEG)


def _bytes(cell: Any) -> bytes:
    return np.asarray(cell, np.uint8).tobytes()


def attribute(item: h5py.Group, name: str, path: Path) -> dict[str, Any]:
    """A JSON object in an attribute; empty where there is none. Raises FormatError for anything else."""
    if name not in item.attrs:
        return {}
    try:
        data = json.loads(item.attrs[name])
    except (TypeError, ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise FormatError(f"{path}: attribute '{name}' of {item.name} is not a JSON object")
    return data
