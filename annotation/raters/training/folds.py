"""Which pictures a rater may learn from, when another rater must not see them.

FER+ repeats pictures, often cropped a little differently. Parts are therefore drawn by group of
near duplicates: no picture of one part has a near copy in another, nor in the validation file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from warehouse.errors import SettingsError
from warehouse.ids import sha256_of

if TYPE_CHECKING:
    from annotation.raters.training.ferplus import Faces

RULE = (
    "pictures whose perceptual hashes (64 bit, of the aligned 112 px face) are within 4 bits, "
    "directly or through others, form a group; a group with a picture of the validation file is "
    "left out; the others go to part 1 + (the last 8 hex digits of the SHA-256 of the group's "
    "smallest pixel hash) modulo the number of parts; of a part, groups whose smallest pixel hash "
    "begins with 8 hex digits below 0.06 of their range are set aside for calibration; of "
    "identical pictures only the first is used"
)


def groups(faces: Faces) -> np.ndarray:
    """str[n]: the smallest pixel digest of each face's group of near duplicates."""
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


def learned(groups: np.ndarray, part: str) -> np.ndarray:
    """bool[n]: the rows whose group a rater of this part may learn from.

    Args:
        part: ``1/2`` is the first of two parts, ``!1/5`` everything but the first of five (a
            cross-fit fold), ``1/1`` everything.

    Raises:
        SettingsError: ``part`` is none of these.
    """
    wanted, _, of = part.removeprefix("!").partition("/")
    if not (wanted.isdigit() and of.isdigit() and 1 <= int(wanted) <= int(of)):
        raise SettingsError("a part such as 1/2 or !1/5", got=repr(part), hint="give --part")
    digits = {group: sha256_of([group.encode()])[-8:] for group in np.unique(groups).tolist()}
    number = np.array([1 + int(digits[group], 16) % int(of) for group in groups.tolist()])
    return (number == int(wanted)) != part.startswith("!")
