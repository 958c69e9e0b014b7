"""What a layout carries comes back when the export is imported."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.pipeline.importers.conftest import Reader
from tests.warehouse.layouts.conftest import Exported
from warehouse import releases
from warehouse.vocabulary import EXPRESSIONS

TWO_SETS = ("raf", "affectnet", "boxes")
"""Layouts whose readers know a training and one other set."""


def facts(folder: Path) -> pl.DataFrame:
    """Return ``file, id, subject_id, …`` of an export."""
    return pl.read_csv(folder / "licences.csv", schema_overrides={"id": pl.String})


@pytest.mark.parametrize(
    ("layout", "dialect", "format_name"),
    [
        ("imagefolder", None, "imagefolder"),
        ("imagefolder", "u-emo", "imagefolder"),
        ("raf", None, "raf"),
        ("raf", "latent-ofer", "raf"),
        ("list", None, "list"),
        ("list", "ferplus", "list"),
        ("manifest", None, "manifest"),
        ("fer-txt", None, "fer-txt"),
        ("labels-csv", None, "labels-csv"),
        ("attributes", None, "attributes"),
        ("attributes", "u-emo", "attributes"),
        ("affectnet", None, "affectnet"),
        ("affectnet", "kaggle", "affectnet-kaggle"),
        ("boxes", "coco", "coco"),
        ("boxes", "yolo", "yolo"),
        ("boxes", "voc", "voc"),
        ("boxes", "fer-yolo", "fer-yolo"),
        ("folder", None, "folder"),
        ("webdataset", None, "webdataset"),
    ],
)
def test_round_trip__labels_splits_and_subjects(
    exported: Exported,
    released: pl.DataFrame,
    read: Reader,
    layout: str,
    dialect: str | None,
    format_name: str,
) -> None:
    folder = exported(layout, dialect=dialect)
    found = read(folder)
    assert found.format == format_name
    stated = facts(folder)
    known = released.select("face_id", "expression", "split", "open_set_share").rows_by_key(
        "face_id", named=True, unique=True
    )
    lines = {line["file_name"]: line for line in found.spooled.lines.values()}
    answers = found.labels()
    shards = layout == "webdataset"
    assert len(lines) == stated.height
    assert not found.dataset.left.get("listed files are not there")
    for file, face, subject in stated.select("file", "id", "subject_id").iter_rows():
        name = next(one for one in lines if face in one) if shards else file
        row = known[face]
        split = found.splits()[name]
        held_out = row["split"] != "train" and split != "train"
        assert split == row["split"] or (layout in TWO_SETS and held_out)
        assert lines[name]["subject_id"] == subject
        if layout in ("folder", "webdataset"):
            continue
        index = row["expression"]
        expected = "unknown" if index is None else EXPRESSIONS[index]
        assert answers[name] == [expected]


def counted(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(answer for row in rows for answer in row["answers"])


def test_round_trip__ferplus_keeps_every_vote(
    exported: Exported, layout_home: Any, read: Reader
) -> None:
    path = releases.list_releases(layout_home)[0].path
    votes = pl.concat([pl.read_parquet(one) for one in (path / "votes").glob("*.parquet")])
    votes = votes.filter(~pl.col("was_cancelled"))
    given = Counter(votes["expressions"].explode().drop_nulls().to_list())
    found = read(exported("ferplus"))
    assert found.format == "ferplus"
    assert counted(found.rows()) == given
    whole = read(path)  # the release itself
    assert (whole.format, whole.why[-24:]) == ("parquet", "holds pictures in a column"[-24:])
    assert counted(whole.rows()) == given
    assert {row["rater"] for row in whole.rows()} == set(votes["rater_id"])
    assert Counter(row["at"] for row in whole.rows()) == Counter(
        votes.filter(pl.col("expressions").list.len() > 0)["updated_at"]
    )


@pytest.mark.parametrize("layout", ["folder", "webdataset"])
def test_round_trip__soft_labels_become_votes(
    exported: Exported, released: pl.DataFrame, read: Reader, layout: str
) -> None:
    found = read(exported(layout))
    files = {}
    for row in found.rows():
        files.setdefault(row["file_name"], []).append(row)
    checked = 0
    for face, soft, n, share in released.select(
        "face_id", "soft_label", "n_votes", "open_set_share"
    ).iter_rows():
        rows = next(rows for name, rows in files.items() if face in name)
        closed = None if soft is None else [p * n * (1 - (share or 0)) for p in soft]
        if closed is None or any(abs(v - round(v)) > 0.02 for v in closed):
            continue
        got = counted(rows)
        assert [got[name] for name in EXPRESSIONS] == [round(v) for v in closed]
        checked += 1
    assert checked > 10


def test_round_trip__affectnet_keeps_mood_and_box(
    exported: Exported, released: pl.DataFrame, read: Reader
) -> None:
    found = read(exported("affectnet"))
    moods = {face: (v, a) for face, v, a in
             released.select("face_id", "valence", "arousal").iter_rows()}  # fmt: skip
    for row in found.rows():
        face = next(one for one in moods if one in row["file_name"])
        expected = [None if value is None else pytest.approx(value, abs=1e-5)
                    for value in moods[face]]  # fmt: skip
        assert [row["valence"], row["arousal"]] == expected
        assert row["box"] is not None


def test_round_trip__users_own_classes(exported: Exported, tmp_path: Path, read: Reader) -> None:
    names = dict(zip(EXPRESSIONS, "ABCDEFGH", strict=True))
    text = "\n".join(f'{name} = "{word}"' for name, word in names.items())
    (tmp_path / "own.toml").write_text(f"base = 3\n[map]\n{text}\n")
    folder = exported("list", map_file=str(tmp_path / "own.toml"))
    found = read(folder)
    assert set(found.answers()) <= set(EXPRESSIONS)
    assert not found.dataset.left
