"""Network of the rater: a convolutional trunk, a feature, two heads.

About 1.7 million parameters. A 64 px gray face is folded into four channels of 32 px
(PixelUnshuffle, which saves the costly full-size layers) and passes four stages of residual
blocks (He et al., 2016) with squeeze-and-excitation (Hu et al., 2018). A learned weight per
position and channel replaces average pooling, because in an aligned face the position separates
mouth from brow (as in MobileFaceNets, Chen et al., 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from warehouse.errors import ModelError
from warehouse.vocabulary import ANSWERS

_CONTRAST_FLOOR = 4.0
"""Grey levels added to a face's deviation, so that a flat image is not amplified to noise."""


@dataclass(frozen=True)
class Shape:
    """Size of the network; stored with its weights."""

    units: int
    side: int = 64
    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    feature: int = 256
    dropout: float = 0.2
    architecture: str = "residual"

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class RaterNetwork(nn.Module):
    """Compute logits of ten answers, AU logits and a feature of gray faces.

    There are two trunks, so that an evaluation rater can differ from the guidance rater:
    ``residual`` as above, and ``plain``, 3 x 3 convolutions and max pooling at full size as in
    the VGG13 of Barsoum et al. (2016), narrower, with batch normalisation and average pooling.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        try:
            trunk, places = _TRUNKS[shape.architecture]
        except KeyError:
            raise ModelError(
                f"The architecture is none of {', '.join(_TRUNKS)}",
                got=repr(shape.architecture),
                hint="give --architecture",
            ) from None
        width = shape.widths[-1]
        self.trunk = trunk(shape)
        self.places = places(shape)
        self.embed = nn.Sequential(
            nn.Linear(width, shape.feature, bias=False), nn.BatchNorm1d(shape.feature)
        )
        self.dropout = nn.Dropout(shape.dropout)
        self.answers = nn.Linear(shape.feature, len(ANSWERS))
        self.au = nn.Linear(shape.feature, shape.units)

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map float[n, 1, side, side] in 0..255 to the three outputs.

        The outputs are logits [n, 10], AU logits [n, K] and the feature.
        """
        x = self.trunk(standardise(gray).contiguous(memory_format=torch.channels_last))
        feature = self.embed(functional.relu(self.places(x)).flatten(1))
        hidden = self.dropout(functional.relu(feature))
        return self.answers(hidden), self.au(hidden), feature


class Served(nn.Module):
    """Exported form of the network, calibrated.

    The outputs of a face and its mirror are averaged.
    """

    def __init__(self, network: RaterNetwork, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map uint8[n, side, side] to answers, AU proxies and feature.

        Their shapes are [n, 10], [n, K] and [n, 256].
        """
        logits, au, feature = self.raw(gray.unsqueeze(1).float())
        return torch.softmax(logits / self.temperature, dim=1), torch.sigmoid(au), feature

    def raw(self, face: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map float[n, 1, side, side] in 0..255 to logits, AU logits and feature."""
        one, two = self.network(face), self.network(face.flip(-1))
        logits, au, feature = ((left + right) / 2 for left, right in zip(one, two, strict=True))
        return logits, au, feature


def standardise(gray: Tensor) -> Tensor:
    """Scale each face to zero mean and unit deviation.

    This removes exposure and contrast.
    """
    centred = gray - gray.mean(dim=(2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt()
    return centred / (deviation + _CONTRAST_FLOOR)


def _residual(shape: Shape) -> nn.Sequential:
    width = shape.widths[0]
    stages: list[nn.Module] = [nn.PixelUnshuffle(2), _conv(4, width), nn.ReLU()]
    for stage, (out, count) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
        for block in range(count):
            stride = 2 if block == 0 and stage > 0 else 1
            stages.append(_Block(width, out, stride))
            width = out
    return nn.Sequential(*stages)


def _plain(shape: Shape) -> nn.Sequential:
    width, stages = 1, []
    for out, count in zip(shape.widths, shape.blocks, strict=True):
        for _ in range(count):
            stages += [_conv(width, out), nn.ReLU()]
            width = out
        stages += [nn.MaxPool2d(2), nn.Dropout2d(shape.dropout / 2)]
    return nn.Sequential(*stages)


def _weighted_pooling(shape: Shape) -> nn.Sequential:
    width, final = shape.widths[-1], shape.side // 2 ** len(shape.widths)
    return nn.Sequential(
        nn.Conv2d(width, width, final, groups=width, bias=False), nn.BatchNorm2d(width)
    )


def _average_pooling(shape: Shape) -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


_TRUNKS: dict[str, tuple[Callable[[Shape], nn.Module], Callable[[Shape], nn.Module]]] = {
    "residual": (_residual, _weighted_pooling),
    "plain": (_plain, _average_pooling),
}


class _Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, out, stride), nn.ReLU(), _conv(out, out))
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out, out // 8, 1),
            nn.ReLU(),
            nn.Conv2d(out // 8, out, 1),
            nn.Sigmoid(),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or width != out:
            pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.skip = nn.Sequential(
                pool, nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x)
        return functional.relu(body * self.gate(body) + self.skip(x))


def _conv(width: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out))
