"""Each picture layout opens as its readers open it."""

from __future__ import annotations

import csv
import functools
import json
import operator
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from tests.warehouse.layouts.conftest import Exported, stated
from warehouse.vocabulary import EXPRESSIONS

RAF = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


def expected(released: pl.DataFrame, *, without: tuple[str, ...] = ()) -> pl.DataFrame:
    """Faces with one largest share, of a class that is not dropped."""
    names = dict(enumerate(EXPRESSIONS))
    named = released.drop_nulls("expression").with_columns(
        name=pl.col("expression").replace_strict(names, return_dtype=pl.String)
    )
    return named.filter(~pl.col("name").is_in(without))


def test_raf__list_names_and_numbers(exported: Exported, released: pl.DataFrame) -> None:
    folder = exported("raf")
    wanted = expected(released, without=("contempt",))
    lines = (folder / "EmoLabel/list_patition_label.txt").read_text().splitlines()
    assert len(lines) == wanted.height
    counts = dict.fromkeys(RAF, 0)
    for line in lines:
        name, number = line.split(" ")
        assert name.startswith(("train_", "test_"))
        counts[RAF[int(number) - 1]] += 1
        with Image.open(folder / "Image/aligned" / f"{name.split('.')[0]}_aligned.jpg") as image:
            assert (image.size, image.format, image.mode) == ((100, 100), "JPEG", "RGB")
    assert counts == {
        name: int((wanted["name"] == name).sum()) for name in RAF
    }  # fmt: skip
    assert sum(line.startswith("train") for line in lines) == int(
        (wanted["split"] == "train").sum()
    )
    facts = stated(folder)
    assert facts["labels"]["classes"] == {name.capitalize(): n for n, name in enumerate(RAF, 1)}
    assert facts["left_out"]["tied"] == released["expression"].null_count()
    assert sum(facts["rows_in"].values()) - sum(facts["left_out"].values()) == len(lines)
    noisy = (folder / "EmoLabel/noise10.txt").exists()
    assert not noisy  # raters of this release dissent on tied faces only


def test_raf__latent_ofer(exported: Exported) -> None:
    folder = exported("raf", dialect="latent-ofer", size=64)
    for line in (folder / "EmoLabel/label.txt").read_text().splitlines():
        stem = line.split(".")[0]
        assert Image.open(folder / f"Images/{stem}.JPG").size == (64, 64)
        assert Image.open(folder / f"aligned/{stem}_aligned.jpg").format == "JPEG"


def test_imagefolder__same_classes_in_every_split(
    exported: Exported, released: pl.DataFrame
) -> None:
    folder = exported("imagefolder")
    splits = [path for path in folder.iterdir() if path.is_dir()]
    classes = {tuple(sorted(one.name for one in split.iterdir())) for split in splits}
    assert len(splits) == 3
    assert len(classes) == 1
    files = [file for file in folder.rglob("*") if file.suffix == ".png"]
    wanted = expected(released).filter(pl.col("name").is_in(list(classes.pop())))
    assert len(files) == wanted.height
    assert {file.stem for file in files} == set(wanted["face_id"])
    data = dict(released.select("face_id", pl.col("image").struct.field("bytes")).iter_rows())
    assert all(file.read_bytes() == data[file.stem] for file in files)


def test_imagefolder__folds_by_subject(exported: Exported, released: pl.DataFrame) -> None:
    folder = exported("imagefolder", folds="2", all_classes=True)
    subject = dict(released.select("face_id", "subject_id").iter_rows())
    for fold in ("fold_1", "fold_2"):
        people = [
            {subject[file.stem] for file in (folder / fold / name).rglob("*.png")}
            for name in ("train", "test")
        ]
        assert people[0]
        assert people[1]
        assert not people[0] & people[1]
        assert len(list((folder / fold / "train").iterdir())) == 8


@pytest.mark.parametrize(
    ("dialect", "order"),
    [
        ("affectnet7", "neutral happiness sadness surprise fear disgust anger"),
        ("affectnet8", "neutral happiness sadness surprise fear disgust anger contempt"),
        ("ferplus", "neutral happiness surprise sadness anger disgust fear contempt"),
    ],
)
def test_list__orders(exported: Exported, released: pl.DataFrame, dialect: str, order: str) -> None:
    folder = exported("list", dialect=dialect, folds="2")
    names = order.split()
    label = dict(expected(released).select("face_id", "name").iter_rows())
    seen = 0
    for split in ("train", "validation", "test"):
        for line in (folder / f"{split}.txt").read_text().splitlines():
            path, number = line.split(" ")
            assert names[int(number)] == label[Path(path).stem]
            assert Image.open(folder / path).format == "JPEG"
            seen += 1
    assert seen == sum(name in names for name in label.values())
    lines = [(folder / f"fold_1_{name}.txt").read_text().splitlines() for name in ("train", "test")]
    assert len(lines[0]) + len(lines[1]) == seen


def test_ferplus__counts_are_votes(exported: Exported, released: pl.DataFrame) -> None:
    folder = exported("ferplus")
    table = rows_of(folder / "fer2013new.csv")
    assert table[0] == ["Usage", "Image name", *EXPRESSIONS, "unknown", "NF"]
    assert len(table) - 1 == released.height  # ties stay
    assert all(sum(map(int, row[2:])) == 3 for row in table[1:])
    seen = 0
    for name in ("Train", "Valid", "Test"):
        for file, box, *counts in rows_of(folder / f"FER2013{name}/label.csv"):
            assert (box, len(counts)) == ("(0, 0, 48, 48)", 10)
            with Image.open(folder / f"FER2013{name}" / file) as image:
                assert (image.size, image.mode) == ((48, 48), "L")
            seen += 1
    assert seen == released.height


def test_manifest__absolute_paths(exported: Exported, released: pl.DataFrame) -> None:
    folder = exported("manifest")
    table = rows_of(folder / "labels_all.csv")
    numbers = json.loads((folder / "class_map_fer.json").read_text())
    assert list(numbers) == list(EXPRESSIONS)
    assert table[0] == ["image_path", "label_name", "label_id"]
    assert len(table) - 1 == expected(released).height
    for path, name, number in table[1:]:
        assert Path(path).is_absolute()
        assert Path(path).is_file()
        assert numbers[name] == int(number)


def test_fer_txt__same_ids_everywhere(exported: Exported, released: pl.DataFrame) -> None:
    folder = exported("fer-txt", landmarks="tests.warehouse.layouts.drawn_landmarks:find")
    root = folder / "folds/wsol-done-right-splits/faces"
    order = ["Neutral", "Happiness", "Surprise", "Fear", "Anger", "Disgust", "Sadness"]
    assert yaml.safe_load((root / "class_id.yaml").read_text()) == {
        name: number for number, name in enumerate(order)
    }
    assert set(yaml.safe_load((root / "per_class_weight.yaml").read_text())) == set(order)
    seen = 0
    for split in ("train", "valid", "test"):
        lines = {
            name: (root / split / f"{name}.txt").read_text().splitlines()
            for name in ("image_ids", "class_labels", "image_sizes", "localization", "landmarks")
        }
        ids = lines["image_ids"]
        assert all([line.split(",")[0] for line in found] == ids for found in lines.values())
        assert {line.split(",", 1)[1] for line in lines["localization"]} == {"0,0,223,223"}
        for line in lines["landmarks"]:
            values = np.array(line.split(",")[1:], float)
            assert values.shape == (136,)
            assert np.isinf(values).all() or values.max() <= 224
        assert any("inf" not in line for line in lines["landmarks"])
        seen += len(ids)
        assert all(Image.open(folder / one).size == (224, 224) for one in ids)
    assert seen == expected(released, without=("contempt",)).height


@pytest.mark.parametrize("dialect", ["emoset", "u-emo"])
def test_attributes__entries_open(exported: Exported, dialect: str) -> None:
    folder = exported("attributes", dialect=dialect)
    info = json.loads((folder / "info.json").read_text())
    own = dialect == "u-emo"
    classes = (info if own else info["emotion"])["label2idx"]
    assert list(classes) == list(EXPRESSIONS)
    shown = info["facial_expression"]["label2idx"]
    assert list(shown) == ["angry", "disgust", "fear", "happy", "sad", "surprise"]
    for split in ("train", "val", "test"):
        entries = json.loads((folder / f"{split}.json").read_text())
        assert entries
        for entry in entries:
            assert len(entry) == (3 if own else 4)
            facts = json.loads((folder / entry[-1]).read_text())
            assert facts["emotion"] == entry[0] in classes
            assert facts.get("facial_expression", "angry") in shown
            assert Image.open(folder / entry[-2]).format == "JPEG"


def test_hdf5__encoded_pictures(exported: Exported, released: pl.DataFrame) -> None:
    h5py = pytest.importorskip("h5py")
    folder = exported("hdf5")
    seen = {}
    for path in folder.glob("*.h5"):
        with h5py.File(path) as file:
            assert len(file["images"]) == len(file["face_id"])
            for data, face in zip(file["images"], file["face_id"].asstr(), strict=True):
                seen[face] = data.tobytes()
    data = released.select("face_id", pl.col("image").struct.field("bytes"))
    assert seen == dict(data.iter_rows())


def test_affectnet__csv(exported: Exported, released: pl.DataFrame) -> None:
    folder = exported("affectnet")
    order = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
    label = dict(expected(released).select("face_id", "name").iter_rows())
    seen = 0
    for name in ("training", "validation"):
        header, *lines = rows_of(folder / f"{name}.csv")
        assert header[0] == "subDirectory_filePath"
        assert len(header) == 9
        for path, x, y, w, h, points, number, valence, arousal in lines:
            assert order[int(number)] == label[Path(path).stem]
            assert (float(valence), float(arousal)) == (0.5, -2)
            with Image.open(folder / "images" / path) as image:
                assert int(x) + int(w) <= image.width
                assert int(y) + int(h) <= image.height
                # The box is 10 px inside the template's 224 px square on each side.
                assert (int(x), int(y), int(w), int(h)) == (10, 10, 200, 200)
            values = np.array(points.split(";"), float).reshape(68, 2)
            assert np.isnan(values[:36]).all()
            assert values[36:42].mean(axis=0) == pytest.approx([76.59, 103.39], abs=0.01)
            assert values[42:48].mean(axis=0) == pytest.approx([147.06, 103.0], abs=0.01)
            seen += 1
    assert seen == len(label)


def test_affectnet__kaggle(exported: Exported) -> None:
    folder = exported("affectnet", dialect="kaggle")
    header, *lines = rows_of(folder / "train.csv")
    assert header == ["image", "emotion"]
    for path, number in lines:
        assert path.startswith(f"train_class/class{int(number):03d}/")
        assert 1 <= int(number) <= 8
        assert (folder / path).is_file()


def test_boxes__coco(exported: Exported, released: pl.DataFrame) -> None:
    folder = exported("boxes", dialect="coco")
    names = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    seen = 0
    for split in ("train", "val", "test"):
        found = json.loads((folder / f"annotations/instances_{split}.json").read_text())
        assert [row["name"] for row in found["categories"]] == names
        files = {row["id"]: row for row in found["images"]}
        for row in found["annotations"]:
            image = files[row["image_id"]]
            assert Image.open(folder / "JPEGImages" / image["file_name"]).format == "PNG"
            assert row["bbox"] == pytest.approx([10, 10, 200, 200], abs=0.01)
            assert (row["iscrowd"], row["num_keypoints"], image["width"]) == (0, 5, 224)
            assert row["keypoints"][:3] == pytest.approx([76.59, 103.39, 2], abs=0.01)
            seen += 1
    assert seen == expected(released, without=("contempt",)).height


def test_boxes__fer_yolo(exported: Exported) -> None:
    folder = exported("boxes", dialect="fer-yolo")
    classes = (folder / "classes.txt").read_text().split()
    lines = [(folder / f"2007_{name}.txt").read_text().splitlines() for name in ("train", "val")]
    for line in functools.reduce(operator.iadd, lines, []):
        path, *boxes = line.split()
        assert Path(path).is_file()
        assert [box.rpartition(",")[0] for box in boxes] == ["10,10,210,210"]
        assert int(boxes[0].rpartition(",")[2]) < len(classes)


def test_boxes__yolo_and_voc(exported: Exported) -> None:
    folder = exported("boxes", dialect="yolo")
    data = yaml.safe_load((folder / "data.yaml").read_text())
    assert data["names"][6] == "surprise"
    for image in (folder / "images/train").iterdir():
        words = (folder / "labels/train" / f"{image.stem}.txt").read_text().split()
        assert [float(word) for word in words[1:]] == pytest.approx(
            [110 / 224, 110 / 224, 200 / 224, 200 / 224], abs=1e-5
        )
    folder = exported("boxes", dialect="voc")
    for name in (folder / "ImageSets/Main/train.txt").read_text().split():
        tree = ElementTree.parse(folder / f"Annotations/{name}.xml")
        assert (folder / "JPEGImages" / str(tree.findtext("filename"))).is_file()
        assert [tree.findtext(f"object/bndbox/{key}") for key in ("xmin", "xmax")] == ["11", "210"]


def test_boxes__whole_frames(exported: Exported, released: pl.DataFrame) -> None:
    def frames(rows: pl.DataFrame):  # type: ignore[no-untyped-def]
        for video, frame in rows.select("video_id", "frame").unique().sort("frame").iter_rows():
            if frame != 0:  # this one cannot be read any more
                yield video, frame, np.full((480, 640, 3), frame, np.uint8)

    folder = exported("boxes", dialect="coco", frames=frames)
    found = json.loads((folder / "annotations/instances_train.json").read_text())
    assert found["annotations"][0]["bbox"] == [205, 105, 100, 100]
    image = found["images"][0]
    assert Image.open(folder / "JPEGImages" / image["file_name"]).size == (640, 480)
    assert stated(folder)["left_out"]["frame_unavailable"] == 1


def test_labels_csv__13_columns(exported: Exported) -> None:
    folder = exported("labels-csv")
    header, *lines = rows_of(folder / "labels.csv")
    assert len(header) == 13
    views = set()
    for line in lines:
        row = dict(zip(header, line, strict=True))
        assert (folder / row["name"]).is_file()
        assert (row["age"], row["auto_age"], row["auto_perspective"]) == ("", "0", "1")
        views.add(row["perspective"])
    assert views == {"frontal", "half_profile"}
