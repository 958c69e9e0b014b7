"""The public function ``pipeline.faces.find``."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.faces import find
from tests import media_files
from warehouse.errors import RisoriusError

SHARED = Path(os.environ.get("RISORIUS_SHARED", Path(__file__).parents[3] / ".." / "shared"))
FER = SHARED / "data" / "ferplus-valid.parquet"


def test_find__six_people() -> None:
    faces = find(np.asarray(Image.open(media_files.SIX_PEOPLE).convert("RGB")))
    assert len(faces) == 6
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    for face in faces:
        assert face.crop.shape == (224, 224, 3)
        assert face.crop.dtype == np.uint8
        assert face.keypoints.shape == (5, 2)
        x, y, w, h = face.bbox
        assert x < face.keypoints[:, 0].min() < face.keypoints[:, 0].max() < x + w
        assert y < face.keypoints[:, 1].min() < face.keypoints[:, 1].max() < y + h


def test_find__no_face() -> None:
    assert find(media_files.pattern(0)) == []
    assert find(np.zeros((1, 1, 3), np.uint8)) == []
    assert find(np.zeros((2, 3000, 3), np.uint8)) == []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((40, 40, 3), np.float32), "float32"),
        (np.full((40, 40, 3), np.nan), "float64"),
        (np.zeros((40, 40), np.uint8), r"\(40, 40\)"),
        (np.zeros((40, 40, 4), np.uint8), r"\(40, 40, 4\)"),
        (np.zeros((0, 40, 3), np.uint8), r"\(0, 40, 3\)"),
        ([[1, 2, 3]], "list"),
        ("face.jpg", "str"),
        (None, "NoneType"),
    ],
)
def test_find__invalid_image(image: Any, said: str) -> None:
    with pytest.raises(RisoriusError, match=said):
        find(image)


@pytest.mark.skipif(not FER.exists(), reason="no FER+ images in ../shared/data")
def test_find__small_gray_faces() -> None:
    images = pl.scan_parquet(FER).select("image").head(60).collect()["image"]
    found = [find(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) for data in images]
    assert sum(map(bool, found)) >= 57
