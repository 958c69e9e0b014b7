from __future__ import annotations

import numpy as np
import pytest
import torch

from annotation.raters.training.dataset import RaterDataset
from annotation.raters.training.ferplus import Faces
from pipeline.synthesis import training_data
from warehouse.vocabulary import ACTION_UNITS, ANSWERS, AU_INDEX


def votes_of(**votes: int) -> np.ndarray:
    return np.array([votes.get(answer, 0) for answer in ANSWERS], dtype=np.uint8)


def faces(votes: list[np.ndarray], *, found: list[bool], first: int) -> Faces:
    n = len(votes)
    numbers = np.arange(first, first + n)
    return Faces(
        names=numbers.astype(str),
        images=numbers.astype(str),
        gray=np.full((n, 112, 112), numbers[:, None, None], dtype=np.uint8),
        transform=np.zeros((n, 2, 3), dtype=np.float32),
        found=np.array(found),
        votes=np.stack(votes),
        shares=np.stack(votes) / np.stack(votes).sum(axis=1, keepdims=True),
        units=[4, 12],
        proxies=np.zeros((n, 2), dtype=np.float32),
        digests=np.array([f"{number:064x}" for number in numbers]),
    )


@pytest.fixture
def dataset() -> RaterDataset:
    train = [votes_of(happiness=8, unknown=2), votes_of(unknown=6, fear=4), votes_of(sadness=9)]
    held_out = [votes_of(anger=3, disgust=1), votes_of(not_a_face=10)]
    return RaterDataset(
        train=faces(train, found=[True, True, False], first=0),
        train_au=np.array([[0.1, 0.9], [0, 0], [0, 0]], dtype=np.float32),
        held_out=faces(held_out, found=[True, True], first=3),
        held_out_au=np.array([[np.nan, np.nan], [0, 0]], dtype=np.float32),
        au_scale={4: 1.0, 12: 1.0},
        n_duplicates=0,
    )


def test_from_rater_dataset__keeps_found_faces_with_an_expression(dataset: RaterDataset) -> None:
    converted = training_data.from_rater_dataset(dataset, side=48)
    assert converted.digest.tolist() == [f"{0:064x}", f"{3:064x}"]
    assert converted.gray.shape == (2, 48, 48)
    assert converted.gray[:, 0, 0].tolist() == [0, 3]


def test_from_rater_dataset__expression_is_share_of_votes(dataset: RaterDataset) -> None:
    expression = training_data.from_rater_dataset(dataset, side=16).expression
    assert expression[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert expression[1].tolist() == [0, 0, 0, 0, 0.75, 0.25, 0, 0]


def test_from_rater_dataset__missing_units_are_nan(dataset: RaterDataset) -> None:
    au = training_data.from_rater_dataset(dataset, side=16).au
    assert au.shape == (2, len(ACTION_UNITS))
    assert au[0, AU_INDEX[12]] == np.float32(0.9)
    assert au[0, AU_INDEX[4]] == np.float32(0.1)
    assert np.isnan(au[0]).sum() == len(ACTION_UNITS) - 2
    assert np.isnan(au[1]).all()


@pytest.mark.parametrize(
    ("votes", "out"),
    [
        (votes_of(happiness=5, unknown=4), False),
        (votes_of(happiness=4, unknown=5), True),
        (votes_of(happiness=5, unknown=5), True),
        (votes_of(not_a_face=1, fear=2), False),
    ],
)
def test_outvoted__tie_counts(votes: np.ndarray, out: bool) -> None:
    assert training_data.outvoted(votes[None]).tolist() == [out]


def test_guide__has_gradients_of_the_pixels() -> None:
    gray = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 255
    answers, au = training_data.guide()(gray.requires_grad_())
    known = torch.isfinite(au)
    assert answers.shape == (2, len(ANSWERS))
    assert known[:, AU_INDEX[12]].all()
    au[known].sum().backward()
    assert gray.grad is not None
    assert gray.grad.abs().sum() > 0
