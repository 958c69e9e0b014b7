"""What is learned from and what is set aside, and in which order it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from annotation.raters import augment, data, targets
from annotation.raters.data import Faces
from annotation.raters.recipe import Recipe


@dataclass(frozen=True)
class Lesson:
    """Training and held-out faces with their AU targets on the scale of the training set."""

    learn: Faces
    learn_au: np.ndarray
    hold: Faces
    hold_au: np.ndarray
    scale: dict[int, float]
    repeated: int


def lesson_of(train: Faces, valid: Faces) -> Lesson:
    """Drop what stands in both files or twice in one, set a part aside, scale the AU proxies."""
    unique = data.without(train, valid)
    aside = data.held_out(unique)
    learn, hold = unique.take(~aside), unique.take(aside)
    scale = targets.robust_scale(learn.units, learn.proxies)
    return Lesson(
        learn=learn,
        learn_au=targets.rescale(learn.units, learn.proxies, scale),
        hold=hold,
        hold_au=targets.rescale(hold.units, hold.proxies, scale),
        scale=scale,
        repeated=len(train) - len(unique),
    )


def batches(lesson: Lesson, recipe: Recipe, first: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches from step ``first`` on, made one ahead in another thread.

    Yields row numbers and their augmented faces uint8[n, side, side]. What stands in a batch
    depends on the seed and the step alone, so a continued run sees what an uninterrupted one
    would have seen.
    """

    def make(step: int) -> tuple[np.ndarray, np.ndarray]:
        size = min(recipe.batch, len(lesson.learn))
        per_epoch = max(1, len(lesson.learn) // size)
        order = np.random.default_rng((recipe.seed, step // per_epoch)).permutation(
            len(lesson.learn)
        )
        rows = order[(step % per_epoch) * size :][:size]
        rng = np.random.default_rng((recipe.seed, step // per_epoch, step))
        return rows, augment.batch(lesson.learn, rows, side=recipe.side, rng=rng)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make, first)
        step = first
        while True:
            ready, step = ahead, step + 1
            ahead = pool.submit(make, step)
            yield ready.result()
