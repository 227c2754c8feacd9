"""Columns of a LeRobotDataset's tables: numbers at once, images a few at a time; and the table that is ours alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from agent.data.frames import Frames
from tools.formats.common.foreign import FormatError, Raw
from tools.formats.common.pictures import check_fits, picture
from tools.formats.lerobot_write import EXTRA


def vectors(table: pyarrow.Table, key: str) -> np.ndarray:
    """A column of numbers or of lists of numbers; (T,) or (T, D)."""
    if key not in table.column_names:
        raise FormatError(f"no column '{key}' in its table, which info.json has as a feature")
    column = table[key].combine_chunks()
    if column.null_count:
        raise FormatError(f"column '{key}' has {column.null_count} rows without a value")
    flat = column.flatten() if pyarrow.types.is_nested(column.type) else column
    values: np.ndarray = flat.to_numpy(zero_copy_only=False)
    if flat is column:
        return values
    if len(set(np.asarray(column.value_lengths()).tolist())) > 1:
        raise FormatError(f"column '{key}' has rows of different sizes")
    return values.reshape(len(table), -1)


def images(file: Path, feature: str, numbers: np.ndarray) -> Frames:
    """The images in rows `numbers` (T,) of a table, decoded when they are asked for."""
    cells = _Cells(file, feature)
    shape = picture(cells.at(int(numbers[0]))).shape

    def read(first: int, end: int) -> np.ndarray:
        rows = np.empty((end - first, *shape), np.uint8)
        for step in range(first, end):
            image = picture(cells.at(int(numbers[step])))
            if image.shape != shape:
                raise FormatError(f"{file}: '{feature}': image {step} has another size than the first")
            rows[step - first] = image
        return rows

    return Frames((len(numbers), *shape), read)


class _Cells:
    """A column of images (PNG or JPEG) in a table; rows in ascending order are read once, a few at a time."""

    def __init__(self, file: Path, feature: str) -> None:
        self._file, self._feature = file, feature
        self._row = 0
        self._cells: Iterator[bytes] = iter(())

    def at(self, row: int) -> bytes:
        if row < self._row or self._row == 0:
            self._row, self._cells = self._from(row)
        for cell in self._cells:
            self._row += 1
            if self._row == row + 1:
                return cell
        raise FormatError(f"{self._file}: no row {row}")

    def _from(self, row: int) -> tuple[int, Iterator[bytes]]:
        file = parquet.ParquetFile(self._file, buffer_size=1 << 20, pre_buffer=False)
        first = 0
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < first + count:
                return first, self._read(file, range(group, file.metadata.num_row_groups))
            first += count
        raise FormatError(f"{self._file}: no row {row}")

    def _read(self, file: parquet.ParquetFile, groups: range) -> Iterator[bytes]:
        for batch in file.iter_batches(8, row_groups=list(groups), columns=[self._feature], use_threads=False):
            for cell in batch.column(0).to_pylist():
                yield cell["bytes"] if isinstance(cell, dict) else cell


class Extra:
    """What LeRobot has no place for, from the table beside: names, meta, and what was seen after the last action."""

    def __init__(self, file: Path) -> None:
        self._file = parquet.ParquetFile(file)
        self._groups: dict[int, tuple[int, int]] = {}  # episode -> row group, row in it
        for group in range(self._file.metadata.num_row_groups):
            numbers = self._file.read_row_group(group, columns=["episode_index"])["episode_index"].to_pylist()
            self._groups.update({number: (group, row) for row, number in enumerate(numbers)})
        self.names: dict[str, str] = json.loads(self._file.schema_arrow.metadata[b"names"])

    def complete(self, raw: Raw, number: int) -> None:
        if number not in self._groups:
            return  # an episode that somebody added
        group, at = self._groups[number]
        row = self._file.read_row_group(group).slice(at, 1).to_pylist()[0]
        raw.meta = json.loads(row["meta"])
        for name, seen in raw.observations.items():
            value = row[f"final/{name}"]
            if isinstance(seen, Frames):
                raw.observations[name] = seen.followed_by(picture(value))
            else:
                raw.observations[name] = np.concatenate([seen, np.asarray([value], seen.dtype)])


def extra_of(path: Path) -> Extra | None:
    file = path / EXTRA
    if not file.is_file():
        return None
    check_fits(file.stat().st_size)
    try:
        return Extra(file)
    except (OSError, KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise FormatError(f"{file}: not a parquet file, or damaged: {str(error).splitlines()[0]}") from None
