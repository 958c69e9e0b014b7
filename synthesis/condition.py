"""What a face should show, as the tokens and the vector that the denoising network reads.

Every action unit has a token of its own. With one token for all of them, softmax over a sequence
of length one is 1 everywhere and attention could not tell the mouth from the brow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from synthesis import action_units
from warehouse.errors import ModelError, SettingsError
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS, canonical

_STATES = 3
_VALUE, _UNKNOWN, _NULL = range(_STATES)
_SUMS_TO_ONE = 1e-3


@dataclass(frozen=True)
class FaceCondition:
    """What n faces should show.

    Attributes:
        expression: float32[n, 8], a distribution over ``vocabulary.EXPRESSIONS`` per row; zeros
            where ``null_expression``.
        au: float32[n, K] in 0..1; 0 = absent, NaN = unknown.
        null_expression, null_au: bool[n], where guidance says nothing at all.
    """

    expression: Tensor
    au: Tensor
    null_expression: Tensor
    null_au: Tensor

    def __len__(self) -> int:
        return len(self.au)

    @classmethod
    def of(
        cls,
        au: Sequence[Mapping[int, float]],
        expression: Sequence[str | Mapping[str, float] | np.ndarray | None],
    ) -> FaceCondition:
        """From one dict of action units and one expression per face.

        A face without an expression, or without any action unit, has the null state there.

        Args:
            au: FACS number to intensity; what is missing is unknown.
            expression: a name, a distribution by name, a float[8], or None.

        Raises:
            SettingsError: lists of different lengths, unknown names, values out of range.
        """
        if len(au) != len(expression):
            raise SettingsError(
                f"{len(au)} expressions, one per AU request",
                got=str(len(expression)),
                hint="repeat None where no expression is asked",
            )
        width = len(ACTION_UNITS)
        values = np.array([action_units.vector(row) for row in au], dtype=np.float32)
        rows = [_distribution(row) for row in expression]
        filled = [np.zeros(len(EXPRESSIONS)) if row is None else row for row in rows]
        return cls(
            expression=torch.from_numpy(
                np.array(filled, dtype=np.float32).reshape(-1, len(EXPRESSIONS))
            ),
            au=torch.from_numpy(values.reshape(-1, width)),
            null_expression=torch.tensor([row is None for row in rows], dtype=torch.bool),
            null_au=torch.tensor([not row for row in au], dtype=torch.bool),
        )

    def without(self, *, expression: bool = True, au: bool = True) -> FaceCondition:
        """The same faces with nothing said about expression, action units, or both."""
        changed: dict[str, Tensor] = {}
        if expression:
            changed["expression"] = torch.zeros_like(self.expression)
            changed["null_expression"] = torch.ones_like(self.null_expression)
        if au:
            changed["au"] = torch.full_like(self.au, float("nan"))
            changed["null_au"] = torch.ones_like(self.null_au)
        return replace(self, **changed)

    def to(self, device: torch.device | str) -> FaceCondition:
        return FaceCondition(
            expression=self.expression.to(device),
            au=self.au.to(device),
            null_expression=self.null_expression.to(device),
            null_au=self.null_au.to(device),
        )


class AUConditioner(ModelMixin, ConfigMixin):
    """One token for the expression, one per action unit, and one vector of everything.

    A unit's token is ``state + value * direction + mlp(value, value²)`` where it has a value, and
    another learned state where it is unknown or null. The vector goes to the network's class
    embedding: strength by a global way, place by attention.

    Args:
        units: FACS numbers of the K tokens, in the order of ``vocabulary.ACTION_UNITS``.
        taught: those with a signal in training; the others are unknown to the network whatever
            is asked.
        width: of a token.
    """

    config: Any
    config_name = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(
        self,
        units: tuple[int, ...] = tuple(unit.number for unit in ACTION_UNITS),
        taught: tuple[int, ...] = tuple(unit.number for unit in ACTION_UNITS),
        width: int = 64,
    ) -> None:
        super().__init__()
        if tuple(units) != tuple(unit.number for unit in ACTION_UNITS):
            raise ModelError(
                f"the {len(ACTION_UNITS)} action units of this version",
                got=f"{len(units)} others",
                hint="use weights of this version",
            )
        scale = width**-0.5
        self.states = nn.Parameter(torch.randn(_STATES, len(units), width) * scale)
        self.direction = nn.Parameter(torch.randn(len(units), width) * scale)
        self.curve = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width))
        self.expression = nn.Linear(len(EXPRESSIONS), width)
        self.no_expression = nn.Parameter(torch.randn(width) * scale)
        self.norm = nn.LayerNorm(width)
        learned = torch.tensor([unit in taught for unit in units])
        self.register_buffer("learned", learned, persistent=False)

    @property
    def pooled_width(self) -> int:
        """Of the vector that goes to the class embedding."""
        return 2 * len(self.config.units) + len(EXPRESSIONS) + 2

    def forward(
        self, condition: FaceCondition, expression_token: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens float[n, K + 1, width], the expression's first, and float[n, pooled_width].

        Args:
            expression_token: float[n, width] in place of the expression's token, for guidance.
        """
        known = torch.isfinite(condition.au) & self.learned & ~condition.null_au[:, None]
        value = torch.where(known, condition.au, 0.0)
        shares = torch.where(condition.null_expression[:, None], 0.0, condition.expression)
        if expression_token is None:
            expression_token = self._expression_token(shares, condition.null_expression)
        tokens = torch.cat(
            [expression_token[:, None], self._unit_tokens(value, known, condition.null_au)], dim=1
        )
        flags = torch.stack([condition.null_expression, condition.null_au], dim=1)
        pooled = torch.cat([value, known.to(value), shares, flags.to(value)], dim=1)
        return tokens, pooled

    def _expression_token(self, shares: Tensor, null: Tensor) -> Tensor:
        said = self.expression(shares)
        return self.norm(torch.where(null[:, None], self.no_expression, said))

    def _unit_tokens(self, value: Tensor, known: Tensor, null: Tensor) -> Tensor:
        state = torch.full(known.shape, _UNKNOWN, device=value.device)
        state = torch.where(known, _VALUE, state)
        state = torch.where(null[:, None], _NULL, state)
        which = torch.arange(known.shape[1], device=value.device)
        amount = value[..., None]
        curved = self.curve(torch.cat([amount, amount.square()], dim=-1))
        told = amount * self.direction + curved
        return self.norm(self.states[state, which] + torch.where(known[..., None], told, 0.0))


def _distribution(asked: Any) -> np.ndarray | None:
    """float32[8] that sums to 1, from any of the forms of ``Condition.of``."""
    if asked is None:
        return None
    row = np.zeros(len(EXPRESSIONS), dtype=np.float32)
    if isinstance(asked, str):
        row[_place(asked)] = 1
        return row
    if isinstance(asked, Mapping):
        for name, share in asked.items():
            row[_place(name)] += share
    else:
        row = np.asarray(asked, dtype=np.float32)
    if (
        row.shape != (len(EXPRESSIONS),)
        or not (row >= 0).all()
        or abs(row.sum() - 1) > _SUMS_TO_ONE
    ):
        raise SettingsError(
            "a distribution over the eight expressions that sums to 1",
            got=f"{row.tolist()}",
            hint="divide it by its sum",
        )
    return row / row.sum()


def _place(name: str) -> int:
    try:
        known = canonical(name)
        return EXPRESSIONS.index(known)
    except (KeyError, ValueError) as error:
        raise SettingsError(
            f"one of {', '.join(EXPRESSIONS)}", got=repr(name), hint="choose one of these"
        ) from error


TEMPLATE = "a close-up photo of a face"
"""What is said of every face; training and drawing must say the same."""

MENTIONED = 0.2
"""Share from which an expression is named."""


def prompt_for(shares: Tensor, *, asked: bool = True) -> str:
    """A prompt for one expression distribution float[8], its strongest expression first."""
    if not asked:
        return TEMPLATE
    ranked = sorted(zip(shares.tolist(), EXPRESSIONS, strict=True), key=lambda pair: -pair[0])
    named = [name for share, name in ranked if share >= MENTIONED]
    return f"{TEMPLATE} showing {' and '.join(named)}" if named else TEMPLATE


def prompts_for(
    given: str | Sequence[str] | None, shares: Tensor, asked: Tensor, *, repeats: int
) -> list[str]:
    """One prompt per face: as given for all, per condition or per face, else from the expression.

    Args:
        shares: float[n, 8]; ``asked`` bool[n], whether an expression was asked at all.

    Raises:
        SettingsError: as many prompts as fit nothing.
    """
    n = len(shares)
    if given is None:
        return [
            prompt_for(row, asked=bool(one))
            for row, one in zip(shares.cpu(), asked.cpu(), strict=True)
        ]
    if isinstance(given, str):
        return [given] * n
    if len(given) == n:
        return list(given)
    if len(given) * repeats != n:
        raise SettingsError(
            f"one prompt, {n // repeats} (one per condition) or {n} (one per face)",
            got=str(len(given)),
            hint="give one prompt for all",
        )
    return [one for one in given for _ in range(repeats)]


def encode_prompts(prompts: Sequence[str], tokenizer: Any, text_encoder: Any) -> Tensor:
    """float[n, L, w], what Stable Diffusion reads: the encoder's last hidden state."""
    words = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    device = next(text_encoder.parameters()).device
    with torch.no_grad():
        return text_encoder(words.to(device))[0]
