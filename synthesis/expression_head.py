"""Expression classifier on the diffusion network's features and attention.

A small version of SynFER's FERAnno (Qi et al., 2024). A little noise is added to a face, the
network denoises it once without a condition, and a small head classifies its features and
attention maps. The network is not changed.

``python -m synthesis.expression_head --network DIR --data DIR --out DIR`` trains the head.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from synthesis.condition import FaceCondition
from synthesis.noise_schedule import NoiseLevels
from synthesis.pipeline import FaceAUPipeline
from synthesis.sampler import random_noise
from synthesis.training.dataset import TrainingFaces, is_held_out, load_faces
from warehouse.errors import ModelError
from warehouse.storage import atomic

if TYPE_CHECKING:
    from synthesis.pipeline import FaceAUPipeline

TIMESTEP = 20
"""Of 1000: enough noise to activate the network, too little to hide a wrinkle."""

GRID = 4
"""Cells along an edge to which features and maps are averaged."""

_NOISE_SEED = 0


@torch.no_grad()
def observe(pipeline: FaceAUPipeline, gray: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the network's features and attention maps of uint8[n, s, s].

    Every face gets the same noise and no condition, so equal faces give equal features.

    Returns:
        Features of the middle and every up block, float[n, 16, channels], and attention maps of
        every token, mean over heads, float[n, tokens, layers * 16].
    """
    levels = NoiseLevels.of(pipeline.scheduler)
    face = pipeline.codec.encode(torch.from_numpy(gray).unsqueeze(1).float() / 127.5 - 1)
    drawn = random_noise([torch.Generator().manual_seed(_NOISE_SEED)], face.shape[1:])
    nothing = FaceCondition.unconditional(len(gray))
    tokens, pooled = pipeline.conditioner(nothing)
    with _watched(pipeline.unet) as (features, maps):
        pipeline.unet(
            levels.add_noise(face, drawn, TIMESTEP),
            TIMESTEP,
            encoder_hidden_states=tokens,
            class_labels=pooled,
        )
    return torch.cat(features, dim=2), torch.cat(maps, dim=2)


@contextmanager
def _watched(unet: Any) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Collect pooled features and maps of each pass; then restore the network."""
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
    """Plain attention that records its probabilities; fused kernels have none."""

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


_BATCH = 64
WEIGHTS = "annotator.safetensors"


class Head(nn.Module):
    """Two branches that cross-attend once, and a classifier.

    Args:
        channels: of the features in each of 16 cells.
        tokens: of the condition, each with an attention map of 16 cells per layer.
        layers: of cross-attention.
    """

    def __init__(self, channels: int, tokens: int, layers: int, width: int = 96) -> None:
        super().__init__()
        self.shape = {"channels": channels, "tokens": tokens, "layers": layers, "width": width}
        places = GRID * GRID
        self.look = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.place = nn.Parameter(torch.randn(places, width) * 0.02)
        self.map = nn.Sequential(nn.LayerNorm(layers * places), nn.Linear(layers * places, width))
        self.token = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.ask_maps = nn.MultiheadAttention(width, 4, dropout=0.1, batch_first=True)
        self.ask_looks = nn.MultiheadAttention(width, 4, dropout=0.1, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.answer = nn.Sequential(
            nn.Linear(2 * width, width), nn.GELU(), nn.Dropout(0.2), nn.Linear(width, 8)
        )

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        """Return logits [n, 8] of features [n, 16, channels] and attention maps.

        Maps are float[n, tokens, layers * 16]."""
        looks, asked = self.look(features) + self.place, self.map(maps) + self.token
        one = self.norms[0](looks + self.ask_maps(looks, asked, asked, need_weights=False)[0])
        two = self.norms[1](asked + self.ask_looks(asked, looks, looks, need_weights=False)[0])
        return self.answer(torch.cat([one.mean(dim=1), two.mean(dim=1)], dim=1))


class Annotator:
    """A diffusion network with the expression head trained for it."""

    def __init__(self, pipeline: FaceAUPipeline, head: Head) -> None:
        self.pipeline, self.head = pipeline, head.eval()

    @classmethod
    def load(cls, folder: Path, pipeline: FaceAUPipeline) -> Annotator:
        """Load a head of ``save``.

        Raises:
            ModelError: it is missing, or was trained for another network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            about = json.loads((folder / "annotator.json").read_text())
            head = Head(**about["shape"])
            head.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"The annotator in {folder.name} cannot be loaded",
                got=type(error).__name__,
                hint="train it with python -m synthesis.expression_head",
            ) from error
        side = pipeline.codec.config.side
        features, maps = observe(pipeline, np.zeros((1, side, side), np.uint8))
        fits = {"channels": features.shape[2], "tokens": maps.shape[1]}
        if any(about["shape"][name] != size for name, size in fits.items()):
            raise ModelError(
                f"The annotator does not fit this network, which has {fits}",
                got=str(about["shape"]),
                hint="train it for this network",
            )
        return cls(pipeline, head)

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Write the weights and a JSON record beside them."""
        from safetensors.torch import save

        atomic.write_bytes(folder / WEIGHTS, save(self.head.state_dict()))
        text = json.dumps({"shape": self.head.shape, **about}, indent=1)
        atomic.write_text(folder / "annotator.json", text + "\n")

    @torch.inference_mode()
    def rate(self, gray: np.ndarray) -> np.ndarray:
        """Return distributions float32[n, 8] of faces of the network's image size."""
        parts = [
            torch.softmax(self.head(*observe(self.pipeline, gray[at : at + _BATCH])), dim=1)
            for at in range(0, len(gray), _BATCH)
        ]
        return torch.cat(parts).numpy() if parts else np.zeros((0, 8), np.float32)


def train(
    pipeline: FaceAUPipeline, faces: TrainingFaces, *, minutes: float, steps: int = 0, seed: int = 0
) -> tuple[Annotator, dict[str, Any]]:
    """Train a head for a network; return it with its held-out accuracy.

    Args:
        minutes: of training, after the features are computed; 0: until ``steps``.
    """
    torch.manual_seed(seed)
    seen = [observe(pipeline, faces.gray[at : at + _BATCH]) for at in range(0, len(faces), _BATCH)]
    features, maps = (torch.cat([pair[side].half() for pair in seen]) for side in (0, 1))
    aside = torch.from_numpy(is_held_out(faces))
    wanted = torch.from_numpy(faces.expression)
    layers = maps.shape[2] // (GRID * GRID)
    head = Head(features.shape[2], maps.shape[1], layers)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
    learn, rng = torch.nonzero(~aside).flatten().numpy(), np.random.default_rng(seed)
    start, step = time.monotonic(), 0
    while (time.monotonic() - start < 60 * minutes) if minutes else step < steps:
        rows = torch.from_numpy(rng.choice(learn, 2 * _BATCH))
        loss = functional.cross_entropy(
            head(features[rows].float(), maps[rows].float()), wanted[rows]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    annotator = Annotator(pipeline, head)
    found: dict[str, Any] = {"steps": step, "faces": len(learn), "held_out": int(aside.sum())}
    if aside.any():
        answers = annotator.rate(faces.gray[aside.numpy()])
        right = answers.argmax(axis=1) == faces.expression[aside.numpy()].argmax(axis=1)
        found["accuracy"] = float(right.mean())
    return annotator, found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m synthesis.expression_head", description=__doc__
    )
    add = parser.add_argument
    add("--network", type=Path, required=True, help="folder of a saved pipeline")
    add("--data", type=Path, required=True, help="folder passed to --faces")
    add("--out", type=Path, required=True)
    add("--cache", type=Path, default=Path(".cache/ferplus"))
    add("--faces", default="pipeline.synthesis.training_data:faces", help="package.module:function")
    add("--most", type=int, default=8000, help="faces trained on; each takes 10 kB of memory")
    add("--minutes", type=float, default=5.0)
    add("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    pipeline = FaceAUPipeline.from_pretrained(options.network)
    side = pipeline.codec.config.side
    faces = load_faces(options.faces, options.data, side=side, cache=options.cache)
    rows = np.random.default_rng(0).permutation(len(faces))[: options.most]
    annotator, found = train(pipeline, faces.take(np.sort(rows)), minutes=options.minutes)
    annotator.save(options.out, found)
    print(", ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
