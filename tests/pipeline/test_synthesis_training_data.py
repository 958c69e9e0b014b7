from __future__ import annotations

import numpy as np
import pytest
import torch

from annotation.raters.training.dataset import Lesson
from annotation.raters.training.ferplus import Faces
from pipeline.synthesis import training_data
from warehouse.vocabulary import ACTION_UNITS, ANSWERS, AU_INDEX


def counted(**votes: int) -> np.ndarray:
    return np.array([votes.get(answer, 0) for answer in ANSWERS], dtype=np.uint8)


def faces(votes: list[np.ndarray], *, found: list[bool], first: int) -> Faces:
    n = len(votes)
    numbers = np.arange(first, first + n)
    return Faces(
        names=numbers.astype(str),
        gray=np.full((n, 112, 112), numbers[:, None, None], dtype=np.uint8),
        place=np.zeros((n, 2, 3), dtype=np.float32),
        found=np.array(found),
        votes=np.stack(votes),
        shares=np.stack(votes) / np.stack(votes).sum(axis=1, keepdims=True),
        units=[4, 12],
        proxies=np.zeros((n, 2), dtype=np.float32),
        digests=np.array([f"{number:064x}" for number in numbers]),
    )


@pytest.fixture
def lesson() -> Lesson:
    learn = [counted(happiness=8, unknown=2), counted(unknown=6, fear=4), counted(sadness=9)]
    hold = [counted(anger=3, disgust=1), counted(not_a_face=10)]
    return Lesson(
        learn=faces(learn, found=[True, True, False], first=0),
        learn_au=np.array([[0.1, 0.9], [0, 0], [0, 0]], dtype=np.float32),
        hold=faces(hold, found=[True, True], first=3),
        hold_au=np.array([[np.nan, np.nan], [0, 0]], dtype=np.float32),
        scale={4: 1.0, 12: 1.0},
        repeated=0,
    )


def test_rows_that_show_no_expression_or_no_found_face_stay_out(lesson: Lesson) -> None:
    taught = training_data.from_lesson(lesson, side=48)
    assert taught.digest.tolist() == [f"{0:064x}", f"{3:064x}"]
    assert taught.gray.shape == (2, 48, 48)
    assert taught.gray[:, 0, 0].tolist() == [0, 3]


def test_votes_become_shares_over_the_eight(lesson: Lesson) -> None:
    expression = training_data.from_lesson(lesson, side=16).expression
    assert expression[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert expression[1].tolist() == [0, 0, 0, 0, 0.75, 0.25, 0, 0]


def test_units_stand_at_their_place_and_the_others_are_unknown(lesson: Lesson) -> None:
    au = training_data.from_lesson(lesson, side=16).au
    assert au.shape == (2, len(ACTION_UNITS))
    assert au[0, AU_INDEX[12]] == np.float32(0.9)
    assert au[0, AU_INDEX[4]] == np.float32(0.1)
    assert np.isnan(au[0]).sum() == len(ACTION_UNITS) - 2
    assert np.isnan(au[1]).all()


@pytest.mark.parametrize(
    ("votes", "out"),
    [
        (counted(happiness=5, unknown=4), False),
        (counted(happiness=4, unknown=5), True),
        (counted(happiness=5, unknown=5), True),
        (counted(not_a_face=1, fear=2), False),
    ],
)
def test_a_tie_with_unknown_is_no_expression(votes: np.ndarray, out: bool) -> None:
    assert training_data.outvoted(votes[None]).tolist() == [out]


def test_the_guide_leads_back_to_the_pixels() -> None:
    gray = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 255
    answers, au = training_data.guide()(gray.requires_grad_())
    known = torch.isfinite(au)
    assert answers.shape == (2, len(ANSWERS))
    assert known[:, AU_INDEX[12]].all()
    au[known].sum().backward()
    assert gray.grad is not None
    assert gray.grad.abs().sum() > 0
