"""A shipped rater as a PyTorch module: what it says of a face, and which way to change the face.

ONNX Runtime gives no gradients. The exported file keeps every weight under its own name, so the
very network that serves can be rebuilt from it; no second file can disagree with the first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from annotation.raters.network import RaterNetwork, Served, Shape
from annotation.raters.onnx_rater import read_card, weights_of
from warehouse.errors import ModelError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

_PREFIX = "network."


class DifferentiableRater(nn.Module):
    """The served network with gradients; its weights are frozen.

    Attributes:
        rater_id: the same as that of the rater in ONNX Runtime.
    """

    def __init__(self, served: Served, *, units: list[int], rater_id: str) -> None:
        super().__init__()
        self.served = served.eval().requires_grad_(False)
        self.rater_id = rater_id
        self._columns = [AU_INDEX[unit] for unit in units]

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        """Rate aligned faces, the face and its mirror averaged.

        Args:
            gray: float[n, 1, s, s] in 0..255, any side s.

        Returns:
            float[n, 10], the logarithm of the answers, and float[n, K] AU proxies in 0..1 in the
            order of ``vocabulary.ACTION_UNITS``, NaN where the rater does not know the unit.
        """
        logits, known, _ = self.served.raw(_resized(gray, self.served.network.shape.side))
        au = known.new_full((len(known), len(ACTION_UNITS)), float("nan"))
        au[:, self._columns] = torch.sigmoid(known)
        return functional.log_softmax(logits / self.served.temperature, dim=1), au

    def train(self, mode: bool = True) -> DifferentiableRater:
        """Stays in evaluation mode, whatever the model around it does."""
        return super().train(False)


def load(name: str = "default") -> DifferentiableRater:
    """``default``, ``judge`` or a path to an ``.onnx`` file exported here.

    Raises:
        ModelError: the weights are missing, damaged, or not of a network of this package.
    """
    import onnx
    from onnx import numpy_helper

    path = weights_of(name)
    card = read_card(path)
    network = RaterNetwork(Shape(**card["shape"]))
    weights = {
        item.name.removeprefix(_PREFIX): torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in onnx.load(path).graph.initializer
        if item.name.startswith(_PREFIX)
    }
    # The count of batches is used in training only and therefore not exported.
    absent = network.load_state_dict(weights, strict=False)
    missing = [key for key in absent.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or absent.unexpected_keys:
        raise ModelError(
            f"the weights of the network described in {path.with_suffix('.json').name}",
            got=f"missing {missing[:3]}, unexpected {list(absent.unexpected_keys)[:3]}",
            hint="export the weights again with annotation.raters.training.export",
        )
    return DifferentiableRater(
        Served(network, card["temperature"]),
        units=card["action_units"],
        rater_id=f"machine-{card['model']}-{card['sha256'][:8]}",
    )


def _resized(gray: Tensor, side: int) -> Tensor:
    if gray.shape[-1] == side:
        return gray
    if gray.shape[-1] > side:
        return functional.interpolate(gray, size=(side, side), mode="area")
    return functional.interpolate(gray, size=(side, side), mode="bilinear", align_corners=False)
