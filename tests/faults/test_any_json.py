"""Arbitrary JSON ends as rows or as an error of this package."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from annotation.label_studio.answers import columns_of, result_of
from annotation.label_studio.event_log import frame
from pipeline.ingest import manifest, metadata
from warehouse.errors import RisoriusError
from warehouse.storage.schema import TABLES

QUICK = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Halves of UTF-16 pairs too: JSON can write them, and no table can hold them.
TEXT = st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=8)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
ANY = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


def like(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate objects with some of the known keys.

    Each value is valid or arbitrary.
    """
    fields = {name: value | ANY for name, value in known.items()}
    return st.fixed_dictionaries({}, optional=fields) | ANY


LABEL = st.sampled_from(["happy", "sadness", "unknown", "boredom", ""])
COUNT = st.integers(-1, 12) | st.floats() | st.integers()
ROW = like(
    file_name=st.sampled_from(["1.png", "2.png", "a/3.png", "../x.png", "/x.png"]),
    rater_id=st.sampled_from(["r1", "r2"]),
    label=LABEL,
    votes=st.dictionaries(LABEL, COUNT, max_size=3)
    | st.lists(st.fixed_dictionaries({"key": LABEL, "value": COUNT}), max_size=3),
    created_at=st.sampled_from(["2026-01-31", "0001-01-01T00:00:00+14:00", "yesterday"]),
    subject_id=TEXT,
)
LINE = like(
    uri=st.sampled_from(["x.mp4", "/y.png", "https://e/z.mp4", "s3://b", ""]), file_name=TEXT
)
VALUE = like(
    choices=st.lists(st.sampled_from(["face", "fear", "fear+anger", "A", "sure"]), max_size=3),
    number=st.integers(-200, 200) | st.floats(),
    text=st.lists(TEXT, max_size=2),
)
REGION = like(
    from_name=st.sampled_from(["validity", "expression", "confidence", "valence", "au12", "note"]),
    value=VALUE,
)


def lines(rows: list[Any]) -> str:
    return "\n".join(map(json.dumps, rows))


@QUICK
@example(rows=[{"file_name": "1.png", "votes": {"happy": 10**18}}])
@example(rows=[{"file_name": "1.png", "votes": {"happy": float("inf")}}])
@example(rows=[{"file_name": "1.png", "label": "happy", "created_at": "0001-01-01T00:00+14:00"}])
@given(rows=st.lists(ROW, min_size=1, max_size=5))
def test_metadata__any_json_is_rows_or_an_error(tmp_path: Path, rows: list[Any]) -> None:
    (tmp_path / "metadata.jsonl").write_text(lines(rows))
    try:
        read = metadata.read(tmp_path)
    except RisoriusError:
        return
    assert {said.file_name for said in read.votes} <= read.files.keys()
    assert all(said.answers for said in read.votes)


@QUICK
@given(rows=st.lists(LINE, max_size=4))
def test_listing__any_json_is_rows_or_an_error(tmp_path: Path, rows: list[Any]) -> None:
    (tmp_path / "sources.jsonl").write_text(lines(rows))
    try:
        listed = manifest.list_sources(tmp_path)
    except RisoriusError:
        return
    for source in listed:
        row = manifest.describe(source, batch="day")
        assert row["verdict"] == "failed"
        pl.DataFrame([row], schema=TABLES["videos"].schema)


@QUICK
@given(
    result=st.lists(REGION, max_size=4) | REGION,
    label_set=st.sampled_from(["expressions", "coarse", "of another version"]),
    skipped=st.booleans(),
)
def test_columns_of__any_json_is_rows_or_a_note(result: Any, label_set: str, skipped: bool) -> None:
    columns = columns_of(json.loads(json.dumps(result)), label_set=label_set, was_cancelled=skipped)
    now = datetime.now(UTC)
    row = dict.fromkeys(TABLES["annotations"].columns) | columns | {"pulled_at": now}
    stored = pl.DataFrame([row], schema=TABLES["annotations"].schema)
    assert stored.columns == frame([]).columns
    # No vote but from an answer of the vocabulary; what was wrong is said.
    answer = columns["answer"]
    assert answer["expressions"] or columns["labels"] or skipped or answer["note"]


@pytest.mark.parametrize("answer", [["fear"], ["anger", "fear"]])
def test_columns_of__valid_answer(answer: list[str]) -> None:
    assert columns_of(result_of(answer))["answer"]["expressions"] == sorted(answer)
