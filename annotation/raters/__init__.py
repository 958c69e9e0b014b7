"""Machine raters: expression, open set, AU proxies and feature of faces."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from annotation.raters.preprocess import check_faces
from warehouse import plugins
from warehouse.errors import ModelError
from warehouse.ids import sha256_of
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS, OPEN_SET

__all__ = ["FEATURES", "CallableRater", "Rater", "Ratings", "load"]

FEATURES = 256
"""Width of every ``feature`` row."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Ratings:
    """Ratings of n faces by one rater; row i is face i.

    A rater predicts one distribution over ten answers. ``expression`` and ``open_set`` are two
    views of it, see ``answers``.

    Attributes:
        expression: float32[n, 8] in [0, 1], each row sums to 1: the distribution over the eight
            expressions, given that the face shows one of them.
        open_set: float32[n, 2] in [0, 1], row sum at most 1: the probabilities of ``unknown``
            and ``not_a_face`` among the ten answers.
        au: float32[n, K] in [0, 1], order of ``vocabulary.ACTION_UNITS``; NaN where the rater
            does not know the unit. AU proxies unless the rater's card states FACS codes.
        feature: float32[n, 256], compared by cosine distance.
        plurality_power: see ``plurality``.
    """

    expression: np.ndarray
    open_set: np.ndarray
    au: np.ndarray
    feature: np.ndarray
    plurality_power: float = 1.0

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def answers(self) -> np.ndarray:
        """Distributions float32[n, 10] over ``vocabulary.ANSWERS``."""
        closed = 1 - self.open_set.sum(axis=1, keepdims=True)
        return np.concatenate([self.expression * closed, self.open_set], axis=1)

    @property
    def plurality(self) -> np.ndarray:
        """Probability float32[n, 8] of being the plurality of ten votes.

        ``expression`` holds expected shares of votes: 0.6 anger means six votes of ten. The
        probability that anger is the plurality is calibrated separately.
        """
        sharp = self.expression**self.plurality_power
        return sharp / sharp.sum(axis=1, keepdims=True)

    @classmethod
    def empty(cls) -> Ratings:
        """Return the ratings of no faces."""
        widths = (len(EXPRESSIONS), len(OPEN_SET), len(ACTION_UNITS), FEATURES)
        expression, open_set, au, feature = (np.zeros((0, width), np.float32) for width in widths)
        return cls(expression=expression, open_set=open_set, au=au, feature=feature)


class Rater(Protocol):
    """Protocol of all raters.

    Attributes:
        rater_id: unchanged as long as the ratings are; with a new id every face is rated again.
    """

    rater_id: str

    def rate(self, crops: np.ndarray) -> Ratings:
        """Rate aligned crops uint8[n, h, w, 3], RGB."""
        ...


def load(name: str = "default", *, threads: int = 2) -> Rater:
    """Load a rater by name.

    Args:
        name: ``default``, ``guide`` or ``judge`` for a network of this package; a path to an
            ``.onnx`` file with its ``.json`` beside it; or ``package.module:function`` for any
            callable ``(faces uint8[n, h, w, 3]) -> Ratings``.
        threads: threads of one inference of the network.

    Raises:
        SettingsError: the name has none of these forms.
        ModelError: the weights or the callable are missing, damaged or do not fit.
    """
    from annotation.raters.onnx_rater import SHIPPED, OnnxRater, weights_of

    if name in SHIPPED or name.endswith(".onnx"):
        return OnnxRater(weights_of(name), threads=threads)
    return CallableRater(name)


class CallableRater:
    """Rater of the user's own; its ratings are checked.

    ``annotation/README.md`` has an example for models that code action units only. A model that
    knows only some units leaves the others NaN. A model with fewer than 256 features is padded
    with zeros, which leaves cosine distances unchanged.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._call = plugins.resolve(
            name,
            hint="set RISORIUS_RATER to default, judge, an .onnx file or package.module:function",
        )
        module = sys.modules[name.partition(":")[0]]
        # The source stands for weights that cannot be seen: edited code is another rater.
        source = inspect.getsource(module) if hasattr(module, "__file__") else name
        digest = sha256_of([name.encode(), source.encode()])[:8]
        readable = re.sub(r"[^A-Za-z0-9]+", "-", name)
        self.rater_id = str(getattr(self._call, "rater_id", f"machine-{readable}-{digest}"))

    def __reduce__(self) -> tuple[object, ...]:
        return (CallableRater, (self.name,))

    def rate(self, crops: np.ndarray) -> Ratings:
        """Rate uint8[n, h, w, 3] aligned RGB crops; n may be 0.

        Raises:
            ModelError: the crops or the callable's ratings have another form.
        """
        faces = check_faces(crops)
        if not len(faces):
            return Ratings.empty()
        answer = self._call(faces)
        given = np.asarray(getattr(answer, "feature", None), dtype=np.float32)
        width = min(max(given.shape[1] if given.ndim == 2 else 0, 1), FEATURES)
        feature = self._array(answer, "feature", len(faces), width, share=False)
        return Ratings(
            expression=self._array(answer, "expression", len(faces), len(EXPRESSIONS), total=1.0),
            open_set=self._array(answer, "open_set", len(faces), len(OPEN_SET)),
            au=self._array(answer, "au", len(faces), len(ACTION_UNITS), unknown=True),
            feature=np.pad(feature, ((0, 0), (0, FEATURES - width))),
            plurality_power=float(getattr(answer, "plurality_power", 1.0)),
        )

    def _array(
        self,
        answer: object,
        part: str,
        n: int,
        width: int,
        *,
        total: float | None = None,
        unknown: bool = False,
        share: bool = True,
    ) -> np.ndarray:
        """Check one part of an answer and return it as float32[n, width]."""
        try:
            array = np.asarray(getattr(answer, part), dtype=np.float32)
        except (AttributeError, TypeError, ValueError) as error:
            raise self._unfit(part, "not an array of numbers", str(error)) from error
        if array.shape != (n, width):
            raise self._unfit(part, f"not of shape ({n}, {width})", f"shape {array.shape}")
        known = array[~np.isnan(array)] if unknown else array
        if not np.isfinite(known).all():
            raise self._unfit(part, "not finite", "NaN or infinity")
        if share and known.size and (known.min() < 0 or known.max() > 1 + _SUM_TOLERANCE):
            got = f"{known.min():.3g} to {known.max():.3g}"
            raise self._unfit(part, "not within 0 and 1", got)
        sums = array.sum(axis=1)
        if total is not None and np.abs(sums - total).max() > _SUM_TOLERANCE:
            raise self._unfit(part, f"of rows that do not sum to {total:g}", f"{sums.max():g}")
        if part == "open_set" and sums.max() > 1 + _SUM_TOLERANCE:
            raise self._unfit(part, "of rows that do not sum to at most 1", f"{sums.max():g}")
        return array

    def _unfit(self, part: str, problem: str, got: str) -> ModelError:
        return ModelError(
            f"`{part}` of the rater {self.name} is {problem}",
            got=got,
            hint="see annotation.raters.Ratings for the form of each part",
        )
