"""Training run on disk: a killed run continues at its last checkpoint."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from warehouse.build_info import hardware
from warehouse.errors import ModelError, SettingsError
from warehouse.storage import atomic

if TYPE_CHECKING:
    from warehouse.training.loop import Recipe

FILE = "checkpoint.pt"
RESULTS = "results.json"

_COUNTS = "num_batches_tracked"

_MAY_CHANGE = ("minutes", "steps")
"""A run may be continued with a longer or shorter schedule; every other value is fixed."""


class Run:
    """Model, averaged model, optimizer and progress of one training run.

    Args:
        folder: where the checkpoint is; a run found there is continued.
        model: untrained.
        optimizer: of the parameters of ``model``.
        about: JSON values that, beside the recipe, decide what the weights are; a checkpoint
            with other values is refused.
        precision: ``fp32`` or ``bf16``. A continued run keeps the precision it was started with.

    Attributes:
        averaged: exponential moving average of weights and buffers, in ``averaged.module``.
        step, seconds: progress over all sessions.
        history: one record of figures per evaluation.

    Raises:
        SettingsError: ``folder`` holds a run of another recipe.
        ModelError: its checkpoint is damaged.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        *,
        about: dict[str, Any],
        precision: str = "fp32",
    ) -> None:
        self.folder, self.recipe, self.about, self.precision = folder, recipe, about, precision
        self.model, self.optimizer = model, optimizer
        self.device = next(model.parameters()).device.type
        self.averaged = AveragedModel(model, use_buffers=True).requires_grad_(False)
        # With a count of 0 the first update would copy the weights instead of averaging them.
        self.averaged.n_averaged.fill_(1)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        # A process killed while saving leaves a draft beside the checkpoint.
        atomic.delete_stale_drafts(folder, older_than_s=24 * 3600, now=time.time)
        if (folder / FILE).exists():
            self._resume(load(folder))

    def _resume(self, state: dict[str, Any]) -> None:
        check_recipe(self.folder, state, self.recipe, about=self.about)
        if "optimizer" not in state:
            raise ModelError(
                f"The run {self.folder.name} cannot be continued",
                got="a checkpoint without optimizer",
                hint="it was stripped after training; begin another run with --start",
            )
        load_weights(self.model, state["model"], source=self.folder.name)
        self.averaged.module.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision = state["precision"]
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]

    def autocast(self) -> torch.autocast:
        """Return the context of mixed precision for a forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")

    def average(self) -> None:
        """Update the averaged weights; the average is shorter in the first steps."""
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        self.averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self.averaged.update_parameters(self.model)

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "recipe": asdict(self.recipe),
            "about": self.about,
            "precision": self.precision,
            "device": self.device,
            "hardware": hardware(),
            "model": self.model.state_dict(),
            "averaged": self.averaged.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        # An open file, because torch refuses names that begin with a dot.
        with atomic.replace_file(self.folder / FILE) as draft, open(draft, "wb") as handle:
            torch.save(state, handle)

    def write_results(self, **results: Any) -> dict[str, Any]:
        """Write ``results.json``: the run's facts and ``results``."""
        self.save()
        return write_results(self.folder, load(self.folder), **results)


def load(folder: Path) -> dict[str, Any]:
    """Read the checkpoint of a run.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    path = folder / FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"The checkpoint {path} cannot be read",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            hint="delete it and train again",
        ) from error
    return state


def check_recipe(
    folder: Path, state: dict[str, Any], recipe: Recipe, *, about: dict[str, Any] | None = None
) -> None:
    """Check that a run was started with this recipe.

    Raises:
        SettingsError: it was not. Limits of minutes and steps may differ.
    """
    then = {**(state["about"] if about is not None else {}), **state["recipe"]}
    now = {**(about or {}), **asdict(recipe)}
    changed = {
        name: (then.get(name), value)
        for name, value in now.items()
        if then.get(name) != value and name not in _MAY_CHANGE
    }
    if changed:
        raise SettingsError(
            f"{folder.name} was started with other options",
            got=f"(then, now) {changed}",
            hint="repeat the options of the first call, or name another --out",
        )


def finished(folder: Path, recipe: Recipe) -> bool:
    """Return whether a run has reached the limit of its recipe.

    Raises:
        SettingsError: ``folder`` holds a run of another recipe.
    """
    if not (folder / FILE).exists():
        return False
    state = load(folder)
    check_recipe(folder, state, recipe)
    return recipe.progress(state["step"], state["seconds"]) >= 1


def strip(folder: Path, to: Path) -> None:
    """Copy a checkpoint without what only training needs.

    The copy has about a quarter of the size. It can be evaluated, exported, used as a teacher or as
    a start, but not continued.
    """
    state = load(folder)
    left = {name: value for name, value in state.items() if name not in ("model", "optimizer")}
    with atomic.replace_file(to / FILE) as draft, open(draft, "wb") as handle:
        torch.save(left, handle)


def write_results(folder: Path, state: dict[str, Any], **results: Any) -> dict[str, Any]:
    """Write ``results.json``: the facts of a checkpoint and ``results``."""
    content = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": state.get("device", "unknown"),
        "hardware": state.get("hardware", "unknown"),
        "precision": state["precision"],
        "recipe": state["recipe"],
        "steps": state["step"],
        "minutes": round(state["seconds"] / 60, 1),
        **results,
        "history": state["history"],
    }
    atomic.write_text(folder / RESULTS, json.dumps(content, indent=1) + "\n")
    return content


def results_of(folder: Path) -> dict[str, Any]:
    """Read ``results.json`` of a finished run.

    Raises:
        ModelError: the run has not ended.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise ModelError(
            "The run has not ended", got=f"no file {path}", hint="let training end, then export"
        )
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load weights into a model.

    Counts of batches may be missing, because only training reads them.

    Args:
        source: name of the file or folder, for the error.

    Raises:
        ModelError: a weight is missing, unknown or of another shape.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in weights and not name.endswith(_COUNTS)]
    unknown = [name for name in weights if name not in wanted]
    other = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    for problem, names in (("of another shape", other), ("missing", missing), ("unknown", unknown)):
        if names:
            raise ModelError(
                f"The weights in {source} are not those of this network",
                got=f"{len(names)} {problem}, the first {names[0]}",
                hint="use the weights with the shape, tier or recipe that they were trained with",
            )
    model.load_state_dict(weights, strict=False)


DEVICES = ("auto", "cpu", "cuda")


def device(wanted: str = "auto") -> str:
    """Return ``cuda`` or ``cpu``; ``auto`` is a GPU if there is one.

    Raises:
        SettingsError: there is a GPU, or one is wanted, and it cannot be used.
    """
    if wanted == "cpu":
        return "cpu"
    problem = gpu_problem()
    if problem is None:
        return "cuda"
    if wanted == "auto" and not _gpu_is_present():
        return "cpu"
    raise SettingsError(
        "The GPU cannot be used",
        got=problem,
        hint="install a PyTorch that fits the GPU and its driver, or give --device cpu",
    )


def gpu_problem() -> str | None:
    """Return why PyTorch cannot compute on a GPU, or None if it can."""
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return "PyTorch is built without CUDA"
        return "PyTorch finds no GPU that its CUDA can use"
    try:
        # A GPU may be listed whose architecture or memory allows no kernel to run.
        torch.ones(2, 2, device="cuda").matmul(torch.ones(2, 2, device="cuda")).sum().item()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return None


def _gpu_is_present() -> bool:
    return torch.cuda.is_available() or Path("/proc/driver/nvidia/version").exists()


def adamw(model: nn.Module, *, decay: float, **options: Any) -> torch.optim.AdamW:
    """Make an AdamW that decays matrices and kernels, not biases and norms."""
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        **options,
    )


def check_precision(precision: str, device: str) -> str:
    """Return ``precision`` if the device computes in it.

    Raises:
        SettingsError: it does not.
    """
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            layer = nn.Conv2d(1, 1, 1).to(device)
            layer(torch.ones(1, 1, 2, 2, device=device)).sum().backward()
        usable = not (device == "cuda" and precision == "bf16") or torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        reason = "the GPU emulates bf16"
    except RuntimeError as error:
        usable, reason = False, str(error).splitlines()[0]
    if not usable:
        raise SettingsError(
            f"This {device} does not compute in {precision}",
            got=reason,
            hint="give --precision fp32",
        )
    return precision


def faster_precision(
    forward: Callable[[], Tensor], *, batch: int, device: str = "cpu"
) -> tuple[str, str]:
    """Choose ``bf16`` or ``fp32`` for a device.

    Args:
        forward: a forward pass on the CPU; used if that is the device.
        batch: faces in it.

    Returns:
        The precision and the reason for it.
    """
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", f"{torch.cuda.get_device_name()} computes it natively"
        return "fp32", f"{torch.cuda.get_device_name()} has no bf16"

    def seconds(name: str) -> float:
        # Processor time, so that other work on the machine does not decide.
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
            output = forward()
        output.float().square().mean().backward()
        return time.process_time() - start

    cost = {name: min(seconds(name) for _ in range(3)) for name in ("fp32", "bf16")}
    listed = " and ".join(f"{cost[name] / batch * 1e3:.1f} ms in {name}" for name in cost)
    return min(cost, key=lambda name: cost[name]), f"processor time per face: {listed}"
