"""Read the picture of an HEIC or AVIF file.

FFmpeg returns the tiles of such a picture one by one. libheif and libavif join them, apply crop
and rotation, and choose the primary item among thumbnails, depth and alpha planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from warehouse.errors import MediaError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from PIL.Image import Image

BRANDS = {
    b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"msf1", b"avif", b"avis", b"avci",
}  # fmt: skip
"""Brands of ISO files that may hold pictures as items, outside any track."""

_NEEDED = {b"ftyp", b"meta", b"mdat", b"idat"}

_AV1 = {b"avif", b"avis"}


@dataclass(frozen=True, eq=False)
class Picture:
    """The primary picture of a file.

    Attributes:
        image: uint8[h, w, 3], RGB, upright.
        codec: that its items are coded with.
        transfer: of its colours, as a number of ITU-T H.273; 2 if unknown.
    """

    image: np.ndarray
    codec: str
    transfer: int


def holds_picture(path: str) -> bool:
    """Return whether a file holds a still picture and no animation."""
    try:
        with open(path, "rb") as handle:
            boxes, _, _ = top_level_boxes(handle)
    except OSError:
        return False
    return bool(boxes & BRANDS) and b"meta" in boxes and b"moov" not in boxes


def read(path: str, *, check_size: Callable[[int, int], None]) -> Picture:
    """Decode the primary picture of a file.

    Args:
        check_size: called with width and height before anything is decoded.

    Raises:
        MediaError: it cannot be decoded (``decode_error``) or is incomplete (``truncated``).
    """
    with open(path, "rb") as handle:
        boxes, end, whole = top_level_boxes(handle)
        if not whole:
            raise MediaError(
                "The image is incomplete",
                got="truncated: the file ends inside its picture",
                hint="copy it again from the camera",
            )
        handle.seek(0)
        data = handle.read(end)
    readers = [_read_avif, _read_heic] if boxes & _AV1 else [_read_heic, _read_avif]
    problems = []
    for one in readers:
        try:
            return one(BytesIO(data), check_size)
        except MediaError:
            raise
        except Exception as error:  # both libraries raise many types
            problems.append(str(error) or type(error).__name__)
    raise MediaError(
        "The image cannot be decoded",
        got=f"decode_error: its HEIC or AVIF picture cannot be decoded ({problems[0]})",
        hint="export it as JPEG or PNG",
    )


def top_level_boxes(handle: BinaryIO) -> tuple[set[bytes], int, bool]:
    """Walk over the boxes of an ISO file.

    Returns:
        Names of the boxes with the brands; where the last ends; whether all are complete. What
        cameras append, another file or data of their own, does not count.
    """
    names: set[bytes] = set()
    size_of_file = handle.seek(0, 2)
    position = 0
    for _ in range(64):
        handle.seek(position)
        head = handle.read(16)
        name = head[4:8]
        if len(head) < 8 or (name == b"ftyp" and name in names):
            break
        size = int.from_bytes(head[:4], "big")
        if name == b"ftyp":
            brands = head[8:12] + handle.read(max(0, min(size, 1024) - 16))
            names |= {brands[at : at + 4] for at in range(0, len(brands), 4)}
        names.add(name)
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size == 0:
            return names, size_of_file, True
        if size < 8 or position + size > size_of_file:
            return names, position, name not in _NEEDED
        position += size
    return names, position, True


def _read_heic(handle: BinaryIO, check_size: Callable[[int, int], None]) -> Picture:
    import pi_heif

    file = pi_heif.open_heif(handle)
    if not file.info["primary"]:
        # libheif passes over items that it cannot read; another item is another picture.
        raise ValueError("its primary picture cannot be read")
    check_size(*file.size)
    colours: dict[str, Any] = file.info.get("nclx_profile") or {}
    transfer = int(colours.get("transfer_characteristics", 2))
    return Picture(_rgb(file.to_pillow()), "hevc", transfer)


def _read_avif(handle: BinaryIO, check_size: Callable[[int, int], None]) -> Picture:
    from PIL import Image, ImageOps

    with Image.open(handle, formats=["AVIF"]) as image:
        check_size(*image.size)
        # Pillow reports the rotation and mirroring of the file as EXIF orientation.
        upright = _rgb(ImageOps.exif_transpose(image))
    handle.seek(0)
    return Picture(upright, "av1", _transfer(handle))


def _rgb(image: Image) -> np.ndarray:
    import numpy as np

    return np.ascontiguousarray(image.convert("RGB"))


def _transfer(handle: BinaryIO) -> int:
    import av

    try:
        with av.open(handle, metadata_errors="ignore") as container:
            return int(container.streams.video[0].codec_context.color_trc)
    except (av.FFmpegError, ValueError, IndexError):
        return 2
