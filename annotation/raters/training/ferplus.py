"""FER+ images as aligned faces with votes and AU proxies.

Every image is enlarged and given to the pipeline's face finder. Its five points are mapped to
ArcFace's as the pipeline does, so that training and use share one geometry. An image without a
found face is mapped by the median points of the data set. Alignments are cached in shards, so an
interrupted call continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotation.raters.training.targets import au_proxies, vote_shares
from warehouse import plugins
from warehouse.errors import MediaError, TableError
from warehouse.ids import file_sha256, sha256_of
from warehouse.storage import atomic
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    import polars as pl

SIDE = 112
"""Side of the cached faces, larger than the network's input so that augmentation can move them."""

ENLARGED = 192
"""Side to which images are enlarged before detection."""

_USUAL_POINTS = ((14.8, 19.4), (32.4, 18.6), (23.7, 28.7), (17.0, 36.2), (31.3, 35.5))
"""Medians over 300 training images, in pixels of the 48 px frame."""

_ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
            (70.7299, 92.2041))  # fmt: skip
"""InsightFace's template in a 112 px square."""

_SHARD = 400
_VOTES = (*EXPRESSIONS, "unknown", "NF")
_BY_ROW = ("names", "images", "gray", "transform", "found", "votes", "shares", "proxies", "digests")


@dataclass(frozen=True)
class Faces:
    """Aligned faces with votes and AU proxies.

    Attributes:
        names: the images' names.
        images: the files, as bytes.
        gray: uint8[n, 112, 112].
        transform: float32[n, 2, 3], see ``align``.
        found: bool[n], False where the whole frame is used because no face was found.
        votes: uint8[n, 10] in the order of ``vocabulary.ANSWERS``.
        shares: float32[n, 10], the votes as distributions.
        units, proxies: FACS numbers and raw AU proxies float32[n, len(units)], NaN if unknown.
        digests: hashes of the images' pixels.
    """

    names: np.ndarray
    images: np.ndarray
    gray: np.ndarray
    transform: np.ndarray
    found: np.ndarray
    votes: np.ndarray
    shares: np.ndarray
    units: list[int]
    proxies: np.ndarray
    digests: np.ndarray

    def __len__(self) -> int:
        return len(self.gray)

    def take(self, rows: np.ndarray) -> Faces:
        """Select rows by a boolean mask or an index."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _BY_ROW})

    def concat(self, others: Faces) -> Faces:
        """Append faces with the same ``units``."""
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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Faces:
    """Decode and align every image of a FER+ file.

    Args:
        parquet: with the columns ``name``, ``image`` (PNG), one per answer, ``blendshapes``;
            ``blendshape_names.txt`` is beside it.
        cache: folder of the alignments; delete it when the finder changes.
        find: dotted name of ``find(image uint8[h, w, 3]) -> list`` of objects with
            ``.keypoints`` and ``.score``.
        workers: processes that detect faces; 0 detects in this process.
        progress: called with finished shards and all shards.

    Raises:
        TableError: the file lacks a column or is not Parquet.
        ModelError: the finder cannot be imported.
    """
    frame = _read(parquet)
    key = sha256_of([file_sha256(str(parquet)).encode(), find.encode(), str(SIDE).encode()])[:12]
    folder = cache / f"{parquet.stem}-{key}"
    _finder(find)
    shards = {
        folder / f"{start:06d}.npz": frame["image"].slice(start, _SHARD).to_list()
        for start in range(0, len(frame), _SHARD)
    }
    missing = {path: images for path, images in shards.items() if not path.exists()}
    for done, _ in enumerate(_aligned(missing, find, workers), start=1):
        progress(done, len(missing))
    cached = [np.load(path) for path in shards]
    transform, found = (np.concatenate([s[name] for s in cached]) for name in ("place", "found"))
    return _with_targets(frame, transform, found, _blendshape_names(parquet))


def first_of_each(faces: Faces) -> np.ndarray:
    """Select rows whose pixels no earlier row has; return bool[n]."""
    _, first = np.unique(faces.digests, return_index=True)
    rows = np.zeros(len(faces), dtype=bool)
    rows[first] = True
    return rows


def decode(image: bytes) -> np.ndarray:
    """Decode an image file to gray uint8[h, w].

    Raises:
        MediaError: it is not an image.
    """
    import cv2

    gray = cv2.imdecode(np.frombuffer(image, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if gray is None:
        raise MediaError(
            "The image cannot be decoded", got=f"{len(image)} bytes", hint="fetch the data again"
        )
    return gray


def align(image: np.ndarray, find: Callable[[np.ndarray], list[Any]]) -> tuple[np.ndarray, bool]:
    """Locate the face in a gray square uint8[h, h].

    Returns:
        The similarity transform float32[2, 3] from pixels of the enlarged image to the cached
        face, and whether a face was found.
    """
    import cv2

    large = cv2.resize(image, (ENLARGED, ENLARGED), interpolation=cv2.INTER_CUBIC)
    found = find(np.repeat(large[:, :, None], 3, axis=2))
    if not found:
        return usual_transform(), False
    best = max(found, key=lambda face: face.score)
    return _similarity(np.asarray(best.keypoints), np.array(_ARCFACE)), True


def usual_transform() -> np.ndarray:
    """Return the transform float32[2, 3] for a frame without a found face."""
    return _similarity(np.array(_USUAL_POINTS) * ENLARGED / 48, np.array(_ARCFACE))


def warp(image: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Cut the face out of a gray square image as uint8[112, 112].

    Edge pixels are repeated outside the image, where the pipeline paints black. Augmentation
    paints some of them black later; faces in films seldom touch the image border.
    """
    import cv2

    large = cv2.resize(image, (ENLARGED, ENLARGED), interpolation=cv2.INTER_CUBIC)
    return cv2.warpAffine(large, transform, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def warped(images: Sequence[np.ndarray], transform: np.ndarray) -> np.ndarray:
    """Cut the faces out of many images as uint8[n, 112, 112]."""
    with ThreadPoolExecutor() as pool:  # OpenCV releases the interpreter's lock
        return np.stack(list(pool.map(warp, images, transform)))


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit a similarity transform float32[2, 3] (Umeyama, 1991)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, d, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (d * np.diag(sign)).sum() / (a**2).sum()
    rotation = scale * u @ sign @ vt
    shift = target.mean(axis=0) - rotation @ source.mean(axis=0)
    return np.column_stack([rotation, shift]).astype(np.float32)


def _aligned(shards: dict[Path, list[bytes]], find: str, workers: int) -> Iterator[None]:
    work = partial(_write_shard, find=find)
    if workers < 1:
        yield from (work(path, images) for path, images in shards.items())
        return
    # Spawned, because a forked ONNX Runtime session may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(work, path, images) for path, images in shards.items()]
        yield from (future.result() for future in as_completed(futures))


def _write_shard(path: Path, images: list[bytes], *, find: str) -> None:
    finder = _finder(find)
    transforms, found = zip(*(align(decode(image), finder) for image in images), strict=True)
    with atomic.replace_file(path) as draft, open(draft, "wb") as handle:
        np.savez(handle, place=np.stack(transforms), found=np.array(found))


def _finder(find: str) -> Callable[[np.ndarray], list[Any]]:
    return plugins.resolve(find, hint="correct --find")


def _read(parquet: Path) -> pl.DataFrame:
    import polars as pl

    columns = ("name", "image", *_VOTES, "blendshapes")
    try:
        return pl.read_parquet(parquet, columns=list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(
            f"{parquet.name} is not a FER+ file with the columns {', '.join(columns)}",
            got=str(error).splitlines()[0],
            hint="see annotation/README.md",
        ) from error


def _blendshape_names(parquet: Path) -> list[str]:
    path = parquet.parent / "blendshape_names.txt"
    if not path.is_file():
        raise TableError(
            f"{path.name} is missing beside {parquet.name}", got="", hint="fetch the data again"
        )
    return path.read_text().split()


def _with_targets(
    frame: pl.DataFrame, transform: np.ndarray, found: np.ndarray, names: list[str]
) -> Faces:
    images = [decode(image) for image in frame["image"].to_list()]
    votes = frame.select(_VOTES).to_numpy().astype(np.uint8)
    shapes = np.full((len(frame), len(names)), np.nan, dtype=np.float32)
    for row, scores in enumerate(frame["blendshapes"].to_list()):
        if scores is not None:
            shapes[row] = scores
    units, proxies = au_proxies(shapes, names)
    return Faces(
        names=frame["name"].to_numpy(),
        images=frame["image"].to_numpy(),
        gray=warped(images, transform),
        transform=transform,
        found=found,
        votes=votes,
        shares=vote_shares(votes),
        units=units,
        proxies=proxies,
        digests=np.array([sha256_of([image.tobytes()]) for image in images]),
    )
