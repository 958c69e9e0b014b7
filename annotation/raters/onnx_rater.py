"""Rater of this package: a small network in ONNX Runtime."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotation.raters import FEATURES, Ratings
from annotation.raters.preprocess import check_faces, to_gray
from warehouse.errors import ModelError
from warehouse.ids import file_sha256
from warehouse.vocabulary import ACTION_UNITS, ANSWERS, AU_INDEX, EXPRESSIONS

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

SHIPPED = ("default", "guide", "judge")
"""``default`` learned from all training pictures and rates faces. ``guide`` learned from one half
of them and guides synthesis. ``judge`` learned from the other half and evaluates what ``guide``
influenced."""

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_BATCH = 64
_HINT = "install risorius again, or export the weights again with annotation.raters.training.export"


def weights_of(name: str) -> Path:
    """Return the ``.onnx`` file of a name in ``SHIPPED`` or of a path."""
    if name in SHIPPED:
        return Path(__file__).parent / "weights" / f"{name}.onnx"
    return Path(name).expanduser()


def rater_id_of(card: dict[str, Any]) -> str:
    """Return ``machine-<model>-<first 8 hex digits of the weights' SHA-256>``."""
    return f"machine-{card['model']}-{card['sha256'][:8]}"


class OnnxRater:
    """Rates aligned faces with exported weights; deterministic.

    Attributes:
        rater_id: see ``rater_id_of``.
        card: JSON that the export wrote beside the weights (training data, units, temperature …).
        provider: the execution provider in use.

    Raises:
        ModelError: the weights are missing, damaged or do not fit.
    """

    def __init__(self, weights: Path, *, threads: int = 2) -> None:
        self.card = read_card(weights)
        self.rater_id = rater_id_of(self.card)
        self._weights, self._threads = weights, threads
        try:
            self._units = [AU_INDEX[number] for number in self.card["action_units"]]
            self._side = int(self.card["side"])
            self._power = float(self.card.get("plurality_power", 1.0))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{weights.with_suffix('.json').name} does not describe a rater",
                got=f"{type(error).__name__}: {error}",
                hint=_HINT,
            ) from error
        self._session = _session(weights, threads=threads)
        _check_shapes(self._session, weights, side=self._side, units=len(self._units))
        self.provider = _provider(self._session)
        logger.info("machine rater %s runs on %s", self.rater_id, self.provider)

    def rate(self, crops: np.ndarray) -> Ratings:
        """Rate uint8[n, h, w, 3] aligned RGB crops; n may be 0.

        Raises:
            ModelError: wrong type, shape or size of the crops, or weights that give NaN.
        """
        faces = check_faces(crops)
        parts = [
            self._run(to_gray(faces[start : start + _BATCH], self._side))
            for start in range(0, len(faces), _BATCH)
        ]
        if not parts:
            return Ratings.empty()
        answers, known, feature = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not all(np.isfinite(part).all() for part in (answers, known, feature)):
            raise ModelError(
                f"The answers of {self.rater_id} are not finite", got="NaN", hint=_HINT
            )
        closed = answers[:, : len(EXPRESSIONS)]
        # A face that shows none of the eight for certain still needs a distribution over them.
        closed = closed + np.finfo(np.float32).tiny
        au = np.full((len(faces), len(ACTION_UNITS)), np.nan, dtype=np.float32)
        au[:, self._units] = known
        return Ratings(
            expression=closed / closed.sum(axis=1, keepdims=True),
            open_set=answers[:, len(EXPRESSIONS) :],
            au=au,
            feature=feature,
            plurality_power=self._power,
        )

    def _run(self, gray: np.ndarray) -> list[np.ndarray]:
        try:
            outputs: list[np.ndarray] = self._session.run(
                ["answers", "au", "feature"], {"gray": gray}
            )
        except Exception as error:  # ONNX Runtime raises errors without a common base
            raise ModelError(
                f"The rater {self.rater_id} failed on {self.provider}",
                got=(str(error).strip().splitlines() or [type(error).__name__])[0],
                hint="set CUDA_VISIBLE_DEVICES to -1 to rate on the CPU"
                if self.provider.startswith("CUDA")
                else _HINT,
            ) from error
        return outputs

    def __reduce__(self) -> tuple[object, ...]:
        # A session cannot be pickled. The receiver reads the weights again, and shipped ones by
        # name, because the package may be installed elsewhere there.
        name = self._weights.stem
        shipped = name in SHIPPED and self._weights == weights_of(name)
        return (_unpickle, (name if shipped else str(self._weights), self._threads))


def _unpickle(name: str, threads: int) -> OnnxRater:
    return OnnxRater(weights_of(name), threads=threads)


def read_card(weights: Path) -> dict[str, Any]:
    """Read the JSON beside the weights and check their SHA-256.

    Raises:
        ModelError: a file is missing, or the weights are not those that were exported.
    """
    path = weights.with_suffix(".json")
    for needed in (weights, path):
        if not needed.is_file():
            raise ModelError(f"The rater has no file {needed}", got="no such file", hint=_HINT)
    try:
        card = json.loads(path.read_text())
        expected = card["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path.name} cannot be read", got=repr(error), hint=_HINT) from error
    found = file_sha256(str(weights))
    if found != expected:
        raise ModelError(
            f"{weights.name} does not have the SHA-256 {expected[:16]}…",
            got=f"{found[:16]}… in {weights.stat().st_size} bytes",
            hint=_HINT,
        )
    return card


def _session(weights: Path, *, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    available = onnxruntime.get_available_providers()
    providers = [name for name in _PROVIDERS if name in available]
    try:
        session = onnxruntime.InferenceSession(str(weights), options, providers=providers)
    except Exception as error:  # ONNX Runtime and protobuf raise errors without a common base
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"The weights in {weights.name} cannot be read", got=lines[0], hint=_HINT
        ) from error
    return session


def _check_shapes(
    session: onnxruntime.InferenceSession, weights: Path, *, side: int, units: int
) -> None:
    """Refuse weights of another shape than the card's.

    NumPy might broadcast them.
    """
    wanted = {"gray": side, "answers": len(ANSWERS), "au": units, "feature": FEATURES}
    parts = [*session.get_inputs(), *session.get_outputs()]
    shapes = {part.name: part.shape[-1] if part.shape else None for part in parts}
    if shapes != wanted:
        raise ModelError(
            f"{weights.name} has other inputs and outputs than {weights.with_suffix('.json').name}",
            got=f"last axes {shapes} instead of {wanted}",
            hint=_HINT,
        )


def _provider(session: onnxruntime.InferenceSession) -> str:
    """Return the provider in use; log an error if an NVIDIA GPU is not used."""
    active = session.get_providers()[0]
    if active not in _PROVIDERS:
        raise ModelError(
            f"The execution provider is none of {', '.join(_PROVIDERS)}",
            got=active,
            hint="install onnxruntime or onnxruntime-gpu again",
        )
    if active == "CPUExecutionProvider" and Path("/proc/driver/nvidia/version").exists():
        logger.error(
            "The machine has a GPU, but the machine rater runs on the CPU. Install "
            "onnxruntime-gpu in place of onnxruntime to use it."
        )
    return active
