"""Layouts of frames and of whole videos open as their readers open them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.warehouse.conftest import release_inputs
from tests.warehouse.layouts.conftest import PEOPLE, Exported, geometry
from tests.warehouse.test_release_clips import sequences
from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.releases.layouts import curves, micro, traces
from warehouse.storage.home import Home

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


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


@pytest.fixture(scope="module")
def moved_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Clips from onset to apex, one with sound; self-reports of all faces."""
    home = Home.at(tmp_path_factory.mktemp("moved") / "home")
    given = release_inputs(home, PEOPLE)
    times = pl.col("times").list
    clips = sequences(home, given["rows"], sound=True).with_columns(
        onset_s=times.get(0), apex_s=times.get(2), offset_s=times.get(4)
    )
    own = pl.col("rater_id") == "simulated-00000000"
    votes = given["votes"].with_columns(
        rater_kind=pl.when(own).then(pl.lit("self")).otherwise("rater_kind")
    )
    releases.build(
        home, **given | {"rows": geometry(given["rows"]), "votes": votes}, sequences=clips
    )
    return home


@pytest.fixture
def moved(moved_home: Home, tmp_path: Path) -> Callable[..., Path]:
    def export(layout: str, **options: Any) -> Path:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        releases.export(moved_home, name="faces", to=folder, layout=layout, **options)
        return folder

    return export


def test_affwild2__tracks_of_unnamed_people(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    given = release_inputs(home, {"ann": 4, "bob": 3, "cid": 3})
    place = pl.col("time_s").rank("ordinal").over("video_id").cast(pl.Int64) - 1
    rows = geometry(given["rows"]).with_columns(
        # Two people of the first video are in each of its frames.
        frame=place // 2,
        track_id=pl.format("{}-000{}", "video_id", place % 2),
    )
    releases.build(home, **given | {"rows": rows})
    releases.export(home, name="faces", to=tmp_path / "out", layout="affwild2")
    folders = sorted((tmp_path / "out/cropped_aligned").glob("video-ann*"))
    assert [folder.name for folder in folders] == ["video-ann-0000", "video-ann-0001"]
    assert [len(list(folder.iterdir())) for folder in folders] == [2, 2]


def test_micro__composite(moved: Exported) -> None:
    folder = moved("micro")
    header, *lines = rows_of(folder / "combined_3_class2_for_optical_flow.csv")
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    # The apex is the third face: surprise of three people, fear of one.
    assert sorted(row["label"] for row in rows) == ["0", "2", "2", "2"]
    for row in rows:
        name = f"{row['sub']}_{row['filename_o']} .png"
        flow = Image.open(folder / "datasets/STSNet_whole_norm_u_v_os" / name)
        assert (flow.size, flow.mode) == ((28, 28), "RGB")
        assert (folder / "datasets/combined_datasets_whole" / row["imagename"]).is_file()
        for subject in PEOPLE:
            kind = "u_test" if subject == row["sub"] else "u_train"
            root = folder / f"datasets/three_norm_u_v_os/{subject}"
            assert (root / kind / row["label"] / name).is_file()
            assert len(list(root.rglob(name))) == 1


def test_micro__cas3(moved: Exported) -> None:
    folder = moved("micro", dialect="cas3")
    header, *lines = rows_of(folder / "cas3.csv")
    for line in lines:
        row = dict(zip(header, line, strict=True))
        assert (row["label_for_7"], row["label_for_3"]) in (("2", "2"), ("5", "0"))
        assert set(row["AU"].split("+")) >= {"43"}
        for column, name in (("Onset", "onset"), ("Apex", "apex"), ("Offset", "apex_offset")):
            place = f"{row['Subject']}/{row['Filename']}/color/{row[column]}.jpg"
            assert row[f"imagename_{name}"] == place
            assert (folder / place).is_file()


def test_micro__flow_of_a_shift() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (16, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    picture = micro.flow(image, image)
    assert not picture.any()
    assert micro.flow(image, np.roll(image, 3, axis=1)).any()


@pytest.mark.parametrize("dialect", ["au", "arkit"])
def test_curves__rows_a_second(moved: Exported, dialect: str) -> None:
    folder = moved("curves", dialect=dialect)
    names = (folder / "columns.txt").read_text().split()
    assert len(names) == {"au": 24, "arkit": 52}[dialect]
    files = sorted((folder / "VALID_CTR").iterdir())
    assert {file.name[:4] for file in files} == {"sur_", "fea_"}
    for file in files:
        header, *lines = rows_of(file)
        assert header == ["time_s", *names]
        assert float(lines[-1][0]) == pytest.approx((len(lines) - 1) / 60, abs=1e-4)
    assert len(list((folder / "WAV").iterdir())) == 1


def test_curves__linear() -> None:
    times, values = curves.curve(np.array([1.0, 1.5]), np.array([[0.0], [1.0]]), rate=4)
    assert times.tolist() == [0, 0.25, 0.5]
    assert values[:, 0].tolist() == [0, 0.5, 1]


def test_traces__omg(moved: Exported) -> None:
    folder = moved("traces")
    header, *lines = rows_of(folder / "Annotations/Subject_1_Story_1.csv")
    assert header == ["valence"]
    assert len(lines) == PEOPLE["ann"]  # a row per frame
    assert {float(line[0]) for line in lines} == {0.5}
    assert len(list((folder / "Annotations").iterdir())) == len(PEOPLE)


def test_traces__held_and_interpolated() -> None:
    part = pl.DataFrame(
        {"frame": [1, 3], "time_s": [0.04, 0.12], "valence": [0.0, 1.0], "arousal": [None, 0.5]}
    )
    assert traces._sampled(part, omg=True) == [(0.0,), (0.0,), (0.5,), (1.0,)]
    rows = traces._sampled(part, omg=False)
    assert [row[1] for row in rows] == pytest.approx([0, 0, 0.5, 1])
    assert [row[2] for row in rows] == [0.5] * 4


def test_self_other__shape(moved: Exported, moved_home: Home) -> None:
    header, *lines = rows_of(moved("self-other") / "self-other.csv")
    row = dict(zip(header, lines[0], strict=True))
    assert (row["n_others"], row["other3_neutral"]) == ("2", "")
    own = [name for name in header if name.startswith("self_") and row[name] == "1"]
    assert len(own) == 1
    assert len(lines) == sum(PEOPLE.values())


def test_self_other__no_self_reports(exported: Exported) -> None:
    with pytest.raises(ReleaseError, match="no self-reports"):
        exported("self-other")
