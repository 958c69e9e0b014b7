"""Published datasets of pictures, as tiny files of their shape."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from tests.pipeline.importers.conftest import Reader, picture, written
from warehouse.errors import SettingsError

PIXELS = " ".join(["100"] * 2304)
VOTES = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def fer2013(folder: Path, rows: int = 3) -> Path:
    usages = ("Training", "PublicTest", "PrivateTest")
    lines = (f"{n},{PIXELS},{usages[n % 3]}" for n in range(rows))
    written(folder / "fer2013.csv", "emotion,pixels,Usage", *lines)
    return folder


def test_fer2013__pixels_labels_and_usages(tmp_path: Path, read: Reader) -> None:
    found = read(fer2013(tmp_path / "fer"))
    assert (found.format, found.why) == (
        "fer2013", "fer2013.csv has the columns emotion and pixels"
    )  # fmt: skip
    assert found.labels() == {
        "fer0000000.png": ["anger"], "fer0000001.png": ["disgust"], "fer0000002.png": ["fear"]
    }  # fmt: skip
    assert list(found.splits().values()) == ["train", "validation", "test"]
    image = cv2.imread(next(iter(found.spooled.lines)))
    assert image.shape == (48, 48, 3)
    assert (image == 100).all()


def test_ferplus__counts_of_ten_raters(tmp_path: Path, read: Reader) -> None:
    folder = fer2013(tmp_path / "fer", 2)
    written(folder / "fer2013new.csv", f"Usage,Image name,{VOTES}",
            "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0",
            "PrivateTest,,0,0,0,0,0,0,0,0,0,10")  # fmt: skip
    found = read(folder)
    assert found.format == "ferplus"
    assert Counter(found.labels()["fer0000000.png"]) == {
        "neutral": 4, "sadness": 1, "anger": 3, "disgust": 2
    }  # fmt: skip
    assert found.labels()["fer0000001.png"] == ["not_a_face"] * 10
    assert sorted({row["rater"] for row in found.rows()}) == [f"seat-{n:02d}" for n in range(10)]


def test_ferplus__rows_that_do_not_fit_the_pixels(tmp_path: Path, read: Reader) -> None:
    folder = fer2013(tmp_path / "fer", 2)
    written(folder / "fer2013new.csv", f"Usage,Image name,{VOTES}",
            "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0")  # fmt: skip
    with pytest.raises(SettingsError, match="fewer rows than fer2013"):
        read(folder)


def test_affectnet__numbers_mood_and_box(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "affect"
    head = ("subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,"
            "expression,valence,arousal")  # fmt: skip
    lists = folder / "Manually_Annotated_file_lists"
    written(lists / "training.csv", head, '1/a.jpg,10,12,20,22,"1;2",1,0.5,-0.25',
            '1/b.jpg,0,0,9,9,"1;2",9,-2,-2', '1/gone.jpg,0,0,9,9,"1;2",8,-2,-2')  # fmt: skip
    written(lists / "validation.csv", head, '2/c.jpg,0,0,9,9,"1;2",10,-2,-2')
    written(folder / "Automatically_annotated_file_lists/automatically_annotated.csv", head,
            '1/a.jpg,10,12,20,22,"1;2",2,0.5,-0.25')  # fmt: skip
    for name in ("1/a.jpg", "1/b.jpg", "2/c.jpg"):
        picture(folder / "Manually_Annotated_Images" / name)
    found = read(folder)
    assert found.format == "affectnet"
    root = "Manually_Annotated_Images"
    labels = found.labels()
    assert labels[f"{root}/1/a.jpg"] == ["happiness"]
    assert labels[f"{root}/1/b.jpg"] == labels["1/gone.jpg"] == ["unknown"]
    assert labels[f"{root}/2/c.jpg"] == ["not_a_face"]
    first = found.rows()[0]
    assert (first["valence"], first["arousal"], first["box"]) == (0.5, -0.25, [10, 12, 20, 22])
    assert found.rows()[1]["valence"] is None
    assert "1 listed files are not there: 1/gone.jpg" in found.said
    assert "a machine gave its labels" in found.said


def test_affectnet__npy_edition(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "affect"
    picture(folder / "val_set/images/7.jpg")
    for name, value in (("exp", "6"), ("val", "-0.5"), ("aro", "-2")):
        path = folder / f"val_set/annotations/7_{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.array(value))
    (row,) = read(folder).rows()
    assert (row["answers"], row["valence"], row["arousal"]) == (["anger"], -0.5, None)


@pytest.mark.parametrize("name", ["list_patition_label.txt", "list_partition_label.txt"])
def test_raf__both_names_and_aligned_pictures(tmp_path: Path, read: Reader, name: str) -> None:
    folder = tmp_path / "raf/basic"
    written(folder / "EmoLabel" / name, "train_00001.jpg 5", "test_0001.jpg 1")
    picture(folder / "Image/aligned/train_00001_aligned.jpg", side=100)
    picture(folder / "Image/original/test_0001.jpg")
    found = read(tmp_path / "raf")
    assert found.format == "raf"
    assert found.labels() == {
        "basic/Image/aligned/train_00001_aligned.jpg": ["sadness"],
        "basic/Image/original/test_0001.jpg": ["surprise"],
    }
    assert list(found.splits().values()) == ["train", "test"]


def test_raf__compound_list(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "compound"
    written(folder / "EmoLabel/list_patition_label.txt", "train_0001.jpg 1", "test_0002.jpg 11")
    picture(folder / "Image/aligned/train_0001_aligned.jpg")
    picture(folder / "Image/aligned/test_0002_aligned.jpg")
    rows = read(folder).rows()
    assert [row["compounds"] for row in rows] == [["happiness+surprise"], ["disgust+surprise"]]
    assert rows[0]["answers"] == ["happiness", "surprise"]


def test_expw__several_faces_of_one_picture(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "expw"
    written(folder / "label/label.lst", "crowd.jpg 0 10 20 60 70 50.5 3",
            "crowd.jpg 1 15 80 120 55 40 4")  # fmt: skip
    picture(folder / "image/origin/crowd.jpg", side=160)
    found = read(folder)
    assert [(row["answers"], row["box"]) for row in found.rows()] == [
        (["happiness"], [20, 10, 40, 60]), (["sadness"], [80, 15, 40, 40])
    ]  # fmt: skip
    (line,) = found.spooled.lines.values()
    assert line["labelled"]["boxes"] == [[20, 10, 40, 60], [80, 15, 40, 40]]


def test_ck_plus__last_frame_with_units(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "ck"
    for number in (1, 2, 3):
        picture(folder / f"cohn-kanade-images/S005/001/S005_001_0000000{number}.png")
    stem = "S005/001/S005_001_00000003"
    written(folder / f"Emotion/{stem}_emotion.txt", "   3.0000000e+00")
    written(folder / f"FACS/{stem}_facs.txt", "  9.0000000e+00   4.0000000e+00",
            "  17 0", "  54 1")  # fmt: skip
    found = read(folder)
    (row,) = found.rows()
    assert row["file_name"] == "cohn-kanade-images/S005/001/S005_001_00000003.png"
    assert row["answers"] == ["disgust"]
    assert row["au"] == [{"unit": 9, "intensity": 0.8}, {"unit": 17, "intensity": 0.5}]
    assert "1 codes of action units outside the 24: AU54" in found.said
    (line,) = found.spooled.lines.values()
    assert line["subject_id"] == "S005"


def test_imagefolder__unknown_classes_are_listed(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "faces"
    for name in ("train/happy/a.jpg", "train/bored/b.jpg", "test/Sad/c.jpg"):
        picture(folder / name)
    found = read(folder)
    assert found.format == "imagefolder"
    assert found.labels() == {"train/happy/a.jpg": ["happiness"], "test/Sad/c.jpg": ["sadness"]}
    assert found.splits()["train/bored/b.jpg"] == "train"
    assert "1 labels that are no answer: bored" in found.said
    mapped = read(folder, label_map={"bored": "unknown", "sleepy": "neutral"})
    assert mapped.labels()["train/bored/b.jpg"] == ["unknown"]
    assert mapped.dataset.words.unused() == ["sleepy"]


def test_imagefolder__numbers_need_a_map(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "faces"
    picture(folder / "1/a.jpg")
    picture(folder / "7/b.jpg")
    with pytest.raises(SettingsError, match="labels no picture") as caught:
        read(folder, "imagefolder")
    assert "--map WORD=ANSWER" in str(caught.value)
    found = read(folder, "imagefolder", label_set="basic7:raf", label_map={"7": "fear"})
    assert found.labels() == {"1/a.jpg": ["surprise"], "7/b.jpg": ["fear"]}


def png(level: int) -> bytes:
    return cv2.imencode(".png", np.full((8, 8, 3), level, np.uint8))[1].tobytes()


def test_parquet__picture_bytes_and_class_names(tmp_path: Path, read: Reader) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "emotion": datasets.ClassLabel(names=["angry", "bliss"])}
    )
    rows = {"image": [{"bytes": png(9), "path": None}] * 2, "emotion": [0, 1]}
    made = datasets.Dataset.from_dict(rows, features=features)
    folder = tmp_path / "hub"
    folder.mkdir()
    made.to_parquet(folder / "train-00000-of-00001.parquet")
    found = read(folder, label_map={"bliss": "happiness"})
    assert found.format == "parquet"
    assert sorted(found.answers()) == ["anger", "happiness"]
    assert set(found.splits().values()) == {"train"}
    made.save_to_disk(tmp_path / "saved")
    saved = read(tmp_path / "saved", label_map={"bliss": "happiness"})
    assert (saved.format, len(saved.rows())) == ("hub", 2)


def test_parquet__two_columns_of_labels(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    frame = pl.DataFrame({"image": [png(5)], "emotion": ["sad"], "category": ["happy"]})
    frame.write_parquet(folder / "train.parquet")
    with pytest.raises(SettingsError, match="--label-column"):
        read(folder)
    assert list(read(folder, label_column="category").labels().values()) == [["happiness"]]
    with pytest.raises(SettingsError, match="Correct --label-column"):
        read(folder, label_column="mood")


def test_webdataset__class_files(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / "train-00000.tar", "w") as tar:
        for name, data in (("a.png", png(1)), ("a.cls", b"3"), ("b.png", png(2)),
                           ("b.json", b'{"label": "fear"}')):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found = read(folder, label_set="basic7:fer2013")
    assert sorted(found.answers()) == ["fear", "happiness"]


def test_webdataset__shards_of_one_name_and_hidden_files(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "shards"
    for split, label, level in (("train", b"happy", 1), ("val", b"fear", 2)):
        (folder / split).mkdir(parents=True)
        with tarfile.open(folder / split / "00000.tar", "w") as tar:
            for name, data in (("._a.png", b"junk"), ("a.png", png(level)), ("a.cls", label)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    found = read(folder)
    assert found.labels() == {
        "train/00000/a.png": ["happiness"], "val/00000/a.png": ["fear"],
    }  # fmt: skip


def test_metadata__label_column_split_and_unknown_words(tmp_path: Path, read: Reader) -> None:
    folder = tmp_path / "set"
    written(folder / "metadata.csv", "file_name,mood,split", "a.png,happy,train", "b.png,meh,test")
    for name in ("a.png", "b.png", "extra.png"):
        picture(folder / name)
    found = read(folder, label_column="mood")
    assert found.labels() == {"a.png": ["happiness"]}
    assert found.splits() == {"a.png": "train", "b.png": "test"}
    assert "1 labels that are no answer: meh" in found.said
    assert len(found.spooled.lines) == 3


# Recognition and bad input


def test_auto__two_formats_fit(tmp_path: Path, read: Reader) -> None:
    folder = fer2013(tmp_path / "both")
    written(folder / "EmoLabel/list_patition_label.txt", "train_00001.jpg 5")
    with pytest.raises(SettingsError, match="Several formats fit") as caught:
        read(folder)
    assert "fer2013: fer2013.csv has the columns" in str(caught.value)
    assert "raf: list_patition_label.txt lists" in str(caught.value)
    assert read(folder, "fer2013").format == "fer2013"


COCO_BOX = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "happy"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}],
    }
)


def test_yolo__without_names(tmp_path: Path, read: Reader) -> None:
    written(tmp_path / "set/labels/a.txt", "0 0.5 0.5 0.2 0.2")
    with pytest.raises(SettingsError, match=r"no data\.yaml"):
        read(tmp_path / "set", "yolo")


def test_list__names_no_file_outside_the_dataset(tmp_path: Path, read: Reader) -> None:
    secret = picture(tmp_path / "secret.png")
    folder = tmp_path / "set"
    picture(folder / "Image/original/train_00001.jpg")
    lines = ("train_00001.jpg 4", "../../../secret.png 4", f"{secret} 4")
    written(folder / "EmoLabel/list_patition_label.txt", *lines)
    found = read(folder, "raf")
    assert all(Path(uri).is_relative_to(folder) for uri in found.spooled.lines)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({}, "an empty folder", id="empty"),
        pytest.param({"notes.txt": "hello"}, "notes.txt", id="no dataset"),
        pytest.param({"fer2013.csv": f"emotion,pixels,Usage\n0,{PIXELS[:-8]},Training\n"},
                     "pixels", id="cut pixels"),
        pytest.param({"fer2013.csv": f"emotion,pixels,Usage\n0,{PIXELS},Training\n3,1 2"},
                     "line 3: 2 cells, 3 columns", id="cut row"),
        pytest.param({"fer2013.csv": f"emotion,pixels,Usage\n0,{'999 ' * 2304},Training\n"},
                     "pixels that are no bytes", id="no bytes"),
        pytest.param({"fer2013.csv": "emotion,pixels,Usage\n"}, "no image to import", id="no row"),
        pytest.param({"EmoLabel/list_patition_label.txt": "train_00001.jpg\n"},
                     "'train_00001.jpg'", id="list without label"),
        pytest.param({"EmoLabel/list_patition_label.txt": "train_00001.jpg 4\n"},
                     "None of the listed files is there", id="no picture"),
        pytest.param({"metadata.csv": "file_name,label\na.png,bliss\n"}, "'bliss' (1)",
                     id="no known label"),
        pytest.param({"train.parquet": "PAR1 but cut"}, "train.parquet", id="broken parquet"),
        pytest.param({"annotations/instances_train.json": '{"images": ['}, "COCO", id="cut json"),
        pytest.param({"annotations/instances_train.json": COCO_BOX}, "COCO", id="box of three"),
        *(
            pytest.param({"metadata.csv": f"file_name,label\na.png,{word}\n"}, f"{word!r} (1)",
                         id=f"label {word}")
            for word in ("nan", "inf", "1.5")
        ),
    ],
)  # fmt: skip
def test_bad_input__nothing_is_written(
    tmp_path: Path, read: Reader, files: dict[str, str], said: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(SettingsError) as caught:
        read(folder)
    assert said in str(caught.value)
    assert not [path for path in tmp_path.glob("home*/**/*") if path.is_file()]


def test_map__to_no_answer(tmp_path: Path, read: Reader) -> None:
    folder = fer2013(tmp_path / "fer")
    with pytest.raises(SettingsError, match="label set lacks"):
        read(folder, label_map={"3": "bliss"})
    found = read(folder, label_map={"0": ""})
    assert "fer0000000.png" not in found.labels()


def test_import__repeated_writes_nothing_new(tmp_path: Path, read: Reader) -> None:
    folder = fer2013(tmp_path / "fer")
    found = read(folder)
    before = {path: path.stat().st_mtime_ns for path in found.home.inbox.rglob("*")}
    from pipeline import import_dataset, importers
    from pipeline.importers.samples import Options

    import_dataset.spooled(found.home, folder, importers.load("fer2013"), Options(), batch="set")
    assert {path: path.stat().st_mtime_ns for path in found.home.inbox.rglob("*")} == before
    assert json.loads((found.home.inbox / "set/sources.jsonl").read_text().splitlines()[0])[
        "dataset"
    ] == str(folder)
