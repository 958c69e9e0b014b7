"""Detect shot boundaries."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

GRID = (27, 48)
"""Rows and columns of the gray grid that frames are compared by."""

_MIN_CHANGE = 3.5
"""Smallest change that can be a cut."""

_RATIO = 1.5
"""A cut changes this many times more than any of the frames around it.

Both values were chosen, among other rules, on 160 shots joined from the sample clips;
``tests/benchmarks/ingest_cuts.py`` measures on other videos.
"""

_BEFORE = 3
"""Changes before a cut that it is compared with; one after it is compared too."""

_GRAY_PLANE = {
    "yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "gray"
}  # fmt: skip
"""Pixel formats whose first plane is 8-bit gray, readable without a conversion."""


class CutDetector:
    """Tell cuts from motion, frame by frame, in a few microseconds each.

    Two numbers measure how much a frame differs from the previous one: the mean change of gray
    on a coarse grid, small for slow changes, and one minus the correlation of the two, small for
    lamps and camera flashes. Their geometric mean must stand out from the frames around, as in
    PySceneDetect's adaptive detector. So a frame is decided when the next one is known.
    """

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._before: deque[float] = deque(maxlen=_BEFORE)
        self._change = 0.0

    def detect(
        self, frames: Iterable[tuple[int, float, VideoFrame]]
    ) -> Iterator[tuple[int, float, VideoFrame, bool]]:
        """Add to each number, time and frame whether a new shot begins there."""
        previous = None
        for entry in frames:
            cut = self.compare(gray_grid(entry[2]))
            if previous is not None:
                yield (*previous, cut)
            previous = entry
        if previous is not None:
            yield (*previous, self.compare(None))

    def compare(self, grid: np.ndarray | None) -> bool:
        """Return whether a new shot began with the previous grid.

        Args:
            grid: uint8[27, 48] of the next frame; None after the last one.
        """
        change = 0.0 if grid is None else self._change_to(grid)
        around = max([change, *self._before])
        cut = self._change > max(_MIN_CHANGE, _RATIO * around)
        self._before.append(self._change)
        self._change = change
        return cut

    def _change_to(self, grid: np.ndarray) -> float:
        gray, shape = grid.astype(np.float32), _normalized(grid)
        last, self._last = self._last, (gray, shape)
        if last is None:
            return 0.0
        moved = float(np.abs(gray - last[0]).mean())
        return float(np.sqrt(moved * max(0.0, 1 - float((shape * last[1]).mean()))))


def gray_plane(frame: VideoFrame) -> np.ndarray | None:
    """Return the gray uint8[h, w] of a frame without a copy, or None."""
    if frame.format.name not in _GRAY_PLANE or frame.planes[0].line_size <= 0:
        return None
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    return rows[: frame.height, : frame.width]


def gray_grid(frame: VideoFrame) -> np.ndarray:
    """Sample a frame on a gray grid uint8[27, 48]."""
    rows, columns = GRID
    plane = gray_plane(frame)
    if plane is None or frame.width < columns or frame.height < rows:
        return frame.to_ndarray(format="gray", width=columns, height=rows, threads=1)
    down = (np.arange(rows) * 2 + 1) * frame.height // (2 * rows)
    across = (np.arange(columns) * 2 + 1) * frame.width // (2 * columns)
    return plane[down[:, None], across[None]]


def _normalized(grid: np.ndarray) -> np.ndarray:
    """Blur a grid a little and remove its brightness and contrast."""
    import cv2

    blurred = cv2.blur(grid, (5, 5)).astype(np.float32)
    # Flat images would be all noise; 4 is the contrast below which they count as flat.
    return (blurred - blurred.mean()) / (blurred.std() + 4)
