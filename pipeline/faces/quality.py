"""Measure the quality of faces and gate them by thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.faces.align import Pose, pose

VERSION = 2
"""Increases when a measure changes its meaning; part of the fingerprint of faces.

1: sharpness was the variance of the Laplacian, which halves with the light.
"""

_SIDE = 48
"""Measure sharpness at one size; otherwise large faces always look sharper than small ones.

At 48 px annotators could still label FER+ faces; finer detail is not needed.
"""

_MARGIN = _SIDE // 6
"""Ignored on each side: hair, background and black beyond the image border."""

_EDGE_PERCENTILE = 93
"""Cap steeper edges at this percentile, so that a few smeared codec edges do not dominate."""

_MEDIAN_NOISE = 0.6745
"""Median absolute value over standard deviation of normal noise."""

_CAPPED_VARIANCE = 0.88
"""Share of its variance that normal noise retains when its strongest 7 % are capped."""

_SLOPE_SIGMA = 1.6
"""σ in px of the blur before slopes are measured; 0.8 to 2.2 perform alike."""

_FLOOR = 0.5
"""Squared levels per px added by rounding and sensors; makes flat images measure 0."""

_BLACK, _WHITE = 6, 249
"""Pixels beyond these are clipped."""

_BLOCK = 8


@dataclass(frozen=True)
class Measures:
    """Quality measures of one face.

    Attributes:
        score: of the detector, 0..1.
        size_px: geometric mean of the box's sides, in pixels of the video.
        sharpness: fine edges over gentle slopes of the gray centre of the crop, 0 and up; see
            ``sharpness``. Independent of light and contrast.
        brightness: mean luma of the same part, 0..255.
        pose: degrees.
        cut: share of the five keypoints outside the image, 0..1.
        clipped: share of the same part that is all black or all white, 0..1.
        blockiness: steps at the edges of the codec's 8 px blocks over steps elsewhere, as
            Wang, Sheikh and Bovik (2002, doi:10.1109/ICIP.2002.1038064) compare them; 1 if no
            blocks are visible, None if unknown.
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
    """Thresholds of the quality gate.

    Measured by ``tests/benchmarks/ingest_gate.py``; 82 % of 829 faces detected on FER+ pass.

    - Sharpness: 2.0 to 3.5 for a clean 55 px face in a video call, 0.3 to 1.2 after heavy
      compression; 3.5 for a runner in the dark in focus, 0.9 out of focus; FER+ 1.4 at the 5th
      percentile; 110 px faces on a group photo 3.3 to 11.2, at a quarter of the light 2.2 to
      10.7, blurred by a Gaussian of 2 px 0.8 to 2.0, of 3 px below 0.7.
    - Score: faces in the undamaged sample clips have .69 or more, false detections .49 and .55.
    - Size: below 32 px the eyes are less than 14 px apart.
    - Yaw: beyond it one eye is hidden.
    - Blockiness: at most 1.4 in the original sample clips and group photo; 1.5 to 1.9 at medium
      and above 2.6 at the lowest quality of codecs without a deblocking filter. H.264 smears
      instead, which lowers sharpness.
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

    def check(self, found: Measures) -> tuple[str, str | None]:
        """Apply the thresholds.

        Returns ``("kept", None)`` or ``("dropped", "code: measured value, threshold")``.
        If several thresholds fail, the first in the order below is the reason.
        """
        yaw, pitch = abs(found.pose.yaw), abs(found.pose.pitch)
        reasons = (
            (found.cut > 0, "border: part of the face is outside the image"),
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
    keypoints: np.ndarray | None,
    stored: tuple[np.ndarray, int, int] | None = None,
) -> Measures:
    """Measure one face.

    Args:
        image: uint8[h, w, 3], the frame that shows it.
        crop: uint8[224, 224, 3], aligned.
        box: float32[5], ``x1 y1 x2 y2 score``.
        keypoints: float32[5, 2]; None counts as a frontal face inside the image.
        stored: the face as the codec stored it, see ``Frame.stored``.
    """
    import cv2

    small = cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    middle = slice(_MARGIN, -_MARGIN)
    height, width = image.shape[:2]
    cut = 0.0
    if keypoints is not None:
        outside = (keypoints < 0).any(axis=1) | (keypoints > [width, height]).any(axis=1)
        cut = float(outside.mean())
    return Measures(
        score=float(box[4]),
        size_px=float(np.sqrt(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))),
        sharpness=sharpness(gray, margin=_MARGIN),
        brightness=float(gray[middle, middle].mean()),
        pose=Pose(0.0, 0.0, 0.0) if keypoints is None else pose(keypoints),
        cut=cut,
        clipped=float(((gray < _BLACK) | (gray > _WHITE))[middle, middle].mean()),
        blockiness=None if stored is None else blockiness(stored[0], left=stored[1], top=stored[2]),
    )


def sharpness(gray: np.ndarray, *, margin: int = 0) -> float:
    """Measure fine edges relative to slopes.

    The energy of the Laplacian over that of the gradient of the blurred image. Both grow with the
    square of contrast and exposure, so their ratio does not (two of the focus measures that
    Pertuz et al. compare, 2013, doi:10.1016/j.patcog.2012.11.011). A face has few edges and noise
    is everywhere, so the median of the absolute Laplacian estimates the noise (Donoho and
    Johnstone, 1994, doi:10.1093/biomet/81.3.425), which is subtracted.

    Args:
        gray: uint8[h, w].
        margin: px on each side that only serve as neighbours.

    Returns:
        0 and up, in 1/px² of ``gray``; 0 for a flat image.
    """
    import cv2

    exact = gray.astype(np.float32)
    middle = (slice(margin, gray.shape[0] - margin), slice(margin, gray.shape[1] - margin))
    edges = np.abs(cv2.Laplacian(exact, cv2.CV_32F)[middle])
    noise = float(np.median(edges)) / _MEDIAN_NOISE
    edges = np.minimum(edges, np.percentile(edges, _EDGE_PERCENTILE))
    fine = float((edges**2).mean()) - _CAPPED_VARIANCE * noise**2
    blurred = cv2.GaussianBlur(exact, (0, 0), _SLOPE_SIGMA)
    across, down = (
        cv2.Sobel(blurred, cv2.CV_32F, x, y, scale=1 / 8)[middle] for x, y in ((1, 0), (0, 1))
    )
    return max(0.0, fine) / (float((across**2 + down**2).mean()) + _FLOOR)


def blockiness(gray: np.ndarray, *, left: int, top: int) -> float | None:
    """Divide steps at 8 px block edges by steps elsewhere.

    Args:
        gray: uint8[h, w].
        left, top: column and row of the stored frame where ``gray`` begins.

    Returns:
        about 1 without blocks, more with; None below two blocks.
    """
    if min(gray.shape) < 2 * _BLOCK:
        return None
    ratios = []
    for part, begin in ((gray, left), (gray.T, top)):
        steps = np.abs(np.diff(part.astype(np.int16), axis=1)).mean(axis=0)
        edge = (np.arange(len(steps)) + 1 + begin) % _BLOCK == 0
        # Add half a level to both: in a flat image every step would count as a block edge.
        ratios.append((steps[edge].mean() + 0.5) / (steps[~edge].mean() + 0.5))
    return float(np.mean(ratios))
