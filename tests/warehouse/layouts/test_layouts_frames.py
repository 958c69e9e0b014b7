"""Layouts of frames and of whole videos open as their readers open them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from tests.warehouse.layouts.conftest import PEOPLE, Exported

AFFWILD = ["Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"]
FER = ["Neutral", "Happiness", "Surprise", "Sadness", "Anger", "Disgust", "Fear"]


@pytest.mark.parametrize("layout", ["affwild2", "abaw"])
def test_affwild2__a_line_per_frame(
    exported: Exported, released: pl.DataFrame, layout: str
) -> None:
    folder = exported(layout)
    seen = 0
    for name, splits in (("Train_Set", ["train"]), ("Validation_Set", ["validation", "test"])):
        for file in sorted((folder / "annotations/EXPR_Set" / name).iterdir()):
            header, *lines = file.read_text().splitlines()
            assert header.split(",") == AFFWILD + (["Other"] if layout == "abaw" else [])
            mood, *moods = (folder / "annotations/VA_Set" / name / file.name).read_text().split()
            units, *_ = (folder / "annotations/AU_Set" / name / file.name).read_text().split()
            assert (mood, len(units.split(","))) == ("valence,arousal", 12)
            assert len(lines) == len(moods)
            pictures = sorted((folder / "cropped_aligned" / file.stem).iterdir())
            assert Image.open(pictures[0]).size == (112, 112)
            assert int(pictures[-1].stem) == len(lines)
            mine = released.filter(pl.format("video-{}", "subject_id") == file.stem)
            assert set(mine["split"]) <= set(splits)
            assert len(pictures) == mine.height
            for frame, expression in mine.select("frame", "expression").iter_rows():
                known = expression is not None and expression < len(FER)
                wanted = AFFWILD.index(FER[expression]) if known else -1
                assert lines[frame] == str(wanted)
                seen += known
    assert seen
    assert {path.name for path in (folder / "cropped_aligned").iterdir()} == {
        f"video-{name}" for name in PEOPLE
    }


def test_affwild2__frames_between_faces_are_unsaid(exported: Exported) -> None:
    folder = exported("affwild2")
    file = next(path for path in (folder / "annotations/EXPR_Set").rglob("video-dee.txt"))
    _, *lines = file.read_text().splitlines()
    pictures = {int(path.stem) for path in (folder / "cropped_aligned/video-dee").iterdir()}
    assert len(pictures) < len(lines)
    assert all(line == "-1" for n, line in enumerate(lines, 1) if n not in pictures)
    _, *moods = Path(str(file).replace("EXPR_Set", "VA_Set")).read_text().splitlines()
    assert set(moods) == {"-5,-5"}
