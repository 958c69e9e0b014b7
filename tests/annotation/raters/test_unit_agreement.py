"""Figures of a rater's action units, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from annotation.raters import geometric, unit_agreement
from annotation.raters.unit_agreement import CodedReadings, compare, f1, icc, pearson
from warehouse.errors import ModelError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX


def readings(read: list[float], intensity: list[float], subject: list[str]) -> CodedReadings:
    """AU12 alone."""
    n = len(read)
    wide = [np.full((n, len(ACTION_UNITS)), np.nan, dtype=np.float32) for _ in range(3)]
    for table, values in zip(wide, (read, intensity, intensity), strict=True):
        table[:, AU_INDEX[12]] = values
    present = np.where(np.isnan(wide[2]), np.nan, wide[2] >= 2)
    return CodedReadings(np.array(subject), wide[0], wide[1], present)


def test_icc__consistency_by_hand() -> None:
    """Shrout and Fleiss: a constant offset does not count, noise does."""
    assert icc(np.array([1.0, 2, 3]), np.array([2.0, 3, 4])) == pytest.approx(1)
    # Row means 1, 2.5, 2.5; between = 2*(1+.25+.25)/2 = 1.5; residual squares sum to 1, /2 = .5.
    assert icc(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)


def test_f1_and_pearson__by_hand() -> None:
    coded = np.array([True, True, False, False])
    assert f1(coded, np.array([True, False, True, False])) == 0.5
    assert np.isnan(f1(~coded & coded, coded & ~coded))
    assert pearson(np.array([1.0, 2, 3]), np.array([2.0, 4, 6])) == pytest.approx(1)
    assert np.isnan(pearson(np.array([1.0, 1]), np.array([1.0, 2])))


def test_compare__threshold_of_the_other_subjects() -> None:
    """At 0.5 nothing is found; the other subjects' threshold finds everything."""
    read = [0.05, 0.3, 0.05, 0.35, 0.05, 0.3]
    found = compare(readings(read, [0, 4, 0, 5, 0, 3], ["a", "a", "b", "b", "c", "c"]))
    assert list(found) == ["AU12"]
    row = found["AU12"]
    assert (row["n"], row["subjects"], row["base_rate"]) == (6, 3, 0.5)
    assert (row["f1_half"], row["auroc"]) == (0.0, 1.0)
    assert row["f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert row["pearson"]["value"] > 0.95


def test_compare__one_subject_and_no_intensity() -> None:
    given = readings([0.1, 0.9], [0, 4], ["a", "a"])
    unknown = np.full_like(given.intensity, np.nan)
    row = compare(CodedReadings(given.subject, given.read, unknown, given.present))["AU12"]
    assert (row["f1"], row["icc"], row["pearson"]) == (None, None, None)
    assert row["f1_half"] == 1.0


def test_compare__frames_without_face_are_left_out() -> None:
    row = compare(readings([0.1, np.nan, 0.9], [0, 5, 4], ["a", "b", "b"]))["AU12"]
    assert row["n"] == 2
    assert unit_agreement.compare(readings([np.nan], [5], ["a"])) == {}


def face(*, smile: float = 0, open_mouth: float = 0, roll: float = 0) -> np.ndarray:
    """68 points of a drawn face, 100 px between the outer eye corners."""
    points = np.zeros((68, 2))
    points[8] = (0, 110)
    points[17:27] = [(x, -25) for x in (-55, -45, -35, -25, -15, 15, 25, 35, 45, 55)]
    points[27:36] = [(0, 0), (0, 10), (0, 20), (0, 30), *[(x, 38) for x in (-10, -5, 0, 5, 10)]]
    eye = np.array([(-12, 0), (-6, -5), (6, -5), (12, 0), (6, 5), (-6, 5)])
    points[36:42], points[42:48] = eye - np.array([38, 0]), eye + np.array([38, 0])
    upper, lower = 65, 75 + 10 * open_mouth
    points[48:60] = [
        (x, y)
        for x, y in zip(
            (-25, -15, -6, 0, 6, 15, 25, 15, 6, 0, -6, -15),
            (70, *[upper] * 5, 70, *[lower] * 5),
            strict=True,
        )
    ]
    points[60:68] = [
        (-20, 70),
        (-6, 69),
        (0, 69),
        (6, 69),
        (20, 70),
        (6, lower - 4),
        (0, lower - 4),
        (-6, lower - 4),
    ]
    points[[48, 54], 1] -= 12 * smile
    points[[48, 54], 0] += np.array([-8, 8]) * smile
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    return points @ turn * 1.5 + 112


@pytest.mark.parametrize(("change", "unit"), [("smile", 12), ("open_mouth", 25)])
def test_geometric__reads_the_unit_that_moves(change: str, unit: int) -> None:
    levels = [0, 0, 0.5, 1]
    faces = np.stack([face(**{change: level}, roll=0.2 * at) for at, level in enumerate(levels)])
    neutral = np.array([True, True, False, False])
    read = geometric.read(faces, np.array(["a"] * 4), neutral=neutral)
    own = read[:, AU_INDEX[unit]]
    assert own[:2] == pytest.approx(0, abs=1e-6)
    assert 0 < own[2] < own[3]
    assert read[:, AU_INDEX[1]] == pytest.approx(0, abs=1e-6)
    assert np.isnan(read[:, AU_INDEX[6]]).all()


def test_geometric__each_person_has_an_own_rest() -> None:
    faces = np.stack(
        [face(smile=1), face(smile=1), face(), face(smile=1), np.full((68, 2), np.nan)]
    )
    read = geometric.read(faces, np.array(["a", "a", "b", "b", "b"]))
    assert read[:4, AU_INDEX[12]].tolist()[:2] == [0, 0]
    assert read[3, AU_INDEX[12]] > 0
    assert np.isnan(read[4]).all()


def test_geometric__refuses_other_shapes() -> None:
    with pytest.raises(ModelError, match="68 points"):
        geometric.read(np.zeros((2, 5, 2)), np.array(["a", "a"]))
