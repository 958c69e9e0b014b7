"""Denoising loop of one batch, for any scheduler of diffusers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from synthesis.condition import FaceCondition, encode_prompts
from synthesis.guidance import SemanticGuidance, Term, guidance_terms
from synthesis.latents import LatentCodec, to_gray
from synthesis.noise_schedule import NoiseLevels
from warehouse.errors import SettingsError

FIXED_POINT_ROUNDS = 4
"""Network evaluations per step of the inversion (Pan et al., 2023, "Effective Real Image Editing
with Accelerated Iterative Diffusion Inversion"). One is plain DDIM inversion, which does not lead
back exactly; ``tests/benchmarks/solvers.py`` measures 1, 2, 4 and 8."""

UNCONDITIONAL = Term(1.0, expression=False, au=False)
CONDITIONAL = Term(1.0, expression=True, au=True)

StepCallback = Callable[[int, float, dict[str, Tensor]], dict[str, Tensor] | None]
"""``(step, timestep, {"latents", "tokens"}) -> replacements by name, or None``."""


def seeded_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return one CPU generator per face: its noise depends on its seed alone."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def random_noise(
    generators: Sequence[torch.Generator], shape: Sequence[int], *, like: Tensor | None = None
) -> Tensor:
    """Draw standard normal float32[len(generators), *shape].

    Drawn where the generators are and then moved to the device and type of ``like``, so that CPU
    generators give the same noise on every device.
    """
    rows = [
        torch.randn(tuple(shape), generator=one, dtype=torch.float32, device=one.device)
        for one in generators
    ]
    noise = torch.stack(rows)
    return noise if like is None else noise.to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class Embeddings:
    """Embedded condition: tokens [n, K+1, w], vector, and text if any."""

    tokens: Tensor
    pooled: Tensor
    text: Tensor | None = None


@dataclass(frozen=True)
class Sampler:
    """Components and options of one pipeline call; no state between batches.

    Attributes:
        terms: evaluations per step, see ``guidance.guidance_terms``.
        guidance_start, guidance_end: share of the steps between which the terms are evaluated.
            The other steps evaluate the full condition alone, which is faster.
        strength: share of the steps that run, from a reference image.
        layout: ``sdedit`` or ``invert``, see ``synthesis.img2img``.
        guidance: semantic guidance, or None.
    """

    unet: Any
    conditioner: Any
    scheduler: Any
    latent_codec: LatentCodec
    tokenizer: Any = None
    text_encoder: Any = None
    num_inference_steps: int = 10
    terms: list[Term] = field(default_factory=lambda: guidance_terms(2.0))
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    strength: float = 1.0
    layout: str = "sdedit"
    guidance: SemanticGuidance | None = None

    def sample(
        self,
        condition: FaceCondition,
        generators: list[torch.Generator],
        *,
        prompts: list[str] | None = None,
        negative_prompt: str = "",
        references: Tensor | None = None,
        callback: StepCallback = lambda step, timestep, tensors: None,
    ) -> Tensor:
        """Generate images float[n, c, s, s], about -1..1.

        Args:
            generators: one per face.
            prompts: one per face; None without a text encoder.
            references: images float[n, c, s, s] in -1..1, or None to start from noise.
        """
        levels = NoiseLevels.of(self.scheduler)
        schedule = self.schedule(generators)

        def embed(term: Term) -> Embeddings:
            return self.embed(condition, term, prompts, negative_prompt)

        embeddings = [embed(term) for term in self.terms]
        guided = self.guidance if self.terms[-1].expression else None
        latents = self._initial_latents(generators, schedule, levels, references, embed)
        total = len(schedule.timesteps)
        for step, timestep in enumerate(schedule.timesteps):
            model_input = schedule.scale_model_input(latents, step)
            if guided is not None and guided.acts(step, total):
                embeddings = self._moved(
                    embeddings, guided, condition, model_input, timestep, levels
                )
            # Outside the interval the full condition alone is evaluated, with weight 1.
            inside = self.guidance_start * total <= step < self.guidance_end * total
            terms, used = (self.terms, embeddings) if inside else ([CONDITIONAL], embeddings[-1:])
            output = self._guided_output(terms, used, model_input, timestep)
            latents = schedule.step(output, latents, step)
            tensors = {"latents": latents, "tokens": embeddings[-1].tokens}
            changed = callback(step, timestep, tensors) or {}
            latents = changed.get("latents", latents)
            if "tokens" in changed:
                embeddings[-1] = replace(embeddings[-1], tokens=changed["tokens"])
        return self.latent_codec.decode(latents)

    def schedule(self, generators: Sequence[torch.Generator] = ()) -> SamplingSchedule:
        """Return the steps to take; after an inversion, those of DDIM."""
        if self.layout == "invert":
            levels = NoiseLevels.of(self.scheduler)
            return ddim_schedule(levels, self.num_inference_steps, strength=self.strength)
        return sampling_schedule(
            self.scheduler,
            self.num_inference_steps,
            generators=generators,
            strength=self.strength,
            device=self.unet.device,
        )

    def embed(
        self,
        condition: FaceCondition,
        term: Term,
        prompts: list[str] | None = None,
        negative_prompt: str = "",
    ) -> Embeddings:
        """Embed what one evaluation of a step sees of the condition."""
        seen = condition.without(expression=not term.expression, au=not term.au)
        seen = seen.to(self.conditioner.device, self.conditioner.dtype)
        tokens, pooled = (part.to(self.unet.dtype) for part in self.conditioner(seen))
        if prompts is None:
            return Embeddings(tokens, pooled)
        texts = prompts if term.expression else [negative_prompt] * len(condition)
        return Embeddings(tokens, pooled, encode_prompts(texts, self.tokenizer, self.text_encoder))

    def _initial_latents(
        self,
        generators: list[torch.Generator],
        schedule: SamplingSchedule,
        levels: NoiseLevels,
        references: Tensor | None,
        embed: Callable[[Term], Embeddings],
    ) -> Tensor:
        like = torch.empty(0, device=self.unet.device, dtype=self.unet.dtype)
        noise = random_noise(generators, self.latent_codec.latent_shape(self.unet), like=like)
        if references is None:
            return noise * schedule.init_noise_sigma
        clean = self.latent_codec.encode(references.to(like))
        if self.layout == "invert":
            nothing = embed(UNCONDITIONAL)
            timesteps = ddim_timesteps(
                len(levels), self.num_inference_steps, strength=self.strength
            )
            return invert(
                lambda x, t: model_output(self.unet, x, t, nothing), clean, levels, timesteps
            )
        mixed = levels.add_noise(clean, noise, round(schedule.timesteps[0]))
        # A scheduler in sigmas stores the same mixture, scaled by its own rule.
        scale = schedule.scale_model_input(torch.ones_like(mixed[:1]), 0)
        return mixed / float(scale.flatten()[0])

    def _guided_output(
        self,
        terms: list[Term],
        embeddings: list[Embeddings],
        model_input: Tensor,
        timestep: float,
    ) -> Tensor:
        """Return the weighted sum of the terms' outputs, evaluated in one pass."""
        texts = [one.text for one in embeddings if one.text is not None]
        joined = Embeddings(
            torch.cat([one.tokens for one in embeddings]),
            torch.cat([one.pooled for one in embeddings]),
            torch.cat(texts) if texts else None,
        )
        outputs = model_output(
            self.unet, torch.cat([model_input] * len(embeddings)), timestep, joined
        )
        return sum(
            (
                term.weight * part
                for term, part in zip(terms, outputs.chunk(len(embeddings)), strict=True)
            ),
            start=torch.zeros_like(model_input),
        )

    def _moved(
        self,
        embeddings: list[Embeddings],
        guidance: SemanticGuidance,
        condition: FaceCondition,
        model_input: Tensor,
        timestep: float,
        levels: NoiseLevels,
    ) -> list[Embeddings]:
        """Move tokens by semantic guidance, in all terms with an expression."""
        full = embeddings[-1]

        def predict(tokens: Tensor) -> Tensor:
            output = model_output(self.unet, model_input, timestep, replace(full, tokens=tokens))
            clean = levels.predict_x0(output, model_input, round(timestep))
            return to_gray(self.latent_codec.decode(clean))

        moved = guidance.update(
            full.tokens,
            predict,
            expression=condition.expression * ~condition.null_expression[:, None],
            au=condition.au,
        )
        found = []
        for one, term in zip(embeddings, self.terms, strict=True):
            if not term.expression:
                found.append(one)
                continue
            rest = moved[:, 1:] if term.au else one.tokens[:, 1:]
            found.append(replace(one, tokens=torch.cat([moved[:, :1], rest], dim=1)))
        return found


def model_output(
    unet: Any, sample: Tensor, timestep: float | Tensor, embeddings: Embeddings
) -> Tensor:
    """Evaluate the network; Stable Diffusion reads AU tokens beside the text."""
    hidden = (
        embeddings.tokens if embeddings.text is None else (embeddings.text, [embeddings.tokens])
    )
    projects = unet.config.class_embed_type == "projection"
    return unet(
        sample,
        timestep,
        encoder_hidden_states=hidden,
        class_labels=embeddings.pooled if projects else None,
        return_dict=False,
    )[0]


@dataclass(frozen=True)
class SamplingSchedule:
    """Steps of a solver.

    Attributes:
        timesteps: from noisy to clean; the network is evaluated once at each.
        scale_model_input: ``(sample, step) -> input of the network``.
        step: ``(output, sample, step) -> sample`` at the next timestep.
        init_noise_sigma: standard deviation of the initial noise.
    """

    timesteps: list[float]
    scale_model_input: Callable[[Tensor, int], Tensor]
    step: Callable[[Tensor, Tensor, int], Tensor]
    init_noise_sigma: float = 1.0


def sampling_schedule(
    scheduler: Any,
    num_inference_steps: int,
    *,
    generators: Sequence[torch.Generator] = (),
    strength: float = 1.0,
    device: torch.device | str = "cpu",
) -> SamplingSchedule:
    """Return the last ``strength`` of the steps of a scheduler of diffusers.

    The scheduler is copied, because it holds state between steps and callers may share one.
    """
    most = scheduler.config.num_train_timesteps
    left = steps_for_strength(num_inference_steps, strength, most=most)
    own = copy.deepcopy(scheduler)
    own.set_timesteps(num_inference_steps, device=device)
    first = getattr(own, "order", 1) * (num_inference_steps - left)
    if first and hasattr(own, "set_begin_index"):
        own.set_begin_index(first)
    timesteps = own.timesteps[first:]
    extra: dict[str, Any] = {}
    if generators and "generator" in inspect.signature(own.step).parameters:
        extra["generator"] = list(generators)
    return SamplingSchedule(
        timesteps=[float(timestep) for timestep in timesteps],
        scale_model_input=lambda sample, step: own.scale_model_input(sample, timesteps[step]),
        step=lambda output, sample, step: own.step(
            output, timesteps[step], sample, return_dict=False, **extra
        )[0],
        init_noise_sigma=float(own.init_noise_sigma),
    )


def ddim_schedule(
    levels: NoiseLevels, num_inference_steps: int, *, strength: float = 1.0
) -> SamplingSchedule:
    """Return deterministic DDIM steps, which undo ``invert``."""
    timesteps = ddim_timesteps(len(levels), num_inference_steps, strength=strength)

    def step(output: Tensor, sample: Tensor, at: int) -> Tensor:
        to = timesteps[at + 1] if at + 1 < len(timesteps) else -1
        return levels.ddim_step(sample, output, timesteps[at], to)

    return SamplingSchedule(
        [float(timestep) for timestep in timesteps], lambda sample, at: sample, step
    )


def ddim_timesteps(total: int, num_inference_steps: int, *, strength: float = 1.0) -> list[int]:
    """Return timesteps from noisy to clean, evenly spaced from the end.

    This is "trailing" spacing (Lin et al., 2024). Inversion and denoising share the list.
    """
    left = steps_for_strength(num_inference_steps, strength, most=total)
    every = [
        round(total - 1 - at * total / num_inference_steps) for at in range(num_inference_steps)
    ]
    return every[num_inference_steps - left :]


def steps_for_strength(num_inference_steps: int, strength: float, *, most: int) -> int:
    """Return how many steps run at ``strength`` in (0, 1]; at least one.

    Raises:
        SettingsError: strength out of range, or fewer than one or more than ``most`` steps.
    """
    if not 1 <= num_inference_steps <= most:
        raise SettingsError(
            f"num_inference_steps is not in 1 to {most}",
            got=str(num_inference_steps),
            hint="give 10",
        )
    if not 0 < strength <= 1:
        raise SettingsError(
            "strength is not above 0 and up to 1",
            got=str(strength),
            hint="give 0.7, which keeps the layout",
        )
    return max(1, round(num_inference_steps * strength))


def invert(
    model: Callable[[Tensor, int], Tensor], clean: Tensor, levels: NoiseLevels, timesteps: list[int]
) -> Tensor:
    """Return the noise from which ``ddim_schedule`` leads to ``clean``.

    Args:
        model: ``(noisy, timestep) -> output``, unconditional and without guidance.
        timesteps: of ``ddim_timesteps``; traversed from clean to noisy.
    """
    sample, before = clean, -1
    for timestep in reversed(timesteps):
        guess = sample
        for _ in range(FIXED_POINT_ROUNDS):
            guess = levels.ddim_step_inverse(sample, model(guess, timestep), timestep, before)
        sample, before = guess, timestep
    return sample
