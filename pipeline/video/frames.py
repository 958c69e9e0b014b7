"""A decoded frame as an upright RGB picture, whole or small."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline.video.container import check_size

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_EXIF = {
    2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3),
    8: (False, 1),
}  # fmt: skip
"""EXIF orientation to: mirrored?, then counter-clockwise quarter turns."""


_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "gray"}
"""Formats whose first plane is gray at 8 bits, which can be looked at for nothing."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded frame and how it stands; pixels are made when asked for.

    Attributes:
        source: as FFmpeg gave it.
        mirrored: left and right are changed over before turning.
        turns: counter-clockwise quarter turns to stand upright.
        ratio: width of a stored pixel over its height.
    """

    source: VideoFrame
    mirrored: bool
    turns: int
    ratio: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the upright picture."""
        width = round(self.source.width * self.ratio)
        return (self.source.height, width) if self.turns % 2 else (width, self.source.height)

    @cached_property
    def image(self) -> np.ndarray:
        """uint8[h, w, 3], RGB, upright, with square pixels."""
        return self._made(round(self.source.width * self.ratio), self.source.height)

    def small(self, side: int) -> np.ndarray:
        """``image`` with its longest side at most ``side``; scaled before colours are made."""
        width, height = round(self.source.width * self.ratio), self.source.height
        scale = side / max(width, height)
        if scale >= 1:
            return self.image
        return self._made(max(1, round(width * scale)), max(1, round(height * scale)))

    def stored(self, box: np.ndarray) -> tuple[np.ndarray, int, int] | None:
        """A part of the picture as the codec stored it.

        Args:
            box: ``x1 y1 x2 y2 …`` in pixels of ``image``.

        Returns:
            gray uint8[h, w], not turned nor stretched, and the column and row it begins at;
            None where the stored format is not plain 8-bit gray with colour beside it.
        """
        gray = gray_plane(self.source)
        if gray is None:
            return None
        low, high = self._unturned(box[:2]), self._unturned(box[2:4])
        x1, x2 = sorted((int(low[0]), int(high[0])))
        y1, y2 = sorted((int(low[1]), int(high[1])))
        x1, y1 = max(0, x1), max(0, y1)
        return gray[y1 : max(y1, y2), x1 : max(x1, x2)], x1, y1

    def _unturned(self, point: np.ndarray) -> tuple[float, float]:
        x, y = float(point[0]), float(point[1])
        width, height = self.source.width * self.ratio, self.source.height
        x, y = {0: (x, y), 1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[
            self.turns % 4
        ]
        return (width - x if self.mirrored else x) / self.ratio, y

    def _made(self, width: int, height: int) -> np.ndarray:
        smaller = width * height < self.source.width * self.source.height
        # One thread: threads of swscale cost more than they save below 4K, as measured.
        image = self.source.to_ndarray(
            format="rgb24",
            width=width,
            height=height,
            interpolation="AREA" if smaller else None,
            threads=1,
        )
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.turns))


def gray_plane(frame: VideoFrame) -> np.ndarray | None:
    """A frame's gray uint8[h, w] without a copy; None for formats that keep it otherwise."""
    if frame.format.name not in _PLANAR or frame.planes[0].line_size <= 0:
        return None
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    return rows[: frame.height, : frame.width]


def picture_of(frame: VideoFrame, stream: VideoStream, *, path: str, still: bool) -> Picture:
    """The picture in a frame of a stream.

    Raises:
        MediaError: it is too small or too large; a stream may change its size midway.
    """
    check_size(frame.width, frame.height)
    ratio = float(stream.sample_aspect_ratio or 1)
    if not (0.25 <= ratio <= 4 and abs(ratio - 1) > 0.02):
        # Pixels that are not square (DV, video calls) make every face too narrow or wide.
        ratio = 1.0
    # FFmpeg passes on the turn of the EXIF tag, but not the mirroring of selfies.
    mirrored, turns = (
        _EXIF.get(_exif_orientation(path), (False, 0))
        if still
        else (False, round((frame.rotation or 0) / 90) % 4)
    )
    return Picture(frame, mirrored=mirrored, turns=turns, ratio=ratio)


def _exif_orientation(path: str) -> int:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return int(picture.getexif().get(0x0112, 1))
    except Exception:  # Pillow's readers raise what they like; FFmpeg could read the picture
        return 1
