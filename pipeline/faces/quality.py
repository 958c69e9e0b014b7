"""Which faces are fit to be looked at, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.faces.align import Pose, pose

MEASURES = 2
"""Goes up when a measure changes its meaning; part of what faces are found anew for.

1: sharpness was the variance of the Laplacian, which halves with the light left.
"""

_SIDE = 48
"""Sharpness is read at one size, or large faces would always look sharper than small ones.

At 48 px people could still say what FER+ faces show; finer detail than that is not asked for.
"""

_MARGIN = _SIDE // 6
"""Left out on each side: hair, background and, where the picture ends, a black edge."""


_STRONGEST = 93
"""Per cent: steeper edges count as this one does, or a few smeared codec edges carry a face."""

_GRAIN = 0.6745
"""Median over standard deviation of the size of normal noise."""

_CAPPED = 0.88
"""Share of its variance that normal noise keeps when its strongest 7 % are capped."""

_SOFT = 1.6
"""σ in px of the picture whose slopes the fine edges are compared with; 0.8 to 2.2 do alike."""

_FAINT = 0.5
"""Squared levels per px that rounding to whole levels and sensors add; keeps flat pictures at 0."""

_BLACK, _WHITE = 6, 249
"""Beyond these, light or shadow has eaten what was there."""

_BLOCK = 8


@dataclass(frozen=True)
class Measures:
    """What the gate looks at.

    Attributes:
        score: of the detector, 0..1.
        size_px: geometric mean of the box's sides, in pixels of the video.
        sharpness: fine edges over gentle slopes of the gray middle of the crop, 0 and up; see
            ``sharpness``. Light and contrast do not move it.
        brightness: mean luma of the same part, 0..255.
        pose: degrees.
        cut: share of the five keypoints outside the picture, 0..1.
        clipped: share of the same part that is all black or all white, 0..1.
        blockiness: steps at the edges of the codec's 8 px blocks over steps elsewhere, as
            Wang, Sheikh and Bovik (2002, doi:10.1109/ICIP.2002.1038064) compare them; 1 where
            no blocks show, None where they cannot be known.
    """

    score: float
    size_px: float
    sharpness: float
    brightness: float
    pose: Pose
    cut: float
    clipped: float = 0.0
    blockiness: float | None = None


@dataclass(frozen=True)
class Gate:
    """Thresholds.

    Sharpness, measured: a clean 55 px face in a video call 2.0 to 3.5, the same frames after
    heavy compression 0.3 to 1.2, a runner in the dark 3.5 in focus and 0.9 out of it, FER+ 1.4
    at the 5th percentile, 110 px faces on a group photo 3.3 to 11.2, the same blurred by a
    Gaussian of 2 px 0.8 to 2.0 and by 3 px below 0.7; at a quarter of the light the clean ones
    still 2.2 to 10.7. Score: in the undamaged sample clips faces have .69 and more, what is none
    .49 and .55. Size: below 32 px the eyes are less than 14 px apart. Yaw: further round, one
    eye is out of sight. Of 829 faces found on FER+ these thresholds keep 82 %. Blockiness: at
    most 1.4 in the sample clips and the group photo as they come, 1.5 to 1.9 at a middling and
    above 2.6 at the lowest quality of codecs without a filter for it; H.264 smears in place of
    showing blocks, which is what sharpness sees. The benchmark of ingestion plots all of these.
    """

    min_score: float = 0.6
    min_size_px: float = 32.0
    min_sharpness: float = 1.25
    min_brightness: float = 40.0
    max_brightness: float = 225.0
    max_yaw: float = 60.0
    max_pitch: float = 50.0
    max_clipped: float = 0.4
    max_blockiness: float = 2.5

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
                found.clipped > self.max_clipped,
                f"clipped: {found.clipped:.0%} of it is black or white, "
                f"at most {self.max_clipped:.0%} wanted",
            ),
            (
                yaw > self.max_yaw or pitch > self.max_pitch,
                f"turned_away: yaw {found.pose.yaw:.0f}, pitch {found.pose.pitch:.0f} degrees",
            ),
            (
                found.sharpness < self.min_sharpness,
                f"blurred: {found.sharpness:.2f}, at least {self.min_sharpness:.2f} wanted",
            ),
            (
                (found.blockiness or 1.0) > self.max_blockiness,
                f"blocky: {found.blockiness or 1.0:.1f}, at most {self.max_blockiness:.1f} wanted",
            ),
        )
        reason = next((text for failed, text in reasons if failed), None)
        return ("dropped", reason) if reason else ("kept", None)


def measure(
    image: np.ndarray,
    crop: np.ndarray,
    *,
    box: np.ndarray,
    keypoints: np.ndarray,
    stored: tuple[np.ndarray, int, int] | None = None,
) -> Measures:
    """Measure one face.

    Args:
        image: uint8[h, w, 3], the picture it was found in.
        crop: uint8[224, 224, 3], aligned.
        box: float32[5], ``x1 y1 x2 y2 score``.
        keypoints: float32[5, 2].
        stored: the face as the codec stored it, gray uint8[h, w], and the column and row of the
            stored picture it begins at.
    """
    import cv2

    small = cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    middle = slice(_MARGIN, -_MARGIN)
    height, width = image.shape[:2]
    outside = (keypoints < 0).any(axis=1) | (keypoints > [width, height]).any(axis=1)
    return Measures(
        score=float(box[4]),
        size_px=float(np.sqrt(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))),
        sharpness=sharpness(gray, margin=_MARGIN),
        brightness=float(gray[middle, middle].mean()),
        pose=pose(keypoints),
        cut=float(outside.mean()),
        clipped=float(((gray < _BLACK) | (gray > _WHITE))[middle, middle].mean()),
        blockiness=None if stored is None else blockiness(stored[0], left=stored[1], top=stored[2]),
    )


def sharpness(gray: np.ndarray, *, margin: int = 0) -> float:
    """Mean square of the Laplacian over that of the slope of the same picture, softened.

    Both grow with the square of contrast and exposure, so their ratio does not (the energies of
    Laplacian and of gradient are two of the measures that Pertuz et al. compare, 2013,
    doi:10.1016/j.patcog.2012.11.011). Edges of a face are few and noise is everywhere: the
    median size of the Laplacian says how much of it is noise (Donoho and Johnstone, 1994,
    doi:10.1093/biomet/81.3.425), and that much is taken off.

    Args:
        gray: uint8[h, w].
        margin: px on each side that are only looked at from inside.

    Returns:
        0 and up, in 1/px² of the picture given; 0 for a flat one.
    """
    import cv2

    exact = gray.astype(np.float32)
    middle = (slice(margin, gray.shape[0] - margin), slice(margin, gray.shape[1] - margin))
    edges = np.abs(cv2.Laplacian(exact, cv2.CV_32F)[middle])
    noise = float(np.median(edges)) / _GRAIN
    edges = np.minimum(edges, np.percentile(edges, _STRONGEST))
    fine = float((edges**2).mean()) - _CAPPED * noise**2
    soft = cv2.GaussianBlur(exact, (0, 0), _SOFT)
    across, down = (
        cv2.Sobel(soft, cv2.CV_32F, x, y, scale=1 / 8)[middle] for x, y in ((1, 0), (0, 1))
    )
    return max(0.0, fine) / (float((across**2 + down**2).mean()) + _FAINT)


def blockiness(gray: np.ndarray, *, left: int, top: int) -> float | None:
    """Steps at the edges of 8 px blocks over steps elsewhere; None for less than two blocks.

    Args:
        gray: uint8[h, w].
        left: column of the stored picture that ``gray`` begins at.
        top: the row.
    """
    if min(gray.shape) < 2 * _BLOCK:
        return None
    ratios = []
    for part, begin in ((gray, left), (gray.T, top)):
        steps = np.abs(np.diff(part.astype(np.int16), axis=1)).mean(axis=0)
        edge = (np.arange(len(steps)) + 1 + begin) % _BLOCK == 0
        # Half a level on both sides: in a flat picture every step would be a block's edge.
        ratios.append((steps[edge].mean() + 0.5) / (steps[~edge].mean() + 0.5))
    return float(np.mean(ratios))
