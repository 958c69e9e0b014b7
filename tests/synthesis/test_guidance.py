"""Guidance terms, losses, and the direction of semantic guidance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from synthesis.guidance import (
    SemanticGuidance,
    Term,
    au_loss,
    expression_loss,
    guidance_terms,
    normalized_step,
)
from warehouse.errors import SettingsError
from warehouse.vocabulary import ACTION_UNITS

_K = len(ACTION_UNITS)
_HAPPY, _UNKNOWN = 1, 8


@pytest.mark.parametrize(
    ("guidance", "au_guidance", "expected"),
    [
        (1.0, None, [Term(1.0, True, True)]),
        (0.0, None, [Term(1.0, False, False)]),
        (2.0, None, [Term(-1.0, False, False), Term(2.0, True, True)]),
        (2.0, 2.0, [Term(-1.0, False, False), Term(2.0, True, True)]),
        (1.0, 3.0, [Term(-2.0, True, False), Term(3.0, True, True)]),
        (
            1.5,
            4.0,
            [Term(-0.5, False, False), Term(-2.5, True, False), Term(4.0, True, True)],
        ),
    ],
)
def test_guidance_terms__scales(
    guidance: float, au_guidance: float | None, expected: list[Term]
) -> None:
    assert guidance_terms(guidance, au_guidance) == expected


def test_guidance_terms__formula() -> None:
    nothing, expression, full = torch.tensor([0.3, -1.2, 2.5])
    wanted = nothing + 1.5 * (expression - nothing) + 4.0 * (full - expression)
    given = {(False, False): nothing, (True, False): expression, (True, True): full}
    ours = sum(term.weight * given[term.expression, term.au] for term in guidance_terms(1.5, 4.0))
    assert ours == pytest.approx(float(wanted))


@pytest.mark.parametrize("scales", [(-0.1, None), (31.0, None), (float("nan"), None), (1, -2)])
def test_guidance_terms__out_of_range(scales: tuple[float, float | None]) -> None:
    with pytest.raises(SettingsError, match="guidance_scale is not between 0 and 30"):
        guidance_terms(*scales)


class _Eye:
    """Read happiness from the mean gray and AU12 from the first pixel."""

    def __call__(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.zeros(len(gray), 10)
        logits = logits.index_add(
            1, torch.tensor([_HAPPY]), (gray.mean(dim=(1, 2, 3)) / 50)[:, None]
        )
        au = torch.full((len(gray), _K), torch.nan)
        au[:, 9] = gray[:, 0, 0, 0] / 255
        return torch.log_softmax(logits, dim=1), au


def _draw(tokens: Tensor) -> Tensor:
    """Token 0 sets the image's brightness, the other tokens its corner's."""
    corner = tokens[:, 1:].mean(dim=(1, 2)).view(-1, 1, 1, 1)
    rest = tokens[:, 0].mean(dim=1).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    mask = torch.zeros(4, 4)
    mask[0, 0] = 1
    return 128 + 60 * (rest * (1 - mask) + corner * mask)


def _moved(tokens: Tensor, *, target: bool = True, **options: object) -> Tensor:
    n = len(tokens)
    expression = torch.zeros(n, 8)
    expression[:, _HAPPY] = float(target)
    au = torch.full((n, _K), torch.nan)
    if target:
        au[:, 9] = 1.0
    guidance = SemanticGuidance(_Eye(), **options)  # type: ignore[arg-type]
    return guidance.update(tokens, _draw, expression=expression, au=au)


def _tokens(n: int) -> Tensor:
    return torch.randn(n, _K + 1, 6, generator=torch.Generator().manual_seed(0))


def test_update__moves_expression_token_only() -> None:
    tokens = _tokens(3)
    with torch.no_grad():
        moved = _moved(tokens, strength=0.1)
    before = _Eye()(_draw(tokens))[0][:, _HAPPY]
    after = _Eye()(_draw(moved))[0][:, _HAPPY]
    assert (after > before).all()
    assert torch.equal(moved[:, 1:], tokens[:, 1:])
    length = (moved[:, 0] - tokens[:, 0]).norm(dim=1) / tokens[:, 0].norm(dim=1)
    assert torch.allclose(length, torch.full((3,), 0.1))


def test_update__moves_units_on_demand() -> None:
    tokens = _tokens(2)
    moved = _moved(tokens, au=True)
    assert (_Eye()(_draw(moved))[1][:, 9] > _Eye()(_draw(tokens))[1][:, 9]).all()
    assert not torch.equal(moved[:, 1:], tokens[:, 1:])


def test_update__rows_are_independent() -> None:
    tokens = _tokens(3)
    together = _moved(tokens, au=True)
    alone = _moved(tokens[1:2], au=True)
    assert torch.allclose(together[1:2], alone, atol=1e-6)


def test_update__nothing_requested() -> None:
    tokens = _tokens(2)
    assert torch.equal(_moved(tokens, target=False, au=True), tokens)


@pytest.mark.parametrize("gradient", [0.0, float("nan"), float("inf")])
def test_normalized_step__unusable_gradient(gradient: float) -> None:
    tokens = torch.ones(1, 1, 4)
    assert torch.equal(normalized_step(tokens, torch.full((1, 1, 4), gradient), 0.5), tokens)


def test_expression_loss__open_set_counts_against() -> None:
    wanted = torch.eye(8)[_HAPPY][None]
    sure, wavering = torch.zeros(2, 1, 10)
    sure[0, _HAPPY] = 4
    wavering[0, _HAPPY], wavering[0, _UNKNOWN] = 4, 4
    one, two = (expression_loss(torch.log_softmax(x, dim=1), wanted) for x in (sure, wavering))
    assert one < two


def test_au_loss__by_hand() -> None:
    seen = torch.tensor([[0.5, torch.nan, 0.1], [torch.nan, torch.nan, 1.0]])
    wanted = torch.tensor([[1.0, 1.0, torch.nan], [0.5, 0.5, torch.nan]])
    assert torch.allclose(au_loss(seen, wanted), torch.tensor([0.25, 0.0]))


@pytest.mark.parametrize(("position", "acts"), [(0, False), (4, False), (5, True), (9, True)])
def test_acts__last_half(position: int, acts: bool) -> None:
    assert SemanticGuidance(_Eye()).acts(position, 10) is acts


def test_semantic_guidance__strength_out_of_range() -> None:
    with pytest.raises(SettingsError, match="guide_strength is not between 0 and 1"):
        SemanticGuidance(_Eye(), strength=1.5)
