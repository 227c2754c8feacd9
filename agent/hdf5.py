"""Opening HDF5 files from anybody: nothing outside the file is read, no more memory is taken than it stores.

HDF5 can name other files (external links, external storage, virtual datasets) and declare arrays that it does not hold.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

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
        seen = {_address(file)}
        groups: list[tuple[h5py.Group, int]] = [(file, 0)]
        in_heap = _check_attributes(file)
        while groups:
            group, depth = groups.pop()
            for name in group:
                _check_link(group, name)
                item = group[name]
                in_heap |= _check_attributes(item)
                if isinstance(item, h5py.Dataset):
                    _check_dataset(item)
                    in_heap |= item.dtype.hasobject
                elif isinstance(item, h5py.Group):
                    if _address(item) in seen or depth >= DEPTH:
                        raise UnsafeFile(f"{item.name}: a group linked twice, or too deep")
                    seen.add(_address(item))
                    groups.append((item, depth + 1))
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
            raise UnsafeFile(f"{dataset.name}: {dataset.dtype}, where numbers are expected")


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    groups = [group]
    while groups:
        for item in groups.pop().values():
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                yield item


def _address(item: h5py.Group) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _check_link(group: h5py.Group, name: str) -> None:
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        kind = "external link" if isinstance(link, h5py.ExternalLink) else "soft link"
        raise UnsafeFile(f"{group.name.rstrip('/')}/{name}: is {'an' if kind[0] == 'e' else 'a'} {kind}; refused")


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


def _check_attributes(item: h5py.HLObject) -> bool:
    """No lists of texts: each of them may be as large as the file. Returns whether there is any in a global heap."""
    in_heap = False
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        in_heap |= attribute.dtype.hasobject
        if attribute.dtype.kind == "O" and attribute.shape != () and int(np.prod(attribute.shape)) > 100:
            raise UnsafeFile(f"{item.name}: attribute '{name}' has {attribute.shape} texts")
    return in_heap


def _check_dataset(dataset: h5py.Dataset) -> None:
    if dataset.is_virtual:
        raise UnsafeFile(f"{dataset.name}: a virtual dataset, which reads other files; refused")
    if dataset.external:
        raise UnsafeFile(f"{dataset.name}: its data are in other files; refused")
    if dataset.shape is None:  # has no data at all
        return
    stored = dataset.id.get_storage_size()
    declared = max(_bytes(dataset.shape, dataset.dtype), _bytes(dataset.chunks or (), dataset.dtype))
    if declared > max(SMALL_BYTES, stored * (RATIO if dataset.chunks else 1)):
        raise UnsafeFile(f"{dataset.name}: declares {declared:,} bytes, and {stored:,} are stored")


def _bytes(shape: tuple[int, ...] | None, dtype: np.dtype) -> int:
    total = dtype.itemsize
    for side in shape or ():
        total *= side
    return total
