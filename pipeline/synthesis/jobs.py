"""Fill coverage gaps: plan, generate and label synthetic faces of a home."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from pipeline.execution import map_items
from pipeline.synthesis import class_thresholds
from pipeline.synthesis.service import (
    BATCH,
    Generator,
    faceless,
    load_generator,
    rate,
    slug,
    target_expressions,
)
from pipeline.synthesis.synthesizer import (
    assign_references,
    editable_faces,
    load_references,
)
from synthesis.request import FaceRequest, au_vector
from warehouse.errors import MediaError
from warehouse.ids import sha256_of
from warehouse.storage import media, tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

if TYPE_CHECKING:
    import numpy as np

    from pipeline.settings import Settings

TABLE = "synthetic_faces"
PREFIX = "gap-"
"""Prefix of the part files written here; other part files are left unchanged."""

Progress = Callable[[str, int, int], None]
"""``(item, done, total)``."""

HERE = partial(map_items, over="machines")
"""Run in this process: a network uses every core by itself."""


class GenerationCount(NamedTuple):
    """Faces generated now, generated before, and removed from the plan."""

    generated: int
    known: int
    removed: int


def generator_of(settings: Settings) -> Generator:
    """Return the face generator that the settings name."""
    return load_generator(settings.synthesizer, guided=settings.synth_guide)


def coverage_gaps(home: Home, supported: list[int]) -> pl.DataFrame:
    """Return the gaps of the curated faces, see ``synthesis.coverage.gaps``."""
    from synthesis import coverage

    return coverage.gaps(*_curated(home), supported=supported)


def pair_counts(home: Home) -> np.ndarray:
    """Count curated faces that show both units: float[K, K], NaN = unmeasured."""
    import numpy as np

    from synthesis import coverage

    au = _curated(home)[1]
    unmeasured = coverage.unmeasured(au)
    return np.where(unmeasured[:, None] | unmeasured, np.nan, coverage.counts(au))


def plan(home: Home, generator: Generator, n: int) -> pl.DataFrame:
    """Plan ``n`` faces, see ``synthesis.coverage.plan``, with ``face_id``.

    For a generator that edits faces the plan also has ``reference``, a face whose consent covers
    editing. Without such faces it is empty.
    """
    from synthesis import coverage

    units = generator.supported_units
    planned = coverage.plan(coverage_gaps(home, units), n, supported=units)
    if generator.relative:
        planned = assign_references(planned, editable_faces(home))
    else:
        planned = planned.with_columns(reference=pl.lit(None, pl.String))
    edited = planned["reference"].to_list()
    requests = [_request(row) for row in planned.iter_rows(named=True)]
    ids = [generator.face_id(one, face) for one, face in zip(requests, edited, strict=True)]
    return planned.with_columns(face_id=pl.Series(ids, dtype=pl.String))


def generate_faces(
    home: Home,
    generator: Generator,
    planned: pl.DataFrame,
    *,
    each: Callable[..., Any] = HERE,
    progress: Progress | None = None,
) -> GenerationCount:
    """Generate missing planned faces; delete rows that are not planned.

    Every batch is written when it is done. If the run is killed, the next run generates the
    unfinished batch and the rest.

    Args:
        each: ``execution.map_items`` with its engine.

    Raises:
        Exception: the first failure; the other batches are generated first.
    """
    known = tables.read(home, TABLE)
    whole = [media.path_of(home, key).is_file() for key in known["crop"]]
    here = known.filter(pl.Series(whole, dtype=pl.Boolean))
    missing = planned.filter(~pl.col("face_id").is_in(here["face_id"].to_list()))
    parts, failures = _parts(planned), []
    generating = partial(_generated, home=home, generator=generator)
    for rows, outcome in each(generating, list(missing.iter_slices(BATCH))):
        if isinstance(outcome, Exception):
            failures.append(outcome)
            continue
        here = pl.concat([here, outcome])
        for part in _parts(rows):
            wanted = parts[part]["face_id"].to_list()
            tables.write(
                home, TABLE, here.filter(pl.col("face_id").is_in(wanted)).sort("face_id"), part=part
            )
        if progress:
            done = planned["face_id"].is_in(here["face_id"].to_list()).sum()
            progress(generator.model, int(done), planned.height)
    if failures:
        raise failures[0]
    for orphan in _written(home) - set(parts):
        tables.remove(home, TABLE, part=orphan)
    for part, rows in parts.items():
        _trim(home, part, rows["face_id"].to_list())
    removed = known.filter(~pl.col("face_id").is_in(planned["face_id"].to_list()))
    return GenerationCount(missing.height, planned.height - missing.height, removed.height)


def label_faces(
    home: Home,
    generator: Generator,
    raters: list[Any],
    *,
    each: Callable[..., Any] = HERE,
    progress: Progress | None = None,
) -> int:
    """Rate faces that these raters have not rated; rectify the labels.

    Args:
        raters: picklable if ``each`` uses other machines; those of ``raters.load`` are.
        each: ``execution.map_items`` with its engine.

    Returns:
        Faces labelled now.

    Raises:
        SettingsError: the guidance rater is among the raters.
        Exception: the first failure; the other part files are labelled first.
    """
    from synthesis.pseudo_labels import check_independent

    check_independent(generator.guide_id, [rater.rater_id for rater in raters])
    written, labelled, failures = sorted(_written(home)), 0, []
    labelling = partial(_label_part, home=home, raters=raters)
    for number, (part, outcome) in enumerate(each(labelling, written), start=1):
        if isinstance(outcome, Exception):
            failures.append(outcome)
            continue
        labelled += outcome
        if progress:
            progress(part, number, len(written))
    if failures:
        raise failures[0]
    return labelled


def _label_part(part: str, *, home: Home, raters: list[Any]) -> int:
    rows = pl.read_parquet(tables.path_of(home, TABLE, part=part))
    names = [rater.rater_id for rater in raters]
    bars = class_thresholds.of_raters(names)
    given = None if bars is None else bars.tolist()
    stamp = sha256_of([repr([names, rows["face_id"].to_list(), given]).encode()])[:16]
    if tables.metadata(home, TABLE, part=part).get("read_by") == stamp:
        return 0
    frame = _labelled(home, rows, raters, bars)
    tables.write(home, TABLE, frame, part=part, metadata={"read_by": stamp})
    return frame.height


def action_counts(home: Home) -> dict[str, int]:
    """Count the synthetic faces that were kept, relabelled and dropped."""
    found = views.query(home, f"SELECT action, count(*) AS n FROM {TABLE} GROUP BY ALL")
    by_action = dict(found.iter_rows())
    return {name: int(by_action.get(name, 0)) for name in ("kept", "relabelled", "dropped")}


def _curated(home: Home) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return soft labels, AUs and yaw of the curated faces, NaN = unknown."""
    import numpy as np

    rows = views.query(home, "SELECT face_id, soft_label, au FROM curated_faces")
    yaw = tables.scan(home, "faces").select("face_id", "yaw").unique("face_id").collect()
    rows = rows.join(yaw, on="face_id", how="left", maintain_order="left")
    columns = TABLES[TABLE].columns
    label, au = (
        np.array(
            [value or [np.nan] * width for value in rows[name].to_list()], dtype=np.float32
        ).reshape(-1, width)
        for name, width in (
            ("soft_label", columns["soft_label"].size),  # type: ignore[union-attr]
            ("au", columns["measured_au"].size),  # type: ignore[union-attr]
        )
    )
    return label, au, rows["yaw"].fill_null(float("nan")).to_numpy()


def _request(row: dict[str, Any]) -> FaceRequest:
    au = {pair["unit"]: pair["intensity"] for pair in row["au"]}
    return FaceRequest(au=au, expression=row["expression"], seed=row["seed"])


def _parts(planned: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Split a plan by part file; every part file holds faces of one gap."""
    found = {}
    for (gap, number), rows in planned.group_by(
        "gap", pl.col("number") // BATCH, maintain_order=True
    ):
        found[f"{PREFIX}{slug(str(gap))}-{number:04d}"] = rows
    return found


def _written(home: Home) -> set[str]:
    return {part for part in tables.parts(home, TABLE) if part.startswith(PREFIX)}


def _trim(home: Home, part: str, wanted: list[str]) -> None:
    """Delete unplanned rows of a part file; without any, leave it untouched."""
    path = tables.path_of(home, TABLE, part=part)
    rows = pl.read_parquet(path)
    planned = rows.filter(pl.col("face_id").is_in(wanted))
    if planned.height < rows.height:
        tables.write(home, TABLE, planned, part=part)


def _generated(rows: pl.DataFrame, *, home: Home, generator: Generator) -> pl.DataFrame:
    """Generate faces; return their rows of the table, not labelled yet."""
    import numpy as np

    requests = [_request(row) for row in rows.iter_rows(named=True)]
    edited = rows["reference"].to_list()
    faces = load_references(home, [face for face in edited if face])
    given = [faces[face] if face else None for face in edited]
    crops = generator.generate(requests, references=given)
    targets = zip(requests, target_expressions(requests), strict=True)
    return pl.DataFrame(
        {
            "face_id": rows["face_id"],
            "target_au": np.stack([au_vector(request.au) for request in requests]),
            "target_expression": [row.tolist() if one.expression else None for one, row in targets],
            "seed": rows["seed"],
            "model": [generator.model] * len(requests),
            "guidance": [generator.guidance_scale] * len(requests),
            "crop": [media.store(home, "crops", crop) for crop in crops],
            "reference": rows["reference"],
            "licence": [generator.licence] * len(requests),
            **dict.fromkeys(("measured_au", "soft_label", "action", "reason")),
        },
        schema=TABLES[TABLE].schema,
    )


def _labelled(
    home: Home, rows: pl.DataFrame, raters: list[Any], bars: np.ndarray | None
) -> pl.DataFrame:
    """Label rows by their raters; drop a face whose crop is missing."""
    import numpy as np

    from synthesis.pseudo_labels import DROPPED, rectify

    crops, lost = [], []
    for key in rows["crop"]:
        try:
            crops.append(media.load(home, key))
            lost.append(False)
        except MediaError:
            lost.append(True)
    missing = pl.Series(lost, dtype=pl.Boolean)
    there, without_crop = rows.filter(~missing), rows.filter(missing)
    without_crop = without_crop.with_columns(
        action=pl.lit(DROPPED), reason=pl.lit("crop_gone: draw it again")
    )
    if there.is_empty():
        return without_crop
    asked = np.array(
        [row or [np.nan] * 8 for row in there["target_expression"].to_list()], dtype=np.float32
    )
    pixels, au = np.stack(crops), there["target_au"].to_numpy()
    verdict = rectify(asked, au, rate(pixels, raters), faceless=faceless(pixels), thresholds=bars)
    labelled = there.drop(verdict.columns).hstack(verdict).select(rows.columns)
    return pl.concat([labelled, without_crop]).sort("face_id")
