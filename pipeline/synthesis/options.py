"""What a person asks for at a shell, read and spread over the faces to draw."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.synthesis.generator import Order
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS, canonical


@dataclass(frozen=True)
class Wish:
    """What a person asks for at a shell.

    Attributes:
        au: checked action units.
        expression: a canonical name or None.
        n, seed: faces, and the seed of the first; the next ones count up.
        sweep: a unit that goes from 0 to 1 in five steps on every seed.
    """

    au: dict[int, float]
    expression: str | None
    n: int
    seed: int
    sweep: int | None = None

    @classmethod
    def of(
        cls, au: str, expression: str | None, *, n: int, seed: int, sweep: str | None = None
    ) -> Wish:
        """Read what was typed.

        Raises:
            SettingsError: an unknown unit or expression, values out of range, or nothing asked.
        """
        from synthesis import action_units

        asked = action_units.parse(au)
        swept = next(iter(action_units.parse(f"{sweep}=1"))) if sweep else None
        if not asked and expression is None and swept is None:
            raise SettingsError(
                "something to show", got="neither --au nor --expression", hint="give --au AU12=0.8"
            )
        return cls(asked, _expression(expression), n, seed, swept)

    @property
    def orders(self) -> list[Order]:
        """One per face, seed by seed."""
        from synthesis import action_units
        from synthesis.evaluation import LEVELS

        seeds = range(self.seed, self.seed + self.n)
        if self.sweep is None:
            return [Order(self.au, self.expression, seed) for seed in seeds]
        every = [action_units.check({**self.au, self.sweep: level}) for level in LEVELS]
        return [Order(au, self.expression, seed) for seed in seeds for au in every]

    @property
    def title(self) -> str:
        said = [f"AU{unit}={value:g}" for unit, value in self.au.items()]
        said += [self.expression] if self.expression else []
        said += [f"sweep AU{self.sweep}"] if self.sweep is not None else []
        return " ".join([*said, f"seed {self.seed}"])


def _expression(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        known = canonical(name)
    except KeyError:
        known = ""
    if known not in EXPRESSIONS:
        raise SettingsError(
            f"one of {', '.join(EXPRESSIONS)}", got=repr(name), hint="choose one of these"
        )
    return known
