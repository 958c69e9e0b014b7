"""A training run that survives being killed."""

from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthesis import unet as network
from synthesis.condition import FaceCondition
from warehouse.errors import ModelError, SettingsError
from warehouse.storage import atomic

FILE = "checkpoint.pt"

_MAY_CHANGE = ("minutes", "steps")


class Denoiser(nn.Module):
    """Conditioner and UNet as one: what is trained together."""

    conditioner: Any
    unet: Any

    def __init__(self, tier: str, *, taught: tuple[int, ...]) -> None:
        super().__init__()
        self.conditioner = network.conditioner(tier, supported=taught)
        self.unet = network.unet(tier)

    def forward(self, noisy: Tensor, moment: Tensor, condition: FaceCondition) -> Tensor:
        """The velocity at a noisy grid float[n, c, h, w]."""
        tokens, pooled = self.conditioner(condition)
        return self.unet(
            noisy, moment, encoder_hidden_states=tokens, class_labels=pooled, return_dict=False
        )[0]


class Run:
    """Network, averaged network, optimizer and how far they are.

    Attributes:
        denoiser, averaged: the trained weights and their exponential moving average.
        step, seconds: progress over all sittings.
        history: one record of figures per pass over the data.
    """

    def __init__(
        self, folder: Path, recipe: dict[str, Any], *, taught: tuple[int, ...], precision: str
    ) -> None:
        self.folder, self.recipe, self.taught = folder, recipe, tuple(taught)
        self.precision = precision
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(recipe["seed"])
        denoiser = Denoiser(recipe["tier"], taught=self.taught)
        self.denoiser = denoiser.to(self.device).to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.optimizer = _optimizer(self.denoiser, decay=recipe["decay"])
        self._slow = [value.data for value in self.averaged.parameters()]
        self._fast = [value.data for value in self.denoiser.parameters()]
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []

    @classmethod
    def open(
        cls,
        folder: Path,
        recipe: dict[str, Any],
        *,
        taught: tuple[int, ...],
        precision: str = "fp32",
    ) -> Run:
        """The run in ``folder`` where it stopped, or a new one.

        A longer or shorter schedule may be given to a begun run; nothing else may change.

        Raises:
            SettingsError: the folder holds a run of another recipe.
            ModelError: its checkpoint is damaged.
        """
        # A kill amid saving leaves a draft beside the checkpoint.
        atomic.delete_stale_drafts(folder, older_than_s=24 * 3600, now=time.time)
        path = folder / FILE
        if not path.exists():
            return cls(folder, recipe, taught=taught, precision=precision)
        kept = _load(path)
        different = {
            name: (kept["recipe"].get(name), value)
            for name, value in recipe.items()
            if kept["recipe"].get(name) != value and name not in _MAY_CHANGE
        }
        if different or tuple(kept["taught"]) != tuple(taught):
            raise SettingsError(
                f"the recipe with which {folder.name} was begun",
                got=f"other values (then, now): {different or 'for the taught units'}",
                hint="repeat the options of the first call, or name another --out",
            )
        run = cls(folder, recipe, taught=taught, precision=kept["precision"])
        run.denoiser.load_state_dict(kept["denoiser"])
        run.averaged.load_state_dict(kept["averaged"])
        run.optimizer.load_state_dict(kept["optimizer"])
        run.step, run.seconds, run.history = kept["step"], kept["seconds"], kept["history"]
        return run

    def average(self, keep: float) -> None:
        """Move the averaged weights towards the trained ones."""
        torch._foreach_lerp_(self._slow, self._fast, 1 - keep)

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "recipe": self.recipe,
            "taught": list(self.taught),
            "precision": self.precision,
            "denoiser": self.denoiser.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        # A handle, because torch refuses names that begin with a dot.
        with atomic.replace_file(self.folder / FILE) as draft, open(draft, "wb") as handle:
            torch.save(state, handle)


def trained(folder: Path) -> tuple[Denoiser, dict[str, Any]]:
    """The averaged network of a run, ready to be used, and the rest of its checkpoint.

    Raises:
        ModelError: there is no checkpoint, or it is damaged.
    """
    kept = _load(folder / FILE)
    denoiser = Denoiser(kept["recipe"]["tier"], taught=tuple(kept["taught"]))
    denoiser.load_state_dict(kept["averaged"])
    about = ("recipe", "taught", "precision", "step", "seconds", "history")
    return denoiser.eval(), {name: kept[name] for name in about}


def precision_for(tier: str, *, batch: int = 16) -> tuple[str, str]:
    """``bf16`` or ``fp32``, and why: the faster of the two on this device, measured."""
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported():
            return "bf16", f"{torch.cuda.get_device_name()} computes it natively"
        return "fp32", f"{torch.cuda.get_device_name()} has no bf16"
    denoiser = Denoiser(tier, taught=()).to(memory_format=torch.channels_last)
    draft = {name: _time(denoiser, tier, name, batch) for name in ("fp32", "bf16") for _ in "ab"}
    best = min(draft, key=lambda name: draft[name])
    cost = " and ".join(f"{took / batch * 1e3:.0f} ms in {name}" for name, took in draft.items())
    return best, f"measured on this CPU, processor time per face: {cost}"


def _time(denoiser: Denoiser, tier: str, precision: str, batch: int) -> float:
    noisy = torch.randn(batch, *network.codec(tier).grid)
    told = FaceCondition.unconditional(batch)
    # Processor time: a busy neighbour must not decide.
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        velocity = denoiser(noisy, torch.zeros(batch, dtype=torch.int64), told)
    velocity.float().square().mean().backward()
    return time.process_time() - start


def _optimizer(denoiser: Denoiser, *, decay: float) -> torch.optim.AdamW:
    parameters = list(denoiser.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.99),
        fused=True,
    )


def _load(path: Path) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"a readable checkpoint at {path}",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            hint="delete it and train again",
        ) from error
