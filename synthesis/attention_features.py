"""Looking over the shoulder of the drawing network: its features and its cross-attention maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from synthesis.condition import Condition
from synthesis.solver import Levels, noise

if TYPE_CHECKING:
    from synthesis.pipeline import FaceAUPipeline

TIMESTEP = 20
"""Of 1000: enough noise for the network to have something to do, too little to hide a wrinkle."""

GRID = 4
"""Places along an edge to which features and maps are averaged."""

_NOISE_SEED = 0


@torch.no_grad()
def observe(pipeline: FaceAUPipeline, gray: np.ndarray) -> tuple[Tensor, Tensor]:
    """What the network computes while it looks at faces uint8[n, s, s] with no request.

    The noise is the same for every face, so that the same face gives the same answer.

    Returns:
        Features of the middle and of every step up, float[n, 16, channels], and attention maps of
        every request token, mean over heads, float[n, tokens, layers * 16].
    """
    levels = Levels.of(pipeline.scheduler)
    face = pipeline.codec.encode(torch.from_numpy(gray).unsqueeze(1).float() / 127.5 - 1)
    drawn = noise([torch.Generator().manual_seed(_NOISE_SEED)], face.shape[1:])
    nothing = Condition.of([{}] * len(gray), [None] * len(gray))
    tokens, pooled = pipeline.conditioner(nothing)
    with _watched(pipeline.unet) as (features, maps):
        pipeline.unet(
            levels.mix(face, drawn, TIMESTEP),
            TIMESTEP,
            encoder_hidden_states=tokens,
            class_labels=pooled,
        )
    return torch.cat(features, dim=2), torch.cat(maps, dim=2)


@contextmanager
def _watched(unet: Any) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Lists that every pass fills with pooled features and maps; the network is left as it was."""
    features: list[Tensor] = []
    maps: list[Tensor] = []

    def keep(module: nn.Module, given: Any, out: Tensor) -> None:
        small = functional.adaptive_avg_pool2d(out, GRID)
        features.append(small.flatten(2).transpose(1, 2))

    before = dict(unet.attn_processors)
    recording = {
        name: _Recording(maps) if ".attn2." in name else one for name, one in before.items()
    }
    hooks = [part.register_forward_hook(keep) for part in (unet.mid_block, *unet.up_blocks)]
    # set_attn_processor empties the dict that it is given.
    unet.set_attn_processor(dict(recording))
    try:
        yield features, maps
    finally:
        unet.set_attn_processor(before)
        for hook in hooks:
            hook.remove()


class _Recording:
    """Plain attention whose probabilities are kept: the fused kernel never forms them."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        query, key, value = (
            attn.head_to_batch_dim(part)
            for part in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        shares = attn.get_attention_scores(query, key, attention_mask)
        edge = round(shares.shape[1] ** 0.5)
        mean = shares.unflatten(0, (len(hidden_states), -1)).mean(dim=1)
        places = mean.transpose(1, 2).unflatten(2, (edge, edge))
        self.maps.append(functional.adaptive_avg_pool2d(places, GRID).flatten(2))
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(torch.bmm(shares, value))))
