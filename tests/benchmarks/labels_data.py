"""FER+ for the label benchmarks: votes, labels, features, duplicates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from annotation.raters import load
from annotation.raters.onnx_rater import OnnxRater
from annotation.raters.training import ferplus, out_of_sample
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS, canonical

VOTES = (*EXPRESSIONS, "unknown", "NF")
RESAMPLES = 500


@dataclass(frozen=True)
class Split:
    """One file of FER+.

    Attributes:
        votes: int[n, 10] in the order of ``vocabulary.ANSWERS``.
        label: int[n], the expression FER2013 says; -1 where it is not known.
        features: float32[n, d]: histograms of gradients and blendshapes. Neither learned from
            these labels or votes.
        groups: str[n], near duplicates share one, over both files.
        gray: uint8[n, 48, 48].
    """

    votes: np.ndarray
    label: np.ndarray
    features: np.ndarray
    groups: np.ndarray
    gray: np.ndarray

    def __len__(self) -> int:
        return len(self.votes)

    def take(self, rows: np.ndarray) -> Split:
        return Split(*(getattr(self, name)[rows] for name in vars(self)))

    @property
    def majority(self) -> np.ndarray:
        """bool[n]: one expression has more than half of the votes."""
        return 2 * self.votes[:, : len(EXPRESSIONS)].max(axis=1) > self.votes.sum(axis=1)

    @property
    def plurality(self) -> np.ndarray:
        """int[n]: the most voted expression; the first of several."""
        return self.votes[:, : len(EXPRESSIONS)].argmax(axis=1)


@dataclass(frozen=True)
class SetAside:
    """Faces with votes and a machine rater's answers.

    Attributes:
        votes: int[n, 10] in the order of ``vocabulary.ANSWERS``.
        groups: str[n], near duplicates share one.
        answers: float32[n, 10] by a rater that was not trained on the faces.
    """

    votes: np.ndarray
    groups: np.ndarray
    answers: np.ndarray

    def take(self, rows: np.ndarray) -> SetAside:
        return SetAside(self.votes[rows], self.groups[rows], self.answers[rows])

    def shares(self) -> np.ndarray:
        """Answers as distributions, float64[n, 10]."""
        answers = self.answers.astype(float)
        return answers / answers.sum(axis=1, keepdims=True)

    def ratings(self) -> pl.DataFrame:
        """Rows of the table ``ratings``; ids are six digits."""
        shares, schema = self.shares(), TABLES["ratings"].schema
        return pl.DataFrame(
            {
                "face_id": [f"{row:06d}" for row in range(len(shares))],
                "expression": shares[:, :8] / shares[:, :8].sum(axis=1, keepdims=True),
                "open_set": shares[:, 8:],
            },
            schema={name: schema[name] for name in ("face_id", "expression", "open_set")},
        )


def set_aside(folder: Path, cache: Path, *, aligned: Path, rater: str) -> SetAside:
    """Read the training faces that a packaged rater set aside, rated by it."""
    chosen = load(rater)
    assert isinstance(chosen, OnnxRater)
    path = cache / f"labels-set-aside-{chosen.rater_id}.parquet"
    if not path.exists():
        train, valid = (
            ferplus.prepare(
                folder / f"ferplus-{name}.parquet", cache=aligned, find="pipeline.faces:find"
            )
            for name in ("train", "valid")
        )
        out_of_sample.rate_set_aside(train, valid, chosen).write_parquet(path)
    votes = pl.read_parquet(folder / "ferplus-train.parquet", columns=["name", *VOTES])
    rated = pl.read_parquet(path).join(votes, on="name", maintain_order="left")
    closed, opened = (np.array(rated[name].to_list()) for name in ("expression", "open_set"))
    closed = closed * (1 - opened.sum(axis=1, keepdims=True))
    return SetAside(
        rated.select(VOTES).to_numpy().astype(int),
        rated["group"].to_numpy(),
        np.hstack([closed, opened]),
    )


def read(
    folder: Path, cache: Path, *, limit: int | None = None, aligned: Path | None = None
) -> tuple[Split, Split]:
    """Read train and valid without duplicates within or between them.

    Args:
        limit: the first so many rows of train and an eighth as many of valid; all by default.
        aligned: the cache of ``annotation.raters.training.train``; then gradients are taken from
            aligned faces, as the pipeline would have them, else from the pictures as they are.
    """
    frames = [
        pl.read_parquet(folder / f"ferplus-{name}.parquet", n_rows=rows)
        for name, rows in (("train", limit), ("valid", limit and limit // 8))
    ]
    both, n = pl.concat(frames), len(frames[0])
    gray = np.stack([ferplus.decode(image) for image in both["image"]])
    name = f"labels-features-{'aligned' if aligned else 'raw'}-{limit or 'all'}.npz"

    def describe() -> tuple[np.ndarray, np.ndarray]:
        return _described(gray, both, _aligned(folder, aligned, limit) if aligned else gray)

    groups, features = _cached(cache / name, describe)
    label = [_label(name) for name in both["fer2013_label"]]
    whole = Split(
        both.select(VOTES).to_numpy().astype(int), np.array(label), features, groups, gray
    )
    _, first = np.unique(gray.reshape(len(gray), -1), axis=0, return_index=True)
    once = np.zeros(len(whole), dtype=bool)
    once[first] = True
    train = once & (np.arange(len(whole)) < n)
    valid = once & ~train & ~np.isin(groups, groups[:n])
    valid &= np.arange(len(whole)) >= n
    return whole.take(np.flatnonzero(train)), whole.take(np.flatnonzero(valid))


def machine(valid: Split, cache: Path, *, rater: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Return rater id, its answers float32[n, 10] and whether a face is found."""
    from tests.benchmarks.ferplus import crops_of

    chosen = load(rater)
    assert isinstance(chosen, OnnxRater)

    def rate() -> tuple[np.ndarray, np.ndarray]:
        crops, found = crops_of(_as_parquet(valid.gray, cache))
        return chosen.rate(crops).answers, found

    answers, found = _cached(cache / f"labels-{chosen.rater_id}-{len(valid)}.npz", rate)
    return chosen.rater_id, answers, found


def rater_features(folder: Path, cache: Path, *, aligned: Path, rater: str) -> np.ndarray:
    """Compute a packaged rater's features float32[n, 256] of both files."""
    chosen = load(rater)
    assert isinstance(chosen, OnnxRater)

    def rate() -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for name in ("train", "valid"):
            path = folder / f"ferplus-{name}.parquet"
            gray = ferplus.prepare(path, cache=aligned, find="pipeline.faces:find", workers=2).gray
            for start in range(0, len(gray), 256):
                faces = np.repeat(gray[start : start + 256, :, :, None], 3, axis=3)
                parts.append(chosen.rate(faces).feature.astype(np.float32))
        return np.concatenate(parts), np.empty(0)

    return _cached(cache / f"labels-features-of-{chosen.rater_id}.npz", rate)[0]


def interval(
    groups: np.ndarray, of: Callable[[np.ndarray], float], *, resamples: int = RESAMPLES
) -> dict[str, float]:
    """Bootstrap a metric over groups: value, 2.5 and 97.5 percentiles."""
    _, number = np.unique(groups, return_inverse=True)
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(number.max() + 2))
    rng, values = np.random.default_rng(0), []
    for _ in range(resamples):
        drawn = rng.integers(0, len(starts) - 1, len(starts) - 1)
        parts = [order[starts[one] : starts[one + 1]] for one in drawn]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.append(of(np.concatenate(parts)))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {"value": of(np.arange(len(groups))), "low": float(low), "high": float(high)}


def _label(name: str | None) -> int:
    return EXPRESSIONS.index(canonical(name)) if name else -1


def _aligned(folder: Path, cache: Path, limit: int | None) -> np.ndarray:
    import cv2

    parts = []
    for name, rows in (("train", limit), ("valid", limit and limit // 8)):
        path = folder / f"ferplus-{name}.parquet"
        found = ferplus.prepare(path, cache=cache, find="pipeline.faces:find", workers=2)
        parts.append(found.gray[:rows])
    return np.stack([cv2.resize(one, (64, 64), interpolation=cv2.INTER_AREA)
                     for one in np.concatenate(parts)])  # fmt: skip


def _described(
    gray: np.ndarray, frame: pl.DataFrame, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA

    raw = _gradients(faces, cell=faces.shape[1] // 8)
    fewer = PCA(200, svd_solver="randomized", random_state=0).fit(raw[::8])
    shapes = np.array([row or [np.nan] * 52 for row in frame["blendshapes"].to_list()])
    shapes = (shapes - np.nanmean(shapes, axis=0)) / (np.nanstd(shapes, axis=0) + 1e-3)
    reduced = fewer.transform(raw)
    # One unit of spread for each part on average, or the gradients would drown the shapes.
    return _groups(gray), np.hstack(
        [np.nan_to_num(shapes), reduced / reduced.std(axis=0).mean()]
    ).astype(np.float32)


def _gradients(gray: np.ndarray, *, cell: int, bins: int = 9) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, 2005)."""
    image = gray.astype(np.float32)
    across, down = np.zeros_like(image), np.zeros_like(image)
    across[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    down[:, 1:-1] = image[:, 2:] - image[:, :-2]
    strength = np.hypot(across, down)
    angle = np.mod(np.arctan2(down, across), np.pi) / np.pi * bins
    low = np.floor(angle).astype(np.int16)
    part = angle - low
    side = gray.shape[1] // cell
    cells = np.zeros((len(gray), side, side, bins), np.float32)
    for number in range(bins):
        share = strength * (
            (low % bins == number) * (1 - part) + ((low + 1) % bins == number) * part
        )
        cells[..., number] = share.reshape(len(gray), side, cell, side, cell).sum(axis=(2, 4))
    blocks = [cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]]
    joined = np.concatenate(blocks, axis=-1)
    joined /= np.linalg.norm(joined, axis=-1, keepdims=True) + 1e-3 * cell * cell
    return joined.reshape(len(gray), -1)


def _groups(gray: np.ndarray) -> np.ndarray:
    import imagehash
    from PIL import Image

    from annotation.audit.near_duplicates import NearDuplicates

    hashes = [str(imagehash.phash(Image.fromarray(picture))) for picture in gray]
    ids = [f"{row:06d}" for row in range(len(gray))]
    chains = NearDuplicates().find(faces=pl.DataFrame({"face_id": ids, "phash": hashes}))
    member = chains.statistics["groups"]
    return np.array([member.get(name, name) for name in ids])


def _as_parquet(gray: np.ndarray, cache: Path) -> Path:
    import cv2

    path = cache / "labels-valid.parquet"
    images = [cv2.imencode(".png", picture)[1].tobytes() for picture in gray]
    pl.DataFrame({"image": images}).write_parquet(path)
    return path


def _cached(
    path: Path, make: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        first, second = make()
        np.savez(path, first=first, second=second)
    kept = np.load(path)
    return kept["first"], kept["second"]
