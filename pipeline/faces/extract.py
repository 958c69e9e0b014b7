"""One video into its faces: detect, align, track, gate; every face leaves with a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline.faces import align, quality, video
from pipeline.faces.detect import Detector
from pipeline.faces.track import Tracker
from warehouse import ids
from warehouse.errors import MediaError
from warehouse.schema import TABLES

Keep = Callable[[str, np.ndarray], str]
"""Stores one picture, ``keep(kind, image)``, and returns its media key."""


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
) -> Extraction:
    """Every face at every sampled time. Memory holds one frame, whatever the length.

    A video that breaks midway keeps what came before; its reason says so. Dropped faces keep
    their crop, because people want to see what was dropped.
    """
    tracker = Tracker(fps=fps)
    rows: list[dict[str, Any]] = []
    broken, n_frames = None, 0
    try:
        for frame in video.sample(path, fps=fps):
            n_frames += 1
            boxes, keypoints = detector.detect(frame.image)
            numbers = tracker.update(boxes, time_s=frame.time_s)
            for box, points, number in zip(boxes, keypoints, numbers, strict=True):
                track = ids.track_id(video_id, number)
                row = _face(frame, box=box, keypoints=points, gate=gate, keep=keep)
                rows.append(
                    {
                        "face_id": ids.face_id(track, frame.index),
                        "track_id": track,
                        "video_id": video_id,
                        "batch": batch,
                        **row,
                    }
                )
    except MediaError as error:
        broken = f"{error.got}; {error.mend}"
    faces = pl.DataFrame(rows, schema=TABLES["faces"].schema)
    verdict, reason = _verdict(faces, n_frames=n_frames, broken=broken)
    return Extraction(
        faces=faces, tracks=_tracks(faces, subject_id=subject_id), verdict=verdict, reason=reason
    )


def _face(
    frame: video.Frame, *, box: np.ndarray, keypoints: np.ndarray, gate: quality.Gate, keep: Keep
) -> dict[str, Any]:
    crop = align.align(frame.image, keypoints)
    bbox = np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]], dtype=np.float32)
    found = quality.measure(frame.image, crop, box=box, keypoints=keypoints)
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
        # Five keypoints cannot tell a hand from a cheek; unknown is not zero.
        "occlusion": None,
        "crop": keep("crops", crop),
        "context": keep("contexts", align.context(frame.image, bbox)),
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
    """One row per track; its best face is the kept one of highest sharpness times score."""
    worth = pl.col("sharpness") * pl.col("detector_score")
    best = (
        faces.filter(pl.col("verdict") == "kept")
        .sort(worth, "frame", descending=[True, False])
        .group_by("track_id")
        .agg(best_face_id=pl.col("face_id").first())
    )
    return (
        faces.group_by("track_id", "video_id", "batch")
        .agg(
            start_s=pl.col("time_s").min(),
            end_s=pl.col("time_s").max(),
            n_frames=pl.len(),
        )
        .join(best, on="track_id", how="left")
        .with_columns(subject_id=pl.lit(subject_id, dtype=pl.String))
        .sort("track_id")
        .select(pl.col(name).cast(kind) for name, kind in TABLES["tracks"].columns.items())
    )
