"""From noise to faces: the loop over the steps, for one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from synthesis import prompts as wording
from synthesis.condition import Condition
from synthesis.guidance import Guide, Steering, Term, steer
from synthesis.latents import Canvas, as_gray
from synthesis.solver import Course, Levels, course, ddim_course, grid, invert, noise


@dataclass(frozen=True)
class Context:
    """What the network is told, row by row: tokens [n, K+1, w], their summary, and text if any."""

    tokens: Tensor
    pooled: Tensor
    text: Tensor | None = None


@dataclass(frozen=True)
class Wish:
    """The choices of one call that hold for every face of it."""

    steps: int
    terms: list[Term]
    strength: float = 1.0
    layout: str = "sdedit"
    guide: Guide | None = None
    guide_strength: float = 0.3
    guide_au: bool = False


@dataclass(frozen=True)
class Batch:
    """The faces drawn together; every row is its own.

    Attributes:
        dice: a generator per face.
        prompts: a prompt per face and the one to stay away from; None without a text encoder.
        pictures: references float[n, c, s, s] in -1..1, or None.
    """

    condition: Condition
    dice: list[torch.Generator]
    prompts: list[str] | None = None
    negative: str = ""
    pictures: Tensor | None = None

    def __len__(self) -> int:
        return len(self.dice)


Watch = Callable[[int, float, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass(frozen=True)
class Painter:
    """A network with everything it needs to draw; stateless between calls."""

    unet: Any
    conditioner: Any
    scheduler: Any
    canvas: Canvas
    tokenizer: Any = None
    text_encoder: Any = None

    def draw(self, wish: Wish, batch: Batch, watch: Watch) -> Tensor:
        """Pictures float[n, c, s, s], about -1..1.

        Args:
            watch: called after every step with its position, timestep, ``latents`` and
                ``tokens``; what it returns under these names takes their place.
        """
        levels = Levels.of(self.scheduler)
        way = self.course(wish, batch)
        contexts = [self.context(batch, term) for term in wish.terms]
        steering = steering_of(wish, batch.condition)
        latents = self._start(wish, batch, way, levels)
        for position, moment in enumerate(way.timesteps):
            shown = way.scale(latents, position)
            if steering is not None and steering.acts(position, len(way.timesteps)):
                contexts = self._steered(contexts, wish, shown, moment, steering, levels)
            answer = self._guided(contexts, wish.terms, shown, moment)
            latents = way.step(answer, latents, position)
            seen = {"latents": latents, "tokens": contexts[-1].tokens}
            changed = watch(position, moment, seen) or {}
            latents = changed.get("latents", latents)
            if "tokens" in changed:
                contexts[-1] = replace(contexts[-1], tokens=changed["tokens"])
        return self.canvas.decode(latents)

    def course(self, wish: Wish, batch: Batch | None = None) -> Course:
        """The steps of a wish; those of an inversion are DDIM's on the inversion's own grid."""
        if wish.layout == "invert":
            return ddim_course(Levels.of(self.scheduler), wish.steps, strength=wish.strength)
        return course(
            self.scheduler,
            wish.steps,
            dice=batch.dice if batch else (),
            strength=wish.strength,
            device=self.unet.device,
        )

    def context(self, batch: Batch, term: Term) -> Context:
        """What the network is told for one evaluation of a step."""
        told = batch.condition.without(expression=not term.expression, au=not term.au)
        told = told.to(self.conditioner.device)
        own = replace(
            told,
            expression=told.expression.to(self.conditioner.dtype),
            au=told.au.to(self.conditioner.dtype),
        )
        tokens, pooled = (part.to(self.unet.dtype) for part in self.conditioner(own))
        if batch.prompts is None:
            return Context(tokens, pooled)
        prompts = batch.prompts if term.expression else [batch.negative] * len(batch)
        return Context(tokens, pooled, wording.encode(prompts, self.tokenizer, self.text_encoder))

    def answer(self, noisy: Tensor, timestep: float, context: Context) -> Tensor:
        return ask(self.unet, noisy, timestep, context)

    def _start(self, wish: Wish, batch: Batch, way: Course, levels: Levels) -> Tensor:
        like = torch.empty(0, device=self.unet.device, dtype=self.unet.dtype)
        drawn = noise(batch.dice, self.canvas.shape(self.unet), like=like)
        if batch.pictures is None:
            return drawn * way.unit
        clean = self.canvas.encode(batch.pictures.to(like))
        first = round(way.timesteps[0])
        if wish.layout == "invert":
            nothing = self.context(batch, Term(1.0, expression=False, au=False))
            moments = grid(len(levels), wish.steps, strength=wish.strength)
            return invert(lambda x, t: self.answer(x, t, nothing), clean, levels, moments)
        # A scheduler in sigmas holds the same mixture, scaled up by its own rule.
        mixed = levels.mix(clean, drawn, first)
        return mixed / _shown_share(way, mixed)

    def _guided(
        self, contexts: list[Context], terms: list[Term], shown: Tensor, moment: float
    ) -> Tensor:
        """The weighted sum of the terms' answers, all evaluated in one pass."""
        together = Context(
            torch.cat([c.tokens for c in contexts]),
            torch.cat([c.pooled for c in contexts]),
            _joined([c.text for c in contexts]),
        )
        answers = self.answer(torch.cat([shown] * len(contexts)), moment, together)
        parts = answers.chunk(len(contexts))
        return sum(
            (term.weight * part for term, part in zip(terms, parts, strict=True)),
            start=torch.zeros_like(shown),
        )

    def _steered(
        self,
        contexts: list[Context],
        wish: Wish,
        shown: Tensor,
        moment: float,
        steering: Steering,
        levels: Levels,
    ) -> list[Context]:
        """The contexts with tokens moved; whoever is told the expression hears the moved one."""
        full = contexts[-1]

        def expected(tokens: Tensor) -> Tensor:
            answer = self.answer(shown, moment, replace(full, tokens=tokens))
            return as_gray(self.canvas.decode(levels.clean(answer, shown, round(moment))))

        moved = steer(full.tokens, expected, steering)
        told = []
        for context, term in zip(contexts, wish.terms, strict=True):
            if not term.expression:
                told.append(context)
                continue
            rest = moved[:, 1:] if term.au else context.tokens[:, 1:]
            told.append(replace(context, tokens=torch.cat([moved[:, :1], rest], dim=1)))
        return told


def ask(unet: Any, noisy: Tensor, timestep: float | Tensor, context: Context) -> Tensor:
    """One evaluation: tokens alone for a network of ours, beside the text for Stable Diffusion."""
    beside = context.tokens if context.text is None else (context.text, [context.tokens])
    projects = unet.config.class_embed_type == "projection"
    return unet(
        noisy,
        timestep,
        encoder_hidden_states=beside,
        class_labels=context.pooled if projects else None,
        return_dict=False,
    )[0]


def steering_of(wish: Wish, condition: Condition) -> Steering | None:
    if wish.guide is None or not wish.terms[-1].expression:
        return None
    asked = ~condition.null_expression
    return Steering(
        guide=wish.guide,
        expression=condition.expression * asked[:, None],
        au=condition.au,
        strength=wish.guide_strength,
        units=wish.guide_au,
    )


def _joined(texts: list[Tensor | None]) -> Tensor | None:
    given = [text for text in texts if text is not None]
    return torch.cat(given) if given else None


def _shown_share(way: Course, sample: Tensor) -> float:
    """How much smaller the network is shown a sample than the scheduler holds it; mostly 1."""
    one = torch.ones_like(sample[:1])
    return float(way.scale(one, 0).flatten()[0])
