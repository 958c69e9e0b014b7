"""Which faces stand in a batch, with which noise, and what the network is told of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthesis import noise_schedule
from synthesis.condition import FaceCondition
from synthesis.training.config import Recipe
from synthesis.training.training_data import Teaching, held_out

MOST_OFTEN = 8.0
"""How many times as often as the commonest faces the rarest are drawn at most: the rarest
expressions have a hundred or two hundred pictures, which must not be learned by heart."""


@dataclass(frozen=True)
class Draw:
    """One batch.

    Attributes:
        face: float32[n, 1, s, s] in -1..1.
        noise: of the same shape, standard normal.
        moment: int64[n] in 0..noise_schedule.NUM_TRAIN_TIMESTEPS - 1.
        condition: what the network is told.
    """

    face: Tensor
    noise: Tensor
    moment: Tensor
    condition: FaceCondition


class Lesson:
    """The faces in memory, and the chance of each to be drawn.

    Attributes:
        learn, hold: faces that are learned from and those on which the loss is watched.
    """

    def __init__(self, teaching: Teaching, *, balance: float) -> None:
        aside = held_out(teaching)
        # A handful of faces may all fall on one side; learning goes first.
        aside &= ~aside.all()
        self.learn, self.hold = teaching.take(~aside), teaching.take(aside)
        self._upto = np.cumsum(chances(self.learn.expression, balance=balance))

    def draw(self, recipe: Recipe, step: int) -> Draw:
        """The batch of a step: it depends on the seed and the step alone.

        Half of the faces are mirrored. AU targets are means of left and right and stay.
        """
        rng = np.random.default_rng((recipe.seed, step))
        # The last sum may miss 1 by rounding.
        picked = np.searchsorted(self._upto, rng.random(recipe.batch) * self._upto[-1], "right")
        rows = np.minimum(picked, len(self.learn) - 1)
        return _draw(self.learn, rows, recipe, rng, dropouts=True)

    def watch(self, recipe: Recipe) -> list[Draw]:
        """The faces set aside, always with the same noise and everything told."""
        rng = np.random.default_rng(recipe.seed)
        starts = range(0, len(self.hold), recipe.batch)
        every = np.arange(len(self.hold))
        return [
            _draw(self.hold, every[start : start + recipe.batch], recipe, rng, dropouts=False)
            for start in starts
        ]


def chances(expression: np.ndarray, *, balance: float) -> np.ndarray:
    """float64[n], sums to 1: rare expressions more often, softened by ``balance`` and capped."""
    often = expression.mean(axis=0, dtype=np.float64)
    rarity = (often.max() / np.maximum(often, 1e-9)) ** balance
    weights = expression @ np.minimum(rarity, MOST_OFTEN)
    return weights / weights.sum()


def _draw(
    faces: Teaching, rows: np.ndarray, recipe: Recipe, rng: np.random.Generator, *, dropouts: bool
) -> Draw:
    n = len(rows)
    gray = faces.gray[rows]
    turned = rng.random(n) < 0.5
    gray[turned] = gray[turned, :, ::-1]
    # One moment out of every n-th of the course: the loss of a batch varies less.
    moment = (rng.permutation(n) + rng.random(n)) / n * noise_schedule.NUM_TRAIN_TIMESTEPS
    told = _told(faces.expression[rows], faces.au[rows], recipe, rng, dropouts=dropouts)
    shape = (n, 1, *gray.shape[1:])
    return Draw(
        face=torch.from_numpy(gray.astype(np.float32) / 127.5 - 1).view(shape),
        noise=torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)),
        moment=torch.from_numpy(moment.astype(np.int64)),
        condition=told,
    )


def _told(
    expression: np.ndarray,
    au: np.ndarray,
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    dropouts: bool,
) -> FaceCondition:
    n = len(au)
    chance = float(dropouts)
    nothing = rng.random(n) < recipe.no_condition * chance
    no_expression = nothing | (rng.random(n) < recipe.no_expression * chance)
    no_au = nothing | (rng.random(n) < recipe.no_au * chance) | ~np.isfinite(au).any(axis=1)
    hidden = np.where(rng.random(n) < 0.5, recipe.unit_unknown, rng.random(n)) * chance
    au = np.where(rng.random(au.shape) < hidden[:, None], np.nan, au).astype(np.float32)
    return FaceCondition(
        expression=torch.from_numpy(np.where(no_expression[:, None], 0, expression)).float(),
        au=torch.from_numpy(np.where(no_au[:, None], np.nan, au)).float(),
        null_expression=torch.from_numpy(no_expression),
        null_au=torch.from_numpy(no_au),
    )
