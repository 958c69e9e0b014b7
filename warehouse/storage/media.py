"""Content-addressed pictures: the same pixels are one file, whoever found them first."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from warehouse.errors import MediaError
from warehouse.ids import sha256_of
from warehouse.storage import atomic
from warehouse.storage.home import Home
from warehouse.storage.mirror import ensure_local as _fetch
from warehouse.storage.mirror import find

if TYPE_CHECKING:
    import numpy as np

KINDS = {"crops": ".png", "contexts": ".jpg"}
"""Crops stay lossless because labels and networks read them; contexts are for human eyes."""

_JPEG_QUALITY = 88
_AT_ONCE = 8


def store(home: Home, kind: str, image: np.ndarray) -> str:
    """Keep one picture and return its media key, ``<kind>/<2 hex>/<32 hex><suffix>``.

    Args:
        kind: ``crops`` or ``contexts``.
        image: uint8[h, w, 3], RGB.
    """
    data = encode(image, KINDS[kind])
    digest = sha256_of([data])
    key = f"{kind}/{digest[:2]}/{digest[:32]}{KINDS[kind]}"
    path = home.media / key
    # Compare, not only look: making a picture anew is how a damaged one is mended.
    if not path.exists() or path.read_bytes() != data:
        atomic.write_bytes(path, data)
    return key


def encode(image: np.ndarray, suffix: str) -> bytes:
    """``image`` uint8[h, w, 3] RGB as the bytes of a ``.png`` or ``.jpg`` file."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, image[:, :, ::-1], options)
    return data.tobytes()


def path_of(home: Home, key: str) -> Path:
    """The file behind a media key; in a home on an object store, fetched when it is not here yet.

    Raises:
        MediaError: the key would leave the media folder.
    """
    pure = PurePosixPath(key)
    if (
        pure.is_absolute()
        or ".." in pure.parts
        or pure.parts[:1] not in {(kind,) for kind in KINDS}
    ):
        raise MediaError(
            f"a media key below {' or '.join(KINDS)}", got=repr(key), hint="rebuild the table row"
        )
    return _fetch(home.media / pure)


def ensure_local(home: Home, keys: Iterable[str | None]) -> None:
    """Have these pictures on this machine, for a server that reads files; of a local home they are.

    One that the bucket lacks stays missing, as a lost file of a local home would.
    """
    if find(home.media / "crops") is None:
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda key: path_of(home, key), sorted({key for key in keys if key})):
            pass


def load(home: Home, key: str) -> np.ndarray:
    """The picture behind a key as uint8[h, w, 3] RGB.

    Raises:
        MediaError: the file is gone or damaged.
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
            f"a picture at {path}",
            got="no file" if not path.exists() else "bytes that are no picture",
            hint="ingest its batch again; crops are made anew from the video",
        )
    return np.ascontiguousarray(image[:, :, ::-1])
