"""Extract the faces of one video: detect, track, align, measure, gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.faces import align, anonymize, labelled, quality
from pipeline.faces.adaptive_detection import detect_frames
from pipeline.faces.detect import Detector
from pipeline.video import reader
from warehouse import ids
from warehouse.errors import MediaError
from warehouse.geometry import CONTEXT_SCALE
from warehouse.storage.schema import TABLES

if TYPE_CHECKING:
    from trackers.utils.base_tracklet import BaseTracklet

SaveImage = Callable[[str, np.ndarray], str]
"""Called as ``save(kind, image)``; stores one image and returns its media key."""

LOST_AFTER_S = 1.0
"""A face hidden for longer gets a new track."""

_IOU_BUFFER = 0.3
"""Boxes are widened by this share before they are compared (Yang et al., 2023,
arXiv:2211.14317): at five samples a second a turning head moves by its own width."""

_MIN_IOU = 0.1

_CHUNK = 4096
"""Rows of faces converted to a data frame at once."""


@dataclass(frozen=True)
class Extraction:
    """The result of one video.

    Attributes:
        faces: rows of the table ``faces``.
        tracks: rows of the table ``tracks``.
        verdict: of the video, with ``reason`` unless kept without a remark.
        duration_s: of the video as measured; None if it broke before its first frame.
        last_s: time of its last sampled frame.
    """

    faces: pl.DataFrame
    tracks: pl.DataFrame
    verdict: str
    reason: str | None
    duration_s: float | None = None
    last_s: float = 0.0


def extract(
    path: str,
    *,
    video_id: str,
    batch: str,
    subject_id: str | None,
    detector: Detector,
    gate: quality.Gate,
    fps: float,
    save: SaveImage,
    blur_bystanders: bool = True,
    hardware: bool = False,
    labels: labelled.Labelled | None = None,
) -> Extraction:
    """Extract every face of a video at every sampled time.

    Memory holds a second of frames, whatever the length of the video. If a video breaks midway,
    the faces before are kept and the reason says so. Dropped faces keep their crop, so that a
    reviewer can see what was dropped.

    Args:
        blur_bystanders: hide every other detected face in a face's context image.
        hardware: decode on a device if one is available.
        labels: what an imported data set says of the faces of this file.
    """
    tracker, rows = Tracker(fps=fps), _Rows()
    broken, n_frames, last_s = None, 0, 0.0
    outcome = reader.Outcome()
    try:
        frames = reader.sample(path, fps=fps, hardware=hardware, outcome=outcome)
        for found in detect_frames(frames, detector=detector, fps=fps):
            n_frames += 1
            frame = found.frame
            seen = labelled.apply(labels, found.boxes, found.keypoints, frame.size)
            boxes = seen.boxes
            last_s = frame.time_s
            if frame.cut:
                tracker.reset()
            for face, number in enumerate(tracker.update(_sure(seen), time_s=frame.time_s)):
                image = frame.image
                if blur_bystanders:
                    image = anonymize.blur_others(
                        frame.image, boxes=boxes, subject=face, reach=CONTEXT_SCALE
                    )
                track = ids.track_id(video_id, number)
                rows.add(
                    face_id=ids.face_id(track, frame.index),
                    track_id=track,
                    video_id=video_id,
                    batch=batch,
                    **_face(
                        frame, image, box=boxes[face], keypoints=seen.keypoints[face],
                        flag=seen.flags[face], spared=seen.spared[face], gate=gate, save=save,
                    ),
                )  # fmt: skip
    except MediaError as error:
        broken = f"{error.got}; {error.hint}"
    faces = rows.table()
    verdict, reason = _verdict(faces, n_frames=n_frames, broken=broken)
    # The code of the reason stays in front, because reasons are counted by it.
    return Extraction(
        faces=faces,
        tracks=_tracks(faces, subject_id=subject_id),
        verdict=verdict,
        reason="; ".join(part for part in (reason, outcome.note) if part) or None,
        duration_s=outcome.duration_s,
        last_s=last_s,
    )


class Tracker:
    """Assign track numbers to boxes with SORT of the package ``trackers``.

    SORT (Bewley et al., 2016, doi:10.1109/ICIP.2016.7533003) gives a track its id at its second
    detection, since in a crowd the first may be noise. Here every detection has passed the
    detector's threshold and none may be lost, so the first one is numbered at once. ByteTrack
    was tried: it forgets a track after two missed samples if it was seen only once.
    """

    def __init__(self, *, fps: float) -> None:
        self._fps, self._next = fps, 0
        self.reset()

    def reset(self) -> None:
        """End every track at a cut: a face in the same place is another face."""
        from trackers import BIoU, SORTTracker

        self._tracker = SORTTracker(
            lost_track_buffer=round(30 * LOST_AFTER_S),
            frame_rate=self._fps,
            track_activation_threshold=0.0,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=_MIN_IOU,
            iou=BIoU(buffer_ratio=_IOU_BUFFER),
        )
        self._known: list[tuple[BaseTracklet, int]] = []

    def update(self, boxes: np.ndarray, *, time_s: float) -> list[int]:
        """Return one track number per box, from 0 in order of first appearance.

        Args:
            boxes: float32[n, 5], ``x1 y1 x2 y2 score`` in pixels.
            time_s: time of this frame; must grow from call to call.
        """
        import supervision as sv

        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
        found = self._tracker.update(
            sv.Detections(xyxy=boxes[:, :4], confidence=boxes[:, 4]), timestamp=time_s
        )
        number_of = {id(tracklet): number for tracklet, number in self._known}
        # Tracklets begun by this call, in the order of the boxes that matched no track.
        new = iter([track for track in self._tracker.tracks if id(track) not in number_of])
        by_id = {track.tracker_id: track for track in self._tracker.tracks}
        numbers = []
        for tracker_id in [] if found.tracker_id is None else found.tracker_id:
            tracklet = next(new) if tracker_id == -1 else by_id[int(tracker_id)]
            if id(tracklet) not in number_of:
                number_of[id(tracklet)], self._next = self._next, self._next + 1
            numbers.append(number_of[id(tracklet)])
        # References to the tracklets prevent their ids from being reused.
        self._known = [(track, number_of[id(track)]) for track in self._tracker.tracks]
        return numbers


class _Rows:
    """Rows of ``faces`` in chunks of data frames, to bound memory."""

    def __init__(self) -> None:
        self._chunks = [TABLES["faces"].empty()]
        self._rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        self._rows.append(row)
        if len(self._rows) == _CHUNK:
            self._flush()

    def table(self) -> pl.DataFrame:
        self._flush()
        return pl.concat(self._chunks)

    def _flush(self) -> None:
        self._chunks.append(pl.DataFrame(self._rows, schema=TABLES["faces"].schema))
        self._rows = []


def _sure(faces: labelled.FrameFaces) -> np.ndarray:
    """Return the boxes for the tracker, to which an added face is certain."""
    boxes = faces.boxes.copy()
    boxes[[flag is not None for flag in faces.flags], 4] = 1
    return boxes


def _face(
    frame: reader.Frame,
    context: np.ndarray,
    *,
    box: np.ndarray,
    keypoints: np.ndarray,
    gate: quality.Gate,
    save: SaveImage,
    flag: str | None = None,
    spared: bool = False,
) -> dict[str, Any]:
    """Return the columns of a face that follow from its pixels.

    Args:
        flag: reason of a face that has no keypoints, because it was added.
        spared: the gate flags it, but does not drop it.
    """
    bbox = np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]], dtype=np.float32)
    points: np.ndarray | None = keypoints if flag is None else None
    crop = labelled.crop(frame.image, box) if points is None else align.align(frame.image, points)
    measures = quality.measure(
        frame.image, crop, box=box, keypoints=points, stored=frame.stored(box)
    )
    verdict, reason = gate.check(measures)
    if spared:
        verdict, reason = "kept", flag or reason
    pose = None if points is None else measures.pose
    return {
        "frame": frame.index,
        "time_s": frame.time_s,
        "bbox": bbox.tolist(),
        "keypoints": None if points is None else points.tolist(),
        "detector_score": measures.score,
        "yaw": pose and pose.yaw,
        "pitch": pose and pose.pitch,
        "roll": pose and pose.roll,
        "sharpness": measures.sharpness,
        "brightness": measures.brightness,
        "size_px": measures.size_px,
        "clipped": measures.clipped,
        "blockiness": measures.blockiness,
        # Five keypoints cannot tell a hand from a cheek: null means unknown.
        "occlusion": None,
        "crop": save("crops", crop),
        "context": save("contexts", align.context(context, bbox)),
        "phash": _phash(crop),
        "verdict": verdict,
        # Only the code, so that rows can be grouped by reason; the values have their columns.
        "reason": reason and reason.split(":")[0],
    }


def _phash(crop: np.ndarray) -> str:
    import imagehash
    from PIL import Image

    return str(imagehash.phash(Image.fromarray(crop)))


def _verdict(faces: pl.DataFrame, *, n_frames: int, broken: str | None) -> tuple[str, str | None]:
    if (faces["verdict"] == "kept").any():
        return "kept", broken
    if broken:
        return "failed", broken
    if faces.is_empty():
        return "dropped", f"no_face: no face in {n_frames} sampled frames"
    codes = Counter(faces["reason"])
    listed = ", ".join(f"{code} {n}" for code, n in codes.most_common())
    return "dropped", f"no_usable_face: {faces.height} faces, all dropped ({listed})"


def _tracks(faces: pl.DataFrame, *, subject_id: str | None) -> pl.DataFrame:
    """Aggregate faces to one row per track.

    The best face of a track is the kept one of highest sharpness times score. The main track of
    a video is the one whose kept faces have the largest sum of sizes.
    """
    score = pl.col("sharpness") * pl.col("detector_score")
    best = (
        faces.filter(pl.col("verdict") == "kept")
        .sort(score, "frame", descending=[True, False])
        .group_by("track_id")
        .agg(best_face_id=pl.col("face_id").first())
    )
    kept_size = pl.col("size_px").filter(pl.col("verdict") == "kept").sum()
    return (
        faces.group_by("track_id", "video_id", "batch")
        .agg(
            kept_size,
            start_s=pl.col("time_s").min(),
            end_s=pl.col("time_s").max(),
            n_frames=pl.len(),
        )
        .join(best, on="track_id", how="left")
        .with_columns(subject_id=pl.lit(subject_id, dtype=pl.String))
        .sort("track_id")
        .with_columns(
            # Samples are evenly spaced, so the sum is kept time times size; ties go to the first.
            is_main=(pl.col("size_px") > 0)
            & (pl.int_range(pl.len()) == pl.col("size_px").arg_max())
        )
        .select(pl.col(name).cast(kind) for name, kind in TABLES["tracks"].columns.items())
    )
