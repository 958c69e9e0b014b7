"""How like real faces made ones are, as sets of features, and whether they are copies.

The features must come from an encoder that had no part in making the faces. The Inception network
of the usual FID says nothing about gray faces of 48 px, hence ratios of distances in another one.
"""

from __future__ import annotations

import numpy as np

from warehouse.errors import TableError

_ROWS = 1024


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two Gaussians fitted to [n, d] and [m, d] (Heusel et al., 2017).

    Raises:
        TableError: fewer than two rows, or different widths.
    """
    for rows in (a, b):
        if len(rows) < 2 or a.shape[1] != b.shape[1]:
            raise TableError(
                "two sets of at least two features of one width",
                got=f"{a.shape} and {b.shape}",
                hint="draw more faces",
            )
    one, two = (np.cov(rows.astype(np.float64), rowvar=False, ddof=1) for rows in (a, b))
    one, two = np.atleast_2d(one), np.atleast_2d(two)
    root = _root(one)
    # The trace of sqrt(one two) is that of a symmetric matrix, which has real roots only.
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ two @ root), 0, None)).sum()
    apart = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    return float(apart @ apart + np.trace(one) + np.trace(two) - 2 * shared)


def frechet_ratio(made: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """How many times further made faces are from real ones than real ones are from each other.

    All three are cut to the shortest: the bias of the distance depends on n and cancels so.
    """
    n = min(len(made), len(train), len(test))
    return frechet(made[:n], test[:n]) / frechet(train[:n], test[:n])


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared MMD with the kernel ``(x·y / d + 1)³``, without bias (Bińkowski et al., 2018).

    About 0 for two samples of one distribution; may be negative.
    """
    within = (_off_diagonal_mean(a), _off_diagonal_mean(b))
    return float(within[0] + within[1] - 2 * _kernel(a, b).mean())


def memorisation(made: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Median distance from a made face to the nearest learned one, over that of an unseen real one.

    1: no nearer to what was learned than any other face; towards 0: copies.
    """
    return float(np.median(nearest(made, train)) / np.median(nearest(test, train)))


def nearest(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float[n]: Euclidean distance of each row to the nearest of ``others``."""
    others = others.astype(np.float64)
    lengths = (others**2).sum(axis=1)
    found = []
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS].astype(np.float64)
        squares = (part**2).sum(axis=1)[:, None] + lengths - 2 * part @ others.T
        found.append(np.sqrt(np.clip(squares.min(axis=1), 0, None)))
    return np.concatenate(found)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3


def _off_diagonal_mean(rows: np.ndarray) -> float:
    table, n = _kernel(rows, rows), len(rows)
    return float((table.sum() - np.trace(table)) / (n * (n - 1)))
