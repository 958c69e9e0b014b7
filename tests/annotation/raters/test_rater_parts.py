from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from annotation.raters.onnx_rater import MachineRater, weights_of
from annotation.raters.training import augment, ferplus, out_of_sample
from annotation.raters.training import folds as parts
from annotation.raters.training.dataset import lesson_of
from annotation.raters.training.ferplus import Faces
from warehouse.errors import SettingsError


def nearly(faces: Faces) -> Faces:
    """The same faces, each a little brighter: other pixels, the same picture."""
    gray = (faces.gray.astype(float) * 0.95 + 8).astype(np.uint8)
    return replace(faces, gray=gray, digests=np.array([f"{d}x" for d in faces.digests]))


def test_near_copies_share_a_group_and_strangers_do_not(drawn: tuple[Faces, Faces]) -> None:
    faces = drawn[1]
    groups = parts.groups(faces.and_(nearly(faces)))
    assert np.array_equal(groups[: len(faces)], groups[len(faces) :])
    assert len(np.unique(groups)) == len(faces)


def test_parts_are_disjoint_and_complete(drawn: tuple[Faces, Faces]) -> None:
    groups = parts.groups(drawn[0])
    one, two = (parts.learned(groups, part) for part in ("1/2", "2/2"))
    assert not (one & two).any()
    assert (one | two).all()
    assert 0.3 < one.mean() < 0.7
    folds = np.array([~parts.learned(groups, f"!{fold}/3") for fold in (1, 2, 3)])
    assert (folds.sum(axis=0) == 1).all()
    assert parts.learned(groups, "1/1").all()


def test_a_picture_keeps_its_part_whatever_else_is_there(drawn: tuple[Faces, Faces]) -> None:
    groups = parts.groups(drawn[0])
    rows = np.arange(len(groups))[::-2]
    part = parts.learned(groups, "1/2")
    assert np.array_equal(part[rows], parts.learned(parts.groups(drawn[0].take(rows)), "1/2"))


def test_no_part_learns_what_stands_in_valid(drawn: tuple[Faces, Faces]) -> None:
    train, valid = drawn
    copies = nearly(valid.take(np.arange(10)))
    mixed = train.and_(copies)
    halves = [lesson_of(mixed, valid, part=part) for part in ("1/2", "2/2")]
    used = [set(f.digests.tolist()) for half in halves for f in (half.learn, half.hold)]
    assert len(set().union(*used)) == sum(map(len, used)) == len(train)
    assert not set(copies.digests.tolist()) & set().union(*used)
    assert halves[0].repeated == 10
    assert halves[0].elsewhere == len(halves[1].learn) + len(halves[1].hold)


@pytest.mark.parametrize("part", ["", "2", "0/2", "3/2", "a/b", "!1"])
def test_a_part_that_is_none(part: str) -> None:
    with pytest.raises(SettingsError, match="--part"):
        parts.learned(np.array(["00"]), part)


def test_held_out_rows_keep_groups_together(drawn: tuple[Faces, Faces]) -> None:
    groups = parts.groups(drawn[0].and_(nearly(drawn[0])))
    aside = ferplus.held_out(groups)
    assert 0 < aside.sum() < len(groups) / 4
    assert np.array_equal(aside[: len(drawn[0])], aside[len(drawn[0]) :])


def test_every_picture_is_rated_by_one_that_never_saw_it(drawn: tuple[Faces, Faces]) -> None:
    raters = [MachineRater(weights_of(name)) for name in ("default", "judge")]
    assert [rater.card["trained_on"]["part"] for rater in raters] == ["1/2", "2/2"]
    train, valid = drawn
    frame = out_of_sample.rate(train, valid, raters)
    seen = parts.learned(parts.groups(train.and_(valid))[: len(train)], "1/2")
    asked = np.where(seen, raters[1].rater_id, raters[0].rater_id)
    assert frame["rater_id"].to_list() == asked.tolist()
    gray = augment.as_served(train, side=112)[seen][:5]
    wanted = raters[1].rate(np.repeat(gray[..., None], 3, axis=3))
    got = np.stack(frame.filter(pl.Series(seen))["expression"][:5].to_numpy())
    assert np.allclose(got, wanted.expression, atol=1e-5)


def test_one_rater_alone_is_not_out_of_sample(drawn: tuple[Faces, Faces]) -> None:
    with pytest.raises(SettingsError, match="known to all of them"):
        out_of_sample.rate(*drawn, [MachineRater(weights_of("default"))])
