"""Classifier-free and semantic guidance.

Classifier-free guidance (Ho & Salimans, 2022) compares the network's outputs with and without the
condition, here with two scales as in InstructPix2Pix (Brooks et al., 2023, eq. 3): one for the
expression and one for the action units. Semantic guidance (SynFER, Qi et al., 2024) lets a rater
read the unfinished face and moves the expression's token towards the requested expression.
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

GuidanceRater = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Gray float[n, 1, s, s] in 0..255 to log answers [n, 10] and AUs [n, K] (NaN: unsupported)."""

STRONGEST = 30.0
"""Largest scale; images are saturated well below."""


class Term(NamedTuple):
    """One evaluation of the network: its weight, and which conditions it sees."""

    weight: float
    expression: bool
    au: bool


def guidance_terms(guidance_scale: float, au_guidance_scale: float | None = None) -> list[Term]:
    """Return the evaluations of one step; their weights sum to one.

    ``e0 + we (e_expr - e0) + wa (e_full - e_expr)``, regrouped by output:
    ``(1 - we) e0 + (we - wa) e_expr + wa e_full``. With one scale for both the middle term
    vanishes; with scale 1 only the full one remains.

    Raises:
        SettingsError: a scale is negative, not finite or above ``STRONGEST``.
    """
    joint = guidance_scale if au_guidance_scale is None else au_guidance_scale
    for name, scale in (("guidance_scale", guidance_scale), ("au_guidance_scale", joint)):
        if not 0 <= scale <= STRONGEST:
            raise SettingsError(
                f"{name} is not between 0 and {STRONGEST:g}",
                got=str(scale),
                hint="start with 2.0",
            )
    terms = [
        Term(1 - guidance_scale, expression=False, au=False),
        Term(guidance_scale - joint, expression=True, au=False),
        Term(joint, expression=True, au=True),
    ]
    return [term for term in terms if term.weight]


def guidance_interval(start: float, end: float) -> dict[str, float]:
    """Check the interval in which classifier-free guidance acts.

    Returns:
        ``guidance_start`` and ``guidance_end``, options of ``Sampler``.

    Raises:
        SettingsError: not 0 <= start <= end <= 1.
    """
    if not 0 <= start <= end <= 1:
        raise SettingsError(
            "guidance_start and guidance_end are not shares of the steps in this order",
            got=f"{start} and {end}",
            hint="give 0 and 1 to guide every step",
        )
    return {"guidance_start": start, "guidance_end": end}


@dataclass(frozen=True)
class SemanticGuidance:
    """Options of semantic guidance.

    Attributes:
        rater: differentiable; must not be the rater that evaluates the faces later.
        strength: length of an update, as a share of the token's own length.
        au: whether AU tokens are moved too.
        begin: share of the steps after which it begins. Earlier the rater sees only blur.

    Raises:
        SettingsError: ``strength`` is out of range.
    """

    rater: GuidanceRater
    strength: float = 0.3
    au: bool = False
    begin: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise SettingsError(
                "guide_strength is not between 0 and 1", got=str(self.strength), hint="try 0.3"
            )

    def acts(self, step: int, steps: int) -> bool:
        """Return whether this step of ``steps`` is guided."""
        return self.strength > 0 and step >= self.begin * steps

    def update(
        self,
        tokens: Tensor,
        predict: Callable[[Tensor], Tensor],
        *,
        expression: Tensor,
        au: Tensor,
    ) -> Tensor:
        """Move tokens [n, K+1, w] a small step towards the requested reading.

        Rows are independent: each gradient is divided by its own length, so the update does not
        depend on the batch. The losses are descended; the "+" printed in SynFER in front of the
        gradient of a loss would lead away from the target.

        Args:
            predict: tokens to the gray images float[n, 1, s, s] in 0..255 that the network
                currently predicts, with gradient.
            expression: float[n, 8], the requested distribution; a row of zeros requests none.
            au: float[n, K], the requested intensities; NaN requests nothing of that unit.
        """
        with torch.enable_grad():
            # Two leaves, so that each loss moves its own tokens only.
            first = tokens[:, :1].detach().requires_grad_()
            units = tokens[:, 1:].detach().requires_grad_()
            log_answers, seen = self.rater(predict(torch.cat([first, units], dim=1)))
            loss = expression_loss(log_answers, expression).sum()
            (gradient,) = torch.autograd.grad(loss, first, retain_graph=self.au)
            unit_gradient = None
            if self.au:
                loss = au_loss(seen, au).sum()
                # If rater and request share no unit, the loss is a constant.
                if loss.requires_grad:
                    (unit_gradient,) = torch.autograd.grad(loss, units)
        moved, rest = normalized_step(first.detach(), gradient, self.strength), units.detach()
        if unit_gradient is not None:
            rest = normalized_step(rest, unit_gradient, self.strength)
        return torch.cat([moved, rest], dim=1)


def normalized_step(tokens: Tensor, gradient: Tensor, strength: float) -> Tensor:
    """Return ``tokens - strength * |tokens| * gradient / |gradient|`` per row.

    A row whose gradient is zero or not finite is unchanged.
    """
    length = tokens.float().flatten(1).norm(dim=1)
    slope = gradient.float()
    steep = slope.flatten(1).norm(dim=1)
    usable = torch.isfinite(steep) & (steep > 0)
    factor = torch.where(usable, strength * length / torch.where(usable, steep, 1), 0)
    shape = (-1, *[1] * (tokens.ndim - 1))
    step = factor.view(shape) * torch.where(usable.view(shape), slope, 0)
    return tokens - step.to(tokens.dtype)


def expression_loss(log_answers: Tensor, wanted: Tensor) -> Tensor:
    """Return the cross-entropy [n]; open-set answers count against it."""
    return -(log_answers[:, : len(EXPRESSIONS)] * wanted.to(log_answers)).sum(dim=1)


def au_loss(au: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error [n] over units both requested and supported."""
    known = torch.isfinite(au) & torch.isfinite(wanted)
    apart = functional.mse_loss(
        torch.where(known, au, 0), torch.where(known, wanted, 0).to(au), reduction="none"
    )
    return (apart * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)
