"""Which pictures are near each other: pairs by hash and by feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from annotation.audit.knn import Neighbours, nearest

_BITS = 64
_NEIGHBOURS = 10


@dataclass(frozen=True)
class Graph:
    """Near pairs of n faces, each pair once.

    Attributes:
        buckets: hash number to the faces (row numbers, ascending) whose hash it is.
        bucket_of: int[n], hash number of each face; -1 without a hash.
        hash_pairs: ``a, b`` (hash numbers), ``hamming`` in 1..radius.
        face_pairs: ``a < b`` (row numbers), ``hamming`` (null without a hash), ``cosine``.
    """

    buckets: list[list[int]]
    bucket_of: np.ndarray
    hash_pairs: pl.DataFrame
    face_pairs: pl.DataFrame


def graph(
    hashes: list[int | None],
    features: np.ndarray | None,
    *,
    radius: int,
    near: Neighbours | None = None,
) -> Graph:
    """All pairs of hashes within ``radius`` bits, and each face's ten nearest features.

    Args:
        hashes: 64-bit perceptual hashes; ``None`` where there is none.
        features: float[n, d] with NaN rows for faces without one; or ``None``.
        radius: Hamming distance, 0 to 16.
        near: the neighbours of ``features`` if they are known; every row has a feature then.

    The hash side looks only at pairs that share one of ``radius + 1`` bands of bits, which by the
    pigeonhole principle misses none, and grows with the number of faces. The feature
    side is exact up to ``search.EXACT`` faces: see ``search.nearest``.
    """
    known = sorted({value for value in hashes if value is not None})
    number = {value: index for index, value in enumerate(known)}
    bucket_of = np.array([-1 if value is None else number[value] for value in hashes], dtype=int)
    buckets: list[list[int]] = [[] for _ in known]
    for face, bucket in enumerate(bucket_of.tolist()):
        if bucket >= 0:
            buckets[bucket].append(face)
    words = np.array(known, dtype=np.uint64)
    return Graph(
        buckets,
        bucket_of,
        _hash_pairs(words, radius),
        _face_pairs(features, near, words, bucket_of),
    )


def _hash_pairs(words: np.ndarray, radius: int) -> pl.DataFrame:
    edges = np.linspace(0, _BITS, radius + 2).astype(int)
    found = [pl.DataFrame(schema={"a": pl.Int64, "b": pl.Int64, "hamming": pl.Int64})]
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        # Two shifts clear the bits above the band and those below it.
        band = words << np.uint64(_BITS - high) >> np.uint64(_BITS - high + low)
        keys = pl.DataFrame({"band": band, "a": np.arange(len(words))})
        pairs = keys.join(keys.rename({"a": "b"}), on="band").filter(pl.col("a") < pl.col("b"))
        a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
        near = pairs.select("a", "b", hamming=pl.Series(_hamming(words[a], words[b])))
        found.append(near.filter(pl.col("hamming") <= radius))
    return pl.concat(found).unique().sort("a", "b")


def _face_pairs(
    features: np.ndarray | None,
    near: Neighbours | None,
    words: np.ndarray,
    bucket_of: np.ndarray,
) -> pl.DataFrame:
    schema = pl.Schema({"a": pl.Int64, "b": pl.Int64, "hamming": pl.Int64, "cosine": pl.Float64})
    rows = np.empty(0, dtype=int) if features is None else usable(features)
    if features is None or len(rows) < 2:
        return pl.DataFrame(schema=schema)
    if near is None:
        near = nearest(features[rows], k=_NEIGHBOURS)
    else:
        near, rows = near.first(_NEIGHBOURS), np.arange(len(near))
    face = np.repeat(rows, near.row.shape[1])
    other = rows[near.row.ravel()]
    a, b = np.minimum(face, other), np.maximum(face, other)
    hashed = (bucket_of[a] >= 0) & (bucket_of[b] >= 0)
    hamming = np.full(len(a), -1)
    hamming[hashed] = _hamming(words[bucket_of[a[hashed]]], words[bucket_of[b[hashed]]])
    pairs = pl.DataFrame({"a": a, "b": b, "hamming": hamming, "cosine": near.cosine.ravel()})
    pairs = pairs.with_columns(hamming=pl.when(pl.col("hamming") >= 0).then("hamming"))
    return pairs.cast(schema).unique(["a", "b"], keep="first", maintain_order=True).sort("a", "b")


def usable(features: np.ndarray) -> np.ndarray:
    """Rows that have a direction: not NaN and not all zero."""
    return np.flatnonzero(~np.isnan(features).any(axis=1) & (np.abs(features) > 0).any(axis=1))


def _hamming(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.bitwise_count(one ^ other).astype(np.int64)
