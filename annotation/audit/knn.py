"""Who is nearest to whom by feature: exact for small sets, by an approximate index for large ones.

One search serves every audit of the same faces: pass its ``Neighbours`` on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warehouse.errors import TableError

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from usearch.index import Index

EXACT = 20_000
"""Up to so many faces all pairs are compared: 8 CPU-seconds and 0.8 GB at 256 features."""

_BLOCK = 1024
"""Rows of similarities held at once."""

_LINKS, _EFFORT_ADD, _EFFORT_SEARCH = 16, 64, 96
_ASKED = 16_384
"""Rows that the index is asked for at once."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest faces of n faces, nearest first.

    Attributes:
        cosine: float32[n, k] in [-1, 1], falling along each row.
        row: int64[n, k], who that is; of equally near ones the lower row first.
    """

    cosine: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def first(self, k: int) -> Neighbours:
        """The nearest ``k`` of them.

        Raises:
            TableError: fewer were looked for, though there are more faces.
        """
        if k > self.row.shape[1] and self.row.shape[1] < len(self) - 1:
            raise TableError(
                f"at least {k} neighbours of each face",
                got=f"{self.row.shape[1]}",
                hint=f"search them with k={k} or more",
            )
        return Neighbours(self.cosine[:, :k], self.row[:, :k])

    def reordered(self, order: np.ndarray) -> Neighbours:
        """The same of the same faces in another order: row i is now what row ``order[i]`` was."""
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        return Neighbours(self.cosine[order], place[self.row[order]])

    def knn_graph(self) -> csr_array:
        """Cosine distances float64[n, n] in the form that cleanlab's ``Datalab`` asks for:
        ``lab.find_issues(knn_graph=found.knn_graph())``."""
        from scipy.sparse import csr_array

        n, k = self.row.shape
        distance = np.clip(1 - self.cosine.astype(np.float64), 0, 2)
        return csr_array((distance.ravel(), self.row.ravel(), np.arange(n + 1) * k), shape=(n, n))


def nearest(features: np.ndarray, *, k: int, exact: int = EXACT) -> Neighbours:
    """Each face's nearest others by cosine; ``k`` shrinks to n - 1.

    Args:
        features: float[n, d], finite; rows of zeros are at similarity 0 to every other.
        exact: above so many faces an HNSW graph (Malkov and Yashunin, 2016, arXiv:1603.09320) is
            asked, which finds nearly all: recall, time and memory by size stand in
            ``tests/benchmarks/results/labels.md``.

    The graph is built by one thread in the order of the rows from fixed dice, and its answers are
    scored again in float32: the same features give the same neighbours.
    """
    k = min(k, max(len(features) - 1, 0))
    known = _unit(features)
    if len(features) <= exact or not k:
        return _exact(known, known, k=k, itself=False)
    return _approximate(known, known, k=k, itself=False)


def nearest_in(bank: np.ndarray, features: np.ndarray, *, k: int, exact: int = EXACT) -> Neighbours:
    """``nearest`` among other faces, float[m, d]; ``k`` shrinks to m.

    Exact while the pairs are no more than those of ``exact`` faces.
    """
    k = min(k, len(bank))
    known, asked = _unit(bank), _unit(features)
    if len(bank) * len(features) <= exact * exact or not k:
        return _exact(known, asked, k=k, itself=True)
    return _approximate(known, asked, k=k, itself=True)


def _exact(known: np.ndarray, asked: np.ndarray, *, k: int, itself: bool) -> Neighbours:
    cosine = np.empty((len(asked), k), dtype=np.float32)
    neighbour = np.empty((len(asked), k), dtype=np.int64)
    for start in range(0, len(asked) if k else 0, _BLOCK):
        stop = min(start + _BLOCK, len(asked))
        near = asked[start:stop] @ known.T
        if not itself:
            near[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        best = np.argpartition(near, -k, axis=1)[:, -k:]
        found = np.take_along_axis(near, best, axis=1)
        order = np.lexsort((best, -found), axis=1)
        neighbour[start:stop] = np.take_along_axis(best, order, axis=1)
        cosine[start:stop] = np.take_along_axis(found, order, axis=1)
    return Neighbours(np.clip(cosine, -1, 1), neighbour)


def _approximate(known: np.ndarray, asked: np.ndarray, *, k: int, itself: bool) -> Neighbours:
    index = _index(known)
    cosine = np.empty((len(asked), k), dtype=np.float32)
    neighbour = np.empty((len(asked), k), dtype=np.int64)
    for start in range(0, len(asked), _ASKED):
        part = asked[start : start + _ASKED]
        keys = index.search(part, k if itself else k + 1, threads=1).keys.astype(np.int64)
        near = np.einsum("nd,nkd->nk", part, known[keys])
        if not itself:
            # Whoever has many copies may not find itself among the first of them.
            near[keys == np.arange(start, start + len(part))[:, None]] = -np.inf
        order = np.lexsort((keys, -near), axis=1)[:, :k]
        neighbour[start : start + len(part)] = np.take_along_axis(keys, order, axis=1)
        cosine[start : start + len(part)] = np.take_along_axis(near, order, axis=1)
    return Neighbours(np.clip(cosine, -1, 1), neighbour)


def _index(known: np.ndarray) -> Index:
    from usearch.index import Index

    index = Index(
        ndim=known.shape[1],
        metric="ip",
        dtype="f16",
        connectivity=_LINKS,
        expansion_add=_EFFORT_ADD,
        expansion_search=_EFFORT_SEARCH,
    )
    index.add(np.arange(len(known)), known, threads=1)
    return index


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(length > 0, length, 1)).astype(np.float32)
