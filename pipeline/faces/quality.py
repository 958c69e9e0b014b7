"""Which faces are fit to be looked at, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.faces.align import Pose, pose

_SIDE = 48
"""Sharpness is read at one size, or large faces would always look sharper than small ones.

At 48 px people could still say what FER+ faces show; finer detail than that is not asked for.
"""

_MARGIN = _SIDE // 6
"""Left out on each side: hair, background and, where the picture ends, a black edge."""


@dataclass(frozen=True)
class Measures:
    """What the gate looks at.

    Attributes:
        score: of the detector, 0..1.
        size_px: geometric mean of the box's sides, in pixels of the video.
        sharpness: variance of the Laplacian of the gray middle of the crop, scaled to 48 px
            (Pech-Pacheco et al., 2000, doi:10.1109/ICPR.2000.903548).
        brightness: mean luma of the same part, 0..255.
        pose: degrees.
        cut: share of the five keypoints outside the picture, 0..1.
    """

    score: float
    size_px: float
    sharpness: float
    brightness: float
    pose: Pose
    cut: float


@dataclass(frozen=True)
class Gate:
    """Thresholds.

    Sharpness, measured: a clean 55 px face in a video call 248 to 445, the same frames after
    heavy compression 41 to 154, a runner in the dark 157 to 212, FER+ 286 at the 5th
    percentile, 110 px faces on a group photo 763 to 1115, the same blurred by a Gaussian of
    2 px 129 to 315. Score: in the undamaged sample clips faces have .69 and more, what is none
    .49 and .55. Size: below 32 px the eyes are less than 14 px apart. Yaw: further round, one
    eye is out of sight. Of 988 faces found on FER+ these thresholds keep 87 %.
    """

    min_score: float = 0.6
    min_size_px: float = 32.0
    min_sharpness: float = 225.0
    min_brightness: float = 40.0
    max_brightness: float = 225.0
    max_yaw: float = 60.0
    max_pitch: float = 50.0

    def judge(self, found: Measures) -> tuple[str, str | None]:
        """``("kept", None)`` or ``("dropped", "code: what was measured, what was wanted")``.

        The first reason counts, in the order a person would name them.
        """
        yaw, pitch = abs(found.pose.yaw), abs(found.pose.pitch)
        reasons = (
            (found.cut > 0, "border: part of the face is outside the picture"),
            (
                found.size_px < self.min_size_px,
                f"too_small: {found.size_px:.0f} px, at least {self.min_size_px:.0f} wanted",
            ),
            (
                found.score < self.min_score,
                f"low_score: detector {found.score:.2f}, at least {self.min_score:.2f} wanted",
            ),
            (
                found.brightness < self.min_brightness,
                f"too_dark: {found.brightness:.0f}, at least {self.min_brightness:.0f} wanted",
            ),
            (
                found.brightness > self.max_brightness,
                f"too_bright: {found.brightness:.0f}, at most {self.max_brightness:.0f} wanted",
            ),
            (
                yaw > self.max_yaw or pitch > self.max_pitch,
                f"turned_away: yaw {found.pose.yaw:.0f}, pitch {found.pose.pitch:.0f} degrees",
            ),
            (
                found.sharpness < self.min_sharpness,
                f"blurred: {found.sharpness:.0f}, at least {self.min_sharpness:.0f} wanted",
            ),
        )
        reason = next((text for failed, text in reasons if failed), None)
        return ("dropped", reason) if reason else ("kept", None)


def measure(
    image: np.ndarray, crop: np.ndarray, *, box: np.ndarray, keypoints: np.ndarray
) -> Measures:
    """Measure one face.

    Args:
        image: uint8[h, w, 3], the picture it was found in.
        crop: uint8[224, 224, 3], aligned.
        box: float32[5], ``x1 y1 x2 y2 score``.
        keypoints: float32[5, 2].
    """
    import cv2

    small = cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    edges = cv2.Laplacian(gray, cv2.CV_64F)
    middle = slice(_MARGIN, -_MARGIN)
    height, width = image.shape[:2]
    outside = (keypoints < 0).any(axis=1) | (keypoints > [width, height]).any(axis=1)
    return Measures(
        score=float(box[4]),
        size_px=float(np.sqrt(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))),
        sharpness=float(edges[middle, middle].var()),
        brightness=float(gray[middle, middle].mean()),
        pose=pose(keypoints),
        cut=float(outside.mean()),
    )
