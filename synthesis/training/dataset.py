"""Training faces of the generator, its recipe and its batches."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from synthesis import noise_schedule
from synthesis.condition import FaceCondition
from warehouse import plugins
from warehouse.errors import TableError
from warehouse.training import loop
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

HELD_OUT = 0.02
"""Share of the faces on which the loss is measured; never used for training."""

MOST_OFTEN = 8.0
"""Largest sampling weight of a face, relative to the most common expression. The rarest
expressions have a hundred or two hundred pictures, which must not be memorised."""


@dataclass(frozen=True)
class Recipe(loop.Recipe):
    """How the generator is trained.

    Attributes:
        tier: size, of ``unet.TIERS``.
        balance: 0 samples faces uniformly, 1 every expression equally often.
        no_condition, no_expression, no_au: probabilities that a face is shown without both,
            without its expression, without its action units.
        unit_unknown: probability that a unit is unknown, for half of the faces. For the other
            half the probability is drawn from 0..1, because users set two units, not eighteen.
        guide_weight: weight of the AU-consistency loss; 0 trains without a guidance rater.
        guide_share: share of a batch that the guidance rater sees.
        guide_above: ``alphas_cumprod`` above which it sees a face.
    """

    minutes: float = 110.0
    steps: int = 0
    batch: int = 64
    rate: float = 6e-4
    decay: float = 0.01
    average: float = 0.9995
    seed: int = 0
    tier: str = "XS3"
    balance: float = 0.5
    no_condition: float = 0.10
    no_expression: float = 0.25
    no_au: float = 0.15
    unit_unknown: float = 0.15
    guide_weight: float = 0.1
    guide_share: float = 0.25
    guide_above: float = 0.5

    warm_up: ClassVar[float] = 0.03
    first_rate: ClassVar[float] = 0.02
    clip_norm: ClassVar[float] = 1.0


RECIPES = {
    "cpu": Recipe(),
    "gpu": Recipe(tier="M", minutes=9.0, batch=512, rate=8e-4, average=0.9995),
}
"""``cpu`` for two cores and about two hours. ``gpu`` for one large GPU and ten minutes, with the
start."""


@dataclass(frozen=True)
class TrainingFaces:
    """Aligned faces with soft labels and AU proxies.

    Attributes:
        gray: uint8[n, s, s].
        expression: float32[n, 8], rows sum to 1.
        au: float32[n, K] in 0..1 in the order of ``vocabulary.ACTION_UNITS``, NaN if unknown;
            means of left and right, so that a mirrored face keeps its targets.
        digest: str[n], the SHA-256 of each original picture.

    Raises:
        TableError: an array has another shape, or rows of ``expression`` do not sum to 1.
    """

    gray: np.ndarray
    expression: np.ndarray
    au: np.ndarray
    digest: np.ndarray

    def __post_init__(self) -> None:
        n, hint = len(self.gray), "correct the function given to --faces"
        shapes = {
            "expression": (n, len(EXPRESSIONS)),
            "au": (n, len(ACTION_UNITS)),
            "digest": (n,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                got = str(getattr(self, name).shape)
                raise TableError(f"`{name}` is not of shape {shape}", got=got, hint=hint)
        if n and np.abs(self.expression.sum(axis=1) - 1).max() > 1e-3:
            got = f"sums up to {self.expression.sum(axis=1).max():g}"
            raise TableError("Rows of `expression` do not sum to 1", got=got, hint=hint)

    def __len__(self) -> int:
        return len(self.gray)

    def take(self, rows: np.ndarray) -> TrainingFaces:
        """Select rows by a boolean mask or an index."""
        names = ("gray", "expression", "au", "digest")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @property
    def supported_units(self) -> tuple[int, ...]:
        """FACS numbers of the units that are known in any row."""
        known = np.isfinite(self.au).any(axis=0)
        return tuple(unit.number for unit, any_ in zip(ACTION_UNITS, known, strict=True) if any_)


def is_held_out(faces: TrainingFaces) -> np.ndarray:
    """Select the held-out rows by the pictures' hash; return bool[n]."""
    share = np.array([int(digest[-8:], 16) / 2**32 for digest in faces.digest])
    return share < HELD_OUT


def load_faces(name: str, folder: Path, **options: Any) -> TrainingFaces:
    """Call the function of ``--faces`` with the options that it accepts.

    Raises:
        SettingsError, ModelError: there is no such function.
    """
    source = plugins.resolve(name, hint="correct --faces")
    accepted = inspect.signature(source).parameters
    faces: TrainingFaces = source(folder, **{k: v for k, v in options.items() if k in accepted})
    return faces


@dataclass(frozen=True)
class Batch:
    """Inputs of one training step, on one device.

    Attributes:
        face: float32[n, 1, s, s] in -1..1.
        noise: of the same shape, standard normal.
        timestep: int64[n].
        condition: what the network is conditioned on.
    """

    face: Tensor
    noise: Tensor
    timestep: Tensor
    condition: FaceCondition


class FaceDataset:
    """Faces on a device with class-balanced sampling weights.

    Batches are drawn there: faces, mirror images, noise, timesteps and dropouts.

    Attributes:
        train, held_out: faces.
        device: ``cpu`` or ``cuda``.

    Raises:
        TableError: there are no faces.
    """

    def __init__(self, faces: TrainingFaces, *, balance: float, device: str = "cpu") -> None:
        if not len(faces):
            hint = "correct the function given to --faces"
            raise TableError("There are no training faces", got="0 rows", hint=hint)
        aside = is_held_out(faces)
        # All of a handful of faces may be selected; training has priority.
        aside &= ~aside.all()
        self.device = device
        self.train, self.held_out = faces.take(~aside), faces.take(aside)
        self._train, self._held_out = (
            _Tensors.of(part, device) for part in (self.train, self.held_out)
        )
        weights = sampling_weights(self.train.expression, balance=balance)
        self._cumulative = torch.from_numpy(np.cumsum(weights)).to(device)

    def batch(self, recipe: Recipe, step: int) -> Batch:
        """Make the batch of a step; it depends on recipe, step and device alone.

        Half of the faces are mirrored.
        """
        draw = loop.generator(self.device, recipe.seed, step)
        values = torch.rand(recipe.batch, generator=draw, device=self.device, dtype=torch.float64)
        # The last sum may differ from 1 by rounding.
        rows = torch.searchsorted(self._cumulative, values * self._cumulative[-1], right=True)
        rows = rows.clamp(max=len(self.train) - 1)
        return self._train.take(rows).batch(recipe, draw, dropouts=True)

    def validation_batches(self, recipe: Recipe) -> list[Batch]:
        """Make batches of held-out faces, with fixed noise and full conditions."""
        draw = loop.generator(self.device, recipe.seed)
        every = torch.arange(len(self.held_out), device=self.device)
        return [
            self._held_out.take(rows).batch(recipe, draw, dropouts=False)
            for rows in every.split(recipe.batch)
        ]


@dataclass(frozen=True)
class _Tensors:
    """Arrays of ``TrainingFaces`` as tensors."""

    gray: Tensor
    expression: Tensor
    au: Tensor

    @classmethod
    def of(cls, faces: TrainingFaces, device: str) -> _Tensors:
        expression, au = (part.astype(np.float32) for part in (faces.expression, faces.au))
        return cls(*(torch.from_numpy(part).to(device) for part in (faces.gray, expression, au)))

    def take(self, rows: Tensor) -> _Tensors:
        return _Tensors(self.gray[rows], self.expression[rows], self.au[rows])

    def batch(self, recipe: Recipe, draw: torch.Generator, *, dropouts: bool) -> Batch:
        n, device = len(self.gray), self.gray.device
        mirrored = torch.rand(n, generator=draw, device=device) < 0.5
        gray = torch.where(mirrored[:, None, None], self.gray.flip(-1), self.gray)
        face = gray[:, None].float() / 127.5 - 1
        # One timestep in every n-th of the schedule lowers the variance of the loss.
        place = torch.randperm(n, generator=draw, device=device)
        share = (place + torch.rand(n, generator=draw, device=device)) / n
        last = noise_schedule.NUM_TRAIN_TIMESTEPS - 1
        return Batch(
            face=face,
            noise=torch.randn(face.shape, generator=draw, device=device),
            timestep=(share * noise_schedule.NUM_TRAIN_TIMESTEPS).long().clamp(max=last),
            condition=self._condition(recipe, draw, dropouts=dropouts),
        )

    def _condition(self, recipe: Recipe, draw: torch.Generator, *, dropouts: bool) -> FaceCondition:
        n, scale, unknown = len(self.au), float(dropouts), float("nan")

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=draw, device=self.au.device)

        neither = uniform(n) < recipe.no_condition * scale
        no_expression = neither | (uniform(n) < recipe.no_expression * scale)
        no_au = neither | (uniform(n) < recipe.no_au * scale) | self.au.isnan().all(dim=1)
        hidden = torch.where(uniform(n) < 0.5, recipe.unit_unknown, uniform(n)) * scale
        au = self.au.masked_fill(uniform(*self.au.shape) < hidden[:, None], unknown)
        return FaceCondition(
            expression=self.expression.masked_fill(no_expression[:, None], 0.0),
            au=au.masked_fill(no_au[:, None], unknown),
            null_expression=no_expression,
            null_au=no_au,
        )


def sampling_weights(expression: np.ndarray, *, balance: float) -> np.ndarray:
    """Weigh rare expressions higher; return float64[n] that sums to 1."""
    frequency = expression.mean(axis=0, dtype=np.float64)
    rarity = (frequency.max() / np.maximum(frequency, 1e-9)) ** balance
    weights = expression @ np.minimum(rarity, MOST_OFTEN)
    return weights / weights.sum()
