"""Evaluate a rater's action units on coded videos that the user has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotation.raters import coded_frames, geometric, load, unit_agreement
from pipeline.progress import report
from warehouse import plugins
from warehouse.errors import MediaError, ModelError, SettingsError
from warehouse.ids import sha256_of
from warehouse.storage import atomic
from warehouse.vocabulary import ACTION_UNITS

if TYPE_CHECKING:
    from annotation.raters import Rater
    from annotation.raters.coded_frames import CodedSequence

BATCH = 64
_NO_POINTS = np.full((geometric.POINTS, 2), np.nan)


@dataclass(frozen=True)
class Options:
    """Options of an evaluation.

    Attributes:
        format: ``auto``, ``disfa`` or ``bp4d``.
        rater: name of a rater, see ``annotation.raters.load``.
        landmarks: ``package.module:function`` from a crop uint8[224, 224, 3] to float[68, 2] or
            None; adds the geometric reader.
        every: read each n-th coded frame.
        cache: folder for the readings of finished recordings.
    """

    format: str = "auto"
    rater: str = "default"
    landmarks: str | None = None
    every: int = 1
    cache: Path | None = None


def evaluate(folder: Path, options: Options) -> dict[str, Any]:
    """Read the coded frames of a folder and compare.

    An interrupted evaluation continues after the last finished recording if there is a cache.

    Returns:
        ``rater_id``, ``format``, ``recordings``, ``frames``, ``no_face`` (frames without a found
        face), ``failed`` (what could not be read, as sentences), ``units`` by code, and
        ``geometric`` by code where landmarks were given.

    Raises:
        SettingsError: ``every`` is below 1.
        TableError: the folder has no codes, or none with pictures.
        ModelError: rater or landmarks cannot be used, or no frame shows a face.
    """
    if options.every < 1:
        raise SettingsError("Not every n-th frame", got=str(options.every), hint="give 1 or more")
    form, sequences, failed = coded_frames.read(folder, options.format)
    rater = load(options.rater)
    landmarks = None
    if options.landmarks:
        landmarks = plugins.resolve(options.landmarks, hint="correct --landmarks")
    parts = []
    for done, sequence in enumerate(sequences):
        report("evaluating", sequence.name, done, len(sequences))
        try:
            parts.append(_cached(sequence, rater, landmarks, options))
        except MediaError as error:
            failed.append(f"{sequence.name}: {error}")
    report("evaluating", "", len(sequences), len(sequences))
    read = {
        name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())
    }
    if not parts or not np.isfinite(read["au"]).any():
        raise ModelError(
            "No coded frame shows a face that could be read",
            got="; ".join(failed[:5]) or f"{len(sequences)} recordings",
            hint="check the pictures",
        )
    codes = {"intensity": read["intensity"], "present": read["present"]}
    found: dict[str, Any] = {
        "rater_id": rater.rater_id,
        "format": form,
        "recordings": len(parts),
        "subjects": len(np.unique(read["subject"])),
        "frames": len(read["subject"]),
        "no_face": int((~read["found"]).sum()),
        "failed": failed,
        "units": unit_agreement.compare(
            unit_agreement.CodedReadings(subject=read["subject"], read=read["au"], **codes)
        ),
    }
    if landmarks is not None:
        shown = geometric.read(read["points"], read["subject"])
        found["geometric"] = unit_agreement.compare(
            unit_agreement.CodedReadings(subject=read["subject"], read=shown, **codes)
        )
    return found


def _cached(
    sequence: CodedSequence, rater: Rater, landmarks: Any, options: Options
) -> dict[str, np.ndarray]:
    if options.cache is None:
        return _read(sequence, rater, landmarks, options.every)
    said = (sequence.name, rater.rater_id, options.landmarks, options.every, len(sequence.frames))
    path = options.cache / f"{sequence.name}-{sha256_of([repr(said).encode()])[:12]}.npz"
    if not path.exists():
        arrays = _read(sequence, rater, landmarks, options.every)
        options.cache.mkdir(parents=True, exist_ok=True)
        with atomic.replace_file(path) as draft, open(draft, "wb") as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]
    with np.load(path) as stored:
        return dict(stored)


def _read(
    sequence: CodedSequence, rater: Rater, landmarks: Any, every: int
) -> dict[str, np.ndarray]:
    """Return codes and readings of the frames; NaN where no face was found."""
    rows = {int(frame): row for row, frame in list(enumerate(sequence.frames))[::every]}
    au = np.full((len(sequence.frames), len(ACTION_UNITS)), np.nan, dtype=np.float32)
    points = np.repeat(_NO_POINTS[None], len(sequence.frames), axis=0)
    seen = np.zeros(len(sequence.frames), dtype=bool)
    found = np.zeros(len(sequence.frames), dtype=bool)
    batch: list[tuple[int, np.ndarray]] = []

    def rate() -> None:
        if batch:
            places, crops = zip(*batch, strict=True)
            au[list(places)] = rater.rate(np.stack(crops)).au
            batch.clear()

    for frame, image in _images(sequence, set(rows)):
        row = rows[frame]
        seen[row] = True
        crop = _largest_face(image)
        if crop is None:
            continue
        found[row] = True
        batch.append((row, crop))
        if landmarks is not None and (marked := landmarks(crop)) is not None:
            points[row] = np.asarray(marked)
        if len(batch) == BATCH:
            rate()
    rate()
    if not seen.any():
        raise MediaError(
            f"{sequence.source.name} has none of the coded frames",
            got=f"frames {sequence.frames[0]} to {sequence.frames[-1]}",
            hint="check that codes and pictures belong together",
        )
    return {
        "subject": np.repeat(np.array([sequence.subject]), seen.sum()),
        "au": au[seen],
        "points": points[seen],
        "found": found[seen],
        "intensity": sequence.intensity[seen],
        "present": sequence.present[seen],
    }


def _images(sequence: CodedSequence, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and RGB image of the wanted frames."""
    import cv2

    from pipeline.video.container import open_container, video_stream

    if sequence.source.is_dir():
        for path in sorted(sequence.source.iterdir()):
            if path.stem.isdigit() and int(path.stem) in wanted:
                image = cv2.imread(str(path), cv2.IMREAD_COLOR)
                if image is not None:
                    yield int(path.stem), cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return
    with open_container(str(sequence.source)) as container:
        stream = container.decode(video_stream(container))
        for number, frame in enumerate(stream, start=1):
            if number in wanted:
                yield number, frame.to_ndarray(format="rgb24")


def _largest_face(image: np.ndarray) -> np.ndarray | None:
    """Return the aligned crop of the largest face, or None."""
    from pipeline import faces

    found = faces.find(image)
    return max(found, key=lambda face: face.bbox[2] * face.bbox[3]).crop if found else None
