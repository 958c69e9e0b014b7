"""Faces made to fill the gaps of a home, drawn once and labelled by what raters see in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from pipeline.execution import map_items
from pipeline.synthesis.generator import BATCH, Maker, Order, faceless, read, slug
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
"""Of the parts written here; files that others put into the table are left alone."""

Say = Callable[[str, int, int], None]

HERE = partial(map_items, over="machines")
"""In this process: a network uses every core by itself."""


class Count(NamedTuple):
    """Faces drawn now, found from before, and no longer asked for."""

    drawn: int
    known: int
    gone: int


def maker_of(settings: Settings) -> Maker:
    """The way of drawing that the settings name."""
    return Maker(name=settings.synthesizer, guided=settings.synth_guide)


def lacking(home: Home, taught: list[int]) -> pl.DataFrame:
    """What the curated faces lack, see ``synthesis.coverage.gaps``."""
    from synthesis import coverage

    return coverage.gaps(*_curated(home), taught=taught)


def pairs(home: Home) -> np.ndarray:
    """float[K, K]: curated faces that show both units; NaN where one was never measured."""
    import numpy as np

    from synthesis import coverage

    au = _curated(home)[1]
    blind = coverage.unmeasured(au)
    return np.where(blind[:, None] | blind, np.nan, coverage.counts(au))


def plan(home: Home, maker: Maker, n: int) -> pl.DataFrame:
    """The ``n`` faces to ask for, see ``synthesis.coverage.plan``, and each one's ``face_id``."""
    from synthesis import coverage

    asked = coverage.plan(lacking(home, maker.taught), n, taught=maker.taught)
    ids = [maker.face_id(_order(row)) for row in asked.iter_rows(named=True)]
    return asked.with_columns(face_id=pl.Series(ids, dtype=pl.String))


def make_faces(
    home: Home,
    maker: Maker,
    asked: pl.DataFrame,
    *,
    each: Callable[..., Any] = HERE,
    say: Say | None = None,
) -> Count:
    """Draw what is asked and not there yet; rows that are no longer asked for leave the table.

    Every batch is written as soon as it is drawn: a run that is killed loses what was being drawn,
    and the next run draws that and what was still to come.

    Args:
        each: ``execution.map_items`` with its engine.

    Raises:
        Exception: the first that drawing raised; the other batches are drawn first.
    """
    known = tables.read(home, TABLE)
    whole = [media.path_of(home, key).is_file() for key in known["crop"]]
    here = known.filter(pl.Series(whole, dtype=pl.Boolean))
    owed = asked.filter(~pl.col("face_id").is_in(here["face_id"].to_list()))
    parts, failures = _parts(asked), []
    drawing = partial(_drawn, home=home, maker=maker)
    for rows, drawn in each(drawing, list(owed.iter_slices(BATCH))):
        if isinstance(drawn, Exception):
            failures.append(drawn)
            continue
        here = pl.concat([here, drawn])
        for part in _parts(rows):
            wanted = parts[part]["face_id"].to_list()
            tables.write(
                home, TABLE, here.filter(pl.col("face_id").is_in(wanted)).sort("face_id"), part=part
            )
        if say:
            done = asked["face_id"].is_in(here["face_id"].to_list()).sum()
            say(maker.model, int(done), asked.height)
    if failures:
        raise failures[0]
    for orphan in _written(home) - set(parts):
        tables.remove(home, TABLE, part=orphan)
    for part, rows in parts.items():
        _trim(home, part, rows["face_id"].to_list())
    left = known.filter(~pl.col("face_id").is_in(asked["face_id"].to_list()))
    return Count(owed.height, asked.height - owed.height, left.height)


def label_faces(
    home: Home,
    maker: Maker,
    raters: list[Any],
    *,
    each: Callable[..., Any] = HERE,
    say: Say | None = None,
) -> int:
    """Measure, and rectify the labels of, every face these raters have not read; returns how many.

    Args:
        raters: picklable if ``each`` goes to other machines; those of ``raters.load`` are.
        each: ``execution.map_items`` with its engine.

    Raises:
        SettingsError: the rater that guided the drawing is among them.
        Exception: the first that reading raised; the other parts are read first.
    """
    from synthesis.pseudo_labels import apart

    names = [rater.rater_id for rater in raters]
    apart(maker.guide_id, names)
    written, labelled, failures = sorted(_written(home)), 0, []
    reading = partial(_read_part, home=home, raters=raters)
    for number, (part, outcome) in enumerate(each(reading, written), start=1):
        if isinstance(outcome, Exception):
            failures.append(outcome)
            continue
        labelled += outcome
        if say:
            say(part, number, len(written))
    if failures:
        raise failures[0]
    return labelled


def _read_part(part: str, *, home: Home, raters: list[Any]) -> int:
    rows = pl.read_parquet(tables.path_of(home, TABLE, part=part))
    names = [rater.rater_id for rater in raters]
    stamp = sha256_of([repr([names, rows["face_id"].to_list()]).encode()])[:16]
    if tables.metadata(home, TABLE, part=part).get("read_by") == stamp:
        return 0
    frame = _labelled(home, rows, raters)
    tables.write(home, TABLE, frame, part=part, metadata={"read_by": stamp})
    return frame.height


def facts(home: Home) -> dict[str, int]:
    """How many synthetic faces were kept, relabelled and dropped."""
    found = views.query(home, f"SELECT action, count(*) AS n FROM {TABLE} GROUP BY ALL")
    by_action = dict(found.iter_rows())
    return {name: int(by_action.get(name, 0)) for name in ("kept", "relabelled", "dropped")}


def _curated(home: Home) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Soft labels, action units and yaw of the curated faces, NaN where unknown."""
    import numpy as np

    rows = views.query(home, "SELECT face_id, soft_label, au FROM curated_faces")
    turned = tables.scan(home, "faces").select("face_id", "yaw").unique("face_id").collect()
    rows = rows.join(turned, on="face_id", how="left", maintain_order="left")
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


def _order(row: dict[str, Any]) -> Order:
    au = {pair["unit"]: pair["intensity"] for pair in row["au"]}
    return Order(au=au, expression=row["expression"], seed=row["seed"])


def _parts(asked: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Part name to its rows; one gap's faces never share a part with another's."""
    found = {}
    for (gap, number), rows in asked.group_by(
        "gap", pl.col("number") // BATCH, maintain_order=True
    ):
        found[f"{PREFIX}{slug(str(gap))}-{number:04d}"] = rows
    return found


def _written(home: Home) -> set[str]:
    return {part for part in tables.parts(home, TABLE) if part.startswith(PREFIX)}


def _trim(home: Home, part: str, wanted: list[str]) -> None:
    """Leave in a part what is wanted; one that was right stays untouched, labels and all."""
    path = tables.path_of(home, TABLE, part=part)
    rows = pl.read_parquet(path)
    right = rows.filter(pl.col("face_id").is_in(wanted))
    if right.height < rows.height:
        tables.write(home, TABLE, right, part=part)


def _drawn(rows: pl.DataFrame, *, home: Home, maker: Maker) -> pl.DataFrame:
    """Rows of the table, not labelled yet."""
    import numpy as np

    from synthesis import action_units
    from warehouse.vocabulary import EXPRESSIONS

    orders = [_order(row) for row in rows.iter_rows(named=True)]
    crops = maker.draw(orders)
    eye = np.eye(len(EXPRESSIONS), dtype=np.float32)
    names = [order.expression for order in orders]
    return pl.DataFrame(
        {
            "face_id": rows["face_id"],
            "target_au": np.stack([action_units.vector(order.au) for order in orders]),
            "target_expression": [eye[EXPRESSIONS.index(n)].tolist() if n else None for n in names],
            "seed": rows["seed"],
            "model": [maker.model] * len(orders),
            "guidance": [maker.guidance] * len(orders),
            "crop": [media.store(home, "crops", crop) for crop in crops],
            **dict.fromkeys(("measured_au", "soft_label", "action", "reason")),
        },
        schema=TABLES[TABLE].schema,
    )


def _labelled(home: Home, rows: pl.DataFrame, raters: list[Any]) -> pl.DataFrame:
    """The same rows with what the raters see; a face whose crop is gone is dropped, and says so."""
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
    there, gone = rows.filter(~missing), rows.filter(missing)
    gone = gone.with_columns(action=pl.lit(DROPPED), reason=pl.lit("crop_gone: draw it again"))
    if there.is_empty():
        return gone
    asked = np.array(
        [row or [np.nan] * 8 for row in there["target_expression"].to_list()], dtype=np.float32
    )
    pixels, au = np.stack(crops), there["target_au"].to_numpy()
    verdict = rectify(asked, au, read(pixels, raters), faceless=faceless(pixels))
    seen = there.drop(verdict.columns).hstack(verdict).select(rows.columns)
    return pl.concat([seen, gone]).sort("face_id")
