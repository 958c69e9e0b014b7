"""The FER+ validation file, as the benchmarks of rater and queue read it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import polars as pl
from rich.progress import track

from annotation.raters.training import ferplus, targets
from pipeline.faces import find
from warehouse.vocabulary import EXPRESSIONS


def valid(parser: argparse.ArgumentParser) -> Path:
    """Where it is; the program ends where it is not."""
    root = Path(__file__).parents[2]
    shared = Path(os.environ.get("RISORIUS_SHARED", root / ".." / "shared"))
    parquet = shared / "data" / "ferplus-valid.parquet"
    if not parquet.is_file():
        parser.error("FER+ is not here; set RISORIUS_SHARED to the folder that holds data/")
    return parquet


def crops_of(parquet: Path) -> tuple[np.ndarray, np.ndarray]:
    """Crop images as the pipeline does: uint8[n, 224, 224, 3], bool[n]."""
    import cv2

    images = pl.read_parquet(parquet, columns=["image"])["image"]
    crops, found = np.zeros((len(images), 224, 224, 3), np.uint8), np.zeros(len(images), bool)
    for row, image in enumerate(track(images, "finding faces")):
        gray = ferplus.decode(image)
        size = (ferplus.ENLARGED, ferplus.ENLARGED)
        large = cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC)
        faces = find(np.repeat(large[:, :, None], 3, axis=2))
        found[row] = bool(faces)
        if faces:
            crops[row] = max(faces, key=lambda face: face.score).crop
        else:
            frame = cv2.resize(ferplus.warp(gray, ferplus.usual_transform()), (224, 224))
            crops[row] = frame[:, :, None]
    return crops, found


def votes_and_proxies(parquet: Path) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Read votes [n, 10], the units' numbers and their raw proxies [n, K]."""
    names = (parquet.parent / "blendshape_names.txt").read_text().split()
    frame = pl.read_parquet(parquet, columns=[*EXPRESSIONS, "unknown", "NF", "blendshapes"])
    shapes = np.full((len(frame), len(names)), np.nan, dtype=np.float32)
    for row, scores in enumerate(frame["blendshapes"].to_list()):
        if scores is not None:
            shapes[row] = scores
    units, proxies = targets.au_proxies(shapes, names)
    return frame.drop("blendshapes").to_numpy().astype(np.int64), units, proxies
