"""Where one shot ends and the next begins."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline.video.frames import gray_plane

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    Marked = tuple[int, float, VideoFrame, bool]

GRID = (27, 48)
"""Rows and columns of the gray picture that frames are compared by."""

_LEAST = 3.5
"""Change below which nothing is a cut."""

_ABOVE = 1.5
"""A cut changes this many times more than any of the frames around it.

Both were chosen, among other rules, on 160 shots cut together from the sample clips; the
benchmark measures on others.
"""

_BEFORE = 3
"""So many changes before a cut it is held against, and one after it."""


class Cuts:
    """Tells cuts from motion, frame by frame, at a few microseconds each.

    Two numbers say how much a frame differs from the one before: the mean change of gray on a
    coarse grid, which is small for whatever is slow, and one less the correlation of the two,
    which is small for lamps and camera flashes. Their geometric mean must stand out from the
    frames around, as in PySceneDetect's adaptive detector; so a frame is judged when the next
    one is known.
    """

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._before: deque[float] = deque(maxlen=_BEFORE)
        self._change = 0.0

    def mark(self, frames: Iterable[tuple[int, float, VideoFrame]]) -> Iterator[Marked]:
        """Each number, time and frame with whether a new shot begins there."""
        held = None
        for entry in frames:
            cut = self.compare(grid_of(entry[2]))
            if held is not None:
                yield (*held, cut)
            held = entry
        if held is not None:
            yield (*held, self.compare(None))

    def compare(self, grid: np.ndarray | None) -> bool:
        """Whether a new shot began with the gray picture uint8[27, 48] given before this one.

        None says that there are no more.
        """
        change = 0.0 if grid is None else self._step(grid)
        around = max([change, *self._before])
        cut = self._change > max(_LEAST, _ABOVE * around)
        self._before.append(self._change)
        self._change = change
        return cut

    def _step(self, grid: np.ndarray) -> float:
        gray, shape = grid.astype(np.float32), _shape(grid)
        last, self._last = self._last, (gray, shape)
        if last is None:
            return 0.0
        moved = float(np.abs(gray - last[0]).mean())
        return float(np.sqrt(moved * max(0.0, 1 - float((shape * last[1]).mean()))))


def grid_of(frame: VideoFrame) -> np.ndarray:
    """A frame as a gray picture uint8[27, 48], every so many pixels."""
    rows, columns = GRID
    plane = gray_plane(frame)
    if plane is None or frame.width < columns or frame.height < rows:
        return frame.to_ndarray(format="gray", width=columns, height=rows, threads=1)
    down = (np.arange(rows) * 2 + 1) * frame.height // (2 * rows)
    across = (np.arange(columns) * 2 + 1) * frame.width // (2 * columns)
    return plane[down[:, None], across[None]]


def _shape(grid: np.ndarray) -> np.ndarray:
    """What is left of a grid without its brightness and contrast, blurred a little."""
    import cv2

    blurred = cv2.blur(grid, (5, 5)).astype(np.float32)
    # Flat pictures would be all noise; 4 is the contrast below which they count as flat.
    return (blurred - blurred.mean()) / (blurred.std() + 4)
