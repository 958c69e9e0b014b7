"""Rate FER+ pictures with raters that were not trained on them.

``python -m annotation.raters.training.out_of_sample --data DIR --out FILE`` rates every picture
of the training file with those of the given raters whose training data held neither it nor a near
copy. ``guide`` and ``judge`` were trained on disjoint halves, so together they cover all pictures:
a two-fold cross-fit without further training. ``default`` saw every picture. For more folds, train
one rater per fold with ``--part '!1/5'``, ``'!2/5'`` … and give them all to ``--raters``.

Audits need such ratings: a rater that saw the labels has memorised part of their noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from rich.progress import Progress

from annotation.raters import Ratings
from annotation.raters.onnx_rater import OnnxRater, weights_of
from annotation.raters.training import augment
from annotation.raters.training.dataset import UniqueFaces, duplicate_groups, in_fold
from annotation.raters.training.ferplus import Faces
from annotation.raters.training.train import add_data_options, read_split
from warehouse.errors import SettingsError
from warehouse.storage import atomic


def rate(train: Faces, valid: Faces, raters: list[OnnxRater]) -> pl.DataFrame:
    """Rate each training picture with the raters that were not trained on it.

    Args:
        train, valid: both files, because near copies of validation pictures are in no fold.

    Returns:
        ``name``, ``digest``, ``group`` (shared by near duplicates; keep a group in one fold),
        ``rater_id`` (several joined by ``+``), ``expression`` float32[8] and ``open_set``
        float32[2], averaged over these raters, ``feature`` float32[256] of the first of them.

    Raises:
        SettingsError: all raters were trained on a picture, or a rater's card has no fold.
    """
    groups = duplicate_groups(train.concat(valid))
    ours = groups[: len(train)]
    # Near copies of validation pictures are in no fold, so no rater was trained on them.
    outside = np.isin(ours, groups[len(train) :])
    unseen = np.stack([outside | ~in_fold(ours, _fold_of(rater)) for rater in raters], axis=1)
    if not unseen.any(axis=1).all():
        raise SettingsError(
            "All raters were trained on some pictures",
            got=f"{int((~unseen.any(axis=1)).sum())} pictures",
            hint="add raters of other folds (annotation.raters.training.train --part)",
        )
    gray = augment.as_served(train, side=train.gray.shape[1])
    crops = np.repeat(gray[..., None], 3, axis=3)
    rated = [
        _scatter(rater.rate(crops[rows]), np.flatnonzero(rows), len(train))
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
            "feature": np.stack([rated[rater][1][row] for row, rater in enumerate(first)]),
        }
    )


def rate_set_aside(train: Faces, valid: Faces, rater: OnnxRater) -> pl.DataFrame:
    """Rate the pictures that a rater set aside for its calibration.

    This also works for a rater that was trained on all other pictures.

    Returns:
        ``name``, ``digest``, ``group``, ``rater_id``, ``expression``, ``open_set`` as ``rate``.
    """
    unique = UniqueFaces.of(train, valid)
    aside = unique.part(_fold_of(rater)).held_out
    groups = dict(zip(unique.faces.digests.tolist(), unique.groups.tolist(), strict=True))
    gray = augment.as_served(aside, side=train.gray.shape[1])
    answers = rater.rate(np.repeat(gray[..., None], 3, axis=3)).answers
    closed = answers[:, :-2]
    return pl.DataFrame(
        {
            "name": aside.names,
            "digest": aside.digests,
            "group": [groups[digest] for digest in aside.digests.tolist()],
            "rater_id": [rater.rater_id] * len(aside),
            "expression": (closed / closed.sum(axis=1, keepdims=True)).astype(np.float32),
            "open_set": answers[:, -2:].astype(np.float32),
        }
    )


def _fold_of(rater: OnnxRater) -> str:
    try:
        return str(rater.card["trained_on"]["part"])
    except KeyError:
        raise SettingsError(
            f"The fold that {rater.rater_id} was trained on is unknown",
            got="a card without trained_on.part",
            hint="export it again with annotation.raters.training.export",
        ) from None


def _scatter(ratings: Ratings, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scatter answers [n, 10] and features [n, 256] to ``rows``, else NaN."""
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
    add_data_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    parser.add_argument(
        "--raters", nargs="+", default=["guide", "judge"], help="names or .onnx files"
    )
    parser.add_argument(
        "--set-aside",
        metavar="RATER",
        help="rate only the pictures that this rater set aside for its calibration",
    )
    options = parser.parse_args(arguments)
    with Progress() as bar:
        train, valid = (read_split(split, options, bar) for split in ("train", "valid"))
    if options.set_aside:
        frame = rate_set_aside(train, valid, OnnxRater(weights_of(options.set_aside)))
    else:
        frame = rate(train, valid, [OnnxRater(weights_of(name)) for name in options.raters])
    with atomic.replace_file(options.out) as draft:
        frame.write_parquet(draft)
    print(f"{frame.height} pictures rated by raters that were not trained on them")


if __name__ == "__main__":
    main()
