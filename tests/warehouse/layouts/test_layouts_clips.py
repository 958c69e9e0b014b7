"""Each clip layout opens as its readers open it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.warehouse.layouts.conftest import PEOPLE, Exported, stated

LABELS = {"ann": "neutral", "bob": "neutral", "cid": "neutral", "dee": "anger"}
"""The first of each person's faces has the number 0, 16, 32 or 44, and its expression follows."""


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


def subjects(folder: Path) -> dict[int, str]:
    _, *lines = rows_of(folder / "clips.csv")
    return {int(line[0]): line[2] for line in lines}


def test_dfew__three_readers(exported: Exported) -> None:
    folder = exported("dfew", folds="4", size=64)
    people = subjects(folder)
    assert sorted(people.values()) == sorted(PEOPLE)
    order = ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]
    header, *lines = rows_of(folder / "Annotation/annotation.csv")
    assert header == [*(f"{n}{word}" for n, word in enumerate(order, 1)), "order", "label"]
    for *counts, place, label in lines:
        assert sum(map(int, counts)) == 10
        assert int(counts[int(label) - 1]) == 10
        word = order[int(label) - 1]
        assert LABELS[people[int(place)]].startswith(word.replace("angry", "anger"))
    for fold in range(1, 5):
        seen = {}
        for name in ("train", "test"):
            split = folder / "EmoLabel_DataSplit"
            header, *listed = rows_of(split / f"{name}_single-labeled/set_{fold}.csv")
            assert header == ["order", "label"]
            _, *zero = rows_of(split / f"{name}(single-labeled)/{name}_set_{fold}.csv")
            assert [int(label) - 1 for _, label in listed] == [int(label) for _, label in zero]
            seen[name] = {people[int(place)] for place, _ in listed}
        assert len(seen["test"]) == 1
        assert seen["train"] | seen["test"] == set(PEOPLE)
    for place, person in people.items():
        frames = sorted((folder / f"Clip/clip_224x224_16f/{place:05d}").iterdir())
        assert [frame.name for frame in frames][:2] == ["00001.jpg", "00002.jpg"]
        assert len(frames) == PEOPLE[person]
        assert Image.open(frames[0]).size == (64, 64)
    assert "." not in str(frames[0].relative_to(folder).parent)


def test_ferv39k__scene_class_number(exported: Exported) -> None:
    folder = exported("ferv39k")
    order = ["Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
    seen = 0
    for name in ("train", "test"):
        lines = (folder / f"All_scenes/{name}_All.csv").read_text().splitlines()
        _, *table = rows_of(folder / f"Annotation/{name}.csv")
        for line, (path, number) in zip(lines, table, strict=True):
            assert line == f"{path} {order[int(number)]}"
            assert (folder / "2_ClipsforFaceCrop" / path / "01.jpg").is_file()
            seen += 1
    assert seen == 4


def test_mafw__both_orders(exported: Exported) -> None:
    folder = exported("mafw")
    root = folder / "label/no_caption/set_1"
    for name in ("train", "test"):
        lines = (root / f"{name}.txt").read_text().splitlines()
        _, *table = rows_of(root / f"{name}.csv")
        for line, (clip, number) in zip(lines, table, strict=True):
            word = line.split(" ")[1]
            assert line == f"{clip}.mp4 {word}"
            # Alphabetical, as S4D counts: anger 0, neutral 8.
            assert int(number) == {"anger": 0, "neutral": 8}[word]
            assert Image.open(next((folder / "frames" / clip).iterdir())).format == "PNG"


@pytest.mark.parametrize("dialect", ["mae-dfer", "dfer-clip"])
def test_mae_dfer__lists(exported: Exported, dialect: str) -> None:
    folder = exported("mae-dfer", dialect=dialect)
    suffix = "csv" if dialect == "mae-dfer" else "txt"
    lines = [
        line.split(" ")
        for name in ("train", "test")
        for line in (folder / f"{name}.{suffix}").read_text().splitlines()
    ]
    assert len(lines) == 4
    for path, *numbers in lines:
        frames = len(list(Path(path).iterdir()))
        assert numbers[:-1] == ([] if dialect == "mae-dfer" else [str(frames)])
        # DFEW's order: neutral 2, anger 3; DFER-CLIP counts from 1.
        assert int(numbers[-1]) - (dialect == "dfer-clip") in (2, 3)


def test_clips__label_is_of_people(exported: Exported) -> None:
    folder = exported("dfew")
    header, *lines = rows_of(folder / "clips.csv")
    assert {dict(zip(header, line, strict=True))["label_source"] for line in lines} == {"apex"}
    assert sum(stated(folder)["rows_out"].values()) == 4
    _, *licences = rows_of(folder / "licences.csv")
    assert all(line[4] == "CC-BY-4.0" for line in licences)
