"""What synthesis learns from: faces of FER+ and the machine rater as guide.

``python -m synthesis.training.train`` names these functions; synthesis itself does not know
annotation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from warehouse.vocabulary import ACTION_UNITS, AU_INDEX, EXPRESSIONS

if TYPE_CHECKING:
    from annotation.raters.torch_rater import DifferentiableRater
    from annotation.raters.training.dataset import Lesson
    from synthesis.training.training_data import Teaching

FIND = "pipeline.faces:find"
LICENCE = "FER2013 images with FER+ votes (Barsoum et al., 2016); research use"


def faces(
    folder: Path,
    *,
    side: int,
    cache: Path,
    workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Teaching:
    """FER+ training faces, less the validation file's, in the pipeline's aligned geometry.

    Left out: pictures in which no face was found, and those whose most frequent answer is not one
    of the eight expressions. AU proxies are on the machine rater's scale.

    Args:
        folder: with ``ferplus-{train,valid}.parquet``.
        cache: where the places of the faces are kept; shared with
        ``annotation.raters.training.train``.

    Raises:
        TableError: a file is missing or of another form.
    """
    from annotation.raters.training import ferplus
    from annotation.raters.training.dataset import lesson_of

    read = {}
    for split in ("valid", "train"):
        say(f"aligning {split}")
        read[split] = ferplus.prepare(
            folder / f"ferplus-{split}.parquet", cache=cache, find=FIND, workers=workers
        )
    return from_lesson(lesson_of(read["train"], read["valid"]), side=side)


def from_lesson(lesson: Lesson, *, side: int) -> Teaching:
    """The faces that a rater learns from and those it sets aside, as synthesis wants them."""
    from synthesis.training.training_data import Teaching

    parts = (lesson.learn, lesson.hold)
    votes = np.concatenate([part.votes for part in parts])
    known = np.concatenate([lesson.learn_au, lesson.hold_au])
    au = np.full((len(votes), len(ACTION_UNITS)), np.nan, dtype=np.float32)
    au[:, [AU_INDEX[unit] for unit in lesson.scale]] = known
    found = np.concatenate([part.found for part in parts])
    rows = np.flatnonzero(found & ~outvoted(votes))
    gray = np.concatenate([part.gray for part in parts])[rows]
    expression = votes[rows, : len(EXPRESSIONS)].astype(np.float32)
    return Teaching(
        gray=shrink(gray, side=side),
        expression=expression / expression.sum(axis=1, keepdims=True),
        au=au[rows],
        digest=np.concatenate([part.digests for part in parts])[rows],
    )


def outvoted(votes: np.ndarray) -> np.ndarray:
    """bool[n]: no expression got more votes than the most frequent open-set answer."""
    classes = len(EXPRESSIONS)
    return votes[:, :classes].max(axis=1) <= votes[:, classes:].max(axis=1)


def shrink(gray: np.ndarray, *, side: int) -> np.ndarray:
    """uint8[n, s, s] to uint8[n, side, side], averaging over areas."""
    import cv2

    size = (side, side)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in gray])


def guide() -> DifferentiableRater:
    """The rater that guides: A. The one that judges is another network."""
    from annotation.raters import torch_rater

    return torch_rater.load("default")
