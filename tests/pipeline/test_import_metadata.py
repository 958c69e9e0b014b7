"""Metadata of imported datasets, in every supported format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from pipeline.ingest import metadata
from warehouse.errors import SettingsError


def csv(folder: Path, text: str) -> Path:
    (folder / "metadata.csv").write_text(text)
    return folder


def jsonl(folder: Path, *rows: dict) -> Path:
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def answers(found: metadata.Metadata) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(one.file_name, one.rater, one.answers) for one in found.votes]


def test_metadata__label_per_picture(tmp_path: Path) -> None:
    found = metadata.read(
        csv(tmp_path, "\ufefffile_name,label,subject_id\na.png,Happy,ada\nsub/b.png,NF,\nc.png,,\n")
    )
    assert answers(found) == [
        ("a.png", "label", ("happiness",)),
        ("sub/b.png", "label", ("not_a_face",)),
    ]
    assert sorted(found.files) == ["a.png", "c.png", "sub/b.png"]
    assert found.files["a.png"] == {"subject_id": "ada", "licence": None, "consent": None}


def test_metadata__row_per_vote(tmp_path: Path) -> None:
    found = metadata.read(
        jsonl(
            tmp_path,
            {"file_name": "a.png", "rater_id": "r2", "label": "sad"},
            {"file_name": "a.png", "rater_id": "r1", "label": "fear",
             "created_at": "2026-01-02T03:04:05+01:00"},
            {"file_name": "a.png", "rater_id": "r1", "label": "angry"},
            {"file_name": "a.png", "rater_id": "r1", "label": "anger"},
        )
    )  # fmt: skip
    assert answers(found) == [("a.png", "r1", ("anger", "fear")), ("a.png", "r2", ("sadness",))]
    times = [one.at and one.at.isoformat() for one in found.votes]
    assert times == ["2026-01-02T02:04:05+00:00", None]


VOTES = {"happiness": 2, "neutral": 1, "fear": 0}


@pytest.mark.parametrize("form", ["json in csv", "jsonl", "struct", "map"])
def test_metadata__votes_as_map(tmp_path: Path, form: str) -> None:
    if form == "json in csv":
        frame = pl.DataFrame({"file_name": ["a.png"], "votes": [json.dumps(VOTES)]})
        frame.write_csv(tmp_path / "metadata.csv")
    elif form == "jsonl":
        jsonl(tmp_path, {"file_name": "a.png", "votes": VOTES})
    else:
        pairs = [{"key": key, "value": value} for key, value in VOTES.items()]
        votes = [VOTES] if form == "struct" else [pairs]
        frame = pl.DataFrame({"file_name": ["a.png"], "votes": votes})
        frame.write_parquet(tmp_path / "metadata.parquet")
    found = metadata.read(tmp_path)
    assert Counter(one.answers[0] for one in found.votes) == {"happiness": 2, "neutral": 1}
    assert sorted(one.rater for one in found.votes) == ["seat-00", "seat-01", "seat-02"]
    assert answers(metadata.read(tmp_path)) == answers(found)


def test_metadata__anonymous_raters(tmp_path: Path) -> None:
    rows = [{"file_name": f"{n}.png", "votes": {"anger": 1, "surprise": 1}} for n in range(200)]
    found = metadata.read(jsonl(tmp_path, *rows))
    angry = sum(one.answers == ("anger",) for one in found.votes if one.rater == "seat-00")
    assert 70 < angry < 130


def test_metadata__votes_before_label(tmp_path: Path) -> None:
    found = metadata.read(jsonl(tmp_path, {"file_name": "a", "label": "fear", "votes": {"sad": 1}}))
    assert answers(found) == [("a", "seat-00", ("sadness",))]
    assert "1 rows have votes and a label" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(None, "one of metadata.csv", id="no file"),
        pytest.param("picture,label\na,fear\n", "lacks a column file_name", id="no file_name"),
        pytest.param("file_name,label\na,boredom\nb,boredom\nc,meh\n",
                     "'boredom' (2), 'meh' (1)", id="unknown labels"),
        pytest.param("file_name,label\na,boredom\n", "neutral, happiness", id="lists the known"),
        pytest.param("file_name,label\n/etc/a,fear\n", "below the folder", id="absolute"),
        pytest.param("file_name,label\n../a,fear\n", "'../a'", id="outside"),
        pytest.param("file_name,label\n,fear\n", "row 1", id="no name"),
        pytest.param("file_name,label\na,fear\na,anger\n", "fear, anger for a", id="contradiction"),
        pytest.param('file_name,votes\na,"{""fear"": -1}"\n', "whole numbers", id="negative"),
        pytest.param('file_name,votes\na,"{""fear"": 0.5}"\n', "whole numbers", id="share"),
        pytest.param("file_name,votes\na,seven\n", "row 1", id="no map"),
        pytest.param("file_name,label,created_at\na,fear,yesterday\n", "ISO 8601", id="time"),
    ],
)  # fmt: skip
def test_metadata__invalid_rows(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        csv(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        metadata.read(tmp_path)
    assert said in str(caught.value)


def test_metadata__broken_or_two_files(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": \n')
    with pytest.raises(SettingsError, match=r"metadata\.jsonl"):
        metadata.read(tmp_path)
    csv(tmp_path, "file_name,label\n")
    with pytest.raises(SettingsError, match=r"metadata\.csv and metadata\.jsonl"):
        metadata.read(tmp_path)


def test_metadata__repeated_label(tmp_path: Path) -> None:
    found = metadata.read(csv(tmp_path, "file_name,label\na,fear\na,fearful\n"))
    assert answers(found) == [("a", "label", ("fear",))]
