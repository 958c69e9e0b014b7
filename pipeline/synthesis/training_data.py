"""Training data and guidance rater for synthesis.

``python -m synthesis.training.train`` names these functions, because ``synthesis`` may not import
``annotation``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from warehouse.vocabulary import ACTION_UNITS, AU_INDEX, EXPRESSIONS

if TYPE_CHECKING:
    from annotation.raters.torch_rater import TorchRater
    from annotation.raters.training.dataset import RaterDataset
    from synthesis.training.dataset import TrainingFaces

FIND = "pipeline.faces:find"
LICENCE = "FER2013 images with FER+ votes (Barsoum et al., 2016); research use"


def faces(
    folder: Path,
    *,
    side: int,
    cache: Path,
    workers: int = 1,
    progress: Callable[[str], None] = lambda line: None,
) -> TrainingFaces:
    """Read aligned FER+ training faces, without the validation file's.

    Pictures without a found face are left out, and those whose most frequent answer is not one of
    the eight expressions. AU proxies are on the machine rater's scale.

    Args:
        folder: with ``ferplus-{train,valid}.parquet``; or a file of
            ``annotation.raters.training.prepare``.
        cache: folder of alignments, shared with ``annotation.raters.training.train``.

    Raises:
        TableError: a file is missing or of another form.
    """
    from annotation.raters.training import ferplus
    from annotation.raters.training.dataset import UniqueFaces, build_dataset

    if folder.is_file():
        return from_rater_dataset(UniqueFaces.load(folder).part(), side=side)
    read = {}
    for split in ("valid", "train"):
        progress(f"aligning {split}")
        read[split] = ferplus.prepare(
            folder / f"ferplus-{split}.parquet", cache=cache, find=FIND, workers=workers
        )
    return from_rater_dataset(build_dataset(read["train"], read["valid"]), side=side)


def from_rater_dataset(dataset: RaterDataset, *, side: int) -> TrainingFaces:
    """Convert a rater's faces to training faces of the generator."""
    from synthesis.training.dataset import TrainingFaces

    parts = (dataset.train, dataset.held_out)
    votes = np.concatenate([part.votes for part in parts])
    au = np.full((len(votes), len(ACTION_UNITS)), np.nan, dtype=np.float32)
    columns = [AU_INDEX[unit] for unit in dataset.au_scale]
    au[:, columns] = np.concatenate([dataset.train_au, dataset.held_out_au])
    found = np.concatenate([part.found for part in parts])
    rows = np.flatnonzero(found & ~outvoted(votes))
    expression = votes[rows, : len(EXPRESSIONS)].astype(np.float32)
    return TrainingFaces(
        gray=shrink(np.concatenate([part.gray for part in parts])[rows], side=side),
        expression=expression / expression.sum(axis=1, keepdims=True),
        au=au[rows],
        digest=np.concatenate([part.digests for part in parts])[rows],
    )


def outvoted(votes: np.ndarray) -> np.ndarray:
    """Select rows in which no expression outvotes the open set: bool[n]."""
    classes = len(EXPRESSIONS)
    return votes[:, :classes].max(axis=1) <= votes[:, classes:].max(axis=1)


def shrink(gray: np.ndarray, *, side: int) -> np.ndarray:
    """Resize uint8[n, s, s] to uint8[n, side, side], averaging over areas."""
    import cv2

    size = (side, side)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in gray])


def guide() -> TorchRater:
    """Load the guidance rater, ``guide``.

    The evaluation rater is another network, trained on other pictures.
    """
    from annotation.raters import torch_rater

    return torch_rater.load("guide")
