"""Diffusion pipeline for faces with given action units and expression.

One class serves two networks. Without a VAE the network works on pixels folded by ``PixelCodec``
and reads only expression and AU tokens. With a VAE and a text encoder it is a Stable Diffusion
whose cross-attention layers have AU branches (``synthesis.au_adapter``).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from synthesis import img2img
from synthesis.condition import FaceCondition, face_prompts
from synthesis.guidance import (
    GuidanceRater,
    SemanticGuidance,
    guidance_interval,
    guidance_terms,
)
from synthesis.latents import LatentCodec, to_uint8
from synthesis.request import (
    GUIDANCE_END,
    GUIDANCE_SCALE,
    GUIDANCE_START,
    FaceRequest,
    face_requests,
)
from synthesis.sampler import Sampler, seeded_generators
from synthesis.serialization import DEFAULT, SavedPipeline
from warehouse.errors import ModelError, SettingsError
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    from PIL.Image import Image

    from synthesis.img2img import Find, Picture
    from synthesis.request import AUs, Expression

__all__ = ["DEFAULT", "FaceAUOutput", "FaceAUPipeline"]

Generator = int | Sequence[int] | torch.Generator | Sequence[torch.Generator]

StepEndCallback = Callable[
    ["FaceAUPipeline", int, float, dict[str, Tensor]], dict[str, Tensor] | None
]
"""``(pipeline, step, timestep, {"latents", "tokens"}) -> replacements by name, or None``."""

OUTPUT_TYPES = ("pil", "np", "array")

_OLD_ARGUMENTS = {
    "n": "num_images_per_prompt",
    "seed": "generator",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "au_guidance": "au_guidance_scale",
    "callback": "callback_on_step_end",
    "output": "output_type",
    "batch": "batch_size",
}
_Call = TypeVar("_Call", bound=Callable[..., Any])


def _accept_old_arguments(call: _Call) -> _Call:
    """Translate argument names of version 0.1 and warn, for one version."""

    @functools.wraps(call)
    def translated(*args: Any, **given: Any) -> Any:
        for old in [name for name in given if name in _OLD_ARGUMENTS]:
            new = _OLD_ARGUMENTS[old]
            if new in given:
                raise TypeError(f"{old} and {new} are the same argument; give {new}")
            warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=2)
            given[new] = given.pop(old)
        return call(*args, **given)

    return translated  # type: ignore[return-value]


@dataclass
class FaceAUOutput(BaseOutput):
    """Generated faces and what was requested of each.

    Attributes:
        images: a list of PIL images, or an array; see ``output_type``.
        labels: per image ``au`` (unit to requested intensity), ``expression`` (name to requested
            share, or None), ``unsupported`` (requested units that the network does not support
            and ignored) and ``seed``. These are requests, not measurements.
    """

    images: np.ndarray | list[Image]
    labels: list[dict[str, Any]]


class FaceAUPipeline(SavedPipeline):
    """Generate faces from action units and an expression."""

    @_accept_old_arguments
    @torch.no_grad()
    def __call__(
        self,
        au: AUs | Sequence[AUs],
        expression: Expression | Sequence[Expression] = None,
        *,
        num_images_per_prompt: int = 1,
        generator: Generator | None = None,
        num_inference_steps: int = 10,
        guidance_scale: float = GUIDANCE_SCALE,
        au_guidance_scale: float | None = None,
        guidance_start: float = GUIDANCE_START,
        guidance_end: float = GUIDANCE_END,
        reference: Picture | list[Picture] | None = None,
        strength: float = 0.7,
        layout: str = "sdedit",
        find: Find | None = None,
        guide: GuidanceRater | None = None,
        guide_strength: float = 0.3,
        guide_au: bool = False,
        callback_on_step_end: StepEndCallback | None = None,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str = "",
        output_type: str = "pil",
        batch_size: int = 16,
    ) -> FaceAUOutput:
        """Generate ``num_images_per_prompt`` faces of every condition.

        Args:
            au: ``{12: 0.8}`` or ``"AU12=0.8"``, or one per condition. 0 requests the unit's
                absence; units that are not named stay unknown.
            expression: a name, a distribution by name, float[8], None; or one per condition.
            generator: a seed or seeds as in ``request.face_requests`` (default 0), one
                ``torch.Generator`` for all faces, or one per face. A seed gives the same face in
                any batch, except for single pixels whose rounding differs by one gray level.
            guidance_scale: scale of the whole condition, or of the expression if
                ``au_guidance_scale`` is set. 1 is no guidance. Otherwise a step evaluates the
                network twice, or three times with separate scales.
            guidance_start, guidance_end: share of the steps between which guidance acts
                (Kynkäänniemi et al., 2024, arXiv:2404.07724). The other steps evaluate the
                network once.
            reference: an image, or one per face, whose layout is kept.
            strength: share of the noise added to a reference; more keeps less of it.
            layout: ``sdedit`` or ``invert``, see ``synthesis.img2img``.
            find: as ``pipeline.faces.find``; aligns references and refuses those without a face.
            guide: a rater for semantic guidance in the last half of the steps; must not evaluate
                the faces later.
            guide_strength: length of its updates, relative to the token's.
            guide_au: whether semantic guidance moves the AU tokens too.
            callback_on_step_end: called after every step, see ``StepEndCallback``.
            prompt: for networks that read text; None: written from the expression.
            output_type: ``pil``; ``np``: float32[n, s, s, c] in 0..1; ``array``: uint8[n, s, s] or
                uint8[n, s, s, 3].
            batch_size: faces generated at once.

        Raises:
            SettingsError: an unknown unit or expression, contradictory units, values out of range.
            ModelError: the device does not compute in the precision of the weights.
            MediaError: a reference cannot be read or shows no face.
        """
        if output_type not in OUTPUT_TYPES:
            raise SettingsError(
                "The output_type is unknown",
                got=repr(output_type),
                hint=f"use one of {', '.join(OUTPUT_TYPES)}",
            )
        if batch_size < 1:
            raise SettingsError("batch_size is below 1", got=str(batch_size), hint="give 16")
        torch_generators = _torch_generators(generator)
        asked = face_requests(
            au,
            expression,
            n=num_images_per_prompt,
            seed=0 if generator is None or torch_generators else generator,  # type: ignore[arg-type]
        )
        asked, generators = _seeded(asked, torch_generators)
        pairs = [one.supported(self.conditioner.config.supported) for one in asked]
        requests, unsupported = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self._warn_unsupported({unit for units in unsupported for unit in units})
        condition = FaceCondition.of(requests)
        sampler = self.sampler(
            num_inference_steps=num_inference_steps,
            terms=guidance_terms(guidance_scale, au_guidance_scale),
            **guidance_interval(guidance_start, guidance_end),
            strength=1.0 if reference is None else strength,
            layout="sdedit" if reference is None else img2img.check_layout(layout),
            guidance=guide and SemanticGuidance(guide, guide_strength, guide_au),
        )
        prompts = self._prompts(prompt, condition, repeats=num_images_per_prompt)
        references = self._references(reference, len(requests), find)
        starts, images = range(0, len(requests), batch_size), []
        steps = len(sampler.schedule().timesteps)
        with self.progress_bar(total=len(starts) * steps) as bar:

            def step_end(step: int, timestep: float, tensors: dict[str, Tensor]) -> Any:
                bar.update()
                if callback_on_step_end is not None:
                    return callback_on_step_end(self, step, timestep, tensors)
                return None

            for start in starts:
                rows = slice(start, start + batch_size)
                with self._supported_precision():
                    sampled = sampler.sample(
                        condition[rows].to(self.unet.device),
                        generators[rows],
                        prompts=prompts and prompts[rows],
                        negative_prompt=negative_prompt,
                        references=None if references is None else references[rows],
                        callback=step_end,
                    )
                images.append(to_uint8(sampled))
        return FaceAUOutput(
            images=_converted(np.concatenate(images), output_type),
            labels=_labels(requests, condition, unsupported),
        )

    @property
    def latent_codec(self) -> LatentCodec:
        """The codec or the VAE of this pipeline."""
        return LatentCodec(codec=self.codec, vae=self.vae)

    def sampler(self, **options: Any) -> Sampler:
        """Return a ``Sampler`` with this pipeline's components and options."""
        return Sampler(
            unet=self.unet,
            conditioner=self.conditioner,
            scheduler=self.scheduler,
            latent_codec=self.latent_codec,
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            **options,
        )

    @contextmanager
    def _supported_precision(self) -> Iterator[None]:
        """Report a precision in which this processor or GPU does not compute."""
        try:
            yield
        except RuntimeError as error:
            if "not implemented for" not in str(error):
                raise
            raise ModelError(
                f"{self.unet.device} does not compute in {self.unet.dtype}",
                got=str(error).strip().splitlines()[0],
                hint="convert the pipeline with .to(torch.float32)",
            ) from error

    def _warn_unsupported(self, units: Iterable[int]) -> None:
        known = sorted(self.conditioner.config.supported)
        if names := ", ".join(f"AU{unit}" for unit in sorted(units)):
            warnings.warn(
                f"the network does not support {names}; left unknown. It supports "
                f"{', '.join(f'AU{unit}' for unit in known) or 'none'}.",
                UserWarning,
                stacklevel=4,
            )

    def _prompts(
        self, prompt: str | Sequence[str] | None, condition: FaceCondition, *, repeats: int
    ) -> list[str] | None:
        if self.text_encoder is not None:
            return face_prompts(prompt, condition, repeats=repeats)
        if prompt is not None:
            raise SettingsError(
                "This network reads no text", got=repr(prompt), hint="give au and expression"
            )
        return None

    def _references(
        self, reference: Picture | list[Picture] | None, n: int, find: Find | None
    ) -> Tensor | None:
        if reference is None:
            return None
        side, channels = self.latent_codec.image_size(self.unet), self.latent_codec.channels
        images = img2img.read(reference, side=side, channels=channels, find=find)
        if len(images) not in (1, n):
            raise SettingsError(
                f"The number of references is not 1 or {n}, one per face",
                got=str(len(images)),
                hint="give one",
            )
        return images.expand(n, -1, -1, -1)


def _torch_generators(generator: Generator | None) -> list[torch.Generator]:
    """Return the torch generators that were given; none for seeds."""
    given = list(generator) if isinstance(generator, list | tuple) else [generator]
    return [one for one in given if isinstance(one, torch.Generator)]


def _seeded(
    requests: list[FaceRequest], given: list[torch.Generator]
) -> tuple[list[FaceRequest], list[torch.Generator]]:
    """Return requests with their generators' seeds, and a generator per face."""
    if not given:
        return requests, seeded_generators([one.seed for one in requests])
    generators = given * len(requests) if len(given) == 1 else given
    if len(generators) != len(requests):
        raise SettingsError(
            f"The number of generators is not 1 or {len(requests)}, one per face",
            got=str(len(given)),
            hint="give one",
        )
    pairs = zip(requests, generators, strict=True)
    return [replace(one, seed=each.initial_seed()) for one, each in pairs], generators


def _labels(
    requests: list[FaceRequest], condition: FaceCondition, unsupported: list[dict[int, float]]
) -> list[dict[str, Any]]:
    rows = zip(condition.expression.tolist(), condition.null_expression.tolist(), strict=True)
    expressions = [
        None
        if null
        else {name: share for name, share in zip(EXPRESSIONS, row, strict=True) if share}
        for row, null in rows
    ]
    return [
        {"au": dict(one.au), "expression": shares, "unsupported": dict(rest), "seed": one.seed}
        for one, shares, rest in zip(requests, expressions, unsupported, strict=True)
    ]


def _converted(pixels: np.ndarray, output_type: str) -> np.ndarray | list[Image]:
    if output_type == "pil":
        from PIL import Image

        return [Image.fromarray(one) for one in pixels]
    if output_type == "np":
        return pixels.reshape(*pixels.shape[:3], -1).astype(np.float32) / 255
    return pixels
