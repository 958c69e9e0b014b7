"""What a caller asked for, checked and spread over the faces that are to be drawn."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from synthesis import action_units
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    from synthesis.condition import FaceCondition

    AUs = str | Mapping[int, float]
    Expression = str | Mapping[str, float] | np.ndarray | None

MOST_FACES = 100_000


@dataclass(frozen=True)
class Request:
    """One row per face, condition by condition, the repetitions of one condition together.

    Attributes:
        au: what is asked of each face's units; units that are not named stay unknown.
        expression: a name, a distribution by name, float[8], or None for none.
        seed: of each face's noise.
        untaught: units that were asked but that the network never learned; they are left out
            of ``au``.
        repeats: faces per condition.
    """

    au: list[dict[int, float]]
    expression: list[Expression]
    seed: list[int]
    untaught: list[dict[int, float]]
    repeats: int

    def __len__(self) -> int:
        return len(self.seed)

    @classmethod
    def of(
        cls,
        au: AUs | Sequence[AUs],
        expression: Expression | Sequence[Expression] = None,
        *,
        n: int = 1,
        seed: int | Sequence[int] = 0,
        taught: Iterable[int] | None = None,
    ) -> Request:
        """Pair AUs with expressions, one condition each; one of the two may stand for all.

        Args:
            au: ``"AU12=0.8,AU6=C"`` or ``{12: 0.8}``, or a list of these.
            n: faces per condition.
            seed: of the first face of every condition, the next ones count up, so that
                conditions can be compared on the same noise; or one seed per repetition; or one
                per face.
            taught: units that the network knows; None: all.

        Raises:
            SettingsError: lengths that do not pair, an unknown or contradictory unit, a seed
                that is no whole number.
        """
        if not 1 <= n <= MOST_FACES:
            raise SettingsError(
                f"1 to {MOST_FACES} faces per condition", got=str(n), hint="give n=1 or more"
            )
        every, expressions = _paired(_listed(au), _listed(expression))
        asked = [_units(one) for one in every]
        known = None if taught is None else set(taught)
        kept = [{u: v for u, v in one.items() if known is None or u in known} for one in asked]
        left = [
            {u: v for u, v in one.items() if u not in k} for one, k in zip(asked, kept, strict=True)
        ]
        _warn(sorted({unit for one in left for unit in one}), known or set())
        return cls(
            au=[one for one in kept for _ in range(n)],
            expression=[one for one in expressions for _ in range(n)],
            seed=_seeds(seed, n=n, conditions=len(kept)),
            untaught=[one for one in left for _ in range(n)],
            repeats=n,
        )

    def __getitem__(self, rows: slice) -> Request:
        return Request(
            self.au[rows], self.expression[rows], self.seed[rows], self.untaught[rows], self.repeats
        )


def labels_of(request: Request, condition: FaceCondition) -> list[dict[str, Any]]:
    """What every face was asked to show: ``au``, ``expression``, ``untaught``, ``seed``."""
    asked = [
        None
        if null
        else {name: share for name, share in zip(EXPRESSIONS, row, strict=True) if share}
        for row, null in zip(
            condition.expression.tolist(), condition.null_expression.tolist(), strict=True
        )
    ]
    rows = zip(request.au, asked, request.untaught, request.seed, strict=True)
    return [
        {"au": dict(au), "expression": expression, "untaught": dict(untaught), "seed": seed}
        for au, expression, untaught, seed in rows
    ]


def _listed(value: Any) -> list[Any]:
    """One condition or several; eight numbers are one distribution."""
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim > 1 else [value]
    if not isinstance(value, list | tuple):
        return [value]
    numbers = len(value) == len(EXPRESSIONS) and all(isinstance(one, float) for one in value)
    return [np.array(value)] if numbers else list(value)


def _paired(au: list[Any], expression: list[Any]) -> tuple[list[Any], list[Any]]:
    sizes = {len(au), len(expression)}
    if 0 in sizes or len(sizes - {1}) > 1:
        raise SettingsError(
            "as many expressions as sets of action units, or one for all",
            got=f"{len(au)} sets of action units and {len(expression)} expressions",
            hint="give one of the two once, or both equally often",
        )
    size = max(sizes)
    return au * (size if len(au) == 1 else 1), expression * (size if len(expression) == 1 else 1)


def _units(au: AUs) -> dict[int, float]:
    if not isinstance(au, str | Mapping):
        raise SettingsError(
            "action units as {12: 0.8} or 'AU12=0.8'", got=repr(au), hint="give {} to ask for none"
        )
    return action_units.parse(au) if isinstance(au, str) else action_units.check(au)


def _seeds(seed: int | Sequence[int], *, n: int, conditions: int) -> list[int]:
    given = [_whole(one) for one in _listed(seed)]
    if len(given) == n * conditions:
        return given
    if not isinstance(seed, list | tuple):
        given = [given[0] + repetition for repetition in range(n)]
    if len(given) != n:
        raise SettingsError(
            f"one seed, {n} (one per repetition) or {n * conditions} (one per face)",
            got=f"{len(given)} seeds",
            hint="give one number and let the others count up from it",
        )
    return given * conditions


def _whole(seed: Any) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number < 2**63:
        raise SettingsError(
            "seeds that are whole numbers from 0 up", got=repr(seed), hint="give seed=0"
        )
    return number


def _warn(untaught: list[int], known: set[int]) -> None:
    if untaught:
        warnings.warn(
            f"the network never learned {', '.join(f'AU{unit}' for unit in untaught)}; left "
            f"unknown. It knows {', '.join(f'AU{unit}' for unit in sorted(known)) or 'none'}.",
            UserWarning,
            stacklevel=4,
        )
