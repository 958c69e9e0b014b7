"""Where the faces of a video are at any time, and hiding the bystanders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.faces import anonymize

_MAX_GAP_S = 1.0
"""Bridge gaps between two detections of a face up to this length. After its last detection a
face is hidden in its last place for half of it."""


@dataclass(frozen=True)
class BoxTrack:
    """Boxes float[n, 4], ``x1 y1 x2 y2``, of a face at float[n] seconds."""

    times: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of(cls, rows: pl.DataFrame) -> BoxTrack:
        found = rows["bbox"].to_numpy().astype(float).reshape(-1, 4)
        return cls(
            rows["time_s"].to_numpy(), np.hstack([found[:, :2], found[:, :2] + found[:, 2:]])
        )

    def at(self, now: float) -> np.ndarray | None:
        """Cover the detections before and after with a box; None if absent."""
        after = int(np.searchsorted(self.times, now - 1e-3))
        near = [row for row in (after - 1, after) if 0 <= row < len(self.times)]
        near = [row for row in near if abs(self.times[row] - now) <= _MAX_GAP_S / 2] or (
            near if len(near) == 2 and np.diff(self.times[near])[0] <= _MAX_GAP_S else []
        )
        if not near:
            return None
        return np.concatenate([self.boxes[near, :2].min(axis=0), self.boxes[near, 2:].max(axis=0)])


def box_tracks(faces: pl.DataFrame) -> dict[str, BoxTrack]:
    """Return the track of every face of a video: ``track_id, time_s, bbox``."""
    parts = faces.sort("time_s").partition_by("track_id", as_dict=True)
    return {str(track): BoxTrack.of(rows) for (track,), rows in parts.items()}


def hide_others(
    image: np.ndarray,
    tracks: Mapping[str, BoxTrack],
    now: float,
    *,
    subjects: Collection[str],
    shift: np.ndarray | None = None,
) -> np.ndarray:
    """Hide every face that is at a time in an image, but those of subjects.

    Args:
        image: uint8[h, w, 3], a part of the frame; not changed.
        now: seconds.
        subjects: tracks that stay.
        shift: ``x y x y``, the place of the part in the frame.

    Returns:
        ``image`` itself if no face was hidden, else a copy.
    """
    placed = {track: box for track, boxed in tracks.items() if (box := boxed.at(now)) is not None}
    others = [box for track, box in placed.items() if track not in subjects]
    if not others:
        return image
    own = [box for track, box in placed.items() if track in subjects]
    shift = np.zeros(4) if shift is None else shift
    # One subject is protected where ellipses overlap; with several the first is.
    boxes = np.array([*others, *own[:1]], dtype=float) - shift
    return anonymize.blur_others(image, boxes=boxes, subject=len(others) if own else -1)
