"""Opening HDF5 files from anybody: nothing outside the file is read, no more memory is taken than it stores.

HDF5 can name other files (external links, external storage, virtual datasets) and declare arrays that it does not hold.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agent.memory import available_bytes

SMALL_BYTES = 1 << 20  # datasets up to this size are not compared with what the file holds
RATIO = 1100  # at most; that of gzip, for an image of one colour, is 1032
DEPTH = 32  # groups in groups
HEAP = b"GCOL\1\0\0\0"  # a global heap begins so
HEAPS_WITHIN = 256 << 20


class UnsafeFile(ValueError):
    """An HDF5 file that reads other files, or declares more than it holds; the message names the object."""


@contextlib.contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """The HDF5 file at `path`, open for reading, once all of its objects have been looked at.

    Only hard links, no group twice, no data in other files, no array that declares much more than is stored: then
    `file[name]` and `dataset[()]` read this file alone. An array may still be larger than the memory: `check_memory`.
    Raises UnsafeFile naming the object; h5py's own errors (OSError, RuntimeError) for a damaged file.
    """
    with h5py.File(path, "r") as file:
        in_heap = _check_objects(h5py.h5g.open(file.id, b"/"))
        if in_heap and file.id.get_create_plist().get_sizes() == (8, 8):
            _check_heaps(path)
        yield file


def check_memory(group: h5py.Group) -> None:
    """Raise UnsafeFile unless all arrays below `group` fit twice into the free memory."""
    total = sum(_bytes(dataset.shape, dataset.dtype) for dataset in _datasets(group))
    if 2 * total > (free := available_bytes()):
        raise UnsafeFile(f"{group.name}: {total / 1e9:.1f} GB of arrays, too many for {free / 1e9:.1f} GB of memory")


def check_numbers(group: h5py.Group) -> None:
    """Raise UnsafeFile for an array below `group` that is not of numbers: texts and lists may be of any size."""
    for dataset in _datasets(group):
        if dataset.dtype.kind not in "biuf":
            raise UnsafeFile(f"{_name(dataset)}: {dataset.dtype}, where numbers are expected")


def _datasets(group: h5py.Group) -> Iterator[h5py.h5d.DatasetID]:
    groups = [group.id]
    while groups:
        parent = groups.pop()
        for name in parent:
            item = h5py.h5o.open(parent, name)
            if isinstance(item, h5py.h5g.GroupID):
                groups.append(item)
            elif isinstance(item, h5py.h5d.DatasetID):
                yield item


def _check_objects(root: h5py.h5g.GroupID) -> bool:
    """Check all objects from `root` on; returns whether any has texts or lists of variable length.

    Every episode passes here: h5py's low-level interface takes a third of the time.
    """
    seen, groups = {_address(root)}, [(root, 0)]
    in_heap = _check_attributes(root)
    while groups:
        group, depth = groups.pop()
        for name in group:
            _check_link(group, name)
            item = h5py.h5o.open(group, name)
            in_heap |= _check_attributes(item)
            if isinstance(item, h5py.h5d.DatasetID):
                in_heap |= _check_dataset(item)
            elif isinstance(item, h5py.h5g.GroupID):
                if _address(item) in seen or depth >= DEPTH:
                    raise UnsafeFile(f"{_name(item)}: a group linked twice, or too deep")
                seen.add(_address(item))
                groups.append((item, depth + 1))
    return in_heap


def _address(item: h5py.h5g.GroupID) -> int:
    return int(h5py.h5o.get_info(item).addr)


def _name(item: Any) -> str:
    return (h5py.h5i.get_name(item) or b"an object").decode(errors="replace")


def _check_link(group: h5py.h5g.GroupID, name: bytes) -> None:
    kind = group.links.get_info(name).type
    if kind != h5py.h5l.TYPE_HARD:
        what = "an external link" if kind == h5py.h5l.TYPE_EXTERNAL else "a soft link"
        raise UnsafeFile(f"{_name(group).rstrip('/')}/{name.decode(errors='replace')}: is {what}; refused")


def _check_heaps(path: str | Path) -> None:
    """Raise UnsafeFile for a damaged global heap, in which texts and lists of variable length lie.

    HDF5 2.0 goes from object to object by their sizes: a size that leads nowhere makes it loop without end. Looks at
    the first and the last HEAPS_WITHIN bytes of the file; a heap elsewhere is not checked.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for first, end in ((0, HEAPS_WITHIN), (max(HEAPS_WITHIN, len(data) - HEAPS_WITHIN), len(data))):
            at = data.find(HEAP, first, end)
            while at >= 0:
                _check_heap(data, at)
                at = data.find(HEAP, at + len(HEAP), end)


def _check_heap(data: mmap.mmap, start: int) -> None:
    """Size, then objects: number, references, 4 bytes of nothing, size, and its bytes, padded to 8. 0: what is free.

    What leads out of the heap, HDF5 refuses by itself.
    """
    at = start + 16
    end = min(len(data), start + struct.unpack_from("<Q", data, start + 8)[0]) if at <= len(data) else 0
    while at + 16 <= end:
        number, length = struct.unpack_from("<H6xQ", data, at)
        step = (16 + -(-length // 8) * 8 if number else length) % (1 << 64)
        if not 16 <= step < 1 << 63:
            raise UnsafeFile(f"its global heap at byte {start} is damaged")
        at += step


def _check_attributes(item: Any) -> bool:
    """No lists of texts: each of them may be as large as the file. Returns whether there is any in a global heap."""
    in_heap = False
    for number in range(h5py.h5a.get_num_attrs(item)):
        attribute = h5py.h5a.open(item, index=number)
        if attribute.dtype.hasobject:
            in_heap = True
            if math.prod(attribute.shape or ()) > 100:
                name = attribute.name.decode(errors="replace")
                raise UnsafeFile(f"{_name(item)}: attribute '{name}' has {attribute.shape} texts")
    return in_heap


def _check_dataset(dataset: h5py.h5d.DatasetID) -> bool:
    """Returns whether its values lie in a global heap."""
    properties, dtype = dataset.get_create_plist(), dataset.dtype
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise UnsafeFile(f"{_name(dataset)}: a virtual dataset, which reads other files; refused")
    if properties.get_external_count():
        raise UnsafeFile(f"{_name(dataset)}: its data are in other files; refused")
    if dataset.shape is None:  # has no data at all
        return False
    stored, chunked = dataset.get_storage_size(), layout == h5py.h5d.CHUNKED
    declared = max(_bytes(dataset.shape, dtype), _bytes(properties.get_chunk() if chunked else (), dtype))
    if declared > max(SMALL_BYTES, stored * (RATIO if chunked else 1)):
        raise UnsafeFile(f"{_name(dataset)}: declares {declared:,} bytes, and {stored:,} are stored")
    return bool(dtype.hasobject)


def _bytes(shape: tuple[int, ...] | None, dtype: np.dtype) -> int:
    return math.prod(shape or (), start=dtype.itemsize)
