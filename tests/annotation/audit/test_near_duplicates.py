"""Near duplicates: hashes and features small enough to check by hand."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from annotation import audit
from annotation.audit.knn import hamming_pairs, nearest
from warehouse.errors import TableError
from warehouse.storage.schema import TABLES

X_AXIS, Y_AXIS = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def bits(*positions: int) -> str:
    return f"{sum(1 << position for position in positions):016x}"


def first(n: int) -> str:
    """A hash n bits from that of all zeros."""
    return bits(*range(n))


def faces(**hashes: str | None) -> pl.DataFrame:
    return pl.DataFrame(
        {"face_id": list(hashes), "phash": pl.Series(list(hashes.values()), dtype=pl.String)}
    )


def repeats(result: audit.AuditResult) -> dict[str, str]:
    flagged = result.rows.filter("flag")
    return dict(flagged.select("face_id", "detail").iter_rows())


@pytest.mark.parametrize(
    ("hashes", "expected"),
    [
        pytest.param({}, {}, id="no faces"),
        pytest.param({"a": first(0)}, {}, id="one face"),
        pytest.param({"a": first(0), "b": first(4)}, {"b": "a"}, id="four bits apart"),
        pytest.param({"a": first(0), "b": first(5)}, {}, id="five bits apart"),
        pytest.param({"b": first(0), "a": first(0)}, {"b": "a"}, id="earliest face stands"),
        pytest.param(
            {"a": first(0), "b": first(3), "c": first(6), "d": first(9)},
            {"b": "a", "d": "c"},
            id="a chain is not one picture",
        ),
        pytest.param({"a": None, "b": None, "c": first(0)}, {}, id="no hash"),
        pytest.param({"a": "xyz", "b": "xyz", "c": "g" * 16, "d": "g" * 16}, {}, id="no hex"),
        pytest.param({"a": bits(63), "b": bits(0)}, {"b": "a"}, id="first and last bit"),
    ],
)
def test_near_duplicates__hashes(hashes: dict[str, str | None], expected: dict[str, str]) -> None:
    result = audit.run("near_duplicates", faces=faces(**hashes))
    assert repeats(result) == expected
    assert result.rows.schema == TABLES["audits"].schema
    assert result.rows["face_id"].to_list() == sorted(hashes)
    alone = result.rows.filter(~pl.col("flag"))
    assert alone["score"].to_list() == [1.0] * alone.height
    assert alone["detail"].null_count() == alone.height


def test_near_duplicates__scores_and_groups() -> None:
    hashes = {"a": first(0), "b": first(3), "c": first(6), "d": first(6), "z": bits(*range(40, 60))}
    result = audit.run("near_duplicates", faces=faces(**hashes))
    score = dict(result.rows.select("face_id", "score").iter_rows())
    assert score == pytest.approx({"a": 1, "b": 0.5 * 3 / 11, "c": 1, "d": 0, "z": 1})
    assert result.score == pytest.approx((3 + 0.5 * 3 / 11) / 5)
    assert result.statistics["groups"] == {"a": "a", "b": "a", "c": "a", "d": "a"}
    assert (result.statistics["duplicates"], result.statistics["largest_group"]) == (2, 2)


@pytest.mark.parametrize(
    ("column", "values", "representative"),
    [
        ("sharpness", [1.0, 9.0, 5.0], "b"),
        ("sharpness", [None, float("nan"), 0.1], "c"),
        ("n_votes", [0, 0, 3], "c"),
        ("detector_score", [0.5, 0.5, 0.5], "a"),
    ],
)
def test_near_duplicates__best_face_is_representative(
    column: str, values: list, representative: str
) -> None:
    table = faces(a=first(0), b=first(0), c=first(0)).with_columns(
        pl.Series(column, values, dtype=pl.Float64)
    )
    found = repeats(audit.run("near_duplicates", faces=table))
    assert found == {name: representative for name in "abc" if name != representative}


def with_features(table: pl.DataFrame, *features: list[float] | None) -> pl.DataFrame:
    return table.with_columns(feature=pl.Series(features, dtype=pl.List(pl.Float32)))


@pytest.mark.parametrize(
    ("hashes", "features", "expected"),
    [
        pytest.param((first(0), first(10)), (X_AXIS, X_AXIS), {"b": "a"}, id="both somewhat"),
        pytest.param((first(0), first(11)), (X_AXIS, X_AXIS), {}, id="pictures too far"),
        pytest.param((first(0), first(10)), (X_AXIS, Y_AXIS), {}, id="features too far"),
        pytest.param((first(0), first(1)), (X_AXIS, Y_AXIS), {"b": "a"}, id="hash suffices"),
        pytest.param((None, first(0)), (X_AXIS, X_AXIS), {"b": "a"}, id="feature alone"),
        pytest.param((None, None), (X_AXIS, [1, 0.15, 0]), {}, id="feature alone is stricter"),
        pytest.param((None, None), (X_AXIS, None), {}, id="no feature"),
        pytest.param((None, None), ([0, 0, 0], [0, 0, 0]), {}, id="features without direction"),
    ],
)
def test_near_duplicates__features_and_hashes(
    hashes: tuple, features: tuple, expected: dict[str, str]
) -> None:
    table = with_features(faces(**dict(zip("ab", hashes, strict=True))), *features)
    assert repeats(audit.run("near_duplicates", faces=table)) == expected


def test_near_duplicates__does_not_depend_on_row_order() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, size=30).tolist()
    hashes = {
        f"f{number:03d}": f"{base[number % 30] ^ (1 << int(rng.integers(63))):016x}"
        for number in range(90)
    }
    table = with_features(faces(**hashes), *rng.normal(size=(90, 5)).tolist())
    straight = audit.run("near_duplicates", faces=table)
    shuffled = audit.run("near_duplicates", faces=table.sample(90, shuffle=True, seed=1))
    assert straight.rows.equals(shuffled.rows)
    assert straight.statistics == shuffled.statistics
    assert straight.statistics["duplicates"] >= 55


@pytest.mark.parametrize("radius", [0, 1, 4, 7, 16])
def test_hamming_pairs__misses_no_pair(radius: int) -> None:
    rng = np.random.default_rng(radius)
    words = [int(word) for word in rng.integers(0, 2**62, size=12)]
    for word in list(words):
        flips = rng.choice(64, size=int(rng.integers(0, 20)), replace=False)
        words.append(word ^ sum(1 << int(flip) for flip in flips))
    known = sorted(set(words))
    expected = [
        (a, b, (known[a] ^ known[b]).bit_count())
        for a, b in itertools.combinations(range(len(known)), 2)
        if (known[a] ^ known[b]).bit_count() <= radius
    ]
    assert hamming_pairs(np.array(known, dtype=np.uint64), radius).rows() == expected
    assert expected or radius < 2


def test_nearest__matches_sorted_pairs() -> None:
    features = np.random.default_rng(0).normal(size=(50, 6))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    all_pairs = unit @ unit.T
    np.fill_diagonal(all_pairs, -np.inf)
    near = nearest(features, k=4)
    assert (near.row == np.argsort(-all_pairs, axis=1)[:, :4]).all()
    assert near.cosine == pytest.approx(np.take_along_axis(all_pairs, near.row, axis=1), abs=1e-6)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(pl.DataFrame({"face_id": ["a"]}), "phash or feature", id="no evidence"),
        pytest.param(faces(a=first(0)).vstack(faces(a=first(1))), "repeats", id="a face twice"),
        pytest.param(
            with_features(faces(a=first(0), b=first(1)), [1.0, float("nan")], [1.0, 0.0]),
            "the first 'a'",
            id="NaN",
        ),
        pytest.param(
            with_features(faces(a=first(0), b=first(1)), [1.0, 2.0], [1.0]),
            "lengths 1, 2",
            id="ragged",
        ),
    ],
)
def test_near_duplicates__rejects_invalid_input(table: pl.DataFrame, message: str) -> None:
    with pytest.raises(TableError) as caught:
        audit.run("near_duplicates", faces=table)
    assert message in str(caught.value)
