"""Evaluation of predictions, terms of old versions, and exports."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from warehouse import licences, releases
from warehouse.errors import ReleaseError
from warehouse.ids import file_sha256
from warehouse.storage import media
from warehouse.storage.home import Home
from warehouse.vocabulary import EXPRESSIONS

Inputs = Callable[..., dict[str, Any]]


def shares(*classes: int | None) -> np.ndarray:
    """One sure row per class; None for a row without a label."""
    return np.array([np.full(8, np.nan) if k is None else np.eye(8)[k] for k in classes])


@pytest.mark.parametrize(
    ("soft", "predicted", "wanted"),
    [
        (shares(0, 0, 1), shares(0, 0, 1), {"macro_f1_present": 1, "balanced_accuracy": 1}),
        # Class 0: 2 of 3 found, nothing else called so; class 1: found, and one more called so.
        (shares(0, 0, 0, 1), shares(0, 0, 1, 1),
         {"macro_f1_present": (4 / 5 + 2 / 3) / 2, "balanced_accuracy": (2 / 3 + 1) / 2,
          "accuracy": 3 / 4, "classes": 2}),
        # A guess outside the classes that are there costs recall, and is no class of its own.
        (shares(0, 1), shares(0, 5), {"macro_f1_present": 1 / 2, "classes": 2}),
        (shares(0, None), shares(0, 3), {"accuracy": 1, "n": 1, "n_hard": 1}),
    ],
)  # fmt: skip
def test_evaluate__hand_computed(
    soft: np.ndarray, predicted: np.ndarray, wanted: dict[str, float]
) -> None:
    found = releases.evaluate(soft, predicted)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_evaluate__ties() -> None:
    tied = np.array([[0.5, 0.5] + [0.0] * 6])
    found = releases.evaluate(tied, np.full((1, 8), 1 / 8))
    assert (found["n"], found["n_hard"]) == (1, 0)
    assert found["cross_entropy"] == pytest.approx(np.log(8))
    assert np.isnan(found["accuracy"])
    with pytest.raises(ReleaseError, match=r"not both \[n, 8\]"):
        releases.evaluate(tied, np.zeros((2, 8)))


def test_breaches__licence_corrected(
    home: Home, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(home, {"ann": 3, "bob": 2})
    models = [{"name": "centerface", "role": "finds faces", "licence": "MIT"}]
    free = releases.build(home, **given | {"name": "free"})
    given["facts"] |= {"models": models}
    sold = releases.build(home, **given, use="commercial")
    assert releases.breaches(sold.path) == releases.breaches(free.path) == []
    for name, said in (
        ("CC-BY-4.0", "CC-BY-4.0 of 5 faces does not permit commercial use"),
        ("MIT", "MIT of 5 by centerface does not permit commercial use"),
    ):
        with monkeypatch.context() as patch:
            key = name.lower()
            patch.setitem(licences.LICENCES, key, replace(licences.LICENCES[key], commercial=False))
            assert releases.breaches(sold.path) == [said]
            assert releases.breaches(free.path) == []


def test_export__imagefolder(home: Home, inputs: Inputs, tmp_path: Path) -> None:
    given = inputs(home, {"ann": 6, "bob": 4, "cid": 3})
    made = releases.build(home, **given)
    counts = releases.export(home, name="faces", to=tmp_path / "out")
    assert sum(counts.values()) == made.rows
    keys = dict(given["rows"].select("face_id", "crop").iter_rows())
    exported = {}
    for split in counts:
        for text in (tmp_path / "out" / split / "metadata.jsonl").read_text().splitlines():
            row = json.loads(text)
            exported[row["face_id"]] = row
            data = (tmp_path / "out" / split / row["file_name"]).read_bytes()
            assert data == media.path_of(home, keys[row["face_id"]]).read_bytes()
    assert exported.keys() == keys.keys()
    soft = given["rows"].row(0, named=True)
    assert exported[soft["face_id"]]["soft_label"] == pytest.approx(soft["soft_label"])
    assert {row["expression"] for row in exported.values()} <= {*EXPRESSIONS, None}
    with pytest.raises(ReleaseError, match="new or empty"):
        releases.export(home, name="faces", to=tmp_path / "out")


def test_export__webdataset(home: Home, inputs: Inputs, tmp_path: Path) -> None:
    given = inputs(home, {"ann": 9, "bob": 2, "cid": 2})
    given["rows"] = given["rows"].with_columns(face_id="f." + pl.col("face_id"))
    given["votes"] = given["votes"].with_columns(face_id="f." + pl.col("face_id"))
    releases.build(home, **given)
    options = {"name": "faces", "layout": "webdataset", "shard_faces": 4}
    counts = releases.export(home, to=tmp_path / "one", **options)
    tars = sorted((tmp_path / "one").glob("train-*.tar"))
    assert len(tars) == -(-counts["train"] // 4)
    seen = []
    for path in tars:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for picture, label in zip(members[::2], members[1::2], strict=True):
                # A reader groups members by what stands before the first dot.
                assert picture.name.split(".")[0] == label.name.split(".")[0]
                row = json.load(tar.extractfile(label))  # type: ignore[arg-type]
                Image.open(io.BytesIO(tar.extractfile(picture).read())).verify()  # type: ignore[union-attr]
                seen.append(row["face_id"])
    assert len(set(seen)) == counts["train"]
    releases.export(home, to=tmp_path / "two", **options)
    for path in (tmp_path / "one").iterdir():
        assert file_sha256(str(path)) == file_sha256(str(tmp_path / "two" / path.name))
    with pytest.raises(ReleaseError, match="layout is not one of"):
        releases.export(home, name="faces", to=tmp_path / "x", layout="zip")
    assert not (tmp_path / "x").exists()
