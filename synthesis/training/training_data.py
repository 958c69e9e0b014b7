"""Faces to learn from, with what is believed about them; where they come from is not known here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from warehouse.errors import ModelError, TableError
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

HELD_OUT = 0.02
"""Share of the faces on which the loss is watched, never learned from."""


@dataclass(frozen=True)
class Teaching:
    """Aligned faces with soft labels and AU proxies.

    Attributes:
        gray: uint8[n, s, s].
        expression: float32[n, 8], rows sum to 1.
        au: float32[n, K] in 0..1 in the order of ``vocabulary.ACTION_UNITS``, NaN = unknown; means
            of left and right, so that a mirrored face keeps its targets.
        digest: str[n], the SHA-256 of each picture as it came.
    """

    gray: np.ndarray
    expression: np.ndarray
    au: np.ndarray
    digest: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.gray)
        wanted = {
            "expression": (n, len(EXPRESSIONS)),
            "au": (n, len(ACTION_UNITS)),
            "digest": (n,),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise TableError(
                    f"{name} of shape {shape}",
                    got=str(getattr(self, name).shape),
                    hint="mend what --faces gives",
                )
        if not n or np.abs(self.expression.sum(axis=1) - 1).max() > 1e-3:
            raise TableError(
                "faces whose expressions sum to 1",
                got="none at all" if not n else "other sums",
                hint="mend what --faces gives",
            )

    def __len__(self) -> int:
        return len(self.gray)

    def take(self, rows: np.ndarray) -> Teaching:
        """The rows of a boolean mask or an index."""
        names = ("gray", "expression", "au", "digest")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @property
    def taught(self) -> tuple[int, ...]:
        """FACS numbers of the units that any row knows."""
        known = np.isfinite(self.au).any(axis=0)
        return tuple(unit.number for unit, there in zip(ACTION_UNITS, known, strict=True) if there)


def held_out(teaching: Teaching) -> np.ndarray:
    """bool[n]: the rows set aside, chosen by the pictures' hash."""
    share = np.array([int(digest[-8:], 16) / 2**32 for digest in teaching.digest])
    return share < HELD_OUT


def resolve(name: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names.

    Raises:
        ModelError: there is no such thing.
    """
    place, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(place), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            "something named package.module:function", got=str(error), hint="mend the name"
        ) from error
