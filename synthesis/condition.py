"""Embed face requests for the diffusion network: tokens, vector, text.

Every action unit has a token of its own. With one token for all units, softmax over a sequence
of length one is 1 everywhere, and attention could not tell the mouth from the brow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from synthesis.request import FaceRequest, au_vector, expression_vector
from warehouse.errors import ModelError, SettingsError
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

PROMPT = "a close-up photo of a face"
"""Start of every prompt. Training and sampling must use the same text."""

MENTIONED = 0.2
"""Share from which a prompt names an expression."""

_UNITS = tuple(unit.number for unit in ACTION_UNITS)
_STATES = 3
_VALUE, _UNKNOWN, _NULL = range(_STATES)
_OLD_CONFIG_NAMES = {"taught": "supported"}


@dataclass(frozen=True)
class FaceCondition:
    """Tensors that condition n faces.

    Attributes:
        expression: float32[n, 8], a distribution over ``vocabulary.EXPRESSIONS`` per row; zeros
            where ``null_expression``.
        au: float32[n, K] in 0..1; 0 = absent, NaN = unknown.
        null_expression, null_au: bool[n], True where that part is unconditional.
    """

    expression: Tensor
    au: Tensor
    null_expression: Tensor
    null_au: Tensor

    def __len__(self) -> int:
        return len(self.au)

    def __getitem__(self, rows: slice) -> FaceCondition:
        return FaceCondition(**{name: value[rows] for name, value in vars(self).items()})

    @classmethod
    def of(cls, requests: Sequence[FaceRequest]) -> FaceCondition:
        """Convert requests; a part of which nothing is requested is unconditional.

        Raises:
            SettingsError: unknown names, or values out of range.
        """
        values = np.array([au_vector(one.au) for one in requests], dtype=np.float32)
        rows = [expression_vector(one.expression) for one in requests]
        filled = [np.zeros(len(EXPRESSIONS)) if row is None else row for row in rows]
        return cls(
            expression=torch.from_numpy(
                np.array(filled, dtype=np.float32).reshape(-1, len(EXPRESSIONS))
            ),
            au=torch.from_numpy(values.reshape(-1, len(ACTION_UNITS))),
            null_expression=torch.tensor([row is None for row in rows], dtype=torch.bool),
            null_au=torch.tensor([not one.au for one in requests], dtype=torch.bool),
        )

    @classmethod
    def unconditional(cls, n: int) -> FaceCondition:
        """Return the condition of n faces of which nothing is requested."""
        return cls.of([FaceRequest({})] * n)

    def without(self, *, expression: bool = True, au: bool = True) -> FaceCondition:
        """Make the expression, the action units, or both unconditional."""
        changed: dict[str, Tensor] = {}
        if expression:
            changed["expression"] = torch.zeros_like(self.expression)
            changed["null_expression"] = torch.ones_like(self.null_expression)
        if au:
            changed["au"] = torch.full_like(self.au, float("nan"))
            changed["null_au"] = torch.ones_like(self.null_au)
        return replace(self, **changed)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> FaceCondition:
        """Move to a device; ``dtype`` applies to the floating-point tensors."""
        return FaceCondition(
            expression=self.expression.to(device, dtype),
            au=self.au.to(device, dtype),
            null_expression=self.null_expression.to(device),
            null_au=self.null_au.to(device),
        )


class AUConditioner(ModelMixin, ConfigMixin):
    """Embed a condition as an expression token, AU tokens and one vector.

    The token of a unit is ``state + value * direction + mlp(value, value²)`` where it has a value,
    and another learned state where it is unknown or null. The vector goes to the network's class
    embedding: it sets the strength globally, attention sets the place.

    Args:
        units: FACS numbers of the K tokens, in the order of ``vocabulary.ACTION_UNITS``.
        supported: units with a signal in training; the network treats the others as unknown.
        width: of a token.

    Raises:
        ModelError: ``units`` are not those of this version.
    """

    config: Any
    config_name = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(
        self,
        units: tuple[int, ...] = _UNITS,
        supported: tuple[int, ...] = _UNITS,
        width: int = 64,
    ) -> None:
        super().__init__()
        if tuple(units) != _UNITS:
            raise ModelError(
                f"The conditioner is not made for the {len(_UNITS)} action units of this version",
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
        learned = torch.tensor([unit in supported for unit in units])
        self.register_buffer("learned", learned, persistent=False)

    @classmethod
    def from_config(cls, config: Any = None, *args: Any, **options: Any) -> Any:
        """Build from a saved config, in which older versions used other names."""
        current = {_OLD_CONFIG_NAMES.get(name, name): value for name, value in config.items()}
        return super().from_config(current, *args, **options)

    @property
    def pooled_width(self) -> int:
        """Width of the vector that goes to the class embedding."""
        return 2 * len(self.config.units) + len(EXPRESSIONS) + 2

    def forward(
        self, condition: FaceCondition, expression_token: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return tokens float[n, K + 1, width] and vector float[n, pooled_width].

        The first token is the expression's.

        Args:
            expression_token: float[n, width], replaces the expression's token, for guidance.
        """
        known = torch.isfinite(condition.au) & self.learned & ~condition.null_au[:, None]
        value = torch.where(known, condition.au, 0.0)
        shares = torch.where(condition.null_expression[:, None], 0.0, condition.expression)
        if expression_token is None:
            null = condition.null_expression[:, None]
            expression_token = self.norm(
                torch.where(null, self.no_expression, self.expression(shares))
            )
        tokens = torch.cat(
            [expression_token[:, None], self._unit_tokens(value, known, condition.null_au)], dim=1
        )
        flags = torch.stack([condition.null_expression, condition.null_au], dim=1)
        pooled = torch.cat([value, known.to(value), shares, flags.to(value)], dim=1)
        return tokens, pooled

    def _unit_tokens(self, value: Tensor, known: Tensor, null: Tensor) -> Tensor:
        state = torch.full(known.shape, _UNKNOWN, device=value.device)
        state = torch.where(known, _VALUE, state)
        state = torch.where(null[:, None], _NULL, state)
        column = torch.arange(known.shape[1], device=value.device)
        amount = value[..., None]
        curved = self.curve(torch.cat([amount, amount.square()], dim=-1))
        offset = amount * self.direction + curved
        return self.norm(self.states[state, column] + torch.where(known[..., None], offset, 0.0))


def prompt_for(shares: Tensor, *, asked: bool = True) -> str:
    """Write a prompt for a distribution float[8], strongest expression first."""
    if not asked:
        return PROMPT
    ranked = sorted(zip(shares.tolist(), EXPRESSIONS, strict=True), key=lambda pair: -pair[0])
    named = [name for share, name in ranked if share >= MENTIONED]
    return f"{PROMPT} showing {' and '.join(named)}" if named else PROMPT


def face_prompts(
    prompt: str | Sequence[str] | None, condition: FaceCondition, *, repeats: int
) -> list[str]:
    """Return one prompt per face.

    Args:
        prompt: for all faces, per condition or per face; None: written from the expression.
        repeats: faces per condition.

    Raises:
        SettingsError: the number of prompts fits none of these.
    """
    n = len(condition)
    if prompt is None:
        rows: Iterable[tuple[Tensor, Tensor]] = zip(
            condition.expression.cpu(), condition.null_expression.cpu(), strict=True
        )
        return [prompt_for(row, asked=not null) for row, null in rows]
    if isinstance(prompt, str):
        return [prompt] * n
    if len(prompt) == n:
        return list(prompt)
    if len(prompt) * repeats != n:
        raise SettingsError(
            f"The number of prompts is not 1, {n // repeats} (one per condition) or {n} "
            "(one per face)",
            got=str(len(prompt)),
            hint="give one prompt for all",
        )
    return [one for one in prompt for _ in range(repeats)]


def encode_prompts(prompts: Sequence[str], tokenizer: Any, text_encoder: Any) -> Tensor:
    """Return the text encoder's last hidden state, float[n, L, w]."""
    ids = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    device = next(text_encoder.parameters()).device
    with torch.no_grad():
        return text_encoder(ids.to(device))[0]
