"""Guidance: how far a face is pushed towards what was asked.

Two kinds. Classifier-free guidance (Ho & Salimans, 2022) compares the network's answers with and
without the request; here in the form with two scales of InstructPix2Pix (Brooks et al., 2023,
eq. 3), one for the expression and one for the action units. Semantic guidance (SynFER, Qi et al.,
2024) asks a rater what the unfinished face shows and moves the expression's token, so that the
network itself draws what the rater misses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

Guide = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Gray float[n, 1, s, s] in 0..255 to log answers [n, 10] and AUs [n, K] (NaN: cannot tell)."""

STRONGEST = 30.0
"""Scales above are refused: the picture is saturated long before."""


class Term(NamedTuple):
    """One evaluation of the network: its weight, and what of the request it is told."""

    weight: float
    expression: bool
    au: bool


def terms(guidance: float, au_guidance: float | None = None) -> list[Term]:
    """The evaluations of one step; their weights add up to one.

    ``e0 + we (e_expr - e0) + wa (e_full - e_expr)``, ordered by what each answer is worth:
    ``(1 - we) e0 + (we - wa) e_expr + wa e_full``. With one scale for both the middle term
    falls away, with scale 1 only the full one is left.

    Raises:
        SettingsError: a scale is negative, not finite or above ``STRONGEST``.
    """
    joint = guidance if au_guidance is None else au_guidance
    for name, scale in (("guidance", guidance), ("au_guidance", joint)):
        if not 0 <= scale <= STRONGEST:
            raise SettingsError(
                f"{name} between 0 and {STRONGEST:g}", got=str(scale), hint="2.0 is a good start"
            )
    every = [
        Term(1 - guidance, expression=False, au=False),
        Term(guidance - joint, expression=True, au=False),
        Term(joint, expression=True, au=True),
    ]
    return [term for term in every if term.weight]


@dataclass(frozen=True)
class Steering:
    """What semantic guidance aims at.

    Attributes:
        guide: the rater that is asked; must be differentiable and never the later judge.
        expression: float[n, 8], the wanted distribution; a row of zeros asks for none.
        au: float[n, K], the wanted intensities; NaN asks nothing of that unit.
        strength: length of an update, as a share of the token's own length.
        units: whether AU tokens are moved too.
        begin: share of the steps after which it begins. Earlier the rater sees only blur.
    """

    guide: Guide
    expression: Tensor
    au: Tensor
    strength: float = 0.3
    units: bool = False
    begin: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise SettingsError(
                "a guide_strength between 0 and 1", got=str(self.strength), hint="try 0.3"
            )

    def acts(self, position: int, steps: int) -> bool:
        return self.strength > 0 and position >= self.begin * steps


def steer(tokens: Tensor, draw: Callable[[Tensor], Tensor], steering: Steering) -> Tensor:
    """Tokens [n, K+1, w] a small step nearer to what the guide should see.

    Args:
        draw: tokens to the gray pictures float[n, 1, s, s] in 0..255 that the network presently
            expects, with gradient.

    Every row is its own problem: its gradient is divided by its own length, so the update does
    not depend on which faces share the batch. The losses are descended; SynFER's printed "+" in
    front of the gradient of a loss would lead away from the target.
    """
    with torch.enable_grad():
        # Two leaves, so that each loss moves its own tokens only.
        expression = tokens[:, :1].detach().requires_grad_()
        units = tokens[:, 1:].detach().requires_grad_()
        log_answers, au = steering.guide(draw(torch.cat([expression, units], dim=1)))
        wrong = expression_loss(log_answers, steering.expression).sum()
        (slope,) = torch.autograd.grad(wrong, expression, retain_graph=steering.units)
        if steering.units:
            off = au_loss(au, steering.au).sum()
            # Without any unit that guide and request share, the loss is a constant.
            (bend,) = torch.autograd.grad(off, units) if off.requires_grad else (None,)
    moved = nudge(expression.detach(), slope, steering.strength)
    rest = units.detach()
    if steering.units and bend is not None:
        rest = nudge(rest, bend, steering.strength)
    return torch.cat([moved, rest], dim=1)


def nudge(tokens: Tensor, gradient: Tensor, strength: float) -> Tensor:
    """``tokens - strength * |tokens| * gradient / |gradient|``, lengths taken per row.

    A row without a usable gradient (zero or not finite) stays as it is.
    """
    length = tokens.float().flatten(1).norm(dim=1)
    slope = gradient.float()
    steep = slope.flatten(1).norm(dim=1)
    usable = torch.isfinite(steep) & (steep > 0)
    factor = torch.where(usable, strength * length / torch.where(usable, steep, 1), 0)
    step = factor.view(-1, *[1] * (tokens.ndim - 1)) * torch.where(
        usable.view(-1, *[1] * (tokens.ndim - 1)), slope, 0
    )
    return tokens - step.to(tokens.dtype)


def expression_loss(log_answers: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy [n] of the wanted distribution; open-set answers count against it."""
    return -(log_answers[:, : len(EXPRESSIONS)] * wanted.to(log_answers)).sum(dim=1)


def au_loss(au: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference [n] over the units that were asked and that the guide can tell."""
    known = torch.isfinite(au) & torch.isfinite(wanted)
    apart = functional.mse_loss(
        torch.where(known, au, 0), torch.where(known, wanted, 0).to(au), reduction="none"
    )
    return (apart * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)
