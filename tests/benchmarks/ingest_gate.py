"""Measure the quality gate on clean and degraded faces.

The plot behind the defaults: every measure against the damage it is for, with its threshold. The
faces are the six of a group photo and those of a clean video call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.faces import align, detect, quality
from pipeline.video import reader
from tests.benchmarks import ingest_occlusion, ingest_sharpness
from tests.media_files import CARPHONE, SIX_PEOPLE, coded

_FER = 1000
"""Pictures of FER+ put to the gate."""

Spoil = Callable[[np.ndarray, float], np.ndarray]

_SPOILT: dict[str, tuple[str, str, list[float], Spoil]] = {
    "blur": ("sharpness", "Gaussian blur, σ in px of the picture", [0, 0.5, 1, 2, 3, 4],
             lambda image, level: cv2.GaussianBlur(image, (0, 0), level) if level else image),
    "darkness": ("brightness", "light left, %", [100, 60, 40, 25, 15, 8],
                 lambda image, level: (image * (level / 100)).astype(np.uint8)),
    "darkness, sharpness": ("sharpness", "light left, %", [100, 60, 40, 25, 15, 8],
                 lambda image, level: (image * (level / 100)).astype(np.uint8)),
    "glare": ("clipped", "exposure, ×", [1, 1.5, 2, 3, 4, 6],
              lambda image, level: np.clip(image * float(level), 0, 255).astype(np.uint8)),
}  # fmt: skip
_CODED: dict[str, tuple[str, str, list[float], str]] = {
    "MPEG-4 quantiser": ("blockiness", "MPEG-4 quantiser", [2, 4, 8, 12, 18, 24, 31], "mpeg4"),
    "MJPEG quantiser": ("blockiness", "MJPEG quantiser", [2, 4, 8, 12, 18, 24, 31], "mjpeg"),
    "H.264 blockiness": ("blockiness", "H.264 CRF", [18, 24, 30, 36, 42, 48], "libx264"),
    "H.264 sharpness": ("sharpness", "H.264 CRF", [18, 24, 30, 36, 42, 48], "libx264"),
}
_BOUNDS = {"sharpness": "min_sharpness", "brightness": "min_brightness", "clipped": "max_clipped",
           "blockiness": "max_blockiness"}  # fmt: skip


def measure(folder: Path, *, plot: Path, shared: Path) -> dict[str, Any]:
    """Return median and range per measure and level, and the kept share."""
    detector = detect.load(threshold=0.5)
    scenes = _scenes()
    rows: dict[str, Any] = {}
    for name, (what, label, levels, spoil) in _SPOILT.items():
        steps = [
            [one for image in scenes for one in _faces(spoil(image, level), image, detector)]
            for level in levels
        ]
        rows[name] = _summary(what, label, levels, steps)
    for name, (what, label, levels, codec) in _CODED.items():
        steps = [_coded(folder, scenes, codec, int(level), detector) for level in levels]
        rows[name] = _summary(what, label, levels, steps)
    _plot(plot, rows)
    found: dict[str, Any] = {"measures": rows}
    if (shared / "data" / "ferplus-valid.parquet").exists():
        found["sharpness"] = ingest_sharpness.compare(shared)
        found["fer"] = _fer(shared, detector)
        found["occlusion"] = ingest_occlusion.measure(shared)
    return found


def _fer(shared: Path, detector: detect.Detector) -> dict[str, Any]:
    """Apply the gate to faces detected on FER+, enlarged to 192 px."""
    found = []
    for place, image in ingest_sharpness.scenes(shared, faces=_FER):
        if place == "FER+":
            found += _faces(image, image, detector)[:1]
    codes = Counter((quality.Gate().check(one)[1] or "kept").split(":")[0] for one in found)
    low, middle = np.percentile([one.sharpness for one in found], [5, 50])
    return {
        "faces": len(found), "verdicts": dict(codes.most_common()),
        "sharpness_5th": float(low), "sharpness_median": float(middle),
    }  # fmt: skip


def _scenes() -> list[np.ndarray]:
    photo = cv2.imread(str(SIX_PEOPLE))[:, :, ::-1]
    call = [frame.image for frame in reader.sample(str(CARPHONE), fps=1.0)]
    large = [cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for image in call]
    return [_even(image) for image in (photo, *large)]


def _even(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])


def _faces(
    spoilt: np.ndarray, clean: np.ndarray, detector: detect.Detector
) -> list[quality.Measures]:
    """Measures of the faces found before the damage, in the damaged picture."""
    return [
        quality.measure(spoilt, align.align(spoilt, points), box=box, keypoints=points)
        for box, points in zip(*detector.detect(clean), strict=True)
    ]


def _coded(
    folder: Path, scenes: list[np.ndarray], codec: str, level: int, detector: detect.Detector
) -> list[quality.Measures]:
    quantiser = (
        {"crf": str(level)} if codec == "libx264" else {"qmin": str(level), "qmax": str(level)}
    )
    found = []
    for number, image in enumerate(scenes):
        path = coded(
            folder / f"{codec}-{level}-{number}.mkv", [image] * 2, codec=codec, options=quantiser,
            pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        )  # fmt: skip
        frame = next(iter(reader.sample(str(path), fps=1.0)))
        for box, points in zip(*detector.detect(image), strict=True):
            crop, stored = align.align(frame.image, points), frame.stored(box)
            found.append(
                quality.measure(frame.image, crop, box=box, keypoints=points, stored=stored)
            )
    return found


def _summary(
    what: str, label: str, levels: list[float], measured: list[list[quality.Measures]]
) -> dict[str, Any]:
    gate = quality.Gate()
    values = [[float(getattr(one, what) or 0) for one in level] for level in measured]
    return {
        "measure": what,
        "damage": label,
        "threshold": getattr(gate, _BOUNDS[what]),
        "levels": levels,
        "low": [min(step) for step in values],
        "median": [float(np.median(step)) for step in values],
        "high": [max(step) for step in values],
        "kept": [
            float(np.mean([gate.check(one)[0] == "kept" for one in level])) for level in measured
        ],
        "faces": len(measured[0]),
    }  # fmt: skip


def _plot(path: Path, rows: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 3, figsize=(12, 9), layout="constrained")
    for axis, (name, row) in zip(axes.flat, rows.items(), strict=False):
        at = range(len(row["levels"]))
        axis.fill_between(at, row["low"], row["high"], alpha=0.25)
        axis.plot(at, row["median"], marker="o")
        axis.axhline(row["threshold"], color="black", linestyle="--", linewidth=1)
        axis.set_xticks(list(at), [f"{level:g}" for level in row["levels"]])
        axis.set(xlabel=row["damage"], ylabel=row["measure"], title=name)
        if row["measure"] == "sharpness":
            axis.set_yscale("log")
    axes.flat[-1].axis("off")
    axes.flat[-1].text(0, 0.5, "line: median, band: all faces\ndashed: the gate's default")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
