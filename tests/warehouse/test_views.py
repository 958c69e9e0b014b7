"""DuckDB views over real Parquet files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import warehouse
from warehouse.errors import SettingsError, TableError
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

START = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE = pl.DataFrame(
    {"face_id": ["f"], "round": 0, "priority": 0.5, "reason": "audit", "wanted_votes": 3}
)


def rating(face: str, batch: str) -> pl.DataFrame:
    table = TABLES["ratings"]
    row = {
        "face_id": face, "rater_id": "machine", "batch": batch, "expression": [0.125] * 8,
        "open_set": [0.0, 0.0], "au": [0.0] * len(action_units()), "feature": [0.5] * 256,
    }  # fmt: skip
    return pl.DataFrame([row]).cast(dict(table.schema))


def action_units() -> tuple[Any, ...]:
    from warehouse.vocabulary import ACTION_UNITS

    return ACTION_UNITS


def event(
    number: int,
    kind: str,
    minute: int | None,
    *,
    rater: str = "r1",
    says: str | None = "anger",
    skipped: bool | None = False,
    face: str | None = "f1",
    pulled: int = 60,
) -> dict[str, Any]:
    answer = None if says is None else {"validity": "face", "expressions": says.split("+")}
    return {
        "annotation_id": number, "task_id": 1, "project_id": 1, "face_id": face, "rater_id": rater,
        "rater_kind": "simulated", "event": kind, "answer": answer, "lead_time_s": 1.0,
        "was_cancelled": skipped, "saw_prediction": False, "created_at": START,
        "updated_at": None if minute is None else START + timedelta(minutes=minute),
        "pulled_at": START + timedelta(minutes=pulled),
    }  # fmt: skip


def votes_after(home: Home, events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    frame = pl.DataFrame(events, schema=TABLES["annotations"].schema, strict=False)
    for index in range(len(frame)):
        tables.write(home, "annotations", frame[index], part=f"pull-{index}")
    found = views.query(
        home, "SELECT face_id, rater_id, answer.expressions AS e FROM current_votes"
    )
    return sorted(
        (face, rater, "+".join(answers or [])) for face, rater, answers in found.iter_rows()
    )


@pytest.mark.parametrize(
    ("events", "stand"),
    [
        ([event(1, "created", 0)], ["anger"]),
        ([event(1, "created", 0), event(1, "updated", 5, says="fear")], ["fear"]),
        # Pulled out of order: the newer answer wins.
        ([event(1, "updated", 5, says="fear"), event(1, "created", 0)], ["fear"]),
        # Two events with the same time.
        ([event(1, "updated", 5, says="fear"), event(1, "created", 5)], ["fear"]),
        ([event(1, "created", 0), event(1, "deleted", 0)], []),
        ([event(1, "created", 0), event(1, "deleted", None, pulled=90)], []),
        ([event(1, "created", 0, skipped=True, says=None)], []),
        ([event(1, "created", 0), event(1, "updated", 3, skipped=True)], []),
        ([event(1, "created", 0, skipped=None)], ["anger"]),
        # Two answers of one rater: the newer one.
        ([event(1, "created", 0), event(2, "created", 9, says="fear")], ["fear"]),
        # The newer one is deleted: the older one.
        (
            [event(1, "created", 0), event(2, "created", 9, says="fear"), event(2, "deleted", 10)],
            ["anger"],
        ),
        ([event(1, "created", 0, face=None)], []),
        ([event(1, "created", 0), event(1, "created", 0, pulled=70)], ["anger"]),
        (
            [event(1, "created", 0), event(2, "created", 0, rater="r2", says="fear+disgust")],
            ["anger", "fear+disgust"],
        ),
        ([], []),
    ],
)
def test_current_votes__newest_answer_per_rater(
    home: Home, events: list[dict[str, Any]], stand: list[str]
) -> None:
    assert [answer for _, _, answer in votes_after(home, events)] == stand


def test_votes__weights_of_one_rater_sum_to_one(home: Home) -> None:
    votes_after(home, [event(1, "created", 0, says="fear+disgust")])
    found = views.query(home, "SELECT label, weight FROM votes ORDER BY label")
    assert found.rows() == [("disgust", 0.5), ("fear", 0.5)]


def test_connect__every_view_of_an_empty_home(home: Home) -> None:
    connection = warehouse.connect(home)
    for name in [*TABLES, *views.queries()]:
        assert connection.execute(f'SELECT * FROM "{name}"').fetchall() == []
    assert not home.root.exists()


def test_connect__same_types_with_and_without_files(home: Home) -> None:
    before = dict(views.query(home, "DESCRIBE ratings").select("column_name", "column_type").rows())
    tables.write(home, "ratings", rating("f", "0012"), part="v", batch="0012")
    after = dict(views.query(home, "DESCRIBE ratings").select("column_name", "column_type").rows())
    assert before == after


@pytest.mark.parametrize("folder", ["plain", "we[ir]d", "st*r", "wh?t", "o'quote", "a b"])
def test_query__odd_folder_names_and_numeric_batches(tmp_path: Path, folder: str) -> None:
    home = Home.at(tmp_path / folder)
    for batch in ("0012", "b"):
        tables.write(home, "ratings", rating(f"f-{batch}", batch), part="v", batch=batch)
    found = views.query(home, "SELECT batch, face_id, feature[1] AS x FROM ratings ORDER BY ALL")
    assert found.rows() == [("0012", "f-0012", 0.5), ("b", "f-b", 0.5)]


def test_connect__names_the_damaged_file(home: Home) -> None:
    path = tables.write(home, "ratings", rating("f", "b"), part="hurt", batch="b")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TableError, match=r"damaged .*hurt\.parquet"):
        views.connect(home)


WRITES = {
    "copy": "COPY (SELECT 1 AS x) TO '{file}' (FORMAT parquet)",
    "copy to another folder": "COPY queue TO '{folder}/stolen.csv'",
    "copy by the name of the views": "COPY (SELECT 1) TO 'tables://queue/one.parquet'",
    "copy in a table expression": "WITH x AS (COPY queue TO '{folder}/a.csv') FROM x",
    "copy in a table expression to a table": (
        "WITH x AS (COPY (SELECT 1) TO 'tables://queue/one.parquet') FROM x"
    ),
    "copy in explain": "EXPLAIN ANALYZE COPY queue TO '{folder}/a.csv'",
    "copy in explain to a table": "EXPLAIN ANALYZE COPY queue TO 'tables://queue/one.parquet'",
    "prepared copy": "PREPARE p AS COPY queue TO '{folder}/a.csv'",
    "second statement": "SELECT 1; COPY queue TO '{folder}/a.csv'",
    "export": "EXPORT DATABASE '{folder}/all'",
    "attach": "ATTACH '{folder}/a.db'",
    "install": "INSTALL httpfs",
    "load": "LOAD '{folder}/a.duckdb_extension'",
    "setting": "SET enable_external_access = true",
    "reset": "RESET lock_configuration",
    "pragma": "PRAGMA enable_profiling = 'json'",
    "logging": "FROM enable_logging(storage = 'file', storage_path = '{folder}')",
    "secret": "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "insert": "INSERT INTO queue SELECT * FROM queue",
    "view": "CREATE OR REPLACE VIEW queue AS SELECT 1",
    "nothing": "",
}

READS = {
    "text": "FROM read_text('{folder}/people.json')",
    "bytes": "FROM read_blob('{folder}/people.json')",
    "csv": "FROM read_csv('{folder}/people.json')",
    "name as a table": "FROM '{folder}/people.json'",
    "other tables": "FROM read_parquet('{file}')",
    "folder": "FROM glob('{folder}/*')",
    "csv dialect": "FROM sniff_csv('{folder}/people.json')",
    "through the tables": "FROM read_text('tables://queue/../../people.json')",
    "version of the tables": "FROM read_text('tables://version')",
    "every file of the tables": "FROM glob('tables://**')",
    "query in a query": "FROM query('FROM read_text(''{folder}/people.json'')')",
    "address": "FROM read_csv('http://127.0.0.1:9/a.csv')",
    "environment": "SELECT getenv('HOME')",
    "variable of this program": "FROM sql",
    "variable of the caller": "FROM statements",
}


@pytest.mark.parametrize("statements", [WRITES, READS], ids=["writes", "reads"])
def test_query__tables_alone_and_only_read(
    home: Home, statements: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tables.write(home, "queue", QUEUE, part="one")
    (home.root / "people.json").write_text("[]")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    # One connection for all: none of them may change what the next one can do.
    connection = views.connect(home)
    monkeypatch.setattr(views, "connect", lambda home: connection)
    for name, sql in statements.items():
        with pytest.raises((SettingsError, duckdb.Error)) as refused:
            views.query(home, sql.format(file=path, folder=home.root))
        if isinstance(refused.value, duckdb.Error):
            assert "Traceback" not in views.reason(refused.value), name
        after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        assert after == before, name


def test_connect__locked_for_callers_of_the_library(home: Home) -> None:
    connection = warehouse.connect(home)
    with pytest.raises(duckdb.Error):
        connection.execute(f"COPY (SELECT 1) TO '{home.root}/a.csv'")
    with pytest.raises(duckdb.Error, match="locked"):
        connection.execute("SET enable_external_access = true")
    secrets = connection.execute("SELECT count(*) FROM duckdb_secrets()").fetchall()
    assert secrets == [(0,)]


def test_query__statements_that_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.write(home, "queue", QUEUE, part="one")
    connection = views.connect(home)
    monkeypatch.setattr(views, "connect", lambda home: connection)
    for sql in (
        "SELECT * FROM queue", "FROM queue", "DESCRIBE queue", "SUMMARIZE queue", "SHOW TABLES",
        "EXPLAIN FROM queue", "PIVOT queue ON reason USING count(*)", "-- all\nTABLE queue;",
        "WITH q AS (FROM queue) FROM q",
    ):  # fmt: skip
        assert views.query(home, sql).height > 0, sql
