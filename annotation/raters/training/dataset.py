"""Training and held-out faces of a rater, folds of FER+, and batches.

FER+ repeats pictures, often cropped a little differently. Folds are therefore drawn by group of
near duplicates: no picture of one fold has a near copy in another, nor in the validation file.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from annotation.raters.training import augment, ferplus, targets
from annotation.raters.training.ferplus import Faces
from warehouse.errors import MediaError, SettingsError, TableError
from warehouse.ids import sha256_of
from warehouse.storage import atomic
from warehouse.training import loop

_VERSION = 1
"""Of the file of prepared faces."""

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
class Batch:
    """Inputs of one training step, on one device.

    Attributes:
        face: float32[n, 1, side, side] in 0..255.
        shares: float32[n, 10], rows sum to 1.
        au: float32[n, K] in 0..1, NaN where unknown.
    """

    face: Tensor
    shares: Tensor
    au: Tensor


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


class Batches:
    """Batches of a dataset, drawn and augmented on a device."""

    def __init__(self, dataset: RaterDataset, device: str) -> None:
        faces = dataset.train
        self.device = device
        self._gray, self._transform, self._shares, self._au = (
            torch.from_numpy(part).to(device)
            for part in (faces.gray, faces.transform, faces.shares, dataset.train_au)
        )

    def batch(self, step: int, *, size: int, side: int, seed: int, mix: float = 0.0) -> Batch:
        """Make the batch of a step; it depends on seed, step and device alone.

        Args:
            mix: part of the batch that is mixed with itself, see ``augment.mix``.
        """
        n = len(self._gray)
        size = min(size, n)
        epoch, position = divmod(step, max(1, n // size))
        order = torch.randperm(n, generator=loop.generator("cpu", seed, epoch))
        rows = order[position * size :][:size].to(self.device)
        generator = loop.generator(self.device, seed, epoch, step)
        face = augment.batch(
            self._gray[rows], self._transform[rows], side=side, generator=generator
        )
        return Batch(
            *augment.mix(face, self._shares[rows], self._au[rows], part=mix, generator=generator)
        )


@dataclass(frozen=True)
class UniqueFaces:
    """Training faces without duplicates and validation pictures.

    Attributes:
        faces: of all folds.
        groups: see ``duplicate_groups``.
        n_duplicates: rows that were left out.
    """

    faces: Faces
    groups: np.ndarray
    n_duplicates: int

    @classmethod
    def of(cls, train: Faces, valid: Faces) -> UniqueFaces:
        """Leave out copies in ``train``, and faces with a near copy in ``valid``."""
        groups = duplicate_groups(train.concat(valid))
        ours, theirs = groups[: len(train)], groups[len(train) :]
        unique = ferplus.first_of_each(train) & ~np.isin(ours, theirs)
        return cls(train.take(unique), ours[unique], int((~unique).sum()))

    def part(self, part: str = "1/1") -> RaterDataset:
        """Select one fold, see ``in_fold``, and hold some of it out."""
        selected, aside = in_fold(self.groups, part), is_held_out(self.groups)
        train, held_out = (self.faces.take(selected & rows) for rows in (~aside, aside))
        scale = targets.robust_scale(train.units, train.proxies)
        return RaterDataset(
            train=train,
            train_au=targets.rescale(train.units, train.proxies, scale),
            held_out=held_out,
            held_out_au=targets.rescale(held_out.units, held_out.proxies, scale),
            au_scale=scale,
            n_duplicates=self.n_duplicates,
            n_other_folds=int((~selected).sum()),
        )

    def save(self, path: Path) -> None:
        """Write one file from which a machine without face finder can train.

        Images are stored without loss, AU proxies in half precision.
        """
        encoded = [_encode(image) for image in self.faces.images]
        digests = np.stack([self.faces.digests, self.groups], axis=1)
        with atomic.replace_file(path) as draft, open(draft, "wb") as handle:
            np.savez_compressed(
                handle,
                version=np.array(_VERSION),
                images=np.frombuffer(b"".join(encoded), np.uint8),
                sizes=np.array([len(image) for image in encoded], np.int32),
                digests=np.frombuffer(bytes.fromhex("".join(digests.ravel())), np.uint8),
                transform=self.faces.transform,
                found=self.faces.found,
                votes=self.faces.votes,
                units=np.array(self.faces.units, np.int32),
                proxies=self.faces.proxies.astype(np.float16),
                n_duplicates=np.array(self.n_duplicates),
            )

    @classmethod
    def load(cls, path: Path) -> UniqueFaces:
        """Read a file of ``save``.

        Raises:
            TableError: the file is missing, damaged or of another version.
        """
        try:
            with np.load(path) as stored:
                arrays = dict(stored)
            if int(arrays["version"]) != _VERSION:
                raise ValueError(f"version {arrays['version']}")
            ends = np.cumsum(arrays["sizes"])
            images = [part.tobytes() for part in np.split(arrays["images"], ends[:-1])]
            pixels = [ferplus.decode(image) for image in images]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MediaError) as error:
            raise TableError(
                f"{path.name} is not a file of prepared faces",
                got=str(error).splitlines()[0] if str(error) else type(error).__name__,
                hint="write it again with annotation.raters.training.prepare",
            ) from error
        hexes = [row.tobytes().hex() for row in arrays["digests"].reshape(-1, 32)]
        digests, groups = np.array(hexes).reshape(-1, 2).T
        files = np.empty(len(images), dtype=object)
        files[:] = images
        faces = Faces(
            names=digests,
            images=files,
            gray=ferplus.warped(pixels, arrays["transform"]),
            transform=arrays["transform"],
            found=arrays["found"],
            votes=arrays["votes"],
            shares=targets.vote_shares(arrays["votes"]),
            units=arrays["units"].tolist(),
            proxies=arrays["proxies"].astype(np.float32),
            digests=digests,
        )
        return cls(faces, groups, int(arrays["n_duplicates"]))


def build_dataset(train: Faces, valid: Faces, *, part: str = "1/1") -> RaterDataset:
    """Select one fold of ``train`` without duplicates and hold some of it out.

    Args:
        part: see ``in_fold``.
    """
    return UniqueFaces.of(train, valid).part(part)


def _encode(image: bytes) -> bytes:
    """Encode the pixels of an image file without loss, as small as possible."""
    import cv2

    options = [cv2.IMWRITE_WEBP_QUALITY, 101]  # above 100 is lossless
    return cv2.imencode(".webp", ferplus.decode(image), options)[1].tobytes()


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
