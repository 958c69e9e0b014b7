"""The rater that ships: a small network in ONNX Runtime."""

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

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_BATCH = 64
SHIPPED = ("default", "judge")
"""``default`` rates and may guide synthesis; ``judge`` learned from other pictures and only ever
judges what the first had a hand in."""

_MEND = "install risorius again, or export the weights again with annotation.raters.training.export"


def weights_of(name: str) -> Path:
    """The ``.onnx`` file behind ``default``, ``judge`` or a path."""
    if name in SHIPPED:
        return Path(__file__).parent / "weights" / f"{name}.onnx"
    return Path(name).expanduser()


class MachineRater:
    """Rates aligned faces with exported weights; the same crops give the same answers.

    Attributes:
        rater_id: ``machine-<model>-<8 hex of the weights' SHA-256>``.
        card: what the export wrote beside the weights (training data, units, temperature …).
        provider: the execution provider in use.
    """

    def __init__(self, weights: Path, *, threads: int = 2) -> None:
        self.card = read_card(weights)
        self.rater_id = f"machine-{self.card['model']}-{self.card['sha256'][:8]}"
        self._origin = (weights, threads)
        self._units = [AU_INDEX[number] for number in self.card["action_units"]]
        self._side = int(self.card["side"])
        self._power = float(self.card.get("plurality_power", 1.0))
        self._session = _session(weights, threads=threads)
        self.provider = _asserted(self._session)
        logger.info("machine rater %s runs on %s", self.rater_id, self.provider)

    def rate(self, crops: np.ndarray) -> Ratings:
        """Rate uint8[n, h, w, 3] aligned RGB crops; n may be 0.

        Raises:
            ModelError: wrong type, shape or size of the crops, or weights that give NaN.
        """
        faces = check_faces(crops)
        parts = [
            self._rate(faces[start : start + _BATCH]) for start in range(0, len(faces), _BATCH)
        ]
        if not parts:
            return Ratings.none()
        answers, known, feature = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not all(np.isfinite(part).all() for part in (answers, known, feature)):
            raise ModelError(f"finite answers of {self.rater_id}", got="NaN", hint=_MEND)
        au = np.full((len(faces), len(ACTION_UNITS)), np.nan, dtype=np.float32)
        au[:, self._units] = known
        return Ratings(*_split(answers), au=au, feature=feature, plurality_power=self._power)

    def __reduce__(self) -> tuple[object, ...]:
        # A session does not travel; where it arrives the weights are read again, and the
        # package may lie elsewhere there.
        weights, threads = self._origin
        shipped = weights.stem in SHIPPED and weights == weights_of(weights.stem)
        return (_arrived, (weights.stem if shipped else str(weights), threads))

    def _rate(self, faces: np.ndarray) -> list[np.ndarray]:
        gray = to_gray(faces, self._side)
        return self._session.run(["answers", "au", "feature"], {"gray": gray})


def _arrived(name: str, threads: int) -> MachineRater:
    return MachineRater(weights_of(name), threads=threads)


def read_card(weights: Path) -> dict[str, Any]:
    """The JSON beside the weights, after the weights' bytes were compared with it.

    Raises:
        ModelError: a file is missing, or the bytes are not those that were exported.
    """
    path = weights.with_suffix(".json")
    for needed in (weights, path):
        if not needed.is_file():
            raise ModelError(f"rater weights at {needed}", got="no such file", hint=_MEND)
    try:
        card = json.loads(path.read_text())
        wanted = card["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"a readable {path.name}", got=repr(error), hint=_MEND) from error
    found = file_sha256(str(weights))
    if found != wanted:
        raise ModelError(
            f"{weights.name} with SHA-256 {wanted[:16]}…",
            got=f"{found[:16]}… in {weights.stat().st_size} bytes",
            hint=_MEND,
        )
    return card


def _split(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32[n, 10] to the closed distribution [n, 8] and the open-set mass [n, 2]."""
    closed = answers[:, : len(EXPRESSIONS)]
    # A face that is surely none of the eight still needs a distribution over them.
    floor = np.finfo(np.float32).tiny
    expression = (closed + floor) / (closed + floor).sum(axis=1, keepdims=True)
    return expression, answers[:, len(EXPRESSIONS) :]


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
    except Exception as error:  # the runtime raises its own tree and protobuf another
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"readable weights in {weights.name}", got=said[0], hint=_MEND) from error
    shapes = {output.name: output.shape[-1] for output in session.get_outputs()}
    if shapes.get("answers") != len(ANSWERS) or shapes.get("feature") != FEATURES:
        raise ModelError(
            f"outputs answers[{len(ANSWERS)}], au and feature[{FEATURES}]",
            got=str(shapes),
            hint=_MEND,
        )
    return session


def _asserted(session: onnxruntime.InferenceSession) -> str:
    """The provider in use; says aloud when a GPU is there and not used."""
    active = session.get_providers()[0]
    if active not in _PROVIDERS:
        raise ModelError(
            f"one of the providers {', '.join(_PROVIDERS)}",
            got=active,
            hint="install onnxruntime or onnxruntime-gpu again",
        )
    if active == "CPUExecutionProvider" and _has_gpu():
        logger.error(
            "there is a GPU, but the machine rater runs on the CPU; install onnxruntime-gpu "
            "in place of onnxruntime to use it"
        )
    return active


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()
