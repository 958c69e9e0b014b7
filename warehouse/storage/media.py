"""Store images under the hash of their bytes: equal pixels are one file."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import polars as pl

from warehouse.errors import MediaError
from warehouse.ids import sha256_of
from warehouse.storage import atomic, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

if TYPE_CHECKING:
    import numpy as np

KINDS = {"crops": ".png", "contexts": ".jpg"}
"""Crops are lossless because raters read them; contexts are only shown to annotators."""

FOLDERS = (*KINDS, "clips", "sound", "segments", "sensors", "pictures", "videos", "marked")
"""Folders below ``media`` that a key may begin with."""

_JPEG_QUALITY = 88
_PARALLEL = 8


def store(home: Home, kind: str, image: np.ndarray) -> str:
    """Store one image; return ``<kind>/<2 hex>/<32 hex><suffix>``.

    Args:
        kind: ``crops`` or ``contexts``.
        image: uint8[h, w, 3], RGB.
    """
    data = encode(image, KINDS[kind])
    digest = sha256_of([data])
    key = f"{kind}/{digest[:2]}/{digest[:32]}{KINDS[kind]}"
    path = home.media / key
    # Compare the bytes too: storing an image again repairs a damaged file.
    if not path.exists() or path.read_bytes() != data:
        atomic.write_bytes(path, data)
    return key


def encode(image: np.ndarray, suffix: str) -> bytes:
    """Encode ``image``, uint8[h, w, 3] RGB, as ``.png`` or ``.jpg``."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, image[:, :, ::-1], options)
    return data.tobytes()


def path_of(home: Home, key: str) -> Path:
    """Return the file of a media key, downloaded first if it is missing here.

    Raises:
        MediaError: the key points outside the media folder.
    """
    pure = PurePosixPath(key)
    if (
        pure.is_absolute()
        or ".." in pure.parts
        or pure.parts[:1] not in {(folder,) for folder in FOLDERS}
    ):
        raise MediaError(
            f"The media key is not below {', '.join(FOLDERS)}",
            got=repr(key),
            hint="rebuild the table row",
        )
    return mirror.ensure_local(home.media / pure)


@dataclass(frozen=True)
class Named:
    """Keys that rows name below ``media``, and ids that name files."""

    keys: set[str]
    ids: set[str]

    def covers(self, key: str) -> bool:
        """Return whether a row names the file of a key."""
        return key in self.keys or PurePosixPath(key).stem in self.ids


def named(home: Home) -> Named:
    """Return the names of every file below ``media`` that a row stands for.

    Any text column of any table may hold a key. Clips are named after their track, marked
    contexts after their face, whole pictures and videos after their video.
    """
    folders = {path.name for path in home.media.iterdir()} if home.media.is_dir() else set()
    pattern = f"^({'|'.join(sorted(folders)) or 'crops'})/"
    keys: set[str] = set()
    for name, table in TABLES.items():
        if not (files := tables.paths(home, name)):
            continue
        of_table = tables.scan_files(files, table)
        columns = [
            of_table.select(pl.col(column).filter(pl.col(column).str.contains(pattern)).unique())
            for column, kind in table.columns.items()
            if kind == pl.String
        ]
        for found in pl.collect_all(columns):
            keys.update(found.to_series())
    ids: set[str] = set()
    for name, column in (
        ("tracks", "track_id"),
        ("faces", "face_id"),
        ("segments", "segment_id"),
        ("videos", "video_id"),
    ):
        ids.update(tables.scan(home, name).select(pl.col(column).unique()).collect()[column])
    return Named(keys, ids)


def orphans(home: Home) -> list[Path]:
    """Return the files below ``media`` that no row names, of killed processes.

    A picture is stored before its row, so while a process writes, its pictures are among them.
    """
    known = named(home)
    files = sorted(home.media.rglob("*")) if home.media.is_dir() else []
    return [
        path
        for path in files
        if not path.is_dir() and not known.covers(path.relative_to(home.media).as_posix())
    ]


def ensure_local(home: Home, keys: Iterable[str | None]) -> None:
    """Download these images, for a server that reads local files.

    Does nothing for a local data directory. An image the store lacks stays missing.
    """
    if mirror.find(home.media / "crops") is None:
        return
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda key: path_of(home, key), sorted({key for key in keys if key})))


def load(home: Home, key: str) -> np.ndarray:
    """Return the image of a media key as uint8[h, w, 3] RGB.

    Raises:
        MediaError: the file is missing or damaged.
    """
    import cv2
    import numpy as np

    path = path_of(home, key)
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError:
        data = np.empty(0, dtype=np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise MediaError(
            "The image cannot be read",
            got=f"{path} is {'damaged' if path.exists() else 'missing'}",
            hint="ingest its batch again; this recreates crops from the video",
        )
    return np.ascontiguousarray(image[:, :, ::-1])
