"""Contact sheets and tables for asset metadata."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from pipeline import reporting
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

FACE, TILE = 112, 176


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path)


def crop(home: Home, shade: int) -> str:
    return media.store(home, "crops", np.full((224, 224, 3), shade, dtype=np.uint8))


def decoded(markdown: str) -> np.ndarray:
    data = base64.b64decode(markdown.split("base64,")[1].rstrip(")"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).astype(int)


def test_captioned_sheet__order_and_lines(home: Home) -> None:
    shades = [30, 90, 150, 210, 60, 120, 180]
    lines = [["neutral 60%", "> sadness", "0.12 of 1"], *([[]] * 6)]
    faces = pl.DataFrame({"crop": [crop(home, shade) for shade in shades], "lines": lines})
    sheet = decoded(reporting.captioned_sheet(home, faces, limit=6))
    assert sheet.shape == (TILE, 6 * 152)
    middles = [sheet[FACE // 2, 152 * at + FACE // 2] for at in range(6)]
    assert middles == pytest.approx(shades[:6], abs=6)
    below = sheet[FACE + 2 :]
    assert (below[:, :152] < 100).sum() > 50
    assert (below[:, 152:] < 100).sum() == 0


def test_duplicates_sheet__least_similar_first(home: Home) -> None:
    given = {"a": 30, "b": 90, "c": 150, "d": 210}
    faces = pl.DataFrame(
        [{"face_id": name, "video_id": name, "crop": crop(home, shade)} for name, shade in
         given.items()]
    )  # fmt: skip
    whole = pl.concat([TABLES["faces"].empty(), faces], how="diagonal_relaxed")
    tables.write(home, "faces", whole.cast(TABLES["faces"].schema), part="a", batch="b")
    audited = pl.DataFrame(
        {
            "face_id": ["a", "b", "c", "d"],
            "score": [1.0, 0.1, 0.4, 1.0],
            "flag": [False, True, True, False],
            "detail": [None, "a", "d", None],
        }
    )
    sheet = decoded(reporting.duplicates_sheet(home, audited))
    half, wide = FACE // 2, sheet.shape[1] // 2
    places = [half, half + FACE + 2, wide + half, wide + half + FACE + 2]
    assert [sheet[half, place] for place in places] == pytest.approx([150, 210, 90, 30], abs=6)


def test_captioned_sheet__missing_crop_and_no_faces(home: Home) -> None:
    faces = pl.DataFrame({"crop": [crop(home, 10)], "lines": [["x"]]})
    media.path_of(home, faces["crop"][0]).unlink()
    assert decoded(reporting.captioned_sheet(home, faces))[50, 50] == pytest.approx(200, abs=6)
    assert reporting.captioned_sheet(home, faces.head(0)) == "_no faces_"


def test_captioned_sheet__fits_an_event(home: Home) -> None:
    noise = np.random.default_rng(0)
    keys = [
        media.store(home, "crops", noise.integers(0, 255, (224, 224, 3), dtype=np.uint8))
        for _ in range(reporting.SHOWN)
    ]
    many = pl.DataFrame({"crop": keys * 3, "lines": [["some words below the face"] * 3] * 72})
    assert len(reporting.captioned_sheet(home, many)) < 300_000


def faces(home: Home, shades: list[int]) -> pl.DataFrame:
    keys = [
        media.store(home, "crops", np.full((224, 224, 3), shade, dtype=np.uint8))
        for shade in shades
    ]
    return pl.DataFrame({"crop": keys, "verdict": ["kept"] * len(keys)})


def test_contact_sheet__each_face_has_its_place(home: Home) -> None:
    sheet = decoded(reporting.contact_sheet(home, faces(home, [40, 120, 200])))
    tile = sheet.shape[1] // 3
    middles = [int(sheet[tile // 2, tile * at + tile // 2].mean()) for at in range(3)]
    assert [abs(a - b) < 12 for a, b in zip(middles, [40, 120, 200], strict=True)] == [True] * 3


def test_contact_sheet__large_batch_fits_an_event(home: Home) -> None:
    noise = np.random.default_rng(0)
    keys = [
        media.store(home, "crops", noise.integers(0, 255, (224, 224, 3), dtype=np.uint8))
        for _ in range(24)
    ]
    many = pl.DataFrame({"crop": keys * 50})
    assert len(reporting.contact_sheet(home, many)) < 200_000


def test_contact_sheet__missing_crop_is_gray(home: Home) -> None:
    frame = faces(home, [10])
    media.path_of(home, frame["crop"][0]).unlink()
    sheet = decoded(reporting.contact_sheet(home, frame))
    assert abs(int(sheet[36, 36].mean()) - 200) < 12


def test_contact_sheet__no_faces(home: Home) -> None:
    assert reporting.contact_sheet(home, faces(home, [])) == "_no faces_"


def test_table__cells_are_escaped() -> None:
    text = reporting.table(pl.DataFrame({"reason": ["a|b\n<img src=x>"], "n": [0.5]}))
    assert text.splitlines()[2] == "| a\\|b &lt;img src=x> | 0.500 |"
