from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from annotation.raters.onnx_rater import OnnxRater, weights_of
from annotation.raters.training import augment, out_of_sample
from annotation.raters.training.dataset import (
    build_dataset,
    duplicate_groups,
    in_fold,
    is_held_out,
)
from annotation.raters.training.ferplus import Faces
from warehouse.errors import SettingsError


def brighter(faces: Faces) -> Faces:
    """Brighten each face a little: other pixels, the same picture."""
    gray = (faces.gray.astype(float) * 0.95 + 8).astype(np.uint8)
    return replace(faces, gray=gray, digests=np.array([f"{d}x" for d in faces.digests]))


def test_duplicate_groups__near_copies_share_a_group(drawn: tuple[Faces, Faces]) -> None:
    faces = drawn[1]
    groups = duplicate_groups(faces.concat(brighter(faces)))
    assert np.array_equal(groups[: len(faces)], groups[len(faces) :])
    assert len(np.unique(groups)) == len(faces)


def test_in_fold__folds_are_disjoint_and_complete(drawn: tuple[Faces, Faces]) -> None:
    groups = duplicate_groups(drawn[0])
    one, two = (in_fold(groups, part) for part in ("1/2", "2/2"))
    assert not (one & two).any()
    assert (one | two).all()
    assert 0.3 < one.mean() < 0.7
    folds = np.array([~in_fold(groups, f"!{fold}/3") for fold in (1, 2, 3)])
    assert (folds.sum(axis=0) == 1).all()
    assert in_fold(groups, "1/1").all()


def test_in_fold__independent_of_other_pictures(drawn: tuple[Faces, Faces]) -> None:
    groups = duplicate_groups(drawn[0])
    rows = np.arange(len(groups))[::-2]
    part = in_fold(groups, "1/2")
    assert np.array_equal(part[rows], in_fold(duplicate_groups(drawn[0].take(rows)), "1/2"))


def test_build_dataset__validation_pictures_are_in_no_fold(drawn: tuple[Faces, Faces]) -> None:
    train, valid = drawn
    copies = brighter(valid.take(np.arange(10)))
    mixed = train.concat(copies)
    halves = [build_dataset(mixed, valid, part=part) for part in ("1/2", "2/2")]
    used = [set(f.digests.tolist()) for half in halves for f in (half.train, half.held_out)]
    assert len(set().union(*used)) == sum(map(len, used)) == len(train)
    assert not set(copies.digests.tolist()) & set().union(*used)
    assert halves[0].n_duplicates == 10
    assert halves[0].n_other_folds == len(halves[1].train) + len(halves[1].held_out)


@pytest.mark.parametrize("part", ["", "2", "0/2", "3/2", "a/b", "!1"])
def test_in_fold__malformed_part(part: str) -> None:
    with pytest.raises(SettingsError, match="--part"):
        in_fold(np.array(["00"]), part)


def test_is_held_out__keeps_groups_together(drawn: tuple[Faces, Faces]) -> None:
    groups = duplicate_groups(drawn[0].concat(brighter(drawn[0])))
    aside = is_held_out(groups)
    assert 0 < aside.sum() < len(groups) / 4
    assert np.array_equal(aside[: len(drawn[0])], aside[len(drawn[0]) :])


def test_out_of_sample__rated_by_the_rater_of_the_other_fold(drawn: tuple[Faces, Faces]) -> None:
    raters = [OnnxRater(weights_of(name)) for name in ("guide", "judge")]
    assert [rater.card["trained_on"]["part"] for rater in raters] == ["1/2", "2/2"]
    train, valid = drawn
    frame = out_of_sample.rate(train, valid, raters)
    seen = in_fold(duplicate_groups(train.concat(valid))[: len(train)], "1/2")
    asked = np.where(seen, raters[1].rater_id, raters[0].rater_id)
    assert frame["rater_id"].to_list() == asked.tolist()
    gray = augment.as_served(train, side=112)[seen][:5]
    wanted = raters[1].rate(np.repeat(gray[..., None], 3, axis=3))
    got = np.stack(frame.filter(pl.Series(seen))["expression"][:5].to_numpy())
    assert np.allclose(got, wanted.expression, atol=1e-5)


def test_out_of_sample__one_rater_is_not_enough(drawn: tuple[Faces, Faces]) -> None:
    with pytest.raises(SettingsError, match="All raters were trained"):
        out_of_sample.rate(*drawn, [OnnxRater(weights_of("default"))])
