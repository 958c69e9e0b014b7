"""Consent and licences: rows left out, rows refused, and the hint."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import polars as pl
import pytest

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.licences import model_terms, permits, terms
from warehouse.storage.home import Home

Inputs = Callable[..., dict[str, Any]]

TODAY = date(2026, 6, 1)


def with_consent(given: dict[str, Any], **said: str) -> dict[str, Any]:
    text = pl.col("subject_id").replace_strict(said, default=None, return_dtype=pl.String)
    return given | {"rows": given["rows"].with_columns(consent=text)}


def test_consent__missing(home: Home, inputs: Inputs) -> None:
    given = with_consent(inputs(home), ann="yes until 2026-01-01", bob="withdrawn", cid="yes")
    release = releases.build(home, **given, today=TODAY)
    facts = releases.show(home, name="faces")
    own = [row for row in facts["counts"] if row["stage"] == "release"]
    assert {row["reason"]: row["n"] for row in own} == {
        None: 6,
        "consent_expired": 8,
        "consent_withdrawn": 6,
    }
    votes = releases.load("faces", home=home, config="votes")["train"]
    assert {face.split("-")[0] for face in votes["face_id"]} == {"cid", "dee"}
    for file in release.path.rglob("*"):
        if file.is_file():
            assert b"ann-0000" not in file.read_bytes(), file
    kept = {name for part in releases.load("faces", home=home).values() for name in part.features}
    assert "consent" not in kept


def test_consent__refused_in_any_words_and_unreadable(home: Home, inputs: Inputs) -> None:
    given = with_consent(inputs(home), ann="FALSE", bob="ask her mother", cid="given")
    release = releases.build(home, **given, today=TODAY)
    counts = releases.show(home, name="faces")["counts"]
    assert {row["reason"]: row["n"] for row in counts if row["stage"] == "release"} == {
        None: release.rows, "consent_unreadable": 6, "consent_withdrawn": 8,
    }  # fmt: skip


def test_consent__required(home: Home, inputs: Inputs) -> None:
    given = with_consent(inputs(home), ann="yes")
    assert releases.build(home, **given, today=TODAY).rows == 20
    release = releases.build(home, **given, today=TODAY, require_consent=True)
    assert (release.version, release.rows) == ("v2", 8)


def test_consent__expiry(home: Home, inputs: Inputs) -> None:
    given = with_consent(inputs(home), ann="yes until 2026-06-30")
    assert releases.build(home, **given, today=TODAY).version == "v1"
    assert not releases.build(home, **given, today=date(2026, 6, 2)).created
    later = releases.build(home, **given, today=date(2026, 7, 1))
    assert (later.version, later.rows) == ("v2", 12)
    since = releases.diff(home, name="faces", old="v1").facts["changes"]["removed"]
    assert since == {"no_longer_curated": 8}


@pytest.mark.parametrize(
    ("use", "refused"),
    [
        ("research", ["8 real faces under none stated"]),
        ("commercial", ["8 real faces under none stated", "6 real faces under CC-BY-NC-4.0"]),
    ],
)
def test_use__forbidden(home: Home, inputs: Inputs, use: str, refused: list[str]) -> None:
    given = inputs(home)
    licence = {"ann": None, "bob": "CC-BY-NC-4.0"}
    given["rows"] = given["rows"].with_columns(
        licence=pl.col("subject_id").replace_strict(licence, default="MIT", return_dtype=pl.String)
    )
    with pytest.raises(ReleaseError, match="--drop-forbidden") as error:
        releases.build(home, **given, use=use)
    assert all(text in str(error.value) for text in refused)
    assert "ann-0000-0, ann-0000-1, ann-0000-2 …" in str(error.value)
    assert releases.list_releases(home) == []
    release = releases.build(home, **given, use=use, drop_forbidden=True)
    assert release.rows == (12 if use == "research" else 6)
    facts = releases.show(home, name="faces")
    assert facts["use"] == use
    assert len(facts["left_out"]["licence_forbids"]) == 20 - release.rows
    assert f"{use} use" in (release.path / "README.md").read_text()


def test_use__forbidden_by_weights(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 2})
    given["facts"]["models"] = [
        {"name": "machine-risorius-0", "role": "rates faces", "licence": "research-only"}
    ]
    with pytest.raises(ReleaseError, match="RISORIUS_RATER") as error:
        releases.build(home, **given, use="commercial", drop_forbidden=True)
    assert "machine-risorius-0" in str(error.value)
    releases.build(home, **given, use="research")
    summary = releases.show(home, name="faces")["summary"]
    # The pictures are CC-BY, but what the weights wrote beside them is not.
    assert summary["licence"]["name"] == "research-only"
    assert not summary["licence"]["commercial"]
    assert json.dumps(summary["bound_by"]).count("machine-risorius-0") == 1


def test_use__unknown(home: Home, inputs: Inputs) -> None:
    with pytest.raises(ReleaseError, match="not one of commercial, research"):
        releases.build(home, **inputs(home, {"ann": 2}), use="art")


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("centerface", "MIT"),
        ("machine-risorius-35cae184", "research-only"),
        ("/models/buffalo_l", "InsightFace-non-commercial"),
        ("scrfd_500m_bnkps.onnx", "InsightFace-non-commercial"),
        ("my.package:rater", "unknown"),
    ],
)
def test_model_licence__unknown(name: str, licence: str) -> None:
    assert model_terms(name).licence == licence
    assert terms(licence).name == licence
    assert permits(licence, "commercial") == (licence == "MIT")
