"""A training run that survives being killed."""

from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from annotation.raters.network import RaterNetwork, Shape
from annotation.raters.training.config import Recipe
from warehouse.errors import ModelError, SettingsError
from warehouse.storage import atomic

FILE = "checkpoint.pt"


class Run:
    """Network, averaged network, optimizer and how far they are.

    Attributes:
        network, averaged: the trained weights and their exponential moving average.
        step, seconds: progress over all sittings.
        history: one record of figures per pass over the data.
    """

    def __init__(
        self, folder: Path, shape: Shape, recipe: dict[str, Any], *, precision: str
    ) -> None:
        self.folder, self.shape, self.recipe = folder, shape, recipe
        self.precision = precision
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = RaterNetwork(shape).to(self.device).to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = _optimizer(self.network, decay=recipe["decay"])
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []

    @classmethod
    def open(
        cls, folder: Path, shape: Shape, recipe: dict[str, Any], *, precision: str | None = None
    ) -> Run:
        """The run in ``folder`` where it stopped, or a new one.

        Raises:
            SettingsError: the folder holds a run of another recipe.
            ModelError: its checkpoint is damaged.
        """
        # A kill amid saving leaves a draft beside the checkpoint.
        atomic.delete_stale_drafts(folder, older_than_s=24 * 3600, now=time.time)
        path = folder / FILE
        if not path.exists():
            return cls(folder, shape, recipe, precision=precision or "fp32")
        kept = _load(path)
        if kept["recipe"] != recipe or kept["shape"] != shape.as_dict():
            different = {k: (kept["recipe"].get(k), v) for k, v in recipe.items()
                         if kept["recipe"].get(k) != v}  # fmt: skip
            raise SettingsError(
                f"the recipe with which {folder.name} was begun",
                got=f"other values (then, now): {different or 'for the AU proxies'}",
                hint="repeat the options of the first call, or name another --out",
            )
        run = cls(folder, shape, recipe, precision=kept["precision"])
        run.network.load_state_dict(kept["network"])
        run.averaged.load_state_dict(kept["averaged"])
        run.optimizer.load_state_dict(kept["optimizer"])
        run.step, run.seconds, run.history = kept["step"], kept["seconds"], kept["history"]
        return run

    def average(self, keep: float) -> None:
        """Move the averaged weights, batch statistics included, towards the trained ones."""
        with torch.no_grad():
            pairs = zip(
                self.averaged.state_dict().values(),
                self.network.state_dict().values(),
                strict=True,
            )
            for slow, fast in pairs:
                if slow.is_floating_point():
                    slow.lerp_(fast, 1 - keep)
                else:
                    slow.copy_(fast)

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "shape": self.shape.as_dict(),
            "recipe": self.recipe,
            "precision": self.precision,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        # A handle, because torch refuses names that begin with a dot.
        with atomic.replace_file(self.folder / FILE) as draft, open(draft, "wb") as handle:
            torch.save(state, handle)


def trained(folder: Path) -> RaterNetwork:
    """The averaged network of a run, ready to be used.

    Raises:
        ModelError: there is no checkpoint, or it is damaged.
    """
    kept = _load(folder / FILE)
    network = RaterNetwork(Shape(**kept["shape"]))
    network.load_state_dict(kept["averaged"])
    return network.eval()


def precision_for(recipe: Recipe) -> tuple[str, str]:
    """``bf16`` or ``fp32``, and why: the faster of the two on this device, measured."""
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported():
            return "bf16", f"{torch.cuda.get_device_name()} computes it natively"
        return "fp32", f"{torch.cuda.get_device_name()} has no bf16"
    network = RaterNetwork(recipe.shape(units=1))
    network = network.to(memory_format=torch.channels_last)
    seconds = {name: min(_time(network, name) for _ in range(3)) for name in ("fp32", "bf16")}
    best = min(seconds, key=lambda name: seconds[name])
    cost = " and ".join(f"{took / 64e-3:.1f} ms in {name}" for name, took in seconds.items())
    return best, f"measured on this CPU, processor time per face: {cost}"


def _time(network: RaterNetwork, precision: str) -> float:
    face = torch.rand(64, 1, network.shape.side, network.shape.side) * 255
    # Processor time: a busy neighbour must not decide.
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits, _, _ = network(face)
    logits.float().square().mean().backward()
    return time.process_time() - start


def _optimizer(network: RaterNetwork, *, decay: float) -> torch.optim.AdamW:
    parameters = list(network.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
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
