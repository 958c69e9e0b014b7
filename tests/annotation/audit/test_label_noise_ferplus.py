"""Natural label noise: FER2013's labels against the votes of ten people."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotation import audit
from annotation.audit.cross_validation import cross_validated_probabilities
from warehouse.vocabulary import EXPRESSIONS, canonical

SHARED = Path(os.environ.get("RISORIUS_SHARED", Path(__file__).parents[3] / ".." / "shared"))
PICTURES = SHARED / "data" / "ferplus-train.parquet"
N = 3000


@pytest.fixture(scope="module")
def ferplus() -> pl.DataFrame:
    if not PICTURES.exists():
        pytest.skip("needs FER+ (set RISORIUS_SHARED to the folder that holds data/)")
    columns = ["name", "fer2013_label", "blendshapes", *EXPRESSIONS]
    rows = pl.read_parquet(PICTURES, columns=columns).filter(
        pl.max_horizontal(EXPRESSIONS) >= 6,
        pl.col("blendshapes").is_not_null() & pl.col("fer2013_label").is_not_null(),
    )
    return rows.sort("name").sample(N, seed=0, shuffle=True)


def test_label_noise__ranks_natural_errors_first(ferplus: pl.DataFrame) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    label = [canonical(name) for name in ferplus["fer2013_label"]]
    plurality = ferplus.select(EXPRESSIONS).to_numpy().argmax(axis=1)
    wrong = np.array([EXPRESSIONS.index(name) for name in label]) != plurality
    result = audit.run(
        "label_noise",
        labels=label,
        features=np.array(ferplus["blendshapes"].to_list()),
        face_ids=ferplus["name"].to_list(),
    )
    rows = ferplus.select(face_id="name", wrong=pl.Series(wrong)).join(result.rows, on="face_id")
    assert rows.height == N
    prevalence = wrong.mean()
    assert 0.2 < prevalence < 0.35
    doubt = 1 - rows["score"].to_numpy()
    # Random ranking scores the prevalence (0.28) and 0.5.
    assert average_precision_score(rows["wrong"], doubt) > prevalence + 0.25
    assert roc_auc_score(rows["wrong"], doubt) > 0.8
    flagged = rows.filter("flag")
    assert 0.08 < flagged.height / N < 0.3  # at most 30 % of each class
    assert flagged["wrong"].mean() > 2 * prevalence
    # A suggestion helps only if people often agree with it.
    people = dict(zip(ferplus["name"], plurality, strict=True))
    agree = [EXPRESSIONS[people[face]] == better for face, better in
             flagged.select("face_id", "detail").iter_rows()]  # fmt: skip
    assert np.mean(agree) > 0.4


def test_cross_validation__second_pass_is_better(ferplus: pl.DataFrame) -> None:
    from sklearn.metrics import average_precision_score

    label = np.array([EXPRESSIONS.index(canonical(name)) for name in ferplus["fer2013_label"]])
    wrong = label != ferplus.select(EXPRESSIONS).to_numpy().argmax(axis=1)
    features = np.array(ferplus["blendshapes"].to_list())
    precision = []
    for passes in (1, 2):
        found = cross_validated_probabilities(np.eye(8)[label], features, passes=passes)
        precision.append(average_precision_score(wrong, 1 - found[np.arange(N), label]))
    assert precision[1] > precision[0]
