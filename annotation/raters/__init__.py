"""Machine raters: aligned faces in, expression, open-set mass, AU proxies and a feature out."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from annotation.raters.preprocess import check_faces
from warehouse.errors import ModelError, SettingsError
from warehouse.ids import sha256_of
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS, OPEN_SET

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["FEATURES", "CallableRater", "Rater", "Ratings", "load"]

FEATURES = 256
"""Width of every ``feature`` row."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Ratings:
    """What one rater says about n faces; row i is face i.

    The rater answers one question with ten possible answers. ``expression`` and ``open_set``
    are two views of that one distribution, see ``answers``.

    Attributes:
        expression: float32[n, 8] in [0, 1], each row sums to 1 by itself: the distribution over
            the eight expressions *given that* one of them is shown.
        open_set: float32[n, 2] in [0, 1], row sum at most 1: the probabilities of ``unknown``
            and ``not_a_face`` out of the ten answers.
        au: float32[n, K] in [0, 1], order of ``vocabulary.ACTION_UNITS``; NaN where the rater
            does not know the unit. AU proxies unless the rater's card says otherwise.
        feature: float32[n, 256], meant for cosine distance.
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
        """float32[n, 10]: one distribution over ``vocabulary.ANSWERS``; each row sums to 1."""
        closed = 1 - self.open_set.sum(axis=1, keepdims=True)
        return np.concatenate([self.expression * closed, self.open_set], axis=1)

    @property
    def plurality(self) -> np.ndarray:
        """float32[n, 8]: how likely each expression is the plurality of ten people's votes.

        ``expression`` expects shares of votes: 0.6 anger means that six of ten would say so. How
        sure one can be that anger wins is another number, calibrated on its own.
        """
        sharp = self.expression**self.plurality_power
        return sharp / sharp.sum(axis=1, keepdims=True)

    @classmethod
    def none(cls) -> Ratings:
        """The ratings of no faces."""
        widths = (len(EXPRESSIONS), len(OPEN_SET), len(ACTION_UNITS), FEATURES)
        expression, open_set, au, feature = (np.zeros((0, width), np.float32) for width in widths)
        return cls(expression=expression, open_set=open_set, au=au, feature=feature)


class Rater(Protocol):
    """Anything that rates faces.

    Attributes:
        rater_id: stable as long as the answers are; a new id has every face rated again.
    """

    rater_id: str

    def rate(self, crops: np.ndarray) -> Ratings:
        """Rate aligned crops uint8[n, h, w, 3], RGB; see ``Ratings`` for what comes back."""
        ...


def load(name: str = "default", *, threads: int = 2) -> Rater:
    """A rater by name.

    Args:
        name: ``default`` or ``judge`` for a network in this package; a path to an ``.onnx`` file
            with its ``.json`` beside it; or ``package.module:name`` for any callable
            ``(faces uint8[n, h, w, 3]) -> Ratings``.
        threads: threads inside one inference of the network.

    Raises:
        SettingsError: the name fits none of the three.
        ModelError: the weights are missing, damaged or do not fit.
    """
    from annotation.raters.onnx_rater import SHIPPED, MachineRater, weights_of

    if name in SHIPPED or name.endswith(".onnx"):
        return MachineRater(weights_of(name), threads=threads)
    return CallableRater(name)


class CallableRater:
    """A rater from elsewhere: every answer is checked before anything is built on it.

    ``annotation/README.md`` has a worked example for models that code action units only.
    A model that knows only some units leaves the others NaN; one without features may return
    fewer than 256 columns, which are padded with zeros (cosine distances stay what they were).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        module, self._call = _resolve(name)
        # The source stands in for the weights we cannot see: edited code is another rater.
        source = inspect.getsource(module) if hasattr(module, "__file__") else name
        digest = sha256_of([name.encode(), source.encode()])[:8]
        readable = re.sub(r"[^A-Za-z0-9]+", "-", name)
        self.rater_id = str(getattr(self._call, "rater_id", f"machine-{readable}-{digest}"))

    def __reduce__(self) -> tuple[object, ...]:
        return (CallableRater, (self.name,))

    def rate(self, crops: np.ndarray) -> Ratings:
        faces = check_faces(crops)
        if not len(faces):
            return Ratings.none()
        answer = self._call(faces)
        return Ratings(
            expression=self._fit(answer, "expression", len(faces), len(EXPRESSIONS), total=1.0),
            open_set=self._fit(answer, "open_set", len(faces), len(OPEN_SET)),
            au=self._fit(answer, "au", len(faces), len(ACTION_UNITS), unknown=True),
            feature=self._feature(answer, len(faces)),
            plurality_power=float(getattr(answer, "plurality_power", 1.0)),
        )

    def _feature(self, answer: object, n: int) -> np.ndarray:
        given = np.asarray(getattr(answer, "feature", None), dtype=np.float32)
        width = given.shape[1] if given.ndim == 2 else 0
        feature = self._fit(answer, "feature", n, min(max(width, 1), FEATURES), share=False)
        return np.pad(feature, ((0, 0), (0, FEATURES - feature.shape[1])))

    def _fit(
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
        """One part of an answer as float32[n, width], or the reason why it cannot be."""
        try:
            array = np.asarray(getattr(answer, part), dtype=np.float32)
        except (AttributeError, TypeError, ValueError) as error:
            raise self._unfit(f"`{part}` as an array of numbers", str(error)) from error
        if array.shape != (n, width):
            raise self._unfit(f"`{part}` of shape ({n}, {width})", f"shape {array.shape}")
        known = array[~np.isnan(array)] if unknown else array
        if not np.isfinite(known).all():
            raise self._unfit(f"finite numbers in `{part}`", "NaN or infinity")
        if share and known.size and (known.min() < 0 or known.max() > 1 + _SUM_TOLERANCE):
            raise self._unfit(f"`{part}` within 0 and 1", f"{known.min():.3g} to {known.max():.3g}")
        sums = array.sum(axis=1)
        if total is not None and np.abs(sums - total).max() > _SUM_TOLERANCE:
            raise self._unfit(f"rows of `{part}` that sum to {total:g}", f"a sum of {sums.max():g}")
        if part == "open_set" and sums.max() > 1 + _SUM_TOLERANCE:
            raise self._unfit("rows of `open_set` that sum to at most 1", f"{sums.max():g}")
        return array

    def _unfit(self, expected: str, got: str) -> ModelError:
        return ModelError(
            f"{expected} from the rater {self.name}",
            got=got,
            hint="see annotation.raters.Ratings for what each part must be",
        )


def _resolve(name: str) -> tuple[ModuleType, Callable[[np.ndarray], Ratings]]:
    place, colon, attribute = name.partition(":")
    if not (place and colon and attribute):
        raise SettingsError(
            "a rater named 'default', a path to an .onnx file, or package.module:name",
            got=repr(name),
            hint="set RISORIUS_RATER to one of these",
        )
    try:
        module = importlib.import_module(place)
    except ImportError as error:
        raise ModelError(
            f"an importable module {place}", got=str(error), hint="install it or mend the name"
        ) from error
    call = getattr(module, attribute, None)
    if not callable(call):
        raise ModelError(
            f"a callable {attribute!r} in {place}",
            got="nothing of that name" if call is None else type(call).__name__,
            hint="name a function (faces uint8[n, h, w, 3]) -> Ratings",
        )
    return module, call
