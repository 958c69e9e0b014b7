"""Generate and rate the benchmark's faces; parts are cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from annotation.raters import Rater, Ratings
from pipeline.synthesis.service import FaceGenerator
from synthesis.request import SWEEP_LEVELS, FaceRequest
from warehouse.ids import sha256_of
from warehouse.storage import atomic
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS, PROTOTYPES

CHUNK = 64
SWEEP_SEED, SWAP_SEED, EXPRESSION_SEED, POOL_SEED = 10_000, 20_000, 30_000, 40_000


@dataclass(frozen=True)
class Easel:
    """Generator, raters, and the cache folder of finished parts.

    Attributes:
        raters: by role: ``judge`` always, ``guide`` where both are asked.
    """

    maker: FaceGenerator
    raters: dict[str, Rater]
    cache: Path

    def kept(self, name: str, make: Callable[[], dict[str, np.ndarray]], **how: Any) -> dict:
        """Return a part's arrays, cached by network, raters and ``how``."""
        readers = sorted(rater.rater_id for rater in self.raters.values())
        said = (name, self.maker.model, self.maker.num_inference_steps, readers, how)
        path = self.cache / f"{name}-{sha256_of([repr(said).encode()])[:12]}.npz"
        if not path.exists():
            arrays = make()
            with atomic.replace_file(path) as draft, open(draft, "wb") as handle:
                np.savez(handle, **arrays)  # type: ignore[arg-type]
        with np.load(path) as stored:
            return dict(stored)

    def draw(self, orders: list[FaceRequest], *, guided: bool = False, what: str) -> np.ndarray:
        """uint8[n, s, s] at the network's own side, before any scaling up."""
        pipeline = self.maker.pipeline
        extra = {"guide": self.maker.guide} if guided else {}
        parts = [orders[start : start + CHUNK] for start in range(0, len(orders), CHUNK)]
        drawn = [
            np.asarray(
                pipeline(
                    [order.au for order in part],
                    [order.expression for order in part],
                    generator=[order.seed for order in part],
                    num_inference_steps=self.maker.num_inference_steps,
                    guidance_scale=self.maker.guidance_scale,
                    output_type="array",
                    batch_size=CHUNK,
                    **extra,
                ).images
            )
            for part in track(parts, what)
        ]
        return np.concatenate(drawn)

    def read(self, gray: np.ndarray, role: str = "judge") -> Ratings:
        """What a rater reads in uint8[n, s, s]."""
        return self.raters[role].rate(np.repeat(gray[..., None], 3, axis=3))


def sweep(easel: Easel, unit: int, *, seeds: int, labelled: bool) -> np.ndarray:
    """Return the judge's AUs [seeds, 5, K] of a sweep on the same noise.

    Args:
        labelled: ask for the expression that goes with the unit as well, as strongly as the unit.
    """
    name = _company(unit) if labelled else None

    def make() -> dict[str, np.ndarray]:
        orders = [
            FaceRequest({unit: level}, _mixed(name, level), SWEEP_SEED + seed)
            for seed in range(seeds)
            for level in SWEEP_LEVELS
        ]
        gray = easel.draw(orders, what=f"AU{unit}" + (f" with {name}" if name else ""))
        return {"au": easel.read(gray).au.reshape(seeds, len(SWEEP_LEVELS), -1)}

    return easel.kept(f"sweep-au{unit}", make, seeds=seeds, company=name)["au"]


def swapped(easel: Easel, au: np.ndarray, *, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return requested and measured AUs [pairs, 2, K] of pairs with one noise.

    Args:
        au: units of real faces [n, K] to draw requests from.
    """
    rng = np.random.default_rng(SWAP_SEED)
    known = np.flatnonzero(np.isfinite(au).any(axis=1))
    asked = au[rng.choice(known, size=(pairs, 2), replace=len(known) < 2 * pairs)]

    def make() -> dict[str, np.ndarray]:
        orders = [
            FaceRequest(possible(row), None, SWAP_SEED + at)
            for at, pair in enumerate(asked)
            for row in pair
        ]
        gray = easel.draw(orders, what="swaps")
        return {"au": easel.read(gray).au.reshape(pairs, 2, -1)}

    return asked, easel.kept("swaps", make, pairs=pairs)["au"]


def expressions(easel: Easel, *, each: int, guided: bool) -> dict[str, np.ndarray]:
    """Return ``asked`` int[n] and each rater's answers float[n, 8], no AUs."""

    def make() -> dict[str, np.ndarray]:
        orders = [
            FaceRequest({}, name, EXPRESSION_SEED + seed)
            for name in EXPRESSIONS
            for seed in range(each)
        ]
        gray = easel.draw(orders, guided=guided, what=f"expressions, guided {guided}")
        return {role: easel.read(gray, role).expression for role in easel.raters}

    asked = np.repeat(np.arange(len(EXPRESSIONS)), each)
    found = easel.kept("expressions", make, each=each, guided=guided)
    return {"asked": asked, **found}


def pool(easel: Easel, expression: np.ndarray, au: np.ndarray, *, n: int) -> dict[str, np.ndarray]:
    """Generate faces with labels of real ones: ``gray`` and ``rows``.

    Args:
        expression, au: of the real faces [m, 8] and [m, K]; rows are drawn from them in a fixed
            order, so that a larger pool begins with the smaller one.
    """
    rows = np.random.default_rng(POOL_SEED).integers(0, len(au), n)
    gray = []
    for start in range(0, n, 8 * CHUNK):
        part = range(start, min(n, start + 8 * CHUNK))

        def make(part: range = part) -> dict[str, np.ndarray]:
            orders = [
                FaceRequest(possible(au[rows[at]]), expression[rows[at]], POOL_SEED + at)
                for at in part
            ]
            return {"gray": easel.draw(orders, what=f"pool {part.start} of {n}")}

        gray.append(easel.kept("pool", make, start=part.start, stop=part.stop)["gray"])
    return {"gray": np.concatenate(gray), "rows": rows}


def possible(row: np.ndarray) -> dict[int, float]:
    """Convert a measured row to a request without contradictions."""
    au = {
        unit.number: float(np.clip(value, 0, 1))
        for unit, value in zip(ACTION_UNITS, row, strict=True)
        if np.isfinite(value)
    }
    if au.get(43, 0) > 0 and au.get(5, 0) > 0:
        au.pop(5 if au[43] >= au[5] else 43)
    return au


def _company(unit: int) -> str | None:
    """The first expression whose prototype holds the unit."""
    return next((name for name, units in PROTOTYPES.items() if unit in units), None)


def _mixed(name: str | None, level: float) -> Any:
    return None if name is None else {"neutral": 1 - level, name: level} if level else "neutral"
