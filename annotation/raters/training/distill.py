"""Load the teachers of a rater, and let them answer its own view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from annotation.raters.network import RaterNetwork, Shape
from annotation.raters.training.dataset import RaterDataset
from annotation.raters.training.recipe import Recipe
from warehouse.errors import SettingsError
from warehouse.training import checkpoint


@dataclass(frozen=True)
class Teacher:
    """Frozen network that teaches.

    Attributes:
        name: rater id, or the recipe that it was trained with.
    """

    network: RaterNetwork
    name: str


@torch.no_grad()
def teach(teachers: Sequence[RaterNetwork], face: Tensor) -> tuple[Tensor, Tensor]:
    """Average the teachers' answers float[n, 10] and AU proxies float[n, K]."""
    answers, au = [], []
    for network in teachers:
        logits, au_logits, _ = network(_at_side(face, network.shape.side))
        answers.append(functional.softmax(logits.float(), dim=1))
        au.append(torch.sigmoid(au_logits.float()))
    return torch.stack(answers).mean(dim=0), torch.stack(au).mean(dim=0)


def _at_side(face: Tensor, side: int) -> Tensor:
    if face.shape[-1] == side:
        return face
    mode = "area" if face.shape[-1] > side else "bilinear"
    return functional.interpolate(face, size=(side, side), mode=mode)


def load_rater(name: str, recipe: Recipe, dataset: RaterDataset) -> Teacher:
    """Load a rater to teach or to begin with: shipped, exported, or a run.

    Raises:
        SettingsError: it learned from pictures outside the recipe's fold, or knows other units.
        ModelError: it is missing or damaged.
    """
    from annotation.raters import torch_rater
    from annotation.raters.onnx_rater import read_card, weights_of

    folder = Path(name).expanduser()
    if folder.is_dir():
        state = checkpoint.load(folder)
        network, part = network_of(state, folder), state["recipe"]["part"]
        units, label = None, state["about"].get("name", f"run {folder.name}")
    else:
        card, rater = read_card(weights_of(name)), torch_rater.load(name)
        network, part = rater.served.network, card["trained_on"]["part"]
        units, label = card["action_units"], rater.rater_id
    if recipe.part not in (part, "1/1"):
        raise SettingsError(
            f"{label} learned from pictures outside fold {recipe.part}",
            got=f"fold {part}",
            hint="teach with raters of the same fold, or train on 1/1",
        )
    wanted = list(dataset.au_scale)
    if units not in (None, wanted) or network.shape.units != len(wanted):
        raise SettingsError(
            f"{label} knows other action units than the data",
            got=str(units or network.shape.units),
            hint="teach with raters of the same data",
        )
    return Teacher(network, label)


def network_of(state: dict[str, Any], folder: Path) -> RaterNetwork:
    """Build the averaged network of a checkpoint in evaluation mode."""
    network = RaterNetwork(Shape(**state["about"]["shape"]))
    checkpoint.load_weights(network, state["averaged"], source=folder.name)
    return network.eval()


def trained(folder: Path) -> RaterNetwork:
    """Load the averaged network of a run in evaluation mode.

    Raises:
        ModelError: there is no checkpoint, or it is damaged or of another shape.
    """
    return network_of(checkpoint.load(folder), folder)
