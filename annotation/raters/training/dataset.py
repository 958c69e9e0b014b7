"""What is learned from and what is set aside, and in which order it is shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import numpy as np

from annotation.raters.training import augment, ferplus, folds, targets
from annotation.raters.training.config import Recipe
from annotation.raters.training.ferplus import Faces


@dataclass(frozen=True)
class Lesson:
    """Training and held-out faces with their AU targets on the scale of the training set.

    Attributes:
        repeated: rows dropped because the picture, or a near copy, stands in the validation
            file, or because an earlier row is the very same picture.
        elsewhere: rows of other parts.
    """

    learn: Faces
    learn_au: np.ndarray
    hold: Faces
    hold_au: np.ndarray
    scale: dict[int, float]
    repeated: int
    elsewhere: int = 0


def lesson_of(train: Faces, valid: Faces, *, part: str = "1/1") -> Lesson:
    """Drop what stands in both files or twice in one, keep one part of it, set some aside.

    AU proxies are scaled by what is learned from.
    """
    groups = folds.groups(train.and_(valid))
    ours, theirs = groups[: len(train)], groups[len(train) :]
    unique = ferplus.first_of_each(train) & ~np.isin(ours, theirs)
    here = unique & folds.learned(ours, part)
    aside = ferplus.held_out(ours)
    learn, hold = train.take(here & ~aside), train.take(here & aside)
    scale = targets.robust_scale(learn.units, learn.proxies)
    return Lesson(
        learn=learn,
        learn_au=targets.rescale(learn.units, learn.proxies, scale),
        hold=hold,
        hold_au=targets.rescale(hold.units, hold.proxies, scale),
        scale=scale,
        repeated=int((~unique).sum()),
        elsewhere=int((unique & ~here).sum()),
    )


def batches(
    lesson: Lesson, recipe: Recipe, first: int, *, loaders: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches from step ``first`` on, made ahead in so many other threads.

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

    with ThreadPoolExecutor(loaders) as pool:
        steps = count(first)
        ahead = deque(pool.submit(make, next(steps)) for _ in range(loaders))
        while True:
            ahead.append(pool.submit(make, next(steps)))
            yield ahead.popleft().result()
