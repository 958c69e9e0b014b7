"""The words for networks that read text: Stable Diffusion's side of a condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

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


def encode(prompts: Sequence[str], tokenizer: Any, text_encoder: Any) -> Tensor:
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
