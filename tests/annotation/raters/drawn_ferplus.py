"""Make a small FER+ file of drawn faces and invented votes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import polars as pl

from warehouse.vocabulary import EXPRESSIONS

SHAPES = (
    "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "browDownLeft", "browDownRight",
    "eyeWideLeft", "eyeWideRight", "cheekSquintLeft", "cheekSquintRight", "eyeSquintLeft",
    "eyeSquintRight", "noseSneerLeft", "noseSneerRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "mouthSmileLeft", "mouthSmileRight", "mouthDimpleLeft",
    "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthShrugLower", "mouthPucker", "mouthStretchLeft",
    "mouthStretchRight", "mouthFunnel", "jawOpen", "mouthRollLower", "mouthRollUpper",
    "eyeBlinkLeft", "eyeBlinkRight", "mouthClose",
)  # fmt: skip


def drawn_face(smile: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a face uint8[48, 48] whose mouth corners rise with ``smile``.

    Random shading keeps two drawings from being near duplicates.
    """
    shade = cv2.resize(rng.normal(0, 30, (7, 7)), (48, 48), interpolation=cv2.INTER_CUBIC)
    image = (165 + shade).clip(90, 240).astype(np.uint8)
    for x in (15, 32):
        cv2.circle(image, (x, 19), 3, 40, -1)
    curve = [(x, round(36 - smile * 5 * ((x - 24) / 8) ** 2)) for x in range(16, 33)]
    cv2.polylines(image, [np.array(curve)], isClosed=False, color=30, thickness=2)
    noise = rng.normal(0, 4, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def find_drawn(image: np.ndarray) -> list[SimpleNamespace]:
    """Find the drawn face at its fixed position; a black picture has none."""
    if image.max() == 0:
        return []
    points = np.array([(15, 19), (32, 19), (24, 28), (17, 36), (31, 36)]) * image.shape[0] / 48
    return [SimpleNamespace(keypoints=points, score=0.9)]


def write_ferplus(folder: Path, split: str, n: int, *, seed: int) -> Path:
    """Write ``ferplus-<split>.parquet``; smiles have happy votes and AU12."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        happy = bool(index % 2)
        image = drawn_face(1.0 if happy else -1.0, rng)
        votes = dict.fromkeys((*EXPRESSIONS, "unknown", "NF"), 0)
        votes.update({"happiness": 9, "neutral": 1} if happy else {"sadness": 7, "fear": 3})
        shapes = [
            0.8 * happy + 0.1 * rng.random() if name.startswith("mouthSmile") else
            0.0 if name.startswith("cheekSquint") else float(rng.random())
            for name in SHAPES
        ]  # fmt: skip
        rows.append(
            {
                "name": f"{split}{index:04d}.png",
                "image": cv2.imencode(".png", image)[1].tobytes(),
                "blendshapes": None if index % 5 == 4 else shapes,
                **votes,
            }
        )
    path = folder / f"ferplus-{split}.parquet"
    pl.DataFrame(rows, schema_overrides={"blendshapes": pl.List(pl.Float32)}).write_parquet(path)
    (folder / "blendshape_names.txt").write_text("\n".join(SHAPES))
    return path
