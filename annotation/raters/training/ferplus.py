"""FER+ images into aligned faces and targets, once, into a cache that can be resumed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from annotation.raters.training.alignment import SIDE, align, lay
from annotation.raters.training.targets import au_proxies, vote_shares
from warehouse.errors import MediaError, ModelError, TableError
from warehouse.ids import file_sha256, sha256_of
from warehouse.storage import atomic
from warehouse.vocabulary import EXPRESSIONS

HELD_OUT = 0.06
"""Share of the training file kept for calibration and early choices, never trained on."""

_SHARD = 400
_VOTES = (*EXPRESSIONS, "unknown", "NF")
_BY_ROW = ("names", "gray", "place", "found", "votes", "shares", "proxies", "digests")


@dataclass(frozen=True)
class Faces:
    """Aligned faces with what the crowd and the landmarker said about them.

    Attributes:
        names: the images' names.
        gray: uint8[n, 112, 112].
        place: float32[n, 2, 3], see ``align``.
        found: bool[n], False where the full frame stands in for a face.
        votes: uint8[n, 10] in the order of ``vocabulary.ANSWERS``.
        shares: float32[n, 10], the votes as distributions.
        units, proxies: FACS numbers and raw AU proxies float32[n, len(units)], NaN if unknown.
        digests: the pixels' hashes; the same picture has the same digest.
    """

    names: np.ndarray
    gray: np.ndarray
    place: np.ndarray
    found: np.ndarray
    votes: np.ndarray
    shares: np.ndarray
    units: list[int]
    proxies: np.ndarray
    digests: np.ndarray

    def __len__(self) -> int:
        return len(self.gray)

    def take(self, rows: np.ndarray) -> Faces:
        """The rows of a boolean mask or an index."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _BY_ROW})

    def and_(self, others: Faces) -> Faces:
        """These faces, then the others; both with the same ``units``."""
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(others, name)]) for name in _BY_ROW
        }
        return replace(self, **joined)


def prepare(
    parquet: Path,
    *,
    cache: Path,
    find: str,
    workers: int = 1,
    say: Callable[[int, int], None] | None = None,
) -> Faces:
    """Decode, find, align and cache every image of a FER+ file; see the README beside the data.

    Args:
        cache: a folder; kept shards are not computed again. Delete it when the finder changes.
        find: dotted name of ``find(image uint8[h, w, 3]) -> list`` with ``.crop`` and ``.score``.
        workers: processes that look for faces; 0 works in this one.
        say: called with shards done and shards in all.

    Raises:
        TableError: the file lacks a column or is no Parquet.
        ModelError: the finder cannot be imported.
    """
    frame = _read(parquet)
    key = sha256_of([file_sha256(str(parquet)).encode(), find.encode(), str(SIDE).encode()])[:12]
    folder = cache / f"{parquet.stem}-{key}"
    starts = range(0, len(frame), _SHARD)
    _resolve(find)
    jobs = {
        folder / f"{start:06d}.npz": frame["image"].slice(start, _SHARD).to_list()
        for start in starts
    }
    _fill({path: images for path, images in jobs.items() if not path.exists()}, find, workers, say)
    shards = [np.load(path) for path in jobs]
    place, found = (np.concatenate([s[name] for s in shards]) for name in ("place", "found"))
    return _with_targets(frame, place, found, _blendshape_names(parquet))


def first_of_each(faces: Faces) -> np.ndarray:
    """bool[n]: False where an earlier row holds the very same pixels."""
    _, first = np.unique(faces.digests, return_index=True)
    rows = np.zeros(len(faces), dtype=bool)
    rows[first] = True
    return rows


def held_out(groups: np.ndarray) -> np.ndarray:
    """bool[n]: the rows set aside for calibration, chosen by the hash of their group."""
    return np.array([int(digest[:8], 16) / 2**32 for digest in groups.tolist()]) < HELD_OUT


def _fill(
    jobs: dict[Path, list[bytes]],
    find: str,
    workers: int,
    say: Callable[[int, int], None] | None,
) -> None:
    work = partial(_shard, find=find)
    if workers < 1:
        for done, (path, images) in enumerate(jobs.items(), start=1):
            work(path, images)
            if say:
                say(done, len(jobs))
        return
    # Spawned, because a forked ONNX Runtime session may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(work, path, images) for path, images in jobs.items()]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            if say:
                say(done, len(jobs))


def _shard(path: Path, images: list[bytes], *, find: str) -> None:
    pairs = [align(decode(image), _resolve(find)) for image in images]
    places, found = zip(*pairs, strict=True)
    with atomic.replace_file(path) as draft, open(draft, "wb") as handle:
        np.savez(handle, place=np.stack(places), found=np.array(found))


def decode(image: bytes) -> np.ndarray:
    """The bytes of a picture as gray uint8[h, w]."""
    import cv2

    gray = cv2.imdecode(np.frombuffer(image, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if gray is None:
        raise MediaError(
            "a PNG image", got=f"{len(image)} other bytes", hint="fetch the data again"
        )
    return gray


@lru_cache(maxsize=2)
def _resolve(find: str) -> Callable[[np.ndarray], list[Any]]:
    place, _, attribute = find.partition(":")
    try:
        return getattr(importlib.import_module(place), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            "a face finder named package.module:function", got=str(error), hint="mend --find"
        ) from error


def _read(parquet: Path) -> pl.DataFrame:
    wanted = ("name", "image", *_VOTES, "blendshapes")
    try:
        return pl.read_parquet(parquet, columns=list(wanted))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(
            f"a FER+ file with the columns {', '.join(wanted)}",
            got=str(error).splitlines()[0],
            hint="see the README beside the data",
        ) from error


def _blendshape_names(parquet: Path) -> list[str]:
    path = parquet.parent / "blendshape_names.txt"
    if not path.is_file():
        raise TableError(
            f"{path.name} beside {parquet.name}", got="no such file", hint="fetch the data again"
        )
    return path.read_text().split()


def _with_targets(
    frame: pl.DataFrame, place: np.ndarray, found: np.ndarray, names: list[str]
) -> Faces:
    images = [decode(image) for image in frame["image"]]
    votes = frame.select(_VOTES).to_numpy().astype(np.uint8)
    shapes = np.full((len(frame), len(names)), np.nan, dtype=np.float32)
    for row, scores in enumerate(frame["blendshapes"].to_list()):
        if scores is not None:
            shapes[row] = scores
    units, proxies = au_proxies(shapes, names)
    return Faces(
        names=frame["name"].to_numpy(),
        gray=np.stack([lay(*pair) for pair in zip(images, place, strict=True)]),
        place=place,
        found=found,
        votes=votes,
        shares=vote_shares(votes),
        units=units,
        proxies=proxies,
        digests=np.array([sha256_of([image.tobytes()]) for image in images]),
    )
