"""Faces to order: ``FaceAUPipeline.from_default()(au={12: 0.8}, expression="happiness").images``.

One class, two networks. Without a VAE the network works on pixels folded by a ``PixelCodec`` and
reads nothing but expression and AU tokens; with a VAE and a text encoder it is a Stable Diffusion
whose cross-attention layers got AU branches (``synthesis.au_adapter``). Conditioner, guidance,
layout, seeds and output are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from synthesis import img2img as layouts
from synthesis.condition import FaceCondition, prompts_for
from synthesis.guidance import Guide, terms
from synthesis.latents import LatentCodec, as_uint8
from synthesis.request import Request, labels_of
from synthesis.sampler import Batch, Sampler, Wish, seeded_generators
from synthesis.serialization import DEFAULT, Assembly
from warehouse.errors import SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

    from synthesis.img2img import Find, Picture
    from synthesis.request import AUs, Expression

__all__ = ["DEFAULT", "FaceAUOutput", "FaceAUPipeline"]

Callback = Callable[["FaceAUPipeline", int, float, dict[str, Tensor]], dict[str, Tensor] | None]
"""``(pipeline, step, timestep, {"latents", "tokens"}) -> what to put in their place``."""


@dataclass
class FaceAUOutput(BaseOutput):
    """What came out.

    Attributes:
        images: uint8[n, s, s] (RGB: uint8[n, s, s, 3]) or a list of PIL images.
        labels: per image ``au`` (unit to asked intensity), ``expression`` (name to asked share,
            None if none was asked), ``untaught`` (asked units the network never learned, which
            it was not told of) and ``seed``. What was asked, not what was measured.
    """

    images: np.ndarray | list[Image]
    labels: list[dict[str, Any]]


class FaceAUPipeline(Assembly):
    """Diffusion of faces, controlled by action units and an expression."""

    @torch.no_grad()
    def __call__(
        self,
        au: AUs | Sequence[AUs],
        expression: Expression | Sequence[Expression] = None,
        *,
        n: int = 1,
        seed: int | Sequence[int] = 0,
        steps: int = 10,
        guidance: float = 2.0,
        au_guidance: float | None = None,
        reference: Picture | list[Picture] | None = None,
        strength: float = 0.7,
        layout: str = "sdedit",
        find: Find | None = None,
        guide: Guide | None = None,
        guide_strength: float = 0.3,
        guide_au: bool = False,
        callback: Callback | None = None,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str = "",
        output: str = "pil",
        batch: int = 16,
    ) -> FaceAUOutput:
        """Draw ``n`` faces of every condition.

        Args:
            au: ``{12: 0.8}`` or ``"AU12=0.8"``, or one per condition. 0 asks for the unit's
                absence; what is not named stays unknown.
            expression: a name, a distribution by name, float[8], None; or one per condition.
            seed: see ``Request.of``. A seed gives the same face in any batch, but for single
                pixels whose rounding tips by one grey level.
            guidance: scale of the whole request, or of the expression if ``au_guidance`` is
                given; 1 is none, two evaluations per step, three with separate scales.
            reference: one picture, or one per face, whose layout is kept.
            strength: share of the way that a reference is noised; more leaves less of it.
            layout: ``sdedit`` or ``invert``.
            find: as ``pipeline.faces.find``; aligns references, refuses those without a face.
            guide: a rater for semantic guidance in the last half of the steps; never the one
                that judges the faces later.
            guide_strength: length of its updates, relative to the token's.
            guide_au: let the guide move the AU tokens too.
            callback: after every step, see ``Callback``.
            prompt: for networks that read text; by default made from the expression.
            output: ``pil`` or ``array``.
            batch: faces drawn at once.

        Raises:
            SettingsError: an unknown unit or expression, contradictory units, values out of range.
            MediaError: a reference cannot be read or shows no face.
        """
        if output not in ("pil", "array"):
            raise SettingsError("output 'pil' or 'array'", got=repr(output), hint="use pil")
        if batch < 1:
            raise SettingsError("a batch of 1 or more", got=str(batch), hint="give batch=16")
        request = Request.of(au, expression, n=n, seed=seed, taught=self.conditioner.config.taught)
        condition = FaceCondition.of(request.au, request.expression)
        wish = Wish(
            steps=steps,
            terms=terms(guidance, au_guidance),
            strength=1.0 if reference is None else strength,
            layout="sdedit" if reference is None else layouts.check_layout(layout),
            guide=guide,
            guide_strength=guide_strength,
            guide_au=guide_au,
        )
        prompts = self._prompts(prompt, condition, repeats=n)
        pictures = self._references(reference, len(request), find)
        painter, drawn = self.painter, []
        starts = range(0, len(request), batch)
        with self.progress_bar(
            total=len(starts) * len(painter.sampling_schedule(wish).timesteps)
        ) as bar:

            def watch(step: int, moment: float, tensors: dict[str, Tensor]) -> Any:
                bar.update()
                return callback(self, step, moment, tensors) if callback else None

            for start in starts:
                rows = slice(start, start + batch)
                own = Batch(
                    condition=_rows(condition, rows).to(self.unet.device),
                    generators=seeded_generators(request.seed[rows]),
                    prompts=prompts and prompts[rows],
                    negative=negative_prompt,
                    pictures=None if pictures is None else pictures[rows],
                )
                drawn.append(as_uint8(painter.draw(wish, own, watch)))
        pixels = np.concatenate(drawn)
        return FaceAUOutput(
            images=pixels if output == "array" else _as_pil(pixels),
            labels=labels_of(request, condition),
        )

    @property
    def latent_codec(self) -> LatentCodec:
        return LatentCodec(codec=self.codec, vae=self.vae)

    @property
    def painter(self) -> Sampler:
        """The engine below this class: one network evaluation, one batch, no bookkeeping."""
        return Sampler(
            unet=self.unet,
            conditioner=self.conditioner,
            scheduler=self.scheduler,
            latent_codec=self.latent_codec,
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
        )

    def _prompts(
        self, given: str | Sequence[str] | None, condition: FaceCondition, *, repeats: int
    ) -> list[str] | None:
        if self.text_encoder is not None:
            return prompts_for(
                given, condition.expression, ~condition.null_expression, repeats=repeats
            )
        if given is not None:
            raise SettingsError(
                "no prompt", got=repr(given), hint="this network reads no text: give au, expression"
            )
        return None

    def _references(
        self, reference: Picture | list[Picture] | None, n: int, find: Find | None
    ) -> Tensor | None:
        if reference is None:
            return None
        latent_codec = self.latent_codec
        side, channels = latent_codec.image_size(self.unet), latent_codec.channels
        pictures = layouts.read(reference, side=side, channels=channels, find=find)
        if len(pictures) not in (1, n):
            raise SettingsError(
                f"one reference or {n}, one per face", got=str(len(pictures)), hint="give one"
            )
        return pictures.expand(n, -1, -1, -1)


def _rows(condition: FaceCondition, rows: slice) -> FaceCondition:
    return FaceCondition(
        expression=condition.expression[rows],
        au=condition.au[rows],
        null_expression=condition.null_expression[rows],
        null_au=condition.null_au[rows],
    )


def _as_pil(pixels: np.ndarray) -> list[Image]:
    from PIL import Image

    return [Image.fromarray(one) for one in pixels]
