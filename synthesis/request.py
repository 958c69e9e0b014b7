"""Requests for faces: action units, expression and seed."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from warehouse.errors import SettingsError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX, EXPRESSIONS, INTENSITY, canonical

AUs = str | Mapping[int, float]
Expression = str | Mapping[str, float] | np.ndarray | None

MOST_FACES = 100_000

GUIDANCE_SCALE, GUIDANCE_START, GUIDANCE_END = 1.25, 0.0, 1.0
"""Default scale of classifier-free guidance and the share of the steps in which it acts.

Provisional: between the two best of five scales that were measured with the weights.
``tests/benchmarks/guidance.py``, which sweeps them on set-aside faces, has not been run."""

CONTRADICTIONS = ((26, 27), (43, 5))
"""Pairs that one face cannot show at once: FACS scores a dropped or a stretched jaw, and a closed
eye has no raised lid."""

SWEEP_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Intensities of a sweep over one action unit."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class FaceRequest:
    """One face to generate.

    Attributes:
        au: FACS number to intensity in 0..1; 0 requests absence. Units not named stay unknown.
        expression: a name, a distribution by name, float[8], or None for no expression.
        seed: of the face's noise.
    """

    au: dict[int, float]
    expression: Expression = None
    seed: int = 0

    @classmethod
    def parse(cls, au: str, expression: str | None = None, *, seed: int = 0) -> FaceRequest:
        """Read a request from text such as ``AU12=0.8,AU6=C`` and ``happy``.

        Raises:
            SettingsError: an unknown unit or expression, or a value out of range.
        """
        name = None if expression is None else EXPRESSIONS[expression_index(expression)]
        return cls(parse_action_units(au), name, seed)

    def supported(self, units: Iterable[int]) -> tuple[FaceRequest, dict[int, float]]:
        """Split off the units that are not in ``units``."""
        known = set(units)
        inside = {unit: value for unit, value in self.au.items() if unit in known}
        return replace(self, au=inside), {u: v for u, v in self.au.items() if u not in known}


def face_requests(
    au: AUs | Sequence[AUs],
    expression: Expression | Sequence[Expression] = None,
    *,
    n: int = 1,
    seed: int | Sequence[int] = 0,
) -> list[FaceRequest]:
    """Pair action units with expressions and repeat each pair ``n`` times.

    Args:
        au: ``"AU12=0.8,AU6=C"`` or ``{12: 0.8}``, or a list of these.
        expression: one for all conditions, or one per condition; see ``FaceRequest``.
        n: faces per condition; the faces of one condition are adjacent.
        seed: seed of the first face of every condition; the others count up, so conditions can
            be compared on the same noise. Or one seed per repetition, or one per face.

    Raises:
        SettingsError: lengths that do not pair, an unknown or contradictory unit, or a seed that
            is no whole number.
    """
    if not 1 <= n <= MOST_FACES:
        raise SettingsError(
            f"The number of faces per condition is not in 1 to {MOST_FACES}",
            got=str(n),
            hint="give 1 or more",
        )
    aus, expressions = _paired(_as_list(au), _as_list(expression))
    checked = [_checked(one) for one in aus]
    conditions = [
        (units, one) for units, one in zip(checked, expressions, strict=True) for _ in range(n)
    ]
    seeds = _seeds(seed, n=n, conditions=len(checked))
    return [
        FaceRequest(units, one, number)
        for (units, one), number in zip(conditions, seeds, strict=True)
    ]


def sweep_requests(request: FaceRequest, n: int, sweep: int | None = None) -> list[FaceRequest]:
    """Repeat a request on ``n`` seeds that count up from its own.

    Args:
        sweep: an action unit that runs through ``SWEEP_LEVELS`` on every seed.

    Raises:
        SettingsError: ``sweep`` contradicts another unit of the request.
    """
    levels = [request.au]
    if sweep is not None:
        levels = [check_action_units({**request.au, sweep: level}) for level in SWEEP_LEVELS]
    seeds = range(request.seed, request.seed + n)
    return [replace(request, au=au, seed=seed) for seed in seeds for au in levels]


def parse_action_units(text: str) -> dict[int, float]:
    """Read ``AU12=0.8, AU6=C`` as ``{12: 0.8, 6: 0.5}``.

    Raises:
        SettingsError: a part cannot be read, a unit is repeated, or ``check_action_units`` fails.
    """
    found: dict[int, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        unit = name.upper().removeprefix("AU")
        if not equals or not unit.isdecimal():
            raise SettingsError(
                "An action unit cannot be read",
                got=repr(part),
                hint="write UNIT=INTENSITY, such as AU12=0.8,AU6=C",
            )
        if int(unit) in found:
            raise SettingsError(f"AU{unit} is given twice", got=repr(text), hint="remove one")
        found[int(unit)] = _intensity(value, unit=int(unit))
    return check_action_units(found)


def check_action_units(au: Mapping[int, float]) -> dict[int, float]:
    """Return the units with plain floats.

    Args:
        au: FACS number to intensity in 0..1; 0 requests the unit's absence.

    Raises:
        SettingsError: an unknown unit, an intensity out of range, or two units that contradict
            each other.
    """
    for unit, value in au.items():
        if unit not in AU_INDEX:
            known = ", ".join(each.code for each in ACTION_UNITS)
            raise SettingsError(
                "The action unit is unknown", got=f"AU{unit}", hint=f"choose from {known}"
            )
        if isinstance(value, bool) or not _in_unit_interval(value):
            raise SettingsError(
                f"The intensity of AU{unit} is not in 0..1 or A-E", got=repr(value), hint="rescale"
            )
    for one, other in CONTRADICTIONS:
        if au.get(one, 0) > 0 and au.get(other, 0) > 0:
            raise SettingsError(
                "Two action units contradict each other",
                got=f"AU{one} and AU{other}",
                hint="no face shows both; leave one out",
            )
    return {int(unit): float(value) for unit, value in au.items()}


def au_vector(au: Mapping[int, float]) -> np.ndarray:
    """Return float32[K] in ``ACTION_UNITS`` order; NaN = unknown, 0 = absent.

    Raises:
        SettingsError: see ``check_action_units``.
    """
    row = np.full(len(ACTION_UNITS), np.nan, dtype=np.float32)
    for unit, value in check_action_units(au).items():
        row[AU_INDEX[unit]] = value
    return row


def expression_vector(expression: Expression) -> np.ndarray | None:
    """Return float32[8] that sums to 1, or None if no expression is requested.

    Raises:
        SettingsError: an unknown name, or no distribution.
    """
    if expression is None:
        return None
    row = np.zeros(len(EXPRESSIONS), dtype=np.float32)
    if isinstance(expression, str):
        row[expression_index(expression)] = 1
        return row
    if isinstance(expression, Mapping):
        for name, share in expression.items():
            row[expression_index(name)] += share
    else:
        row = np.asarray(expression, dtype=np.float32)
    if (
        row.shape != (len(EXPRESSIONS),)
        or not (row >= 0).all()
        or abs(row.sum() - 1) > _SUM_TOLERANCE
    ):
        raise SettingsError(
            "The distribution over the eight expressions does not sum to 1",
            got=f"{row.tolist()}",
            hint="divide it by its sum",
        )
    return row / row.sum()


def expression_index(name: str) -> int:
    """Return the position of an expression, by name or synonym.

    Raises:
        SettingsError: the name is unknown.
    """
    try:
        return EXPRESSIONS.index(canonical(name))
    except (KeyError, ValueError) as error:
        raise SettingsError(
            "The expression is unknown",
            got=repr(name),
            hint=f"choose one of {', '.join(EXPRESSIONS)}",
        ) from error


def _as_list(value: Any) -> list[Any]:
    """Return conditions as a list; eight floats are one distribution."""
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
            "Action units and expressions do not pair",
            got=f"{len(au)} sets of action units and {len(expression)} expressions",
            hint="give one of the two once, or both equally often",
        )
    size = max(sizes)
    return au * (size if len(au) == 1 else 1), expression * (size if len(expression) == 1 else 1)


def _checked(au: AUs) -> dict[int, float]:
    if not isinstance(au, str | Mapping):
        raise SettingsError(
            "Action units are neither {12: 0.8} nor 'AU12=0.8'",
            got=repr(au),
            hint="give {} to request none",
        )
    return parse_action_units(au) if isinstance(au, str) else check_action_units(au)


def _seeds(seed: int | Sequence[int], *, n: int, conditions: int) -> list[int]:
    given = [_checked_seed(one) for one in _as_list(seed)]
    if len(given) == n * conditions:
        return given
    if not isinstance(seed, list | tuple):
        given = [given[0] + repetition for repetition in range(n)]
    if len(given) != n:
        raise SettingsError(
            f"The number of seeds is not 1, {n} (one per repetition) or {n * conditions} "
            "(one per face)",
            got=f"{len(given)} seeds",
            hint="give one seed; the others count up from it",
        )
    return given * conditions


def _checked_seed(seed: Any) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number < 2**63:
        raise SettingsError("A seed is not a whole number from 0 up", got=repr(seed), hint="give 0")
    return number


def _in_unit_interval(value: object) -> bool:
    try:
        return 0 <= float(value) <= 1  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _intensity(text: str, *, unit: int) -> float:
    if text.upper() in INTENSITY:
        return INTENSITY[text.upper()]
    try:
        return float(text)
    except ValueError as error:
        raise SettingsError(
            f"The intensity of AU{unit} is not in 0..1 or A-E",
            got=repr(text),
            hint="write AU12=0.8",
        ) from error
