"""The same face followed through a video, by SORT of the package ``trackers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trackers.utils.base_tracklet import BaseTracklet

LOST_AFTER_S = 1.0
"""A face hidden for longer comes back as another track."""

_REACH = 0.3
"""Boxes are widened by this share before they are compared (Yang et al., 2023,
arXiv:2211.14317): at five samples a second a turning head moves by its own width."""

_LEAST_OVERLAP = 0.1


class Tracker:
    """Numbers for boxes: the same face keeps its number from sample to sample.

    SORT (Bewley et al., 2016, doi:10.1109/ICIP.2016.7533003) gives a track its id at its second
    sight, since in a crowd the first may be noise. Here every detection has passed the
    detector's threshold and none may be lost, so a first sight is numbered at once. ByteTrack
    was tried: it forgets a track after two missed samples if it was seen only once.
    """

    def __init__(self, *, fps: float) -> None:
        self._fps, self._next = fps, 0
        self.cut()

    def cut(self) -> None:
        """End every track: another shot begins, and who stands where somebody stood is another."""
        from trackers import BIoU, SORTTracker

        self._tracker = SORTTracker(
            lost_track_buffer=round(30 * LOST_AFTER_S),
            frame_rate=self._fps,
            track_activation_threshold=0.0,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=_LEAST_OVERLAP,
            iou=BIoU(buffer_ratio=_REACH),
        )
        self._known: list[tuple[BaseTracklet, int]] = []

    def update(self, boxes: np.ndarray, *, time_s: float) -> list[int]:
        """Track numbers, from 0 in order of first appearance, one per box.

        Args:
            boxes: float32[n, 5], ``x1 y1 x2 y2 score`` in pixels.
            time_s: time of this picture; must grow from call to call.
        """
        import supervision as sv

        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
        found = self._tracker.update(
            sv.Detections(xyxy=boxes[:, :4], confidence=boxes[:, 4]), timestamp=time_s
        )
        number_of = {id(tracklet): number for tracklet, number in self._known}
        # Begun by this call, in the order of the boxes that no track claimed.
        fresh = iter([track for track in self._tracker.tracks if id(track) not in number_of])
        by_id = {track.tracker_id: track for track in self._tracker.tracks}
        numbers = []
        for tracker_id in [] if found.tracker_id is None else found.tracker_id:
            tracklet = next(fresh) if tracker_id == -1 else by_id[int(tracker_id)]
            if id(tracklet) not in number_of:
                number_of[id(tracklet)], self._next = self._next, self._next + 1
            numbers.append(number_of[id(tracklet)])
        # Holding the tracklets keeps their identities from being reused.
        self._known = [(track, number_of[id(track)]) for track in self._tracker.tracks]
        return numbers
