"""Reading, refusing, counting, resuming: what every layout shares."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.warehouse.conftest import release_inputs
from tests.warehouse.layouts.conftest import Exported, stated
from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.releases import layouts
from warehouse.releases.layouts import classes, copying, core, files, folds
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

ZEROS = [0.0] * 6


def test_label__hand_computed() -> None:
    faces = pl.DataFrame(
        {
            "soft_label": [
                [0.6, 0.4, *ZEROS],  # neutral
                [0.5, 0.5, *ZEROS],  # tied
                [0.4, *ZEROS, 0.6],  # contempt, which basic7 lacks
                None,  # no vote within the classes
                [1.0, 0.0, *ZEROS],  # most say "none of these"
            ],
            "open_set_share": [0.0, 0.0, 0.0, None, 0.6],
        }
    )
    found = classes.read("basic7:raf", label_set=None, map_file=None).label(faces)
    assert found["number"].to_list() == [7, None, None, None, None]
    assert found["left_out"].to_list() == [
        None, "tied", "no_class_for_contempt", "no_label", "open_set",
    ]  # fmt: skip


def test_label__merged_shares_add() -> None:
    faces = pl.DataFrame(
        {"soft_label": [[0.4, 0.0, 0.0, 0.3, 0.3, 0.0, 0.0, 0.0]], "open_set_share": [0.0]}
    )
    found = classes.read("coarse4", label_set=None, map_file=None)
    assert found.label(faces)["word"].to_list() == ["negative"]
    shares = found.shares(np.array([[0.4, 0.0, 0.0, 0.3, 0.3, 0.0, 0.0, 0.0]]))[0]
    assert dict(zip(found.words, shares, strict=True))["negative"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("label_set", "text", "said"),
    [
        ("nothing", None, "No such label set"),
        ("basic7:mine", None, "no such order"),
        (None, "[map]\nneutral = 'calm'\n", "does not fit the labels"),
        (None, "[map]\njoyous = 'x'\n", "unknown: joyous"),
        (None, "map = 3\n", "cannot be read"),
    ],
)
def test_read__bad_maps(tmp_path: Path, label_set: str | None, text: str | None, said: str) -> None:
    path = tmp_path / "map.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ReleaseError, match=said):
        classes.read("basic7:raf", label_set=label_set, map_file=str(path) if text else None)


def test_for_set__over_the_expressions() -> None:
    meld = classes.read("basic7:meld", label_set=None, map_file=None, faces=False)
    carried = meld.for_set("mafw11")
    assert carried is not None
    assert (carried.of["happiness"], carried.of["contempt"], carried.of["anxiety"]) == (
        "joy",
        "",
        "",
    )
    assert meld.for_set("academic5") is None


def test_export__own_map(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    names = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
    words = ("calm", "up", "up", "down", "down", "", "", "")
    pairs = "\n".join(map(",".join, zip(names, words, strict=True)))
    path.write_text(f"label,class\n{pairs}\n")
    folder = exported("list", map_file=str(path))
    assert stated(folder)["labels"]["classes"] == {"calm": 0, "up": 1, "down": 2}
    assert stated(folder)["left_out"]["no_class_for_fear"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layout": "zip"}, "layout is not one of"),
        ({"layout": "raf", "dialect": "x"}, "no such dialect"),
        ({"layout": "raf", "folds": "1"}, "folds are neither"),
        ({"layout": "raf", "folds": "9"}, "fewer subjects than folds"),
        ({"layout": "raf", "size": 4}, "size is not"),
        ({"layout": "raf", "test_split": "x"}, "neither validation nor test"),
        ({"layout": "raf", "need": ("arousal",)}, "No row of the release fits"),
        ({"layout": "raf", "min_votes": 99}, "No row of the release fits"),
        ({"layout": "raf", "use": "x"}, "use is not one of"),
    ],
)
def test_export__refusals_leave_nothing(
    layout_home: Home, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ReleaseError, match=said):
        releases.export(layout_home, name="faces", to=tmp_path / "a" / "out", **options)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_export__licences_and_source(exported: Exported) -> None:
    folder = exported("manifest", folds="loso")
    with open(folder / "licences.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["licence"] for row in rows} == {"CC-BY-4.0"}
    assert all((folder / row["file"]).is_file() for row in rows)
    assert len(rows) == sum(stated(folder)["rows_out"].values())
    with open(folder / "folds.csv", newline="") as handle:
        pairs = {(row["subject_id"], row["fold"]) for row in csv.DictReader(handle)}
    assert len(pairs) == len({fold for _, fold in pairs}) == 4


def test_export__changed_file(layout_home: Home, tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    shutil.copytree(layout_home.root, home.root)
    file = next((releases.list_releases(home)[0].path / "data").glob("train-*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises((ReleaseError, OSError)):
        releases.export(home, name="faces", to=tmp_path / "out", layout="raf")
    assert not (tmp_path / "out").exists()


def test_export__consent_withdrawn_since(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    releases.build(home, **release_inputs(home, {"ann": 6, "bob": 4, "cid": 4}))
    rows = [
        dict.fromkeys(TABLES["videos"].columns)
        | {"video_id": f"video-{name}", "batch": "day", "consent": said}
        for name, said in (("ann", "yes"), ("bob", "withdrawn"), ("cid", None))
    ]
    frame = pl.DataFrame(rows, schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, batch="day", part="all")
    releases.export(home, name="faces", to=tmp_path / "out", layout="folder")
    assert stated(tmp_path / "out")["left_out"] == {"consent_withdrawn": 4}
    text = (tmp_path / "out/licences.csv").read_text()
    assert "bob" not in text
    frame = frame.with_columns(consent=pl.lit("no"))
    tables.write(home, "videos", frame, batch="day", part="all")
    with pytest.raises(ReleaseError, match="No row"):
        releases.export(home, name="faces", to=tmp_path / "none", layout="folder")


def test_export__licence_forbids_use(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    given = release_inputs(home, {"ann": 6, "bob": 4, "cid": 4})
    licence = pl.when(pl.col("subject_id") == "bob").then(pl.lit("research-only"))
    rows = given["rows"].with_columns(licence=licence.otherwise("licence"))
    releases.build(home, **given | {"rows": rows})
    options = {"name": "faces", "layout": "folder", "use": "commercial"}
    with pytest.raises(ReleaseError, match="Licences forbid commercial use: research-only"):
        releases.export(home, to=tmp_path / "a", **options)
    releases.export(home, to=tmp_path / "b", drop_forbidden=True, **options)
    assert stated(tmp_path / "b")["left_out"] == {"licence_forbids": 4}


def test_export__continues_after_interrupt(
    layout_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"

    def stop(export: core.Export, entry: str) -> None:
        with open(export.draft / files.JOURNAL, "a") as handle:
            handle.write(entry + "\n")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(core.Export, "_record", stop)
        with pytest.raises(KeyboardInterrupt):
            releases.export(layout_home, name="faces", to=target, layout="raf")
    assert not target.exists()
    written: list[Path] = []
    write = copying.write_picture
    monkeypatch.setattr(
        copying, "write_picture", lambda *a, **k: (written.extend(a[1]), write(*a, **k))[0]
    )
    counts = releases.export(layout_home, name="faces", to=target, layout="raf")
    assert 0 < len(written) < sum(counts.values())
    assert len(list(target.rglob("*.jpg"))) == sum(counts.values())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_export__full_disk(
    layout_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "write_picture", full)
    with pytest.raises(ReleaseError, match="No space left on device"):
        releases.export(layout_home, name="faces", to=tmp_path / "out", layout="raf")
    assert list(tmp_path.iterdir()) == []


def test_export__equal_bytes(exported: Exported) -> None:
    one, two = exported("raf"), exported("raf")
    for file in (one / "Image").rglob("*.jpg"):
        assert file.read_bytes() == (two / file.relative_to(one)).read_bytes()
    assert (one / "source.json").read_text() == (two / "source.json").read_text()


def test_safe__names_without_dots() -> None:
    rows = pl.DataFrame({"face_id": ["a.b,c d", "a-b-c-d", "A-B-C-D", "é"]})
    stems = files.with_stems(rows)["stem"].to_list()
    assert stems[:3] == ["a-b-c-d", "a-b-c-d-2", "A-B-C-D-3"]
    assert not any(set(stem) & set(" .,") for stem in stems)
    assert len({stem.lower() for stem in stems}) == 4


def test_folds__shared_video_stays_together() -> None:
    rows = pl.DataFrame(
        {
            "face_id": ["a1", "a2", "b1", "c1", "d1"],
            "subject_id": ["a", "a", "b", "c", "d"],
            "video_id": ["v", "w", "w", "x", "y"],
            "duplicate_of": [None, None, None, None, "c1"],
        }
    )
    found = folds.assign(rows, "2").to_list()
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4] != found[0]


def test_layouts__all_load() -> None:
    for name in layouts.names():
        layout = layouts.load(name)
        assert layout.name == name
        for variant in layout.dialects or (None,):
            order = layout.orders.get(variant or "", layout.order)
            found = classes.read(order, label_set=None, map_file=None, faces=layout.faces)
            assert found.words


def test_export__one_difficulty(exported: Exported) -> None:
    folder = exported("folder", difficulty="hard")
    texts = [path.read_text() for path in folder.glob("*/metadata.jsonl")]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    assert rows
    assert {row["difficulty"] for row in rows} == {"hard"}
