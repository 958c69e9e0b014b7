"""Training and held-out faces of a rater, folds of FER+, and batches.

FER+ repeats pictures, often cropped a little differently. Folds are therefore drawn by group of
near duplicates: no picture of one fold has a near copy in another, nor in the validation file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotation.raters.training import augment, ferplus, targets
from annotation.raters.training.ferplus import Faces
from warehouse.errors import SettingsError
from warehouse.ids import sha256_of

HELD_OUT = 0.06
"""Share of the groups used for calibration and early choices, never for training."""

RULE = (
    "pictures whose perceptual hashes (64 bit, of the aligned 112 px face) are within 4 bits, "
    "directly or through others, form a group; a group with a picture of the validation file is "
    "left out; the others go to part 1 + (the last 8 hex digits of the SHA-256 of the group's "
    "smallest pixel hash) modulo the number of parts; of a part, groups whose smallest pixel hash "
    "begins with 8 hex digits below 0.06 of their range are set aside for calibration; of "
    "identical pictures only the first is used"
)
"""Stored with the weights, so that a reader can compute which pictures a rater saw."""


@dataclass(frozen=True)
class RaterDataset:
    """Training and held-out faces with AU targets.

    Attributes:
        train, held_out: faces.
        train_au, held_out_au: float32[n, len(au_scale)] in 0..1, NaN where unknown.
        au_scale: FACS number to the robust maximum in the training faces that targets are
            divided by.
        n_duplicates: rows dropped because the picture or a near copy is in the validation file,
            or an earlier row has the same pixels.
        n_other_folds: rows of other folds.
    """

    train: Faces
    train_au: np.ndarray
    held_out: Faces
    held_out_au: np.ndarray
    au_scale: dict[int, float]
    n_duplicates: int
    n_other_folds: int = 0

    def batch(self, step: int, *, size: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Make the batch of a step; it depends on ``seed`` and ``step`` alone.

        Returns:
            Row numbers of ``train`` and their augmented faces uint8[n, side, side].
        """
        size = min(size, len(self.train))
        epoch, position = divmod(step, max(1, len(self.train) // size))
        order = np.random.default_rng((seed, epoch)).permutation(len(self.train))
        rows = order[position * size :][:size]
        rng = np.random.default_rng((seed, epoch, step))
        return rows, augment.batch(self.train, rows, side=side, rng=rng)


def build_dataset(train: Faces, valid: Faces, *, part: str = "1/1") -> RaterDataset:
    """Select one fold of ``train`` without duplicates and hold some of it out.

    Args:
        part: see ``in_fold``.
    """
    groups = duplicate_groups(train.concat(valid))
    ours, theirs = groups[: len(train)], groups[len(train) :]
    unique = ferplus.first_of_each(train) & ~np.isin(ours, theirs)
    selected = unique & in_fold(ours, part)
    aside = is_held_out(ours)
    learned, held_out = train.take(selected & ~aside), train.take(selected & aside)
    scale = targets.robust_scale(learned.units, learned.proxies)
    return RaterDataset(
        train=learned,
        train_au=targets.rescale(learned.units, learned.proxies, scale),
        held_out=held_out,
        held_out_au=targets.rescale(held_out.units, held_out.proxies, scale),
        au_scale=scale,
        n_duplicates=int((~unique).sum()),
        n_other_folds=int((unique & ~selected).sum()),
    )


def duplicate_groups(faces: Faces) -> np.ndarray:
    """Group near duplicates; return the group of each face, str[n].

    A group is named by the smallest pixel digest in it.
    """
    import imagehash
    import polars as pl
    from PIL import Image

    from annotation.audit.near_duplicates import NearDuplicates

    hashes = [str(imagehash.phash(Image.fromarray(gray))) for gray in faces.gray]
    rows = pl.DataFrame({"face_id": [f"{row:08d}" for row in range(len(faces))], "phash": hashes})
    chains = NearDuplicates().find(faces=rows).statistics["groups"]
    member = [int(chains.get(face_id, face_id)) for face_id in rows["face_id"]]
    smallest = dict[int, str]()
    for group, digest in zip(member, faces.digests.tolist(), strict=True):
        smallest[group] = min(digest, smallest.get(group, digest))
    return np.array([smallest[group] for group in member])


def in_fold(groups: np.ndarray, part: str) -> np.ndarray:
    """Select the rows a rater of this fold may be trained on; return bool[n].

    Args:
        part: ``1/2`` is the first of two folds, ``!1/5`` all but the first of five (for
            cross-fitting), ``1/1`` all rows.

    Raises:
        SettingsError: ``part`` has another form.
    """
    fold, _, n_folds = part.removeprefix("!").partition("/")
    if not (fold.isdigit() and n_folds.isdigit() and 1 <= int(fold) <= int(n_folds)):
        raise SettingsError(
            "--part is not a fold", got=repr(part), hint="give --part as 1/2 or !1/5"
        )
    digits = {group: sha256_of([group.encode()])[-8:] for group in np.unique(groups).tolist()}
    number = np.array([1 + int(digits[group], 16) % int(n_folds) for group in groups.tolist()])
    return (number == int(fold)) != part.startswith("!")


def is_held_out(groups: np.ndarray) -> np.ndarray:
    """Select the rows held out for calibration; return bool[n].

    The hash of the group decides.
    """
    return np.array([int(digest[:8], 16) / 2**32 for digest in groups.tolist()]) < HELD_OUT
