"""Batches of decoded faces, read row group by row group; imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from warehouse.errors import ReleaseError

COLUMNS = ("expression", "soft_label", "label_quality", "is_label_issue", "is_open_set", "au")

_WINDOW = 4
"""Row groups (16 MB each at most) whose rows are mixed: shuffled order at sequential cost."""

_AHEAD = 4
"""Batches each worker keeps ready."""


class FaceBatches(IterableDataset[dict[str, Any]]):
    """What ``training.torch_dataset`` returns; its docstring says what each option does."""

    def __init__(
        self,
        files: list[Path],
        *,
        batch_size: int,
        labels: str,
        shuffle: bool,
        seed: int,
        size: int | None,
        gray: bool,
        drop_flagged: bool,
        drop_last: bool,
    ) -> None:
        self.files, self.batch_size, self.labels = files, batch_size, labels
        self.shuffle, self.seed = shuffle, seed
        # In shared memory, so that workers that outlive an epoch see the next one's number.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self.size, self.gray = size, gray
        self.drop_flagged, self.drop_last = drop_flagged, drop_last
        self.groups = [
            (number, group)
            for number, file in enumerate(files)
            for group in range(pq.ParquetFile(file).num_row_groups)
        ]

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the draws of an epoch; call it before iterating the loader."""
        self._epoch.fill_(epoch)

    def loader(self, *, workers: int = 0) -> DataLoader[Any]:
        """Batches from that many worker processes, which live as long as the loader; 0 for none."""
        return DataLoader(
            self,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            persistent_workers=workers > 0,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        share, of = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            # One thread per worker: more of them would only fight over the same cores.
            cv2.setNumThreads(0)
        mine = self._order()[share::of]
        rng = np.random.default_rng((self.seed, self.epoch, share + 1))
        held: pa.Table | None = None
        for start in range(0, len(mine), _WINDOW):
            window = mine[start : start + _WINDOW]
            tables = [_read(self.files[file], group) for file, group in window]
            whole = pa.concat_tables([held, *tables] if held is not None else tables)
            if self.drop_flagged:
                whole = whole.filter(_unflagged(whole))
            last = start + _WINDOW >= len(mine)
            rows, rest = self._deal(whole.num_rows, rng, last=last)
            held = whole.take(pa.array(rest)) if len(rest) else None
            yield from self._batches(_Window(whole.combine_chunks()), rows, rng)

    def _order(self) -> list[tuple[int, int]]:
        if not self.shuffle:
            return self.groups
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.groups))
        return [self.groups[index] for index in order]

    def _deal(
        self, n: int, rng: np.random.Generator, *, last: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows for whole batches, and those that wait for the next window (or fall away)."""
        rows = np.arange(n)
        if self.shuffle:
            rng.shuffle(rows)
        full = n // self.batch_size * self.batch_size
        if last:
            return (rows[:full] if self.drop_last else rows), rows[:0]
        return rows[:full], rows[full:]

    def _batches(
        self, window: _Window, rows: np.ndarray, rng: np.random.Generator
    ) -> Iterator[dict[str, Any]]:
        for start in range(0, len(rows), self.batch_size):
            chosen = rows[start : start + self.batch_size]
            soft = window.soft[chosen]
            label = {
                "soft": lambda soft=soft: soft,
                "hard": lambda chosen=chosen: window.hard[chosen],
                "sampled": lambda soft=soft: sample(soft, rng),
            }[self.labels]()
            image = window.decode(chosen, size=self.size, gray=self.gray)
            yield {
                "image": torch.from_numpy(image),
                "label": torch.from_numpy(label),
                "weight": torch.from_numpy(window.weight[chosen]),
                "au": torch.from_numpy(window.au[chosen]),
            }


class _Window:
    """Some row groups in memory: numbers as arrays, pictures as one buffer of bytes."""

    def __init__(self, table: pa.Table) -> None:
        weight = table["label_quality"].to_numpy().astype(np.float32)
        self.soft, self.au = _matrix(table["soft_label"]), _matrix(table["au"])
        self.weight = np.nan_to_num(weight, nan=1.0)
        self.hard = pc.fill_null(table["expression"], -100).to_numpy().astype(np.int64)
        if not table.num_rows:
            return
        # `chunk` shares the memory that `combine_chunks` would copy for every batch.
        data = table["image"].chunk(0).field("bytes")
        _, offsets, pictures = data.buffers()
        self._offsets = np.frombuffer(offsets, np.int32)[data.offset :]
        self._pictures = np.frombuffer(pictures, np.uint8)

    def decode(self, rows: np.ndarray, *, size: int | None, gray: bool) -> np.ndarray:
        """uint8[n, 3 or 1, h, w] of the pictures in ``rows``, RGB."""
        mode = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB
        found: np.ndarray | None = None
        for index, row in enumerate(rows):
            data = self._pictures[self._offsets[row] : self._offsets[row + 1]]
            image = cv2.imdecode(data, mode)
            if image is None:
                raise _unreadable("bytes that are no picture")
            if size is not None and image.shape[:2] != (size, size):
                image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            if found is None:
                found = np.empty((len(rows), *image.shape), np.uint8)
            if image.shape != found.shape[1:]:
                raise _unreadable(f"pictures of {found.shape[1:3]} and {image.shape[:2]}")
            found[index] = image
        assert found is not None
        if gray:
            return found[:, None]
        return np.ascontiguousarray(found.transpose(0, 3, 1, 2))


def sample(soft: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One class per row of soft labels float[n, k], drawn by its shares: int64[n].

    -100, which torch's losses ignore, where a row holds NaN.
    """
    sums = np.cumsum(np.nan_to_num(soft, nan=0.0), axis=1)
    drawn = (rng.random((len(soft), 1)) * sums[:, -1:] >= sums).sum(axis=1)
    drawn = np.minimum(drawn, soft.shape[1] - 1)
    return np.where(np.isnan(soft).any(axis=1), -100, drawn).astype(np.int64)


def _read(file: Path, group: int) -> pa.Table:
    opened = pq.ParquetFile(file, memory_map=True, pre_buffer=False)
    return opened.read_row_group(group, columns=["image", *COLUMNS], use_threads=False)


def _unflagged(table: pa.Table) -> pa.Array:
    flagged = pc.or_(
        pc.fill_null(table["is_label_issue"], False), pc.fill_null(table["is_open_set"], False)
    )
    return pc.invert(flagged)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of fixed-size lists as float32[n, k]; NaN where there is none."""
    array = column.combine_chunks()
    width = array.type.list_size
    found = np.full((len(array), width), np.nan, dtype=np.float32)
    there = ~np.asarray(array.is_null())
    values = array.filter(array.is_valid()).flatten()
    if there.any():
        flat = values.to_numpy(zero_copy_only=False).astype(np.float32)
        found[there] = flat.reshape(-1, width)
    return found


def _unreadable(got: str) -> ReleaseError:
    return ReleaseError("pictures of one size", got=got, hint="give size=…, or verify the release")
