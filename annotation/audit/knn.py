"""Nearest neighbours by cosine, and near pairs of hashes.

One search serves every audit of the same faces: pass its ``Neighbours`` to each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from warehouse.errors import TableError

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from usearch.index import Index

EXACT = 20_000
"""Faces up to which all pairs are compared: 8 CPU-seconds and 0.8 GB at 256 features."""

_BLOCK = 1024
"""Rows of similarities in memory at once."""

_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 16, 64, 96
_QUERY_BLOCK = 16_384
"""Rows per query of the index."""

_HASH_BITS = 64


@dataclass(frozen=True)
class Neighbours:
    """The nearest faces of n faces, nearest first.

    Attributes:
        cosine: float32[n, k] in [-1, 1], descending in each row.
        row: int64[n, k], row numbers of the neighbours; on a tie the lower row is first.
    """

    cosine: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def first(self, k: int) -> Neighbours:
        """Return the nearest ``k`` of them.

        Raises:
            TableError: fewer were searched although there are more faces.
        """
        if k > self.row.shape[1] and self.row.shape[1] < len(self) - 1:
            raise TableError(
                f"There are not at least {k} neighbours of each face",
                got=f"{self.row.shape[1]}",
                hint=f"search them with k={k} or more",
            )
        return Neighbours(self.cosine[:, :k], self.row[:, :k])

    def reordered(self, order: np.ndarray) -> Neighbours:
        """Reorder the faces: row i becomes the former row ``order[i]``."""
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order))
        return Neighbours(self.cosine[order], position[self.row[order]])

    def knn_graph(self) -> csr_array:
        """Return cosine distances float64[n, n] for cleanlab's ``Datalab``.

        ``lab.find_issues(knn_graph=neighbours.knn_graph())``.
        """
        from scipy.sparse import csr_array

        n, k = self.row.shape
        distance = np.clip(1 - self.cosine.astype(np.float64), 0, 2)
        return csr_array((distance.ravel(), self.row.ravel(), np.arange(n + 1) * k), shape=(n, n))


def nearest(features: np.ndarray, *, k: int, exact: int = EXACT) -> Neighbours:
    """Find each face's ``k`` nearest others by cosine; at most n - 1.

    The HNSW index is built by one thread in the order of the rows with a fixed seed, and its
    results are scored again in float32, so equal features give equal neighbours.

    Args:
        features: float[n, d], finite; rows of zeros have similarity 0 to all others.
        exact: with more faces an HNSW index (Malkov and Yashunin, 2016, arXiv:1603.09320) is used.
            It finds nearly all; ``tests/benchmarks/results/labels.md`` has recall, time and memory.
    """
    k = min(k, max(len(features) - 1, 0))
    unit = _unit(features)
    search = _search_all if len(features) <= exact or not k else _search_index
    return search(unit, unit, k=k, exclude_self=True)


def nearest_in(bank: np.ndarray, features: np.ndarray, *, k: int, exact: int = EXACT) -> Neighbours:
    """Find the ``k`` nearest rows of ``bank`` float[m, d]; at most m.

    Exact if there are no more pairs than among ``exact`` faces.
    """
    k = min(k, len(bank))
    search = _search_all if len(bank) * len(features) <= exact * exact or not k else _search_index
    return search(_unit(bank), _unit(features), k=k, exclude_self=False)


def hamming_pairs(hashes: np.ndarray, radius: int) -> pl.DataFrame:
    """Find all pairs of 64-bit hashes within a Hamming distance.

    Only pairs that share one of ``radius + 1`` bands of bits are compared. By the pigeonhole
    principle this misses none, and the time grows with the number of hashes.

    Args:
        hashes: uint64[n], distinct.
        radius: 0 to 16 bits.

    Returns:
        ``a < b`` (positions) and ``hamming``, sorted.
    """
    edges = np.linspace(0, _HASH_BITS, radius + 2).astype(int)
    found = [pl.DataFrame(schema={"a": pl.Int64, "b": pl.Int64, "hamming": pl.Int64})]
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        # Two shifts clear the bits above and below the band.
        band = hashes << np.uint64(_HASH_BITS - high) >> np.uint64(_HASH_BITS - high + low)
        keys = pl.DataFrame({"band": band, "a": np.arange(len(hashes))})
        pairs = keys.join(keys.rename({"a": "b"}), on="band").filter(pl.col("a") < pl.col("b"))
        a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
        near = pairs.select("a", "b", hamming=pl.Series(hamming_distance(hashes[a], hashes[b])))
        found.append(near.filter(pl.col("hamming") <= radius))
    return pl.concat(found).unique().sort("a", "b")


def hamming_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Count the different bits of uint64 arrays: int64."""
    return np.bitwise_count(one ^ other).astype(np.int64)


def _search_all(bank: np.ndarray, queries: np.ndarray, *, k: int, exclude_self: bool) -> Neighbours:
    cosine = np.empty((len(queries), k), dtype=np.float32)
    neighbour = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries) if k else 0, _BLOCK):
        stop = min(start + _BLOCK, len(queries))
        near = queries[start:stop] @ bank.T
        if exclude_self:
            near[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        best = np.argpartition(near, -k, axis=1)[:, -k:]
        found = np.take_along_axis(near, best, axis=1)
        order = np.lexsort((best, -found), axis=1)
        neighbour[start:stop] = np.take_along_axis(best, order, axis=1)
        cosine[start:stop] = np.take_along_axis(found, order, axis=1)
    return Neighbours(np.clip(cosine, -1, 1), neighbour)


def _search_index(
    bank: np.ndarray, queries: np.ndarray, *, k: int, exclude_self: bool
) -> Neighbours:
    index = _build_index(bank)
    cosine = np.empty((len(queries), k), dtype=np.float32)
    neighbour = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), _QUERY_BLOCK):
        part = queries[start : start + _QUERY_BLOCK]
        keys = index.search(part, k + exclude_self, threads=1).keys.astype(np.int64)
        near = np.einsum("nd,nkd->nk", part, bank[keys])
        if exclude_self:
            # A face with many copies may not be among its own first results.
            near[keys == np.arange(start, start + len(part))[:, None]] = -np.inf
        order = np.lexsort((keys, -near), axis=1)[:, :k]
        neighbour[start : start + len(part)] = np.take_along_axis(keys, order, axis=1)
        cosine[start : start + len(part)] = np.take_along_axis(near, order, axis=1)
    return Neighbours(np.clip(cosine, -1, 1), neighbour)


def _build_index(bank: np.ndarray) -> Index:
    from usearch.index import Index

    index = Index(
        ndim=bank.shape[1],
        metric="ip",
        dtype="f16",
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION_ADD,
        expansion_search=_EXPANSION_SEARCH,
    )
    index.add(np.arange(len(bank)), bank, threads=1)
    return index


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(length > 0, length, 1)).astype(np.float32)
