"""The json layouts hold the fields that their readers ask for."""

from __future__ import annotations

import json

import pytest
import yaml
from PIL import Image

from tests.warehouse.layouts.conftest import Exported
from warehouse.vocabulary import EXPRESSIONS

ACTIVE = (16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28, 43)
"""Units whose proxies, which rise evenly from 0 to 1, reach .5."""


def test_fea__rows_and_frequencies(exported: Exported) -> None:
    folder = exported("fea")
    config = json.loads((folder / "config.json").read_text())
    (train,) = yaml.safe_load((folder / "train.yaml").read_text())["datasets"]
    for name in ("faces-train.jsonl", "faces-test.jsonl"):
        for line in (folder / name).read_text().splitlines():
            row = json.loads(line)
            assert row["AUs"] == [f"AU{n}" for n in ACTIVE]
            assert set(row["AUs"]) <= set(config[name]["AUs"])
            assert row["labels"][0] in config[name]["emotions"]
            assert (row["meta_info"]["au_by"], row["description"]) == ("machine", "")
            assert Image.open(f"{train['image_root']}/{row['image']}").format == "JPEG"


def test_expllm__values_in_pixels(exported: Exported) -> None:
    folder = exported("expllm")
    path, images, repeats = (folder / "train.txt").read_text().strip().split(",")
    words = {name.capitalize() for name in EXPRESSIONS}
    with open(path) as handle:
        rows = json.load(handle)
    for row in rows:
        assert row["emo"] in words
        assert row["bbox"] == [10, 10, 200, 200]
        assert row["landmark"][0] == pytest.approx([76.59, 103.39], abs=0.01)
        assert row["headpose"][1:] == [1.0, 2.0]
        assert Image.open(f"{images}/{row['file_name']}").size == (224, 224)
    assert repeats == "1"


@pytest.mark.parametrize("asked", [False, True])
def test_text_au__captions_only_when_asked(exported: Exported, asked: bool) -> None:
    folder = exported("text-au", machine_text=asked)
    captions = json.loads((folder / "captions.json").read_text())
    flags = json.loads((folder / "fau_labels.json").read_text())
    assert bool(captions) == asked
    assert json.loads((folder / "captions_source.json").read_text())["author_kind"] == "machine"
    for file, text in flags.items():
        assert len(text.split()) == 41
        assert (folder / "images" / file).is_file()
    if asked:
        assert {name for row in captions for name in row} == set(flags)


def test_conversations__one_picture_token(exported: Exported) -> None:
    for name, keys in (("turns", ("role", "content")), ("llava", ("from", "value"))):
        folder = exported(name)
        for row in json.loads((folder / "train.json").read_text()):
            ask, answer = row["conversations"]
            assert set(ask) == set(keys)
            assert ask[keys[1]].count("<image>") == 1
            assert answer[keys[1]] in EXPRESSIONS
            assert (folder / row["image"]).is_file()


def test_swift_and_r1__letters(exported: Exported) -> None:
    folder = exported("swift")
    for row in json.loads((folder / "emotion/train.json").read_text()):
        assert row["messages"][1]["content"] in "ABCDEFGH"
        assert Image.open(row["images"][0]).format == "PNG"
    folder = exported("r1")
    for row in json.loads((folder / "FaVChat-train.json").read_text()):
        letter = row["solution"].removeprefix("<answer>").removesuffix("</answer>")
        assert f"{letter}. {row['facial_emotion']}" in row["options"]
        assert (row["problem_type"], row["data_type"]) == ("multiple choice", "image")
