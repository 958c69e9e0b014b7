"""The same face followed through a video, by ByteTrack of the package ``trackers``."""

from __future__ import annotations

import numpy as np

LOST_AFTER_S = 1.0
"""A face hidden for longer comes back as another track."""

_LEAST_OVERLAP = 0.1
"""At five samples a second a turning head moves by half its width between two of them."""


class Tracker:
    """Numbers for boxes: the same face keeps its number from sample to sample.

    ByteTrack (Zhang et al., ECCV 2022, arXiv:2110.06864) leaves the first sight of a track
    without an id, since in a crowd it may be noise. Here every detection has passed the
    detector's threshold and none may be lost, so a first sight is numbered at once.
    """

    def __init__(self, *, fps: float) -> None:
        from trackers import ByteTrackTracker

        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(30 * LOST_AFTER_S),
            frame_rate=fps,
            track_activation_threshold=0.0,
            high_conf_det_threshold=0.0,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=_LEAST_OVERLAP,
        )
        self._numbers: dict[int, int] = {}
        self._alive: list[object] = []
        self._next = 0

    def update(self, boxes: np.ndarray, *, time_s: float) -> list[int]:
        """Track numbers, from 0 in order of first appearance, one per box.

        Args:
            boxes: float32[n, 5], ``x1 y1 x2 y2 score`` in pixels.
            time_s: time of this picture; must grow from call to call.
        """
        import supervision as sv

        detections = sv.Detections(
            xyxy=np.asarray(boxes[:, :4], dtype=np.float64).reshape(-1, 4),
            confidence=np.asarray(boxes[:, 4], dtype=np.float64),
            data={"row": np.arange(len(boxes))},
        )
        found = self._tracker.update(detections, timestamp=time_s)
        by_id = {int(track.tracker_id): track for track in self._tracker.tracks}
        # New tracks stand at the end, in the order of the detections that began them.
        fresh = iter([track for track in self._tracker.tracks if track.tracker_id == -1])
        numbers = [-1] * len(boxes)
        for row, tracker_id in zip(found.data.get("row", []), found.tracker_id, strict=True):
            track = by_id[int(tracker_id)] if tracker_id != -1 else next(fresh, None)
            numbers[int(row)] = self._number(track)
        # Numbers are kept by object; holding the objects keeps their identities from reuse.
        self._alive = list(self._tracker.tracks)
        return numbers

    def _number(self, track: object | None) -> int:
        if track is None or id(track) not in self._numbers or track not in self._alive:
            number, self._next = self._next, self._next + 1
            if track is not None:
                self._numbers[id(track)] = number
            return number
        return self._numbers[id(track)]
