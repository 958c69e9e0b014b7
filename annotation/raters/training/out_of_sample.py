"""What raters say of FER+ pictures they did not learn from.

``python -m annotation.raters.training.out_of_sample --data DIR --out FILE`` rates every picture
of the
training file with those of the given raters that learned neither from it nor from a near copy of
it. The two shipped raters learned from disjoint halves, so together they cover everything: a
two-fold cross-fit that costs no further training. For more folds, train one rater per fold with
``--part '!1/5'``, ``'!2/5'`` … and name them all in ``--raters``.

An audit on probabilities of a rater that saw the labels believes the labels: the rater has
memorised part of the noise that the audit is to find.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from annotation.raters import Ratings
from annotation.raters.onnx_rater import SHIPPED, MachineRater, weights_of
from annotation.raters.training import augment, ferplus, folds
from annotation.raters.training.ferplus import Faces
from warehouse.errors import SettingsError
from warehouse.storage import atomic


def rate(train: Faces, valid: Faces, raters: list[MachineRater]) -> pl.DataFrame:
    """One row per training picture, rated by raters that never saw it.

    Args:
        train, valid: both files, because near copies of validation pictures belong to no part.

    Returns:
        ``name``, ``digest``, ``group`` (near duplicates share one; keep a group in one fold),
        ``rater_id`` (several joined by ``+``), ``expression`` float32[8] and ``open_set``
        float32[2], averaged over these raters, ``feature`` float32[256] of the first of them.

    Raises:
        SettingsError: a picture was seen by every one of the raters, or a rater does not say
            what it learned from.
    """
    groups = folds.groups(train.and_(valid))
    ours = groups[: len(train)]
    # Near copies of validation pictures were left out of every part, so nobody saw them.
    outside = np.isin(ours, groups[len(train) :])
    unseen = np.stack([outside | ~folds.learned(ours, _part(rater)) for rater in raters], axis=1)
    if not unseen.any(axis=1).all():
        raise SettingsError(
            "for each picture a rater that did not learn from it",
            got=f"{int((~unseen.any(axis=1)).sum())} pictures known to all of them",
            hint="name raters trained on other parts too (annotation.raters.training.train --part)",
        )
    gray = augment.as_served(train, side=train.gray.shape[1])
    crops = np.repeat(gray[..., None], 3, axis=3)
    rated = [
        _spread(rater.rate(crops[rows]), np.flatnonzero(rows), len(train))
        for rater, rows in zip(raters, unseen.T, strict=True)
    ]
    answers = np.nanmean([one for one, _ in rated], axis=0)
    first = unseen.argmax(axis=1)
    closed = answers[:, :-2]
    names = np.array([rater.rater_id for rater in raters])
    return pl.DataFrame(
        {
            "name": train.names,
            "digest": train.digests,
            "group": ours,
            "rater_id": ["+".join(names[row]) for row in unseen],
            "expression": (closed / closed.sum(axis=1, keepdims=True)).astype(np.float32),
            "open_set": answers[:, -2:].astype(np.float32),
            "feature": np.stack([rated[who][1][row] for row, who in enumerate(first)]),
        }
    )


def _part(rater: MachineRater) -> str:
    try:
        return str(rater.card["trained_on"]["part"])
    except KeyError:
        raise SettingsError(
            f"the part that {rater.rater_id} learned from",
            got="a card without trained_on.part",
            hint="export it again with annotation.raters.training.export",
        ) from None


def _spread(ratings: Ratings, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers [n, 10] and features [n, 256], NaN where this rater was not asked."""
    answers = np.full((n, ratings.answers.shape[1]), np.nan, dtype=np.float32)
    feature = np.full((n, ratings.feature.shape[1]), np.nan, dtype=np.float32)
    answers[rows], feature[rows] = ratings.answers, ratings.feature
    return answers, feature


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m annotation.raters.training.out_of_sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with ferplus-{train,valid}.parquet")
    add("--out", type=Path, required=True, help="the Parquet file to write")
    add(
        "--cache",
        type=Path,
        default=Path(".cache/ferplus"),
        help="as in annotation.raters.training.train",
    )
    add("--find", default="pipeline.faces:find", help="as in annotation.raters.training.train")
    add("--workers", type=int, default=2, help="processes that look for faces")
    add("--raters", nargs="+", default=list(SHIPPED), help="names or .onnx files")
    options = parser.parse_args(arguments)
    train, valid = (
        ferplus.prepare(
            options.data / f"ferplus-{split}.parquet",
            cache=options.cache,
            find=options.find,
            workers=options.workers,
        )
        for split in ("train", "valid")
    )
    frame = rate(train, valid, [MachineRater(weights_of(name)) for name in options.raters])
    with atomic.replace_file(options.out) as draft:
        frame.write_parquet(draft)
    print(f"{frame.height} pictures, each rated by raters that never saw it or a near copy of it")


if __name__ == "__main__":
    main()
