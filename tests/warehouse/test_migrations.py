"""Data directories of older and newer schemas."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from warehouse.errors import TableError
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.storage.migrations import migrate
from warehouse.storage.schema import TABLES

QUEUE = {"face_id": "f1", "round": 1, "priority": 0.5, "reason": "coverage", "wanted_votes": 5}
YOUNG = ("label_set", "labels", "compounds", "free_label", "au", "edited_by")


def events(*ids: int) -> pl.DataFrame:
    rows = [{"project_id": 1, "annotation_id": one, "event": "created"} for one in ids]
    return pl.DataFrame(rows, schema=TABLES["annotations"].schema)


@pytest.fixture
def old(tmp_path: Path) -> Home:
    """Schema 1: files without a version, annotations with fewer columns."""
    home = Home.at(tmp_path / "old")
    for name, frame in (("annotations", events(1, 2).drop(YOUNG)), ("queue", pl.DataFrame(QUEUE))):
        fitted = frame.cast({k: TABLES[name].columns[k] for k in frame.columns})
        folder = home.tables / name
        folder.mkdir(parents=True)
        fitted.write_parquet(folder / "one.parquet", metadata={"fingerprint": "9"})
    return home


def versions(home: Home) -> dict[str, int]:
    return {
        str(path.relative_to(home.tables)): tables.file_schema_version(
            pl.read_parquet_metadata(path)
        )
        for path in sorted(home.tables.rglob("*.parquet"))
    }


def test_write__records_the_schema_version(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    assert tables.schema_version(home.tables) == tables.SCHEMA_VERSION
    assert not home.tables.exists()
    tables.write(home, "queue", pl.DataFrame([QUEUE]), part="one", metadata={"fingerprint": "9"})
    assert (home.tables / "version").read_text() == f"{tables.SCHEMA_VERSION}\n"
    assert versions(home) == {"queue/one.parquet": tables.SCHEMA_VERSION}
    assert tables.metadata(home, "queue", part="one")["fingerprint"] == "9"


def test_read_write__older_home(old: Home) -> None:
    assert tables.schema_version(old.tables) == 1
    assert tables.read(old, "annotations")["label_set"].to_list() == [None, None]
    tables.write(old, "annotations", events(3), part="two")
    assert tables.schema_version(old.tables) == 1
    assert versions(old) == {
        "annotations/one.parquet": 1,
        "annotations/two.parquet": tables.SCHEMA_VERSION,
        "queue/one.parquet": 1,
    }
    assert tables.read(old, "annotations").height == 3


def test_query__older_home_has_newer_columns(old: Home) -> None:
    found = views.query(old, "SELECT annotation_id, edited_by, au FROM annotations ORDER BY ALL")
    assert found.rows() == [(1, None, None), (2, None, None)]
    assert views.query(old, "SELECT count(*) FROM current_votes").item() == 0


def test_migrate__rewrites_old_files_once(old: Home) -> None:
    before = tables.read(old, "annotations")
    tables.write(old, "annotations", events(3), part="two")
    assert migrate(old) == (1, tables.SCHEMA_VERSION, 2, 1)
    assert set(versions(old).values()) == {tables.SCHEMA_VERSION}
    assert tables.schema_version(old.tables) == tables.SCHEMA_VERSION
    assert tables.metadata(old, "queue", part="one")["fingerprint"] == "9"
    one = pl.read_parquet(old.tables / "annotations" / "one.parquet")
    assert one.columns == list(TABLES["annotations"].columns)
    assert one.equals(before.select(one.columns))
    assert migrate(old) == (tables.SCHEMA_VERSION, tables.SCHEMA_VERSION, 0, 3)


def test_migrate__names_damaged_files_and_migrates_others(old: Home) -> None:
    hurt = old.tables / "annotations" / "hurt.parquet"
    hurt.write_bytes(b"PAR1 no more")
    with pytest.raises(TableError, match=r"hurt\.parquet"):
        migrate(old)
    assert tables.schema_version(old.tables) == 1
    hurt.unlink()
    assert migrate(old).rewritten == 0
    assert tables.schema_version(old.tables) == tables.SCHEMA_VERSION


def test_migrate__skips_a_file_replaced_meanwhile(
    old: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tables.save

    def meanwhile(path: Path, frame: pl.DataFrame, *, footer: dict[str, str]) -> None:
        monkeypatch.setattr(tables, "save", real)
        tables.write(old, "annotations", events(7, 8, 9), part="one")
        real(path, frame, footer=footer)

    monkeypatch.setattr(tables, "save", meanwhile)
    migrate(old)
    assert tables.read(old, "annotations")["annotation_id"].to_list() == [7, 8, 9]


@pytest.mark.parametrize(("text", "message"), [("99", "schema 99"), ("two", "'two'")])
def test_schema_version__refuses_newer_or_unreadable(old: Home, text: str, message: str) -> None:
    (old.tables / "version").write_text(text)
    before = sorted(os.listdir(old.tables / "queue"))
    for ask in (
        lambda: tables.read(old, "queue"),
        lambda: tables.write(old, "queue", pl.DataFrame([QUEUE]), part="two"),
        lambda: views.connect(old),
        lambda: migrate(old),
    ):
        with pytest.raises(TableError, match=message):
            ask()
    assert sorted(os.listdir(old.tables / "queue")) == before


def test_migrate__labels_name_their_item(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    table = TABLES["soft_labels"]
    shares = [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    row = {"face_id": "v-t1-f1", "expression": shares, "n_votes": 2}
    frame = pl.DataFrame([row], schema_overrides=dict(table.columns)).select(list(row))
    (home.tables / "soft_labels").mkdir(parents=True)
    frame.write_parquet(
        home.tables / "soft_labels" / "current.parquet", metadata={"risorius.schema": "2"}
    )
    (home.tables / "version").write_text("2\n")
    assert tables.read(home, "soft_labels")["item_id"].to_list() == [None]
    assert migrate(home) == (2, tables.SCHEMA_VERSION, 1, 0)
    named = tables.read(home, "soft_labels").row(0, named=True)
    assert (named["item_kind"], named["item_id"]) == ("face", "v-t1-f1")
    assert (named["label_set"], named["distribution"]) == ("expressions8", shares)
