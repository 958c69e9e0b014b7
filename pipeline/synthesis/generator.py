"""The network that draws faces, together with the raters that read what it drew."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warehouse.errors import ModelError, SettingsError
from warehouse.ids import file_sha256, sha256_of

if TYPE_CHECKING:
    import numpy as np

    from pipeline.faces.detect import Detector
    from synthesis.pipeline import FaceAUPipeline
    from synthesis.pseudo_labels import Reading

BATCH = 16
"""Faces drawn at once."""

FOUND = 0.35
"""Score of the face finder from which a made picture counts as a face. Measured on 48 px scaled up
as here: 120 real faces scored 0.39 and more, 60 with their patches shuffled 0.30 and less."""

JUDGE = "judge"
_DEFAULT = Path(__file__).parents[2] / "synthesis" / "weights" / "default"
_EXACT = 6


@dataclass(frozen=True)
class Order:
    """One face to draw.

    Attributes:
        au: FACS number to intensity in 0..1; 0 asks for absence.
        expression: a name of ``vocabulary.EXPRESSIONS`` or None.
    """

    au: dict[int, float]
    expression: str | None
    seed: int


@dataclass(frozen=True)
class Maker:
    """A way to draw: everything that, with an order, decides a face.

    Args:
        name: ``default``, or a folder with a saved ``FaceAUPipeline``.
        guided: let the machine rater steer the last half of the steps.
        reference: a picture whose layout every face keeps.
    """

    name: str = "default"
    steps: int = 10
    guidance: float = 2.0
    guided: bool = False
    reference: Path | None = None
    _loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        # Only what it is told: where it arrives, its networks are loaded there, once.
        told = (self.name, self.steps, self.guidance, self.guided, self.reference)
        return (Maker, told)

    @property
    def folder(self) -> Path:
        return _DEFAULT if self.name == "default" else Path(self.name).expanduser()

    @cached_property
    def model(self) -> str:
        """``risorius-face-<8 hex of its weights and settings>``, and the guide if there is one.

        Raises:
            ModelError: there are no weights in the folder.
        """
        files = sorted([*self.folder.rglob("*.safetensors"), *self.folder.rglob("*config.json")])
        if not any(file.suffix == ".safetensors" for file in files):
            raise ModelError(
                f"weights that draw faces in {self.folder}",
                got="none",
                hint="install risorius again, or run synthesis.training.train and .export",
            )
        parts = [(str(file.relative_to(self.folder)), file_sha256(str(file))) for file in files]
        own = f"risorius-face-{sha256_of([repr(parts).encode()])[:8]}"
        return f"{own}+guide-{self.guide_id[-8:]}" if self.guide_id else own

    @property
    def taught(self) -> list[int]:
        """FACS numbers of the units that the network learned, read without loading it."""
        path = self.folder / "conditioner" / "config.json"
        try:
            return [int(unit) for unit in json.loads(path.read_text())["taught"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"a conditioner in {self.folder}",
                got=type(error).__name__,
                hint="install risorius again, or export the network again",
            ) from error

    @cached_property
    def guide_id(self) -> str | None:
        """The rater that steers, None without one."""
        return self.guide.rater_id if self.guided else None

    def face_id(self, order: Order) -> str:
        """``syn-<16 hex>``: the same for the same order, network and way of drawing."""
        said = {
            "au": sorted((unit, round(value, _EXACT)) for unit, value in order.au.items()),
            "expression": order.expression,
            "seed": order.seed,
            "model": self.model,
            "steps": self.steps,
            "guidance": round(self.guidance, _EXACT),
            "reference": file_sha256(str(self.reference)) if self.reference else None,
        }
        return f"syn-{sha256_of([json.dumps(said, sort_keys=True).encode()])[:16]}"

    def draw(
        self, orders: Sequence[Order], *, say: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Aligned faces uint8[n, 224, 224, 3], gray, scaled up to the side of every other crop.

        Args:
            say: called with the steps done out of ``steps``, for each ``BATCH`` from the start.

        Raises:
            SettingsError: an order nobody can draw.
            MediaError: the reference shows no face.
        """
        import cv2
        import numpy as np

        from pipeline.faces import find
        from pipeline.faces.align import SIZE

        with warnings.catch_warnings():
            # Untaught units are told beside each face, once per command and not per batch.
            warnings.filterwarnings("ignore", message="the network never learned")
            output = self.pipeline(
                [order.au for order in orders],
                [order.expression for order in orders],
                seed=[order.seed for order in orders],
                steps=self.steps,
                guidance=self.guidance,
                guide=self.guide if self.guided else None,
                reference=str(self.reference) if self.reference else None,
                find=find if self.reference else None,
                callback=(lambda pipe, step, moment, seen: say(step + 1)) if say else None,
                output="array",
                batch=BATCH,
            )
        drawn = np.asarray(output.images)
        size, way = (SIZE, SIZE), cv2.INTER_CUBIC
        gray = np.stack([cv2.resize(image, size, interpolation=way) for image in drawn])
        return np.repeat(gray[..., None], 3, axis=3) if gray.ndim == 3 else gray

    @property
    def pipeline(self) -> FaceAUPipeline:
        """The network, loaded once."""
        if "pipeline" not in self._loaded:
            from synthesis.pipeline import FaceAUPipeline

            pipeline = FaceAUPipeline.from_pretrained(self.folder)
            pipeline.set_progress_bar_config(disable=True)
            self._loaded["pipeline"] = pipeline
        return self._loaded["pipeline"]

    @property
    def guide(self) -> Any:
        """The rater that steers where ``guided``, with gradients."""
        if "guide" not in self._loaded:
            from pipeline.synthesis.training_data import guide

            self._loaded["guide"] = guide()
        return self._loaded["guide"]


def readers(rater: str, *, guide_id: str | None = None) -> list[Any]:
    """The raters that read made faces: the home's own and the judge, less the one that guided.

    Raises:
        SettingsError: none is left.
    """
    from annotation import raters
    from annotation.raters.onnx_rater import weights_of

    names = [rater] + ([JUDGE] if weights_of(JUDGE).is_file() and rater != JUDGE else [])
    found = [one for one in map(raters.load, names) if one.rater_id != guide_id]
    if not found:
        raise SettingsError(
            "a rater that did not guide the drawing",
            got=f"{guide_id} alone",
            hint="draw with --no-guide, or set RISORIUS_RATER to another rater",
        )
    return found


def read(crops: np.ndarray, raters: Iterable[Any]) -> list[Reading]:
    """What each rater reads from faces uint8[n, h, w, 3]."""
    from synthesis.pseudo_labels import Reading

    return [
        Reading(
            rater_id=rater.rater_id,
            expression=ratings.expression,
            au=ratings.au,
            plurality=ratings.plurality,
            not_a_face=ratings.open_set[:, 1],
        )
        for rater, ratings in ((rater, rater.rate(crops)) for rater in raters)
    ]


def faceless(crops: np.ndarray) -> np.ndarray:
    """bool[n]: aligned crops in which the shipped face finder scores nothing above ``FOUND``."""
    import numpy as np

    finder = _finder()
    return np.array([len(finder.detect(crop)[0]) == 0 for crop in crops], dtype=bool)


@lru_cache(maxsize=1)
def _finder() -> Detector:
    from pipeline.faces import detect

    return detect.load(threshold=FOUND)


def slug(text: str) -> str:
    """``text`` as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
