"""One video into its faces: detect, align, track, gate; every face leaves with a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline.faces import align, anonymize, quality
from pipeline.faces.adaptive_detection import watch
from pipeline.faces.detect import Detector
from pipeline.faces.tracker import Tracker
from pipeline.video import reader
from warehouse import ids
from warehouse.errors import MediaError
from warehouse.storage.schema import TABLES

Keep = Callable[[str, np.ndarray], str]
"""Stores one picture, ``keep(kind, image)``, and returns its media key."""

_PACKED = 4096
"""Rows of faces packed at once."""


@dataclass(frozen=True)
class Extraction:
    """What one video gave.

    Attributes:
        faces: rows of the table ``faces``.
        tracks: rows of the table ``tracks``.
        verdict: of the video, with ``reason`` unless kept.
    """

    faces: pl.DataFrame
    tracks: pl.DataFrame
    verdict: str
    reason: str | None


def extract(
    path: str,
    *,
    video_id: str,
    batch: str,
    subject_id: str | None,
    detector: Detector,
    gate: quality.Gate,
    fps: float,
    keep: Keep,
    blur_bystanders: bool = True,
    hardware: bool = False,
) -> Extraction:
    """Every face at every sampled time. Memory holds a second of frames, whatever the length.

    A video that breaks midway keeps what came before; its reason says so. Dropped faces keep
    their crop, because people want to see what was dropped.

    Args:
        blur_bystanders: hide every other face that was found in a face's context picture.
        hardware: decode on a device where there is one.
    """
    tracker, rows = Tracker(fps=fps), _Rows()
    broken, n_frames = None, 0
    try:
        frames = reader.sample(path, fps=fps, hardware=hardware)
        for sight in watch(frames, detector=detector, fps=fps):
            n_frames += 1
            frame, boxes = sight.frame, sight.boxes
            if frame.cut:
                tracker.cut()
            numbers = tracker.update(boxes, time_s=frame.time_s)
            for subject, number in enumerate(numbers):
                seen = frame.image
                if blur_bystanders:
                    seen = anonymize.blur_others(
                        frame.image, boxes=boxes, subject=subject, reach=align.AROUND
                    )
                points = sight.keypoints[subject]
                track = ids.track_id(video_id, number)
                rows.add(
                    face_id=ids.face_id(track, frame.index),
                    track_id=track,
                    video_id=video_id,
                    batch=batch,
                    **_face(
                        frame, seen, box=boxes[subject], keypoints=points, gate=gate, keep=keep
                    ),
                )
    except MediaError as error:
        broken = f"{error.got}; {error.hint}"
    faces = rows.table()
    verdict, reason = _verdict(faces, n_frames=n_frames, broken=broken)
    return Extraction(
        faces=faces, tracks=_tracks(faces, subject_id=subject_id), verdict=verdict, reason=reason
    )


class _Rows:
    """Rows of ``faces``, packed as they come: as dictionaries ten hours of them fill memory."""

    def __init__(self) -> None:
        self._packed = [TABLES["faces"].empty()]
        self._loose: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        self._loose.append(row)
        if len(self._loose) == _PACKED:
            self._pack()

    def table(self) -> pl.DataFrame:
        self._pack()
        return pl.concat(self._packed)

    def _pack(self) -> None:
        self._packed.append(pl.DataFrame(self._loose, schema=TABLES["faces"].schema))
        self._loose = []


def _face(
    frame: reader.Frame,
    seen: np.ndarray,
    *,
    box: np.ndarray,
    keypoints: np.ndarray,
    gate: quality.Gate,
    keep: Keep,
) -> dict[str, Any]:
    crop = align.align(frame.image, keypoints)
    bbox = np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]], dtype=np.float32)
    found = quality.measure(
        frame.image, crop, box=box, keypoints=keypoints, stored=frame.picture.stored(box)
    )
    verdict, reason = gate.judge(found)
    return {
        "frame": frame.index,
        "time_s": frame.time_s,
        "bbox": bbox.tolist(),
        "keypoints": keypoints.tolist(),
        "detector_score": found.score,
        "yaw": found.pose.yaw,
        "pitch": found.pose.pitch,
        "roll": found.pose.roll,
        "sharpness": found.sharpness,
        "brightness": found.brightness,
        "size_px": found.size_px,
        "clipped": found.clipped,
        "blockiness": found.blockiness,
        # Five keypoints cannot tell a hand from a cheek; unknown is not zero.
        "occlusion": None,
        "crop": keep("crops", crop),
        "context": keep("contexts", align.context(seen, bbox)),
        "phash": _phash(crop),
        "verdict": verdict,
        # The code alone, so that rows of one reason group; what was measured has its columns.
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
    """One row per track.

    Its best face is the kept one of highest sharpness times score; the main track of a video is
    the one whose kept faces fill most, in time and in size.
    """
    worth = pl.col("sharpness") * pl.col("detector_score")
    best = (
        faces.filter(pl.col("verdict") == "kept")
        .sort(worth, "frame", descending=[True, False])
        .group_by("track_id")
        .agg(best_face_id=pl.col("face_id").first())
    )
    seen_well = pl.col("size_px").filter(pl.col("verdict") == "kept").sum()
    return (
        faces.group_by("track_id", "video_id", "batch")
        .agg(
            seen_well,
            start_s=pl.col("time_s").min(),
            end_s=pl.col("time_s").max(),
            n_frames=pl.len(),
        )
        .join(best, on="track_id", how="left")
        .with_columns(subject_id=pl.lit(subject_id, dtype=pl.String))
        .sort("track_id")
        .with_columns(
            # Kept time, since samples are evenly spaced, times size; the first of equals.
            is_main=(pl.col("size_px") > 0)
            & (pl.int_range(pl.len()) == pl.col("size_px").arg_max())
        )
        .select(pl.col(name).cast(kind) for name, kind in TABLES["tracks"].columns.items())
    )
