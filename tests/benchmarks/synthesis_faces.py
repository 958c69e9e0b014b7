"""The real faces that the benchmark of synthesis measures against."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from annotation.raters.training import ferplus, metrics
from annotation.raters.training.dataset import build_dataset
from annotation.raters.training.targets import rescale
from pipeline.synthesis import training_data
from synthesis.training.dataset import TrainingFaces
from warehouse.storage import atomic
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS

SIDE = 48


def real_faces(
    folder: Path, cache: Path, *, kept: Path
) -> tuple[TrainingFaces, TrainingFaces, np.ndarray]:
    """Return training faces, validation faces, and the latter's labels.

    Args:
        kept: where the arrays are kept, because decoding every picture again takes minutes.
    """
    path = kept / f"real-{SIDE}.npz"
    if not path.exists():
        _keep_real_faces(folder, cache, path)
    with np.load(path) as stored:
        names = ("gray", "expression", "au", "digest")
        real, test = (
            TrainingFaces(**{name: stored[f"{part}_{name}"] for name in names})
            for part in ("real", "test")
        )
        return real, test, stored["label"]


def _keep_real_faces(folder: Path, cache: Path, path: Path) -> None:
    valid, train = (
        ferplus.prepare(folder / f"ferplus-{split}.parquet", cache=cache, find=training_data.FIND)
        for split in ("valid", "train")
    )
    dataset = build_dataset(train, valid)
    real = training_data.from_rater_dataset(dataset, side=SIDE)
    rows, label = metrics.truth(valid.votes)
    rows &= valid.found
    au = np.full((len(valid), len(AU_INDEX)), np.nan, dtype=np.float32)
    proxies = rescale(valid.units, valid.proxies, dataset.au_scale)
    au[:, [AU_INDEX[unit] for unit in dataset.au_scale]] = proxies
    votes = valid.votes[rows, : len(EXPRESSIONS)].astype(np.float32)
    test = {
        "gray": training_data.shrink(valid.gray[rows], side=SIDE),
        "expression": votes / votes.sum(axis=1, keepdims=True),
        "au": au[rows],
        "digest": valid.digests[rows],
    }
    arrays = {f"real_{name}": value for name, value in vars(real).items()}
    arrays |= {f"test_{name}": value for name, value in test.items()}
    with atomic.replace_file(path) as draft, open(draft, "wb") as handle:
        np.savez(handle, label=label[rows], **arrays)
