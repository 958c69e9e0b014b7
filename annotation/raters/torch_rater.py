"""Rater as a PyTorch module with gradients with respect to the face.

ONNX Runtime gives no gradients. The exported file holds every weight under its own name, so the
network is rebuilt from the file that serves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from annotation.raters.network import RaterNetwork, Served, Shape
from annotation.raters.onnx_rater import rater_id_of, read_card, weights_of
from warehouse.errors import ModelError
from warehouse.training import checkpoint
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

_PREFIX = "network."


class TorchRater(nn.Module):
    """Exported network with frozen weights.

    Attributes:
        rater_id: the same as that of the rater in ONNX Runtime.
    """

    def __init__(self, served: Served, *, units: list[int], rater_id: str) -> None:
        super().__init__()
        self.served = served.eval().requires_grad_(False)
        self.rater_id = rater_id
        self._columns = [AU_INDEX[unit] for unit in units]

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        """Rate aligned faces; each face and its mirror are averaged.

        Args:
            gray: float[n, 1, s, s] in 0..255, any side s.

        Returns:
            Log-probabilities float[n, 10] of the answers, and AU proxies float[n, K] in 0..1 in
            the order of ``vocabulary.ACTION_UNITS``, NaN where the rater does not know the unit.
        """
        logits, known, _ = self.served.raw(_resize(gray, self.served.network.shape.side))
        au = known.new_full((len(known), len(ACTION_UNITS)), float("nan"))
        au[:, self._columns] = torch.sigmoid(known)
        return functional.log_softmax(logits / self.served.temperature, dim=1), au

    def train(self, mode: bool = True) -> TorchRater:
        """Stay in evaluation mode, whatever the mode of the surrounding model."""
        return super().train(False)


def load(name: str = "guide") -> TorchRater:
    """Load a shipped rater by name, or an exported ``.onnx`` file.

    Raises:
        ModelError: the weights are missing, damaged, or of another network.
    """
    import onnx
    from onnx import numpy_helper

    path = weights_of(name)
    card = read_card(path)
    try:
        network = RaterNetwork(Shape(**card["shape"]))
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{path.with_suffix('.json').name} does not describe a network",
            got=f"{type(error).__name__}: {error}",
            hint="export the weights again with annotation.raters.training.export",
        ) from error
    weights = {
        item.name.removeprefix(_PREFIX): torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in onnx.load(path).graph.initializer
        if item.name.startswith(_PREFIX)
    }
    checkpoint.load_weights(network, weights, source=path.name)
    return TorchRater(
        Served(network, card["temperature"]),
        units=card["action_units"],
        rater_id=rater_id_of(card),
    )


def _resize(gray: Tensor, side: int) -> Tensor:
    if gray.shape[-1] == side:
        return gray
    if gray.shape[-1] > side:
        return functional.interpolate(gray, size=(side, side), mode="area")
    return functional.interpolate(gray, size=(side, side), mode="bilinear", align_corners=False)
