"""From noise to faces: the loop over the steps, for one batch."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from synthesis.condition import FaceCondition, encode_prompts
from synthesis.guidance import Guide, Steering, Term, steer
from synthesis.latents import LatentCodec, as_gray
from synthesis.noise_schedule import NoiseLevels
from warehouse.errors import SettingsError

FIXED_POINT_ROUNDS = 4
"""Of the inversion: every round asks the network once more and brings it nearer to the exact way
back (Pan et al., 2023, "Effective Real Image Editing with Accelerated Iterative Diffusion
Inversion"). One round is the plain inversion, which does not quite lead back; how far each number
gets is in ``tests/benchmarks/solvers.py``."""


def seeded_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per face: its noise depends on its seed and on nothing else."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def random_noise(
    generators: Sequence[torch.Generator], shape: Sequence[int], *, like: Tensor | None = None
) -> Tensor:
    """Standard normal float32[len(dice), *shape], drawn on the CPU so that devices agree."""
    rows = [torch.randn(tuple(shape), generator=die, dtype=torch.float32) for die in generators]
    drawn = torch.stack(rows)
    return drawn if like is None else drawn.to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class SamplingSchedule:
    """The steps still to go.

    Attributes:
        timesteps: from noisy to clean, each asked of the network once.
        scale: what the network is shown of a sample, by position.
        step: ``(answer, sample, position) -> sample`` at the next timestep.
        unit: deviation of the noise that a course from the very beginning starts with.
    """

    timesteps: list[float]
    scale: Callable[[Tensor, int], Tensor]
    step: Callable[[Tensor, Tensor, int], Tensor]
    unit: float = 1.0


def sampling_schedule(
    scheduler: Any,
    steps: int,
    *,
    generators: Sequence[torch.Generator] = (),
    strength: float = 1.0,
    device: torch.device | str = "cpu",
) -> SamplingSchedule:
    """The way of a scheduler of diffusers, from its noisiest step or from ``strength`` of them.

    The scheduler is copied: these objects keep state between steps, and two callers may share one.
    """
    left = steps_for_strength(steps, strength, most=scheduler.config.num_train_timesteps)
    own = copy.deepcopy(scheduler)
    own.set_timesteps(steps, device=device)
    first = getattr(own, "order", 1) * (steps - left)
    if first and hasattr(own, "set_begin_index"):
        own.set_begin_index(first)
    moments = own.timesteps[first:]
    extra: dict[str, Any] = {}
    if generators and "generator" in inspect.signature(own.step).parameters:
        extra["generator"] = list(generators)
    return SamplingSchedule(
        timesteps=[float(moment) for moment in moments],
        scale=lambda sample, at: own.scale_model_input(sample, moments[at]),
        step=lambda answer, sample, at: own.step(
            answer, moments[at], sample, return_dict=False, **extra
        )[0],
        unit=float(own.init_noise_sigma),
    )


def ddim_schedule(levels: NoiseLevels, steps: int, *, strength: float = 1.0) -> SamplingSchedule:
    """Deterministic DDIM on ``grid``: the way back of an inversion over the same grid."""
    moments = grid(len(levels), steps, strength=strength)

    def step(answer: Tensor, sample: Tensor, at: int) -> Tensor:
        to = moments[at + 1] if at + 1 < len(moments) else -1
        return levels.turn(sample, answer, moments[at], to)

    return SamplingSchedule([float(m) for m in moments], scale=lambda sample, at: sample, step=step)


def grid(total: int, steps: int, *, strength: float = 1.0) -> list[int]:
    """Timesteps from noisy to clean, evenly spaced from the end ("trailing", Lin et al., 2024).

    The one list that inversion walks up and denoising walks down.
    """
    left = steps_for_strength(steps, strength, most=total)
    every = [round(total - 1 - at * total / steps) for at in range(steps)]
    return every[steps - left :]


def steps_for_strength(steps: int, strength: float, *, most: int) -> int:
    """How many of ``steps`` a ``strength`` in (0, 1] leaves; at least one.

    Raises:
        SettingsError: strength out of range, or fewer than one or more than ``most`` steps.
    """
    if not 1 <= steps <= most:
        raise SettingsError(f"1 to {most} steps", got=str(steps), hint="give steps=10")
    if not 0 < strength <= 1:
        raise SettingsError(
            "a strength above 0 and up to 1", got=str(strength), hint="0.7 keeps the layout"
        )
    return max(1, round(steps * strength))


def invert(
    network: Callable[[Tensor, int], Tensor], clean: Tensor, levels: NoiseLevels, moments: list[int]
) -> Tensor:
    """The noise at ``moments[0]`` from which ``ddim_schedule`` leads back to ``clean``.

    Args:
        network: ``(noisy, timestep) -> answer``, unconditional and without guidance.
        moments: of ``grid``; walked from its end, so that both ways use the same timesteps.
    """
    sample, before = clean, -1
    for moment in reversed(moments):
        guess = sample
        for _ in range(FIXED_POINT_ROUNDS):
            guess = levels.ddim_step_inverse(sample, network(guess, moment), moment, before)
        sample, before = guess, moment
    return sample


@dataclass(frozen=True)
class Embeddings:
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

    condition: FaceCondition
    generators: list[torch.Generator]
    prompts: list[str] | None = None
    negative: str = ""
    pictures: Tensor | None = None

    def __len__(self) -> int:
        return len(self.generators)


Watch = Callable[[int, float, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass(frozen=True)
class Sampler:
    """A network with everything it needs to draw; stateless between calls."""

    unet: Any
    conditioner: Any
    scheduler: Any
    latent_codec: LatentCodec
    tokenizer: Any = None
    text_encoder: Any = None

    def draw(self, wish: Wish, batch: Batch, watch: Watch) -> Tensor:
        """Pictures float[n, c, s, s], about -1..1.

        Args:
            watch: called after every step with its position, timestep, ``latents`` and
                ``tokens``; what it returns under these names takes their place.
        """
        levels = NoiseLevels.of(self.scheduler)
        way = self.sampling_schedule(wish, batch)
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
        return self.latent_codec.decode(latents)

    def sampling_schedule(self, wish: Wish, batch: Batch | None = None) -> SamplingSchedule:
        """The steps of a wish; those of an inversion are DDIM's on the inversion's own grid."""
        if wish.layout == "invert":
            return ddim_schedule(NoiseLevels.of(self.scheduler), wish.steps, strength=wish.strength)
        return sampling_schedule(
            self.scheduler,
            wish.steps,
            generators=batch.generators if batch else (),
            strength=wish.strength,
            device=self.unet.device,
        )

    def context(self, batch: Batch, term: Term) -> Embeddings:
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
            return Embeddings(tokens, pooled)
        prompts = batch.prompts if term.expression else [batch.negative] * len(batch)
        return Embeddings(
            tokens, pooled, encode_prompts(prompts, self.tokenizer, self.text_encoder)
        )

    def answer(self, noisy: Tensor, timestep: float, context: Embeddings) -> Tensor:
        return model_output(self.unet, noisy, timestep, context)

    def _start(
        self, wish: Wish, batch: Batch, way: SamplingSchedule, levels: NoiseLevels
    ) -> Tensor:
        like = torch.empty(0, device=self.unet.device, dtype=self.unet.dtype)
        drawn = random_noise(batch.generators, self.latent_codec.shape(self.unet), like=like)
        if batch.pictures is None:
            return drawn * way.unit
        clean = self.latent_codec.encode(batch.pictures.to(like))
        first = round(way.timesteps[0])
        if wish.layout == "invert":
            nothing = self.context(batch, Term(1.0, expression=False, au=False))
            moments = grid(len(levels), wish.steps, strength=wish.strength)
            return invert(lambda x, t: self.answer(x, t, nothing), clean, levels, moments)
        # A scheduler in sigmas holds the same mixture, scaled up by its own rule.
        mixed = levels.mix(clean, drawn, first)
        return mixed / _shown_share(way, mixed)

    def _guided(
        self, contexts: list[Embeddings], terms: list[Term], shown: Tensor, moment: float
    ) -> Tensor:
        """The weighted sum of the terms' answers, all evaluated in one pass."""
        together = Embeddings(
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
        contexts: list[Embeddings],
        wish: Wish,
        shown: Tensor,
        moment: float,
        steering: Steering,
        levels: NoiseLevels,
    ) -> list[Embeddings]:
        """The contexts with tokens moved; whoever is told the expression hears the moved one."""
        full = contexts[-1]

        def expected(tokens: Tensor) -> Tensor:
            answer = self.answer(shown, moment, replace(full, tokens=tokens))
            return as_gray(self.latent_codec.decode(levels.clean(answer, shown, round(moment))))

        moved = steer(full.tokens, expected, steering)
        told = []
        for context, term in zip(contexts, wish.terms, strict=True):
            if not term.expression:
                told.append(context)
                continue
            rest = moved[:, 1:] if term.au else context.tokens[:, 1:]
            told.append(replace(context, tokens=torch.cat([moved[:, :1], rest], dim=1)))
        return told


def model_output(unet: Any, noisy: Tensor, timestep: float | Tensor, context: Embeddings) -> Tensor:
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


def steering_of(wish: Wish, condition: FaceCondition) -> Steering | None:
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


def _shown_share(way: SamplingSchedule, sample: Tensor) -> float:
    """How much smaller the network is shown a sample than the scheduler holds it; mostly 1."""
    one = torch.ones_like(sample[:1])
    return float(way.scale(one, 0).flatten()[0])
