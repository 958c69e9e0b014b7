"""Generate requested faces into a folder, with sheet and measurements."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.synthesis.synthesizer import (
    CallableSynthesizer,
    Reference,
    is_callable,
    read_reference,
)
from synthesis.request import (
    GUIDANCE_END,
    GUIDANCE_SCALE,
    GUIDANCE_START,
    SWEEP_LEVELS,
    FaceRequest,
    au_vector,
    expression_vector,
    sweep_requests,
)
from warehouse.errors import MediaError, ModelError, SettingsError
from warehouse.ids import file_sha256, sha256_of
from warehouse.storage import atomic
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from pipeline.faces.detect import Detector
    from pipeline.settings import Settings
    from synthesis.pipeline import FaceAUPipeline
    from synthesis.pseudo_labels import Reading

BATCH = 16
"""Faces generated at once."""

FOUND = 0.35
"""Detector score from which a synthetic image counts as a face. Measured on 48 px scaled up as
here: 120 real faces scored 0.39 and more, 60 with shuffled patches 0.30 and less."""

JUDGE = "judge"
RECORD = "faces.json"
_DEFAULT = Path(__file__).parents[2] / "synthesis" / "weights" / "default"
_DIGITS = 6
_MOST_COLUMNS = 8


class Generator(Protocol):
    """Generator of requested faces, shipped or of the user's own.

    Attributes:
        model: identifier that changes with the weights.
        licence: of the images; None if it depends on the model, see ``warehouse.licences``.
        relative: it edits a reference face by a change of action units.
        supported_units: FACS numbers.
        guide_id: the rater that guides, or None.
    """

    @property
    def model(self) -> str: ...
    @property
    def licence(self) -> str | None: ...
    @property
    def relative(self) -> bool: ...
    @property
    def supported_units(self) -> list[int]: ...
    @property
    def guide_id(self) -> str | None: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def guidance_scale(self) -> float | None: ...

    def face_id(self, request: FaceRequest, edited: str | None = None) -> str:
        """Return ``syn-<16 hex>`` of a request and the face that is edited."""
        ...

    def generate(
        self,
        requests: Sequence[FaceRequest],
        *,
        references: Sequence[Reference | None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Generate faces uint8[n, 224, 224, 3]."""
        ...


def load_generator(
    name: str, *, guided: bool = False, reference: Path | Reference | None = None
) -> Generator:
    """Return the generator that the setting ``synthesizer`` names.

    Raises:
        SettingsError: a synthesizer of the user's own is to be guided.
        ModelError: it cannot be imported.
    """
    if not is_callable(name):
        assert not isinstance(reference, Reference)
        return FaceGenerator(name=name, guided=guided, reference=reference)
    if guided:
        raise SettingsError(
            "Only the networks of this package can be guided",
            got=name,
            hint="leave out --guide and RISORIUS_SYNTH_GUIDE",
        )
    assert not isinstance(reference, Path)
    return CallableSynthesizer(name, reference=reference)


@dataclass(frozen=True)
class FaceGenerator:
    """Network and settings: with a request, all that decides a face.

    Pickled without its networks, which are loaded once per process.

    Args:
        name: ``default``, or a folder with a saved ``FaceAUPipeline``.
        guided: whether the machine rater guides the last half of the steps.
        reference: an image whose layout every face keeps.
    """

    name: str = "default"
    num_inference_steps: int = 10
    guidance_scale: float = GUIDANCE_SCALE
    guided: bool = False
    reference: Path | None = None
    _loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    licence: None = field(default=None, init=False)
    relative: bool = field(default=False, init=False)

    def __reduce__(self) -> tuple[object, ...]:
        settings = (self.name, self.num_inference_steps, self.guidance_scale)
        return (FaceGenerator, (*settings, self.guided, self.reference))

    @property
    def folder(self) -> Path:
        """Folder of the saved pipeline."""
        return _DEFAULT if self.name == "default" else Path(self.name).expanduser()

    @cached_property
    def model(self) -> str:
        """Return ``risorius-face-<8 hex of weights and configs>``, plus the guide.

        Raises:
            ModelError: the folder has no weights.
        """
        files = sorted([*self.folder.rglob("*.safetensors"), *self.folder.rglob("*config.json")])
        if not any(file.suffix == ".safetensors" for file in files):
            raise ModelError(
                "The folder has no weights of a face generator",
                got=str(self.folder),
                hint="install risorius again, or run synthesis.training.train and .export",
            )
        parts = [(str(file.relative_to(self.folder)), file_sha256(str(file))) for file in files]
        own = f"risorius-face-{sha256_of([repr(parts).encode()])[:8]}"
        return f"{own}+guide-{self.guide_id[-8:]}" if self.guide_id else own

    @property
    def supported_units(self) -> list[int]:
        """FACS numbers of the units the network supports, read without loading it."""
        path = self.folder / "conditioner" / "config.json"
        try:
            config = json.loads(path.read_text())
            # The name up to version 0.1.
            units = config["supported"] if "supported" in config else config["taught"]
            return [int(unit) for unit in units]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"The conditioner in {self.folder} cannot be read",
                got=type(error).__name__,
                hint="install risorius again, or export the network again",
            ) from error

    @cached_property
    def guide_id(self) -> str | None:
        """The rater that guides, or None."""
        return self.guide.rater_id if self.guided else None

    def face_id(self, request: FaceRequest, edited: str | None = None) -> str:
        """Return ``syn-<16 hex>``: equal for equal request, network and settings."""
        facts = {
            "au": sorted((unit, round(value, _DIGITS)) for unit, value in request.au.items()),
            "expression": request.expression,
            "seed": request.seed,
            "model": self.model,
            "steps": self.num_inference_steps,
            "guidance": [round(self.guidance_scale, _DIGITS), GUIDANCE_START, GUIDANCE_END],
            "reference": file_sha256(str(self.reference)) if self.reference else None,
        }
        return f"syn-{sha256_of([json.dumps(facts, sort_keys=True).encode()])[:16]}"

    def generate(
        self,
        requests: Sequence[FaceRequest],
        *,
        references: Sequence[Reference | None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Generate faces uint8[n, 224, 224, 3], scaled up to the crops' size.

        It edits no face: ``references`` are ignored.

        Args:
            progress: called with the steps done, counted from the start of each ``BATCH``.

        Raises:
            SettingsError: a request is invalid.
            MediaError: the reference shows no face.
        """
        import cv2
        import numpy as np

        from pipeline.faces import find
        from pipeline.faces.align import SIZE

        with warnings.catch_warnings():
            # Unsupported units are reported once per command, not per batch.
            warnings.filterwarnings("ignore", message="the network does not support")
            output = self.pipeline(
                [request.au for request in requests],
                [request.expression for request in requests],
                generator=[request.seed for request in requests],
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                guide=self.guide if self.guided else None,
                reference=str(self.reference) if self.reference else None,
                find=find if self.reference else None,
                callback_on_step_end=(lambda pipe, step, timestep, tensors: progress(step + 1))
                if progress
                else None,
                output_type="array",
                batch_size=BATCH,
            )
        images = np.asarray(output.images)
        size, method = (SIZE, SIZE), cv2.INTER_CUBIC
        resized = np.stack([cv2.resize(image, size, interpolation=method) for image in images])
        return np.repeat(resized[..., None], 3, axis=3) if resized.ndim == 3 else resized

    @property
    def pipeline(self) -> FaceAUPipeline:
        """The diffusion pipeline, loaded once."""
        if "pipeline" not in self._loaded:
            from synthesis.pipeline import FaceAUPipeline

            pipeline = FaceAUPipeline.from_pretrained(self.folder)
            pipeline.set_progress_bar_config(disable=True)
            self._loaded["pipeline"] = pipeline
        return self._loaded["pipeline"]

    @property
    def guide(self) -> Any:
        """The guidance rater, differentiable, loaded once."""
        if "guide" not in self._loaded:
            from pipeline.synthesis.training_data import guide

            self._loaded["guide"] = guide()
        return self._loaded["guide"]


def reference_of(settings: Settings, given: str, *, consent: str | None) -> Path | Reference:
    """Read ``--reference`` for the generator that the settings name.

    Raises:
        SettingsError: the image or face does not exist, or no consent covers editing.
        MediaError: the image shows no face.
    """
    if is_callable(settings.synthesizer):
        from annotation import raters

        rater = raters.load(settings.rater)
        return read_reference(settings.place, given, consent=consent, rater=rater)
    path = Path(given)
    if not path.is_file():
        raise SettingsError("The reference image does not exist", got=given, hint="check the path")
    return path


def evaluation_raters(rater: str, *, guide_id: str | None = None) -> list[Any]:
    """Load the home's rater and the judge, if independent of the guide.

    The guide itself is left out, and so is a rater that was distilled from it.

    Raises:
        SettingsError: no rater is left.
    """
    from annotation import raters
    from annotation.raters.onnx_rater import weights_of

    names = [rater] + ([JUDGE] if weights_of(JUDGE).is_file() and rater != JUDGE else [])
    found = [one for one in map(raters.load, names) if guide_id not in _origins(one)]
    if not found:
        raise SettingsError(
            "Every rater guided the faces it would evaluate",
            got=f"{guide_id} alone",
            hint="generate with --no-guide, or set RISORIUS_RATER to another rater",
        )
    return found


def _origins(rater: Any) -> set[str]:
    """Return the ids of a rater and of the raters that it learned from."""
    card = getattr(rater, "card", {})
    return {rater.rater_id, *card.get("trained_on", {}).get("teachers", [])}


def labelling_raters(rater: str, *, guide_id: str | None = None) -> list[Any]:
    """Load the raters that label synthetic faces: the home's, never the judge.

    The judge evaluates the faces and what is trained on them, so it must not decide their labels.

    Raises:
        SettingsError: the home's rater guided the faces.
    """
    from annotation import raters

    found = raters.load("default" if rater == JUDGE else rater)
    if found.rater_id == guide_id:
        raise SettingsError(
            "The rater guided the faces that it would label",
            got=guide_id,
            hint="generate with --no-guide, or set RISORIUS_RATER to another rater",
        )
    return [found]


def rate(crops: np.ndarray, raters: Iterable[Any]) -> list[Reading]:
    """Rate faces uint8[n, h, w, 3] with every rater."""
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
    """Return bool[n]: crops in which the shipped detector finds no face."""
    import numpy as np

    detector = _detector()
    return np.array([len(detector.detect(crop)[0]) == 0 for crop in crops], dtype=bool)


@lru_cache(maxsize=1)
def _detector() -> Detector:
    from pipeline.faces import detect

    return detect.load(threshold=FOUND)


def target_expressions(requests: Sequence[FaceRequest]) -> np.ndarray:
    """Return float32[n, 8]; a row of NaN where no expression is requested."""
    import numpy as np

    nothing = np.full(len(EXPRESSIONS), np.nan, dtype=np.float32)
    rows = [expression_vector(request.expression) for request in requests]
    return np.stack([nothing if row is None else row for row in rows])


def slug(text: str) -> str:
    """Convert ``text`` to a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def generate(
    request: FaceRequest,
    generator: Generator,
    out: Path,
    *,
    n: int = 1,
    sweep: int | None = None,
    rater: str = "default",
    progress: Callable[[str, str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Generate and measure what is missing in ``out``; write the record.

    The record is replaced after every batch: a run that is killed and started again generates
    only what is missing.

    Args:
        n: seeds, counted up from the request's.
        sweep: an action unit that runs from 0 to 1 on every seed.

    Returns:
        The JSON document of ``risorius synth``.

    Raises:
        SettingsError: nothing is requested, or ``out`` cannot be written or its record not read.
    """
    if not request.au and request.expression is None and sweep is None:
        raise SettingsError(
            "Nothing is requested", got="neither --au nor --expression", hint="give --au AU12=0.8"
        )
    requests = sweep_requests(request, n, sweep)
    raters = evaluation_raters(rater, guide_id=generator.guide_id)
    labelling = labelling_raters(rater, guide_id=generator.guide_id)
    names = [one.rater_id for one in raters]
    record = _read_record(out, names)
    by_id = {generator.face_id(one): one for one in requests}
    missing = [pair for pair in by_id.items() if pair[0] not in record]
    steps, total = generator.num_inference_steps, len(by_id) * generator.num_inference_steps
    try:
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            base = (len(by_id) - len(missing) + start) * steps

            def report(done: int, size: int = len(part), base: int = base) -> None:
                if progress:
                    progress("drawing", f"{size} faces", base + done * size, total)

            record |= _measured(part, generator, raters, labelling, out, report)
            entries = [record[face] for face in sorted(record)]
            atomic.write_text(out / RECORD, json.dumps({"faces": entries}, indent=1) + "\n")
        faces = [record[face] for face in by_id]
        sheet = out / f"sheet-{slug(_title(request, sweep))[:80]}.png"
        _write_sheet(sheet, faces, out, seeds=range(request.seed, request.seed + n), sweep=sweep)
    except OSError as error:
        raise SettingsError(
            f"The folder {out} cannot be written",
            got=error.strerror or str(error),
            hint="free space or name another folder with --out; finished faces are kept",
        ) from error
    asked = {unit for one in requests for unit in one.au}
    edited = {face["edited"] for face in faces if face.get("edited")}
    return {
        "model": generator.model,
        "out": str(out),
        "sheet": str(sheet),
        "record": str(out / RECORD),
        "drawn": len(missing),
        "edited": sorted(edited),
        "raters": names,
        "unsupported": sorted(asked - set(generator.supported_units)),
        "measured": _summary(faces),
        "actions": {
            action: sum(face["action"] == action for face in faces)
            for action in ("kept", "relabelled", "dropped")
        },
        "faces": faces,
    }


def show(facts: dict[str, Any], console: Console) -> None:
    """Print the result of ``generate``."""
    console.print(f"faces     {len(facts['faces'])}, {facts['drawn']} of them generated now")
    console.print(f"sheet     {facts['sheet']}")
    console.print(f"record    {facts['record']}   (requested and measured, face by face)")
    for face in facts["edited"]:
        console.print(f"edited    {face}; delete these images when this person is erased")
    console.print(f"raters    {', '.join(facts['raters'])}")
    for unit in facts["unsupported"]:
        console.print(f"[yellow]note[/]      the network does not support AU{unit}; it was ignored")
    for unit, row in facts["measured"]["au"].items():
        seen = "no rater supports it" if row["seen"] is None else f"measured {row['seen']:.2f}"
        console.print(f"{unit:<9} requested {row['asked']:.2f}, {seen} on average")
    first = sorted(facts["measured"]["expression"].items(), key=lambda pair: -pair[1])[:3]
    console.print("measured  " + ", ".join(f"{name} {share:.2f}" for name, share in first))
    console.print("labels    " + ", ".join(f"{n} {a}" for a, n in facts["actions"].items()))


def _title(request: FaceRequest, sweep: int | None) -> str:
    words = [f"AU{unit}={value:g}" for unit, value in request.au.items()]
    words += [str(request.expression)] if request.expression is not None else []
    words += [f"sweep AU{sweep}"] if sweep is not None else []
    return " ".join([*words, f"seed {request.seed}"])


def _measured(
    part: list[tuple[str, FaceRequest]],
    generator: Generator,
    raters: list[Any],
    labelling: list[Any],
    out: Path,
    progress: Callable[[int], None],
) -> dict[str, dict[str, Any]]:
    """Generate faces, write their images, and return their record entries.

    Args:
        raters: measure action units.
        labelling: decide the labels.
    """
    import numpy as np

    from pipeline.synthesis import class_thresholds
    from synthesis import image_grid
    from synthesis.pseudo_labels import mean_known, rectify

    requests = [request for _, request in part]
    crops = generator.generate(requests, progress=progress)
    reference = getattr(generator, "reference", None)
    edited = reference.face_id if isinstance(reference, Reference) else None
    verdict = rectify(
        target_expressions(requests).astype(float),
        np.stack([au_vector(request.au) for request in requests]),
        rate(crops, labelling),
        faceless=faceless(crops),
        thresholds=class_thresholds.of_raters([one.rater_id for one in labelling]),
    )
    measured = mean_known([one.au for one in rate(crops, raters)])
    rows = zip(part, crops, verdict.to_dicts(), measured, strict=True)
    found = {}
    for (face, request), crop, row, intensities in rows:
        image_grid.write(out / "images" / f"{face}.png", crop)
        au = zip(ACTION_UNITS, intensities.tolist(), strict=True)
        label = zip(EXPRESSIONS, row["soft_label"], strict=True)
        found[face] = {
            "face_id": face,
            "file": f"images/{face}.png",
            "asked": {
                "au": {f"AU{unit}": value for unit, value in request.au.items()},
                "expression": request.expression,
                "seed": request.seed,
            },
            "model": generator.model,
            "edited": edited,
            # NaN where no rater supports the unit.
            "measured": {"au": {unit.code: round(v, 4) for unit, v in au if v == v}},
            "soft_label": {name: round(share, 4) for name, share in label},
            "action": row["action"],
            "reason": row["reason"],
            "raters": [rater.rater_id for rater in raters],
        }
    return found


def _read_record(out: Path, raters: list[str]) -> dict[str, dict[str, Any]]:
    """Return entries of an earlier run with image and rated by ``raters``."""
    path = out / RECORD
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text())["faces"]
        return {
            entry["face_id"]: entry
            for entry in entries
            if entry["raters"] == raters and (out / entry["file"]).is_file()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"The record {path} cannot be read",
            got=type(error).__name__,
            hint="move it away or name another --out",
        ) from error


def _write_sheet(
    path: Path, faces: list[dict[str, Any]], out: Path, *, seeds: range, sweep: int | None
) -> None:
    import numpy as np

    from synthesis import image_grid

    images = np.stack([_read_image(out / face["file"]) for face in faces])
    if sweep is not None:
        code = f"AU{sweep}"
        seen = [face["measured"]["au"].get(code) for face in faces]
        sheet = image_grid.faces(
            images,
            columns=len(SWEEP_LEVELS),
            captions=["" if value is None else f"seen {value:.2f}" for value in seen],
            heads=[f"{code}={level:g}" for level in SWEEP_LEVELS],
            rows=[f"seed {seed}" for seed in seeds],
        )
    else:
        best = [max(face["soft_label"].items(), key=lambda pair: pair[1]) for face in faces]
        captions = [f"{name[:9]} {share:.2f}" for name, share in best]
        columns = min(_MOST_COLUMNS, len(faces))
        sheet = image_grid.faces(images, columns=columns, captions=captions)
    image_grid.write(path, sheet)


def _read_image(path: Path) -> np.ndarray:
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise MediaError(
            f"The image {path} cannot be read",
            got="damaged bytes",
            hint="delete it and run the command again",
        )
    return image[..., ::-1]


def _summary(faces: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the labels, and the intensities of every requested unit."""
    codes = sorted(
        {code for face in faces for code in face["asked"]["au"]}, key=lambda c: int(c[2:])
    )
    au = {}
    for code in codes:
        rows = [face for face in faces if code in face["asked"]["au"]]
        seen = [face["measured"]["au"][code] for face in rows if code in face["measured"]["au"]]
        au[code] = {
            "asked": sum(face["asked"]["au"][code] for face in rows) / len(rows),
            "seen": sum(seen) / len(seen) if seen else None,
        }
    label = {
        name: sum(face["soft_label"][name] for face in faces) / len(faces) for name in EXPRESSIONS
    }
    return {"au": au, "expression": label}
