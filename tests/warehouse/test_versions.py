"""Homes of other schemas: an older one opens and can be migrated, a newer one is refused."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from warehouse.errors import TableError
from warehouse.storage import schema_version, tables, views
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
    """As it was before schemas were counted: no marks, and annotations with fewer columns."""
    home = Home.at(tmp_path / "old")
    for name, frame in (("annotations", events(1, 2).drop(YOUNG)), ("queue", pl.DataFrame(QUEUE))):
        fitted = frame.cast({k: TABLES[name].columns[k] for k in frame.columns})
        folder = home.tables / name
        folder.mkdir(parents=True)
        fitted.write_parquet(folder / "one.parquet", metadata={"fingerprint": "9"})
    return home


def marks(home: Home) -> dict[str, int]:
    return {
        str(path.relative_to(home.tables)): schema_version.of_file(pl.read_parquet_metadata(path))
        for path in sorted(home.tables.rglob("*.parquet"))
    }


def test_a_new_home_and_its_files_carry_the_schema(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    assert schema_version.of_home(home.tables) == schema_version.SCHEMA
    assert not home.tables.exists()
    tables.write(home, "queue", pl.DataFrame([QUEUE]), part="one", metadata={"fingerprint": "9"})
    assert (home.tables / "version").read_text() == f"{schema_version.SCHEMA}\n"
    assert marks(home) == {"queue/one.parquet": schema_version.SCHEMA}
    assert tables.metadata(home, "queue", part="one")["fingerprint"] == "9"


def test_an_older_home_opens_and_can_be_written(old: Home) -> None:
    assert schema_version.of_home(old.tables) == 1
    assert tables.read(old, "annotations")["label_set"].to_list() == [None, None]
    tables.write(old, "annotations", events(3), part="two")
    assert schema_version.of_home(old.tables) == 1
    assert marks(old) == {
        "annotations/one.parquet": 1,
        "annotations/two.parquet": schema_version.SCHEMA,
        "queue/one.parquet": 1,
    }
    assert tables.read(old, "annotations").height == 3


def test_views_of_an_older_home_have_the_columns_added_since(old: Home) -> None:
    found = views.query(old, "SELECT annotation_id, edited_by, au FROM annotations ORDER BY ALL")
    assert found.rows() == [(1, None, None), (2, None, None)]
    assert views.query(old, "SELECT count(*) FROM current_votes").item() == 0


def test_migration_rewrites_what_is_old_once(old: Home) -> None:
    before = tables.read(old, "annotations")
    tables.write(old, "annotations", events(3), part="two")
    assert migrate(old) == (1, schema_version.SCHEMA, 2, 1)
    assert set(marks(old).values()) == {schema_version.SCHEMA}
    assert schema_version.of_home(old.tables) == schema_version.SCHEMA
    assert tables.metadata(old, "queue", part="one")["fingerprint"] == "9"
    one = pl.read_parquet(old.tables / "annotations" / "one.parquet")
    assert one.columns == list(TABLES["annotations"].columns)
    assert one.equals(before.select(one.columns))
    assert migrate(old) == (schema_version.SCHEMA, schema_version.SCHEMA, 0, 3)


def test_a_damaged_file_is_named_and_the_others_are_migrated(old: Home) -> None:
    hurt = old.tables / "annotations" / "hurt.parquet"
    hurt.write_bytes(b"PAR1 no more")
    with pytest.raises(TableError, match=r"hurt\.parquet"):
        migrate(old)
    assert schema_version.of_home(old.tables) == 1
    hurt.unlink()
    assert migrate(old).rewritten == 0
    assert schema_version.of_home(old.tables) == schema_version.SCHEMA


def test_what_is_written_amid_a_migration_is_not_lost(
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


@pytest.mark.parametrize(("text", "said"), [("99", "schema 99"), ("two", "'two'")])
def test_a_newer_home_is_refused_whoever_asks(old: Home, text: str, said: str) -> None:
    (old.tables / "version").write_text(text)
    before = sorted(os.listdir(old.tables / "queue"))
    for ask in (
        lambda: tables.read(old, "queue"),
        lambda: tables.write(old, "queue", pl.DataFrame([QUEUE]), part="two"),
        lambda: views.connect(old),
        lambda: migrate(old),
    ):
        with pytest.raises(TableError, match=said):
            ask()
    assert sorted(os.listdir(old.tables / "queue")) == before
