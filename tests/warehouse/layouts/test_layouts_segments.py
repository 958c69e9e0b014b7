"""Layouts of segments open as their readers open them."""

from __future__ import annotations

import ast
import csv
import io
import json
import pickle
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
import pytest
import yaml

from tests.warehouse.conftest import release_inputs
from tests.warehouse.layouts.conftest import PEOPLE, geometry, stated
from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.label_sets import load
from warehouse.releases import items, layouts
from warehouse.storage import atomic
from warehouse.storage.home import Home

Exported = Callable[..., Path]
SPLITS = ("train", "validation", "test")
LABELS = {"expressions8": "happiness", "mer6": "anger", "compound7": "fear+surprise",
          "sentiment3": "positive", "ambivalence": "absent"}  # fmt: skip
"""Label set to the answer on which all raters of the first segments agree."""

RATIONALE = "the brows rise, and\nthe voice falls"


def clip() -> bytes:
    """An MP4 of eight frames."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(8):
            image = np.full((64, 64, 3), 30 * shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return data.getvalue()


def sound() -> bytes:
    """A tenth of a second as FLAC, 16 kHz mono."""
    data = io.BytesIO()
    samples = (8000 * np.sin(np.arange(1600) / 9)).astype(np.int16)
    with av.open(data, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", "mono")
        frame.sample_rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return data.getvalue()


def one_hot(label_set: str, answer: str) -> list[float]:
    return [float(name == answer) for name in load(label_set).classes]


def segment_rows(home: Home, starts: dict[str, float]) -> list[dict[str, Any]]:
    """Two segments per person; in the second the raters of expressions tie."""
    film, heard = clip(), sound()
    rows = []
    for person, start in starts.items():
        for number in range(2):
            name = f"video-{person}-s{number}"
            atomic.write_bytes(home.media / "segments" / f"{name}.mp4", film)
            atomic.write_bytes(home.media / "segments" / f"{name}.flac", heard)
            common = dict.fromkeys(items.SEGMENTS) | {
                "segment_id": name, "video_id": f"video-{person}", "subject_ids": [person],
                "kind": "utterance", "start_s": start + number, "end_s": start + number + 0.9,
                "transcript": f'So, "{person}"\n says {number}', "language": "en",
                "speaker": person.capitalize(), "video": f"segments/{name}.mp4",
                "sound": f"segments/{name}.flac", "open_set_share": 0.0, "n_votes": 2,
                "source": "real", "licence": "CC-BY-4.0", "consent": "yes", "answered": True,
            }  # fmt: skip
            for label_set, answer in LABELS.items():
                shares = one_hot(label_set, answer)
                if number and label_set == "expressions8":
                    shares = [0.5, 0.5, *[0.0] * 6]
                rows.append(common | {"label_set": label_set, "distribution": shares})
    return rows


def about(rows: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    """Intensities, words, a rationale and a span of each first segment."""
    votes, texts, spans = [], [], []
    for name, video in {row["segment_id"]: row["video_id"] for row in rows}.items():
        if not name.endswith("s0"):
            continue
        about_it = {"item_kind": "segment", "item_id": name, "video_id": video}
        for rater, level in (("person-1", 3), ("person-2", 0)):
            answers = {"label.joy": [str(level)], "valence": 0.5}
            votes.append(dict.fromkeys(items.VOTES) | {
                "segment_id": name, "video_id": video, "rater_id": rater, "rater_kind": "person",
                "label_set": "plutchik8", "labels": [],
                "answers": json.dumps(answers)})  # fmt: skip
            texts.append(dict.fromkeys(items.TEXTS) | about_it | {
                "kind": "open_words", "author_kind": "person", "rater_id": rater,
                "words": ["calm", "don't know"] if level else ["calm"]})  # fmt: skip
        texts.append(dict.fromkeys(items.TEXTS) | about_it | {
            "kind": "rationale", "author_kind": "person", "rater_id": "person-1",
            "text": RATIONALE})  # fmt: skip
        spans.append(dict.fromkeys(items.SPANS) | about_it | {
            "label_set": "ambivalence", "label": "present", "start_s": 0.35, "end_s": 0.7,
            "cues": ["voice", "face"], "rater_id": "person-1", "rater_kind": "person"})  # fmt: skip
    return {
        "segments": pl.DataFrame(rows, schema=dict(items.SEGMENTS)),
        "segment_votes": pl.DataFrame(votes, schema=dict(items.VOTES)),
        "texts": pl.DataFrame(texts, schema=dict(items.TEXTS)),
        "spans": pl.DataFrame(spans, schema=dict(items.SPANS)),
    }


@pytest.fixture(scope="module")
def spoken_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home.at(tmp_path_factory.mktemp("spoken") / "home")
    given = release_inputs(home, PEOPLE)
    starts = dict(given["rows"].group_by("subject_id").agg(pl.col("time_s").min()).iter_rows())
    rows = segment_rows(home, dict(sorted(starts.items())))
    faces = geometry(given["rows"])
    releases.build(home, **given | {"rows": faces}, segment_items=about(rows))
    return home


@pytest.fixture
def spoken(spoken_home: Home, tmp_path: Path) -> Exported:
    def export(layout: str, **options: Any) -> Path:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        releases.export(spoken_home, name="faces", to=folder, layout=layout, **options)
        return folder

    return export


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


def is_wav(path: Path) -> bool:
    with wave.open(str(path)) as file:
        return (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 1600)


def test_meld__csv_and_clips(spoken: Exported) -> None:
    folder = spoken("meld")
    seen = 0
    for name in ("train", "dev", "test"):
        header, *lines = rows_of(folder / f"{name}_sent_emo.csv")
        assert (header[1], header[3], header[5], header[6]) == (
            "Utterance", "Emotion", "Dialogue_ID", "Utterance_ID",
        )  # fmt: skip
        for line in lines:
            row = dict(zip(header, line, strict=True))
            assert (row["Emotion"], row["Sentiment"]) == ("joy", "positive")
            assert row["Utterance"] == f'So, "{row["Speaker"].lower()}" says 0'
            assert row["StartTime"].count(":") == 2
            assert row["StartTime"][-4] == ","
            file = folder / name / f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.mp4"
            with av.open(str(file)) as container:
                assert container.streams.video[0].width == 64
            seen += 1
    # The second segments tie.
    assert seen == len(PEOPLE)
    assert stated(folder)["left_out"] == {"tied": len(PEOPLE)}


def test_erc_json__equal_lengths(spoken: Exported) -> None:
    folder = spoken("erc-json")
    for name in ("train", "valid", "test"):
        dialogues = json.loads((folder / f"data/faces.{name}.json").read_text())
        for turns in dialogues.values():
            assert len({len(values) for values in turns.values()}) == 1
            assert turns["labels"] == [4]  # joy in MELD's order
            assert turns["genders"][0] == [1, *[0] * 8]


def test_emo_superb__shares_and_splits(spoken: Exported) -> None:
    folder = spoken("emo-superb", folds="4") / "data/faces"
    config = json.loads((folder / "Primary/config.json").read_text())
    words = config["categorical"]["emo_type"]
    files = sorted(path.name for path in (folder / "Audios").iterdir())
    for fold in range(1, 5):
        header, *lines = rows_of(folder / f"Primary/labels_consensus_{fold}.csv")
        assert header == ["FileName", *words, "SpkrID", "Split_Set"]
        assert sorted(line[0] for line in lines) == files
        assert {line[-1] for line in lines} == {"Train", "Development", "Test"}
        for line in lines:
            shares = [float(value) for value in line[1 : len(words) + 1]]
            assert sum(shares) == pytest.approx(1, abs=1e-4)
            top = 0.95 if line[0].endswith("s0.wav") else 0.95 * 0.5 + 0.05 * 0.5 / 7
            assert max(shares) == pytest.approx(top, abs=1e-4)
    assert is_wav(folder / "Audios" / files[0])


def test_soft_csv__eight_columns(spoken: Exported) -> None:
    folder = spoken("soft-csv")
    for name in ("train", "dev", "test"):
        header, *lines = rows_of(folder / f"{name}_segment.csv")
        assert header[1:] == ["Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness",
                              "Surprise", "Other"]  # fmt: skip
        for file, *shares in lines:
            assert sum(map(float, shares)) == pytest.approx(1)
            assert is_wav(folder / "wav" / file)


def test_rated_audio__levels(spoken: Exported) -> None:
    folder = spoken("rated-audio")
    frame = pl.concat([pl.read_parquet(file) for file in folder.glob("*.parquet")])
    assert frame.height == len(PEOPLE)
    for cell, label in frame.select("audioId", "label").iter_rows():
        assert ast.literal_eval(label) == [{"person-1": {"Joy": 2}}, {"person-2": {"Joy": 0}}]
        assert cell["bytes"][:4] == b"RIFF"


def test_merbench__pickled_dicts_and_bgr(spoken: Exported) -> None:
    folder = spoken("merbench")
    labels = np.load(folder / "faces_label.npz", allow_pickle=True)
    found = {name: labels[f"{name}_corpus"].tolist() for name in ("train", "val", "test")}
    names = [one for corpus in found.values() for one in corpus]
    assert len(names) == 2 * len(PEOPLE)
    for corpus in found.values():
        for name, values in corpus.items():
            assert values["emo"] == 1  # angry in the order of MER
            assert values["val"] == 1 or not name.endswith("s0")
            assert is_wav(folder / "subaudio" / f"{name}.wav")
    faces = np.load(folder / "openface_face/video-ann-s0/video-ann-s0.npy")
    assert faces.shape == (5, 224, 224, 3)  # five faces a second
    header, *lines = rows_of(folder / "transcription.csv")
    assert header == ["name", "emotion", "chinese"]
    assert sorted(line[0] for line in lines) == sorted(names)


def test_mer_ov__every_name_in_three_files(spoken: Exported) -> None:
    folder = spoken("mer-ov")
    _, *words = rows_of(folder / "track2_train_faces.csv")
    _, *reasons = rows_of(folder / "track3_train_faces.csv")
    _, *texts = rows_of(folder / "subtitle_chieng.csv")
    assert [row[0] for row in words] == [row[0] for row in reasons] == [row[0] for row in texts]
    assert {row[1] for row in words} == {"['calm', 'don t know']"}
    assert {row[1] for row in reasons} == {"the brows rise, and the voice falls"}
    assert (folder / f"video/{words[0][0]}.mp4").is_file()
    assert stated(folder)["left_out"] == {"no_open_words": len(PEOPLE)}


def test_emer__avi(spoken: Exported) -> None:
    folder = spoken("emer")
    header, *lines = rows_of(folder / "gt-eng.csv")
    assert header == ["names", "emotions", "subtitles", "reasons"]
    for name, words, *_ in lines:
        assert words == "calm, don't know"
        with av.open(str(folder / f"video/{name}.avi")) as container:
            assert container.format.name == "avi"
            assert sum(1 for _ in container.decode(video=0)) == 8


def test_fold_txt__commas_survive(spoken: Exported) -> None:
    folder = spoken("fold-txt")
    root = folder / "folds/faces/split-0"
    assert yaml.safe_load((root / "class_id.yaml").read_text())["Happiness"] == 1
    seen = 0
    for name in ("train", "val", "test"):
        for line in (root / f"{name}.txt").read_text().splitlines():
            path, number, text = line.split(",", 2)
            assert (folder / path).is_file()
            assert (number, text.startswith('So, "')) == ("1", True)
            seen += 1
    assert seen == len(PEOPLE)


def test_c_expr__annotations_and_files(spoken: Exported) -> None:
    folder = spoken("c-expr")
    header, *lines = rows_of(folder / "annotation/video-ann.csv")
    assert header[2:] == ["Fearfully_surprised", "Happily_surprised", "Sadly_surprised",
                          "Disgustedly_surprised", "Angrily_surprised", "Sadly_fearful",
                          "Sadly_angry", "Other"]  # fmt: skip
    assert lines[0][:2] == ["00:00:00.000", "00:00:00.900"]
    assert [line[2:].index("1") for line in lines] == [0, 0]
    files = sorted((folder / "trimmed_videos/Fearfully-surprised").glob("video-ann_*"))
    assert [file.name[-5:] for file in files] == ["1.mp4", "2.mp4"]


def test_bah__frames_in_spans(spoken: Exported) -> None:
    folder = spoken("bah")
    trial = folder / "features/compacted_48/video-ann-s0"
    labels = np.load(trial / "EXPR_continuous_label.npy")
    # Faces at 0, 0.2, ... 0.8 s; the span is 0.35 to 0.7 s.
    assert labels.dtype == np.float32
    assert labels.tolist() == [0, 0, 1, 1, 0]
    assert np.load(trial / "video.npy").shape == (5, 256, 256, 3)
    found = yaml.safe_load((folder / "video_annotation.yaml").read_text())
    assert found["video-ann-s0"]["frame_annotation"][2] == [2, 1]
    info = pickle.loads((folder / "dataset_info.pkl").read_bytes())
    assert sum(len(part["trial"]) for part in info.values()) == 2 * len(PEOPLE)
    ids = yaml.safe_load((folder / "folds/faces/split-0/class_id.yaml").read_text())
    assert ids == {"No A-H": 0, "With A-H": 1}


def test_mosei__equal_lengths(spoken: Exported) -> None:
    folder = spoken("mosei")
    entries = [
        entry
        for name in ("train", "valid", "test")
        for entry in pickle.loads((folder / f"{name}.pkl").read_bytes())
    ]
    assert len(entries) == 2 * len(PEOPLE)
    for entry in entries:
        frames = list((folder / "Frames_resize" / entry["uttr_id"]).iterdir())
        assert entry["OpenFace"].shape == (len(frames), 435)
        wanted = [1, 0, 0, 0, 0, 0] if entry["uttr_id"].endswith("s0") else None
        assert wanted in (None, entry["label"])
        mel = pickle.loads((folder / f"Mel_Spect/{entry['uttr_id']}.pkl").read_bytes())
        assert mel.shape == (11, 128)  # a tenth of a second
        assert mel.max() > 0


def test_context_clips__boxes(spoken_home: Home, tmp_path: Path) -> None:
    def frames(rows: pl.DataFrame) -> Iterator[tuple[str, int, np.ndarray]]:
        for video, frame in rows.select("video_id", "frame").unique().iter_rows():
            yield video, frame, np.zeros((480, 640, 3), np.uint8)

    options: dict[str, Any] = {"name": "faces", "layout": "context-clips",
                               "label_set": "expressions8"}  # fmt: skip
    with pytest.raises(ReleaseError, match="no video of this home"):
        releases.export(spoken_home, to=tmp_path / "none", **options)
    folder = tmp_path / "out"
    releases.export(spoken_home, to=folder, frames=frames, **options)
    faces = json.loads((folder / "face_detection_result.json").read_text())
    bodies = json.loads((folder / "body_detection_result.json").read_text())
    lines = [line for kind in ("train", "test")
             for line in (folder / f"{kind}.txt").read_text().splitlines()]  # fmt: skip
    assert len(lines) == len(PEOPLE)
    for line in lines:
        place, count, number = line.split(" ")
        names = sorted(path.name for path in Path(place).iterdir())
        assert (len(names), number) == (int(count), "1")
        assert sorted(faces[place]) == names
        # The face is at 205, 105 with 100 px; the body box reaches one face further.
        assert faces[place][names[0]] == [205, 105, 305, 205]
        assert bodies[place] == [105, 5, 405, 305]


@pytest.mark.parametrize(
    ("layout", "options", "said"),
    [
        ("meld", {"min_votes": 9}, "No row of the release fits"),
        ("meld", {"label_set": "plutchik8"}, "No row of the release fits"),
        ("raf", {"label_set": "compound7"}, "No map"),
    ],
)
def test_segments__refusals(
    spoken: Exported, layout: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ReleaseError, match=said):
        spoken(layout, **options)


@pytest.mark.parametrize("layout", ["meld", "bah", "rated-audio", "mer-ov"])
def test_segments__none(layout_home: Home, tmp_path: Path, layout: str) -> None:
    with pytest.raises(ReleaseError, match="holds no segments"):
        releases.export(layout_home, name="faces", to=tmp_path / "out", layout=layout)


@pytest.mark.slow
def test_layouts__every_listed_file_is_there(spoken_home: Home, tmp_path: Path) -> None:
    refused = set()
    for name in layouts.names():
        for dialect in layouts.load(name).dialects or (None,):
            folder = tmp_path / f"{name}-{dialect}"
            options: dict[str, Any] = {"layout": name, "dialect": dialect, "all_classes": True}
            try:
                counts = releases.export(spoken_home, name="faces", to=folder, **options)
            except ReleaseError:
                refused.add(name)
                assert not folder.exists()
                continue
            _, *listed = rows_of(folder / "licences.csv")
            assert len(listed) == sum(counts.values())
            assert all((folder / line[0]).exists() for line in listed), name
            said = stated(folder)
            lost = sum(said["left_out"].values())
            assert sum(counts.values()) + lost == sum(said["rows_in"].values()), name
    # No clips, no whole frames, no self-reports; h5py may be missing.
    clips = {"dfew", "ferv39k", "mafw", "mae-dfer", "micro", "curves"}
    assert refused - {"hdf5"} == clips | {"context-clips", "self-other"}
