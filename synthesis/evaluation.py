"""Metrics of synthetic faces: AU response, fidelity, memorisation.

Measurements come from an evaluation rater that had no part in generating the faces or training
the generator. Compared faces share their noise. Intervals are bootstrapped over noise seeds. The
encoder of the features must have had no part either. The Inception network of the usual FID is
not informative for gray faces of 48 px, hence distances in another feature space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from warehouse.errors import TableError

COUPLED = (
    (1, 2), (1, 4), (2, 5), (4, 7), (4, 9), (5, 43), (6, 7), (6, 12), (7, 43), (9, 10), (10, 16),
    (10, 25), (12, 14), (12, 25), (15, 17), (16, 25), (16, 26), (17, 28), (18, 22), (18, 28),
    (20, 25), (22, 25), (22, 26), (25, 26), (25, 27), (26, 27),
)  # fmt: skip
"""Pairs excluded from selectivity: one muscle moves both, or one proxy contains the other."""

RESPONDS, SURE = 0.3, 0.01
"""A unit is covered when its response exceeds the first with a p below the second."""

_DRAWS = 1000
_FLIPS = 9999


@dataclass(frozen=True)
class Figure:
    """A value with the 2.5 and 97.5 percentiles of the bootstrap."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Response:
    """Response of a unit to its request.

    Attributes:
        r: mean over seeds of the correlation of requested and measured within a seed.
        p: of the sign-flip test that the mean is zero.
        slope: measured per requested intensity, the size of the effect.
        pooled: correlation over all faces at once. A faint but steady effect has a high r and,
            beside the differences between faces, a low one here.
    """

    r: Figure
    p: float
    slope: float
    pooled: float


def figure(
    rows: np.ndarray,
    of: Callable[[np.ndarray], float] = lambda rows: float(rows.mean()),
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Figure:
    """Return ``of(rows)`` with a bootstrap interval over the rows.

    Args:
        rows: [n, …]; one row per independent draw (a seed, a pair, an image).
    """
    rng = np.random.default_rng(seed)
    n = len(rows)
    values = [of(rows[rng.integers(0, n, n)]) for _ in range(draws)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Figure(of(rows), float(low), float(high))


def within_seed(levels: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return Pearson's r of each row with ``levels``; 0 for constant rows.

    Args:
        levels: requested intensities [L].
        measured: [n, L], one row per noise seed.
    """
    a = levels - levels.mean()
    b = measured - measured.mean(axis=1, keepdims=True)
    length = np.sqrt((a**2).sum() * (b**2).sum(axis=1))
    # Rounding leaves a trace of variation in a constant row; that is no response.
    varies = length > 1e-9
    return np.where(varies, b @ a / np.where(varies, length, 1), 0.0)


def slope(levels: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the least-squares slope of [n, L] or [n, L, K], mean over seeds."""
    a = levels - levels.mean()
    return np.tensordot(a, measured.mean(axis=0), axes=(0, 0)) / (a**2).sum()


def response(levels: np.ndarray, measured: np.ndarray) -> Response:
    """Return the response of one unit to its sweep; see ``within_seed``."""
    r = within_seed(levels, measured)
    flat = within_seed(np.tile(levels, len(measured)), measured.reshape(1, -1))
    return Response(figure(r), sign_flip(r), float(slope(levels, measured)), float(flat[0]))


def sign_flip(values: np.ndarray, *, flips: int = _FLIPS, seed: int = 0) -> float:
    """Return the two-sided p of a mean of zero by random sign flips."""
    rng = np.random.default_rng(seed)
    signs = rng.choice((-1.0, 1.0), size=(flips, len(values)))
    # Equal sums in another order may differ in the last bit.
    beyond = np.abs(signs @ values) >= abs(values.sum()) - 1e-12
    return float((1 + beyond.sum()) / (1 + flips))


def mean_response(levels: np.ndarray, measured: np.ndarray) -> Figure:
    """Return the mean r over units, with an interval over shared seeds.

    Args:
        measured: [U, n, L]: unit u's own reading in its own sweep.
    """
    r = np.stack([within_seed(levels, unit) for unit in measured])
    return figure(r.T)


def coverage(responses: list[Response]) -> float:
    """Return the share of units that respond, however strongly."""
    return float(np.mean([one.r.value > RESPONDS and one.p < SURE for one in responses]))


def selectivity(units: list[int], slopes: np.ndarray) -> tuple[float, dict[int, float]]:
    """Compare the response of the requested unit with that of the others.

    Args:
        slopes: [U, U]: row u is the sweep of unit u, column v what unit v did in it.

    Returns:
        Mean slope on target over mean absolute slope off target; and the same by unit.
    """
    far = np.array([[a != b and not _coupled(a, b) for b in units] for a in units])
    own, off = np.diag(slopes), np.abs(slopes)
    by_unit = {
        unit: float(own[row] / max(off[row, far[row]].mean(), 1e-9))
        for row, unit in enumerate(units)
        if far[row].any()
    }
    return float(own.mean() / max(off[far].mean(), 1e-9)), by_unit


def swaps(asked: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return bool[n, 2]: faces of a pair measured nearer to their own request.

    Both faces of a pair come from the same noise; chance is one half. Units that either request
    or judge does not know do not count.

    Args:
        asked, measured: [n, 2, K]; NaN = unknown.
    """
    known = (np.isfinite(asked) & np.isfinite(measured)).all(axis=1, keepdims=True)
    a, m = np.where(known, asked, 0.0), np.where(known, measured, 0.0)
    own = ((m - a) ** 2).sum(axis=2)
    other = ((m - a[:, ::-1]) ** 2).sum(axis=2)
    return own < other


def swaps_unbiased(asked: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return bool[n]: a pair's difference has the requested direction.

    ``swaps`` penalises a rater that measures everything too low; here its bias cancels.
    """
    apart, read = asked[:, 0] - asked[:, 1], measured[:, 0] - measured[:, 1]
    return np.nansum(apart * read, axis=1) > 0


def agreement(asked: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return bool[n]: the sole first choice is the requested expression.

    Args:
        asked: int[n], position in ``vocabulary.EXPRESSIONS``.
        answers: [n, 8].
    """
    top = answers.max(axis=1, keepdims=True)
    alone = (answers == top).sum(axis=1) == 1
    return alone & (answers.argmax(axis=1) == asked)


def honesty_gap(*, guide: tuple[float, float], judge: tuple[float, float]) -> float:
    """Return the guidance rater's gain less the evaluation rater's gain.

    Args:
        guide, judge: agreement without and with guidance, each by that network.
    """
    return (guide[1] - guide[0]) - (judge[1] - judge[0])


def _coupled(a: int, b: int) -> bool:
    return (min(a, b), max(a, b)) in COUPLED


_ROWS = 1024


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Fréchet distance of Gaussians fitted to [n, d] and [m, d].

    Heusel et al., 2017.

    Raises:
        TableError: fewer than two rows, or different widths.
    """
    for rows in (a, b):
        if len(rows) < 2 or a.shape[1] != b.shape[1]:
            raise TableError(
                "The distance needs two sets of at least two features of one width",
                got=f"{a.shape} and {b.shape}",
                hint="generate more faces",
            )
    one, two = (np.cov(rows.astype(np.float64), rowvar=False, ddof=1) for rows in (a, b))
    one, two = np.atleast_2d(one), np.atleast_2d(two)
    root = _root(one)
    # The trace of sqrt(one two) is that of a symmetric matrix, which has real roots only.
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ two @ root), 0, None)).sum()
    apart = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    return float(apart @ apart + np.trace(one) + np.trace(two) - 2 * shared)


def frechet_interval(a: np.ndarray, b: np.ndarray, *, draws: int = 200, seed: int = 0) -> Figure:
    """Return the Fréchet distance with a bootstrap interval over both sets.

    The distance is biased upwards by about d²/n, so two values compare at one n only. A resample
    repeats rows, which adds the same bias once more; the interval is therefore shifted by the mean
    excess of the resamples (the basic bootstrap's correction of location).
    """
    rng = np.random.default_rng(seed)
    value = frechet(a, b)
    drawn = np.array(
        [
            frechet(a[rng.integers(0, len(a), len(a))], b[rng.integers(0, len(b), len(b))])
            for _ in range(draws)
        ]
    )
    low, high = np.quantile(drawn - drawn.mean() + value, [0.025, 0.975])
    return Figure(value, max(0.0, float(low)), float(high))


def kernel_interval(a: np.ndarray, b: np.ndarray, *, draws: int = 200, seed: int = 0) -> Figure:
    """Return the kernel distance with a bootstrap interval over both sets.

    Pairs of a row with a copy of itself are left out, so the resamples stay unbiased.
    """
    rng = np.random.default_rng(seed)
    within_a, within_b, between = _kernel(a, a), _kernel(b, b), _kernel(a, b)
    values = []
    for _ in range(draws):
        one, two = (rng.multinomial(len(x), np.full(len(x), 1 / len(x))) for x in (a, b))
        inside = sum(
            (w @ table @ w - w**2 @ np.diag(table)) / (w.sum() ** 2 - (w**2).sum())
            for w, table in ((one, within_a), (two, within_b))
        )
        values.append(inside - 2 * (one @ between @ two) / (one.sum() * two.sum()))
    low, high = np.quantile(values, [0.025, 0.975])
    return Figure(kernel_distance(a, b), float(low), float(high))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased squared MMD with kernel ``(x·y/d + 1)³`` (KID).

    Bińkowski et al., 2018.

    About 0 for two samples of one distribution; may be negative.
    """
    within = (_off_diagonal_mean(a), _off_diagonal_mean(b))
    return float(within[0] + within[1] - 2 * _kernel(a, b).mean())


def memorisation(synthetic: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Return the ratio of distances to the nearest training face.

    Median of synthetic faces over median of unseen real faces. 1: no nearer than any other face;
    towards 0: copies.
    """
    return float(np.median(nearest(synthetic, train)) / np.median(nearest(test, train)))


def nearest(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of each row to the nearest of ``others``."""
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
