"""Evaluation of action units on folders shaped like DISFA and BP4D."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from annotation.raters import coded_frames
from pipeline import unit_evaluation
from pipeline.unit_evaluation import Options
from pipeline.video import reader
from tests.media_files import SIX_PEOPLE
from warehouse.errors import RisoriusError
from warehouse.vocabulary import AU_INDEX


@pytest.fixture(scope="module")
def portraits() -> list[np.ndarray]:
    """Faces of a sample picture, each in a picture of its own."""
    from pipeline import faces

    image = next(reader.sample(str(SIX_PEOPLE))).image
    return [face.crop for face in faces.find(image)][:3]


def write_pictures(folder: Path, images: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images, start=1):
        large = cv2.resize(image, (448, 448))
        cv2.imwrite(str(folder / f"{number:04}.jpg"), cv2.cvtColor(large, cv2.COLOR_RGB2BGR))


def write_disfa(folder: Path, images: list[np.ndarray]) -> None:
    blank = np.full((224, 224, 3), 90, np.uint8)
    for subject, shown in (("SN001", images), ("SN002", [blank, *images[:2]])):
        write_pictures(folder / "Videos_LeftCamera" / f"LeftVideo{subject}_comp", shown)
        codes = folder / "ActionUnit_Labels" / subject
        codes.mkdir(parents=True)
        for unit in (12, 25):
            (codes / f"{subject}_au{unit}.txt").write_text("1,0\n2,3\n3,5\n")


def test_disfa__figures_and_resumption(tmp_path: Path, portraits: list[np.ndarray]) -> None:
    write_disfa(tmp_path / "disfa", portraits)
    options = Options(cache=tmp_path / "cache", landmarks=f"{__name__}:no_landmarks")
    found = unit_evaluation.evaluate(tmp_path / "disfa", options)
    assert (found["format"], found["recordings"], found["subjects"]) == ("disfa", 2, 2)
    assert (found["frames"], found["no_face"], found["failed"]) == (6, 1, [])
    assert set(found["units"]) == {"AU12", "AU25"}
    assert found["units"]["AU12"]["n"] == 5
    assert found["units"]["AU12"]["base_rate"] == pytest.approx(4 / 5)
    assert found["geometric"] == {}
    for picture in (tmp_path / "disfa").rglob("*.jpg"):
        picture.write_bytes(b"gone")
    assert unit_evaluation.evaluate(tmp_path / "disfa", options) == found


def no_landmarks(crop: np.ndarray) -> Any:
    return None


def test_bp4d__codes(tmp_path: Path) -> None:
    codes = tmp_path / "AUCoding" / "AU_OCC"
    codes.mkdir(parents=True)
    (codes / "F001_T1.csv").write_text("0,1,12,25\n20,0,1,9\n21,1,0,0\n")
    strength = tmp_path / "AUCoding" / "AU_INT" / "AU12"
    strength.mkdir(parents=True)
    (strength / "F001_T1_AU12.csv").write_text("20,4\n21,9\n")
    write_pictures(tmp_path / "2D+3D" / "F001" / "T1", [np.zeros((8, 8, 3), np.uint8)])
    (codes / "M002_T8.csv").write_text("0,1\n5,1\n")
    form, (only,), missing = coded_frames.read(tmp_path)
    assert form == "bp4d"
    assert missing == ["M002_T8: no folder of pictures M002/T8"]
    assert (only.subject, only.frames.tolist()) == ("F001", [20, 21])
    assert only.present[:, AU_INDEX[12]].tolist() == [1, 0]
    assert only.intensity[0, AU_INDEX[12]] == 4
    assert np.isnan(only.intensity[1, AU_INDEX[12]])
    assert np.isnan(only.present[0, AU_INDEX[25]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,0\n2,7\n", "7"),
        ("1,0\n\n2,x\n", "2,x"),
        ("1;0\n", "1;0"),
        ("1\n", "1"),
        ("frame,x\n", "frame,x"),
    ],
)
def test_disfa__malformed_codes(tmp_path: Path, text: str, said: str) -> None:
    write_disfa(tmp_path, [np.zeros((8, 8, 3), np.uint8)] * 2)
    (tmp_path / "ActionUnit_Labels" / "SN001" / "SN001_au12.txt").write_text(text)
    with pytest.raises(RisoriusError, match=f"SN001_au12.txt.*{said}"):
        coded_frames.read(tmp_path)


@pytest.mark.parametrize("what", ["empty", "no pictures", "other frames", "no faces"])
def test_evaluate__nothing_to_evaluate(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    if what != "empty":
        write_disfa(folder, [np.zeros((8, 8, 3), np.uint8)] * 2)
    if what == "no pictures":
        for path in folder.rglob("*.jpg"):
            path.unlink()
    if what == "other frames":
        for path in sorted(folder.rglob("*.jpg")):
            path.rename(path.with_name(f"{int(path.stem) + 100}.jpg"))
    with pytest.raises(RisoriusError):
        unit_evaluation.evaluate(folder, Options())
