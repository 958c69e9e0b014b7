"""Face generators of the user's own, and the faces that they may edit.

A synthesizer is a callable ``(reference, au, expression, n, seeds) -> images``, named as
``RISORIUS_SYNTHESIZER=package.module:callable``. ``docs/synthesizers.md`` has worked examples.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import polars as pl

from synthesis.request import FaceRequest, au_vector, check_action_units
from warehouse import plugins
from warehouse.consent import parse as parse_consent
from warehouse.errors import ModelError, SettingsError
from warehouse.ids import file_sha256, sha256_of
from warehouse.storage import media, views
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS

if TYPE_CHECKING:
    import numpy as np

EDITING = "yes, editing"
"""A statement of consent that covers editing."""

_DIGITS = 6
_SMALLEST_SIDE = 32


@dataclass(frozen=True)
class Reference:
    """A face to edit.

    Attributes:
        name: a face id of the home, or the digest of an image file.
        image: uint8[h, w, 3], RGB.
        au: float[K] in 0..1, its measured action units; NaN where no rater supports the unit.
        face_id: the face of the home, with which its edits are erased; None for other images.
    """

    name: str
    image: np.ndarray
    au: np.ndarray
    face_id: str | None = None


@dataclass(frozen=True)
class CallableSynthesizer:
    """Adapter of a callable to the interface of ``FaceGenerator``.

    Optional attributes of the callable: ``model`` (an identifier that changes with the weights),
    ``licence`` (of its images, as in ``warehouse.licences``), ``relative`` (it edits a reference
    and ``au`` is the change from it), ``supported_units`` (FACS numbers), ``guide_id`` (a rater
    that guided it, which must not label its faces).

    Args:
        name: ``package.module:callable``.
        reference: the face that every image shows, instead of one per request.
    """

    name: str
    reference: Reference | None = field(default=None, compare=False)
    num_inference_steps: int = field(default=1, init=False)
    guidance_scale: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._call  # noqa: B018 - a name that cannot be resolved fails here

    @property
    def _call(self) -> Callable[..., Any]:
        return plugins.resolve(
            self.name,
            hint="set RISORIUS_SYNTHESIZER to default, a saved pipeline's folder or "
            "package.module:callable",
        )

    @property
    def model(self) -> str:
        """Identifier of the generator; by default a hash of its source."""
        if given := getattr(self._call, "model", None):
            return str(given)
        module = sys.modules[self.name.partition(":")[0]]
        # The source stands for weights that cannot be seen: edited code is another generator.
        source = inspect.getsource(module) if hasattr(module, "__file__") else self.name
        readable = re.sub(r"[^A-Za-z0-9]+", "-", self.name)
        return f"synthesizer-{readable}-{sha256_of([self.name.encode(), source.encode()])[:8]}"

    @property
    def licence(self) -> str:
        """Licence of the images; ``unknown`` unless the callable states one."""
        return str(getattr(self._call, "licence", None) or "unknown")

    @property
    def relative(self) -> bool:
        """Whether it edits a reference by a change of action units."""
        return bool(getattr(self._call, "relative", False))

    @property
    def guide_id(self) -> str | None:
        """The rater that guides, or None."""
        given = getattr(self._call, "guide_id", None)
        return None if given is None else str(given)

    @property
    def supported_units(self) -> list[int]:
        """FACS numbers of the units that may be requested.

        Raises:
            ModelError: a unit is unknown.
        """
        given = getattr(self._call, "supported_units", None)
        if given is None:
            return [unit.number for unit in ACTION_UNITS]
        try:
            return list(check_action_units({int(unit): 0.0 for unit in given}))
        except (SettingsError, TypeError, ValueError) as error:
            self._refuse(
                "`supported_units` is not a list of known FACS numbers", repr(given), error
            )

    def face_id(self, request: FaceRequest, edited: str | None = None) -> str:
        """Return ``syn-<16 hex>``: equal for equal request, model and face."""
        if edited is None and self.reference is not None:
            edited = self.reference.name
        known, _ = request.supported(self.supported_units)
        facts = {
            "au": sorted((unit, round(value, _DIGITS)) for unit, value in known.au.items()),
            "expression": request.expression,
            "seed": request.seed,
            "model": self.model,
            "reference": edited,
        }
        return f"syn-{sha256_of([json.dumps(facts, sort_keys=True).encode()])[:16]}"

    def generate(
        self,
        requests: Sequence[FaceRequest],
        *,
        references: Sequence[Reference | None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Generate faces uint8[n, 224, 224, 3].

        Requests that differ in the seed alone are one call.

        Raises:
            SettingsError: a relative synthesizer has no reference.
            ModelError: the callable fails, or its images have another form.
        """
        import numpy as np

        given = [one or self.reference for one in references or [None] * len(requests)]
        pairs = [
            (one.supported(self.supported_units)[0], ref)
            for one, ref in zip(requests, given, strict=True)
        ]
        images = []
        for _, group in groupby(pairs, key=self._condition):
            members = list(group)
            images.append(self._images(members[0], [request.seed for request, _ in members]))
        if progress:
            progress(1)
        return np.concatenate(images)

    def _condition(self, pair: tuple[FaceRequest, Reference | None]) -> str:
        request, reference = pair
        return self.face_id(replace(request, seed=0), reference.name if reference else None)

    def _images(self, pair: tuple[FaceRequest, Reference | None], seeds: list[int]) -> np.ndarray:
        request, reference = pair
        au = au_vector(request.au)
        if self.relative:
            if reference is None:
                raise SettingsError(
                    f"The synthesizer {self.name} edits faces and got none",
                    got="no reference",
                    hint="give --reference, an image or a face of this home",
                )
            au = au_change(au, reference.au)
        image = None if reference is None else reference.image.copy()
        try:
            answer = self._call(image, au, request.expression, len(seeds), list(seeds))
        except Exception as error:
            self._refuse("It failed", f"{type(error).__name__}: {error}", error)
        return self._crops(answer, len(seeds))

    def _crops(self, answer: Any, n: int) -> np.ndarray:
        """Check images and scale them to the size of crops."""
        import cv2
        import numpy as np

        from pipeline.faces.align import SIZE

        try:
            pixels = np.stack([np.asarray(image) for image in answer])
        except (TypeError, ValueError) as error:
            self._refuse("Its answer is not images of one size", type(answer).__name__, error)
        if len(pixels) != n:
            self._refuse(f"It did not return {n} images, one per seed", str(len(pixels)))
        shape = pixels.shape[1:]
        if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
            got = f"{pixels.dtype} {list(pixels.shape)}"
            self._refuse("Its images are not uint8[n, s, s] or uint8[n, s, s, 3]", got)
        if shape[0] != shape[1] or shape[0] < _SMALLEST_SIDE:
            got = f"{shape[0]} x {shape[1]} px"
            self._refuse(f"Its images are not square with {_SMALLEST_SIDE} px or more", got)
        method = cv2.INTER_CUBIC if shape[0] < SIZE else cv2.INTER_AREA
        resized = np.stack([cv2.resize(one, (SIZE, SIZE), interpolation=method) for one in pixels])
        return np.repeat(resized[..., None], 3, axis=3) if resized.ndim == 3 else resized

    def _refuse(self, problem: str, got: str, cause: Exception | None = None) -> NoReturn:
        raise ModelError(
            f"The synthesizer {self.name} cannot be used: {problem[0].lower()}{problem[1:]}",
            got=got,
            hint="see docs/synthesizers.md for the form of its arguments and answer",
        ) from cause


def au_change(wanted: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the change float32[K] in -1..1 from ``present`` to ``wanted``.

    0 where nothing is requested: the unit stays. An unmeasured unit counts as absent.
    """
    import numpy as np

    return np.nan_to_num(wanted - np.nan_to_num(present)).astype(np.float32)


def is_callable(name: str) -> bool:
    """Return whether a setting names a callable instead of a folder."""
    return ":" in name and not Path(name).expanduser().exists()


def editable_faces(home: Home) -> pl.DataFrame:
    """Return the curated faces whose consent covers editing.

    Columns ``face_id, crop, au, subject_id``. Near duplicates and faces that an audit calls
    open-set are left out.
    """
    found = _curated(home).filter(pl.col("duplicate_of").is_null(), ~pl.col("is_open_set"))
    allowed = [parse_consent(text).permits_editing() for text in found["consent"]]
    return found.filter(pl.Series(allowed, dtype=pl.Boolean)).select(
        "face_id", "crop", "au", "subject_id"
    )


def check_editing(consent: str | None, *, what: str, hint: str) -> None:
    """Check that a statement of consent covers editing a face.

    Raises:
        SettingsError: it does not say so, or is withdrawn, unreadable or expired.
    """
    if not parse_consent(consent).permits_editing():
        raise SettingsError(
            f"The consent for {what} does not cover editing",
            got=repr(consent) if consent else "no statement",
            hint=hint,
        )


def assign_references(planned: pl.DataFrame, editable: pl.DataFrame) -> pl.DataFrame:
    """Add ``reference``, a face to edit per planned face.

    The choice depends on gap and number alone: another editable face changes only the planned
    faces that it wins. Without editable faces the plan is empty.
    """
    ids = sorted(editable["face_id"])
    if not ids:
        return planned.clear().with_columns(reference=pl.lit(None, pl.String))
    chosen = [
        min(ids, key=partial(_rank, f"{gap} {number}"))
        for gap, number in planned.select("gap", "number").iter_rows()
    ]
    return planned.with_columns(reference=pl.Series(chosen, dtype=pl.String))


def _rank(key: str, face: str) -> str:
    return sha256_of([f"{key} {face}".encode()])


def load_references(home: Home, face_ids: Iterable[str]) -> dict[str, Reference]:
    """Load faces of the home that may be edited, by id.

    Raises:
        SettingsError: a face is not curated, or its consent does not cover editing.
        MediaError: a crop is missing.
    """
    wanted = sorted(set(face_ids))
    rows = _curated(home).filter(pl.col("face_id").is_in(wanted))
    consents = dict(rows.select("face_id", "consent").iter_rows())
    for face in wanted:
        if face not in consents:
            raise SettingsError(
                "The reference is neither an image file nor a curated face of this home",
                got=face,
                hint='list the faces: risorius sql "SELECT face_id FROM curated_faces"',
            )
        check_editing(
            consents[face],
            what=f"the face {face}",
            hint=f"write {EDITING!r} as consent of its video in videos.csv, if the person agreed",
        )
    return {
        face: Reference(name=face, image=media.load(home, crop), au=_measured(au), face_id=face)
        for face, crop, au in rows.select("face_id", "crop", "au").iter_rows()
    }


def read_reference(home: Home, given: str, *, consent: str | None, rater: Any) -> Reference:
    """Read the face to edit: an image file, or a face of the home by its id.

    A file that is a crop of the home is that face, and its video's consent counts.

    Args:
        consent: of the person in an image file that is not of this home.
        rater: measures the action units of an image file.

    Raises:
        SettingsError: the face is unknown, or no consent covers editing.
        MediaError: the file cannot be read or shows no face.
    """
    from pipeline.faces import find
    from pipeline.faces.align import SIZE

    path = Path(given).expanduser()
    if not path.is_file():
        return load_references(home, [given])[given]
    digest = file_sha256(str(path))
    same = _curated(home).filter(pl.col("crop").str.contains(digest[:32], literal=True))
    if same.height:
        face = same["face_id"][0]
        return load_references(home, [face])[face]
    check_editing(
        consent, what=str(path), hint=f"give --consent {EDITING!r}, if the person shown agreed"
    )
    from synthesis import img2img

    pixels = img2img.read(str(path), side=SIZE, channels=3, find=find)
    image = ((pixels[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype("uint8")
    return Reference(name=digest, image=image, au=rater.rate(image[None]).au[0])


def _curated(home: Home) -> pl.DataFrame:
    return views.query(
        home,
        """SELECT face_id, crop, au, subject_id, consent, duplicate_of,
                  coalesce(is_open_set, FALSE) AS is_open_set
           FROM curated_faces""",
    )


def _measured(au: Sequence[float] | None) -> np.ndarray:
    import numpy as np

    blank = [np.nan] * len(ACTION_UNITS)
    return np.array(blank if au is None else au, dtype=np.float32)
