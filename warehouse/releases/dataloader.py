"""Read a release as shuffled PyTorch batches. Imports torch."""

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
from warehouse.releases import verification, versions
from warehouse.releases.schema import CONFIGS
from warehouse.storage.home import Home

LABELS = ("soft", "hard", "sampled")

_COLUMNS = (
    "image", "expression", "soft_label", "label_quality", "is_label_issue", "is_open_set", "au",
)  # fmt: skip
_WINDOW = 4
"""Row groups (at most 16 MB each) whose rows are mixed: shuffling with sequential reads."""
_PREFETCH = 4
"""Batches that each worker prepares ahead."""


def torch_dataset(
    name: str | Path,
    version: str | int = "latest",
    *,
    home: str | Path | Home | None = None,
    split: str = "train",
    batch_size: int = 64,
    labels: str = "soft",
    shuffle: bool = True,
    seed: int = 0,
    size: int | None = None,
    gray: bool = False,
    drop_flagged: bool = False,
    drop_last: bool = False,
    synthetic: bool = False,
    skip_verification: str | None = None,
) -> FaceBatches:
    """Return an iterable dataset of batches of faces and labels.

    Each batch is a mapping of tensors::

        image   uint8[n, 3, h, w] RGB, or uint8[n, 1, h, w] with ``gray``
        label   float32[n, 8]: the soft label; NaN if all votes were outside the classes
                int64[n] with ``hard`` (-100 if shares tie) or ``sampled`` (-100 without label)
        weight  float32[n]: label_quality, 1 if not audited
        au      float32[n, K], NaN if not measured

    ``sampled`` draws a new class from each soft label in every epoch. Over many epochs a face
    appears under each answer as often as raters gave it, and any loss for hard labels works.

    Pass the result to ``torch.utils.data.DataLoader(faces, batch_size=None, num_workers=2)``, or
    call ``.loader(workers=2)``; row groups are divided among the workers. ``set_epoch(n)`` before
    each epoch changes the order and the sampled labels. The same seed, epoch and number of workers
    give the same batches. A row group is mixed with up to three others::

        faces = torch_dataset("faces", home=home, size=48, gray=True)
        loader = faces.loader(workers=2)
        for epoch in range(10):
            faces.set_epoch(epoch)
            for batch in loader:
                log_probs = network(batch["image"].float() / 255).log_softmax(dim=1)
                known = ~batch["label"].isnan().any(dim=1)
                loss = -(batch["label"] * log_probs)[known].sum(dim=1)
                (loss * batch["weight"][known]).mean().backward()

    Args:
        name: of a release, or the folder of one version (``version`` is then ignored).
        split: train, validation or test.
        size: resize images to this square; if None, all must have one size.
        drop_flagged: leave out label issues and open-set faces.
        drop_last: leave out the last batch of each worker if it is smaller.
        synthetic: read the faces of config ``synthetic``, if there is one, with those of train.
        skip_verification: why checksums are not compared; it is shown in a warning. By default
            the files of the split are hashed once per process, and again if they change.

    Raises:
        ReleaseError: there is no such release, version or split; files were changed, added or
            removed; images have several sizes or cannot be decoded.
    """
    if labels not in LABELS:
        raise ReleaseError(
            f"labels is not one of {', '.join(LABELS)}", got=repr(labels), hint="choose one of them"
        )
    folder = Path(name) if Path(name).is_dir() else None
    path = folder or versions.resolve(Home.at(home), str(name), version)
    prefix = f"{CONFIGS['default']}{split}-"
    prefixes = [prefix]
    if synthetic and split == "train":
        prefixes.append(CONFIGS["synthetic"])
    contents = verification.check(path, *prefixes, skip=skip_verification)
    files = [file for one in prefixes for file in verification.files(path, contents, one)]
    if not files:
        listed = verification.files(path, contents, CONFIGS["default"])
        existing = sorted({file.name.split("-")[0] for file in listed})
        raise ReleaseError(
            f"{path} has no split {split}", got=f"only {', '.join(existing)}", hint="choose one"
        )
    return FaceBatches(
        files, batch_size=batch_size, labels=labels, shuffle=shuffle, seed=seed, size=size,
        gray=gray, drop_flagged=drop_flagged, drop_last=drop_last,
        verified=skip_verification is None,
    )  # fmt: skip


class FaceBatches(IterableDataset[dict[str, Any]]):
    """Batches of a split; ``torch_dataset`` documents the options."""

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
        verified: bool = False,
    ) -> None:
        self.files, self.batch_size, self.labels = files, batch_size, labels
        self.shuffle, self.seed = shuffle, seed
        # In shared memory, so that persistent workers see the number of the next epoch.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self.size, self.gray = size, gray
        self.drop_flagged, self.drop_last = drop_flagged, drop_last
        self._sums = {file: verification.checksum(file) for file in files if verified}
        self._identities = {file: verification.identity(file) for file in self._sums}
        self.groups = [
            (number, group)
            for number, file in enumerate(files)
            for group in range(pq.ParquetFile(file).num_row_groups)
        ]

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which seeds the order and the sampled labels."""
        self._epoch.fill_(epoch)

    def loader(self, *, workers: int = 0) -> DataLoader[Any]:
        """Return a ``DataLoader`` with persistent worker processes; 0 for none."""
        return DataLoader(
            self,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=_PREFETCH if workers else None,
            persistent_workers=workers > 0,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            # One thread per worker: more would compete for the same cores.
            cv2.setNumThreads(0)
        self._check_unchanged()
        groups = self._group_order()[worker_id::num_workers]
        rng = np.random.default_rng((self.seed, self.epoch, worker_id + 1))
        carried: pa.Table | None = None
        for start in range(0, len(groups), _WINDOW):
            tables = [
                _read(self.files[file], group) for file, group in groups[start : start + _WINDOW]
            ]
            table = pa.concat_tables([carried, *tables] if carried is not None else tables)
            if self.drop_flagged:
                table = table.filter(_unflagged(table))
            last = start + _WINDOW >= len(groups)
            rows, rest = self._row_order(table.num_rows, rng, last=last)
            carried = table.take(pa.array(rest)) if len(rest) else None
            yield from self._batches(_Window(table.combine_chunks()), rows, rng)

    def _check_unchanged(self) -> None:
        """Hash files again whose size, times or inode differ from those verified."""
        for file, known in self._identities.items():
            if verification.identity(file) != known and (
                verification.checksum(file) != self._sums[file]
            ):
                raise ReleaseError(
                    "The release was changed while it was read",
                    got=str(file),
                    hint="restore the files from a copy, or build a new version",
                )

    def _group_order(self) -> list[tuple[int, int]]:
        if not self.shuffle:
            return self.groups
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.groups))
        return [self.groups[index] for index in order]

    def _row_order(
        self, n: int, rng: np.random.Generator, *, last: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of whole batches, and those carried to the next window."""
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
            if self.labels == "hard":
                label = window.hard[chosen]
            else:
                label = window.soft[chosen]
                if self.labels == "sampled":
                    label = sample_classes(label, rng)
            image = window.decode(chosen, size=self.size, gray=self.gray)
            yield {
                "image": torch.from_numpy(image),
                "label": torch.from_numpy(label),
                "weight": torch.from_numpy(window.weight[chosen]),
                "au": torch.from_numpy(window.au[chosen]),
            }


class _Window:
    """Row groups in memory: numbers as arrays, images as one buffer of bytes."""

    def __init__(self, table: pa.Table) -> None:
        weight = table["label_quality"].to_numpy().astype(np.float32)
        self.soft, self.au = _matrix(table["soft_label"]), _matrix(table["au"])
        self.weight = np.nan_to_num(weight, nan=1.0)
        self.hard = pc.fill_null(table["expression"], -100).to_numpy().astype(np.int64)
        if not table.num_rows:
            return
        # `chunk` shares the memory that `combine_chunks` would copy for every batch.
        data = table["image"].chunk(0).field("bytes")
        _, offsets, images = data.buffers()
        self._offsets = np.frombuffer(offsets, np.int32)[data.offset :]
        self._images = np.frombuffer(images, np.uint8)

    def decode(self, rows: np.ndarray, *, size: int | None, gray: bool) -> np.ndarray:
        """Return the images of ``rows`` as uint8[n, 3 or 1, h, w], RGB or gray."""
        mode = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB
        found: np.ndarray | None = None
        for index, row in enumerate(rows):
            data = self._images[self._offsets[row] : self._offsets[row + 1]]
            image = cv2.imdecode(data, mode)
            if image is None:
                raise ReleaseError(
                    "An image cannot be decoded",
                    got=f"{len(data)} bytes",
                    hint="verify the release",
                )
            if size is not None and image.shape[:2] != (size, size):
                image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            if found is None:
                found = np.empty((len(rows), *image.shape), np.uint8)
            if image.shape != found.shape[1:]:
                raise ReleaseError(
                    "The images are not of one size",
                    got=f"{found.shape[1:3]} and {image.shape[:2]}",
                    hint="set size",
                )
            found[index] = image
        assert found is not None
        if gray:
            return found[:, None]
        return np.ascontiguousarray(found.transpose(0, 3, 1, 2))


def sample_classes(soft: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one class per soft label float[n, k] by its shares: int64[n].

    Rows with NaN give -100, which torch losses ignore.
    """
    sums = np.cumsum(np.nan_to_num(soft, nan=0.0), axis=1)
    drawn = (rng.random((len(soft), 1)) * sums[:, -1:] >= sums).sum(axis=1)
    drawn = np.minimum(drawn, soft.shape[1] - 1)
    return np.where(np.isnan(soft).any(axis=1), -100, drawn).astype(np.int64)


def _read(file: Path, group: int) -> pa.Table:
    opened = pq.ParquetFile(file, memory_map=True, pre_buffer=False)
    return opened.read_row_group(group, columns=list(_COLUMNS), use_threads=False)


def _unflagged(table: pa.Table) -> pa.Array:
    flagged = pc.or_(
        pc.fill_null(table["is_label_issue"], False), pc.fill_null(table["is_open_set"], False)
    )
    return pc.invert(flagged)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Convert a column of fixed-size lists to float32[n, k]; NaN for nulls."""
    array = column.combine_chunks()
    width = array.type.list_size
    found = np.full((len(array), width), np.nan, dtype=np.float32)
    valid = ~np.asarray(array.is_null())
    values = array.filter(array.is_valid()).flatten()
    if valid.any():
        flat = values.to_numpy(zero_copy_only=False).astype(np.float32)
        found[valid] = flat.reshape(-1, width)
    return found
