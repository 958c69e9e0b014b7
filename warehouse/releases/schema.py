"""Define the columns of a release and validate the rows it is built from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.difficulty import with_difficulty
from warehouse.storage.schema import AU, BOOL, EXPRESSION, FLOAT, INT, INTENSITIES, TEXT, TIME
from warehouse.vocabulary import ACTION_UNITS, ANSWERS, EXPRESSIONS, RATER_KINDS

if TYPE_CHECKING:
    from datasets import Features

SPLITS = ("train", "validation", "test")
SOURCES = ("real", "synthetic", "imported")

CONFIGS = {
    "default": "data/", "synthetic": "synthetic/", "votes": "votes/", "clips": "clips/",
    "segments": "segments/", "segment_votes": "segment_votes/", "texts": "texts/",
    "spans": "spans/",
}  # fmt: skip
"""Configs that ``load_dataset`` offers, and the folder of each."""

SYNTHETIC = "synthetic"
"""Value of the column ``split`` for rows of the config of that name."""

PLACES = ("config", "train")
"""Where synthetic faces go: a config of their own, whose only split is train, or train."""

FACE_FILES = {
    **{split: f"data/{split}-*.parquet" for split in SPLITS},
    SYNTHETIC: "synthetic/train-*.parquet",
}
"""Value of the column ``split`` to the files of its rows."""

ROWS: dict[str, pl.DataType | type[pl.DataType]] = {
    "face_id": TEXT, "video_id": TEXT, "track_id": TEXT, "subject_id": TEXT, "time_s": FLOAT,
    "crop": TEXT, "soft_label": EXPRESSION, "open_set_share": FLOAT, "n_votes": INT,
    "entropy": FLOAT, "au": AU, "valence": FLOAT, "arousal": FLOAT, "label_quality": FLOAT,
    "is_label_issue": BOOL, "open_set_score": FLOAT, "is_open_set": BOOL, "duplicate_of": TEXT,
    "source": TEXT, "licence": TEXT, "consent": TEXT, "near_group": TEXT,
    "bbox": pl.Array(pl.Float32, 4), "keypoints": pl.Array(pl.Float32, (5, 2)),
    "yaw": FLOAT, "pitch": FLOAT, "roll": FLOAT, "frame": INT, "frame_size": pl.Array(INT, 2),
    "transform": pl.Array(pl.Float32, (2, 3)),
}  # fmt: skip
"""One row per curated face. ``crop`` is a media key; ``soft_label`` follows ``EXPRESSIONS``.
``bbox`` (x y w h) and ``keypoints`` are pixels of the upright frame, ``frame_size`` is its width
and height, ``transform`` maps its pixels to those of the crop. Angles are degrees."""

GEOMETRY = ("bbox", "keypoints", "yaw", "pitch", "roll", "frame", "frame_size", "transform")
"""Columns of ``ROWS`` that say where in the frame a face is; null for a synthetic face."""

UNRELEASED = ("consent", "near_group")
"""Columns of ``ROWS`` that are not released. ``consent`` decides eligibility. ``near_group`` names
a chain of near duplicates, which must stay in one split."""

VOTES: dict[str, pl.DataType | type[pl.DataType]] = {
    "face_id": TEXT, "rater_id": TEXT, "rater_kind": TEXT, "validity": TEXT,
    "expressions": pl.List(TEXT), "confidence": TEXT, "valence": FLOAT, "arousal": FLOAT,
    "compounds": pl.List(TEXT), "free_label": TEXT, "au": INTENSITIES,
    "note": TEXT, "lead_time_s": FLOAT, "was_cancelled": BOOL, "saw_prediction": BOOL,
    "created_at": TIME, "updated_at": TIME,
}  # fmt: skip
"""One row per current vote, and per skip (``was_cancelled``). ``au`` holds the FACS numbers and
intensities that this rater coded by hand; most raters are never asked for them."""

_FACT_LISTS = {
    "stages": {"stage", "verdict", "n"},
    "audits": {"audit"},
    "models": {"name"},
    "rater_quality": {"rater_id"},
    "groups": {"group", "value"},
}
"""Lists among the facts, and the keys that each entry needs."""

_OPTIONAL_ROWS = {"consent", "near_group", *GEOMETRY}
_OPTIONAL_VOTES = {
    "validity", "note", "saw_prediction", "created_at", "compounds", "free_label", "au",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TOLERANCE = 1e-4


def check_name(name: str) -> str:
    """Return ``name`` if it can be a folder and a Hub repository.

    Raises:
        ReleaseError: it is empty or too long, or holds a slash, a space or ``..``.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ReleaseError(
            "Invalid release name",
            got=repr(name),
            hint="use 1 to 100 letters, digits, dots, dashes or underscores, such as 'faces'",
        )
    return name


def features() -> Features:
    """Return the columns of config ``default``, in order."""
    from datasets import ClassLabel, Features, Image, List, Value

    text, number, yes = Value("string"), Value("float64"), Value("bool")
    pixels = Value("float32")
    return Features(
        {
            "image": Image(),
            "face_id": text, "video_id": text, "track_id": text, "subject_id": text,
            "time_s": number,
            "expression": ClassLabel(names=list(EXPRESSIONS)),
            "soft_label": List(Value("float32"), length=len(EXPRESSIONS)),
            "open_set_share": number, "n_votes": Value("int64"), "entropy": number,
            "au": List(Value("float32"), length=len(ACTION_UNITS)),
            "valence": number, "arousal": number, "label_quality": number,
            "is_label_issue": yes, "open_set_score": number, "is_open_set": yes,
            "duplicate_of": text, "source": text, "licence": text,
            "bbox": List(pixels, length=4), "keypoints": List(List(pixels, length=2), length=5),
            "yaw": number, "pitch": number, "roll": number, "frame": Value("int64"),
            "frame_size": List(Value("int64"), length=2),
            "transform": List(List(pixels, length=3), length=2),
            "difficulty": text,
        }
    )  # fmt: skip


def vote_features() -> Features:
    """Return the columns of config ``votes``, in order."""
    from datasets import Features, List, Value

    kinds = {TEXT: "string", FLOAT: "float64", BOOL: "bool", TIME: "timestamp[us, tz=UTC]"}
    coded = List({"unit": Value("int64"), "intensity": Value("float64")})

    def feature(kind: pl.DataType | type[pl.DataType]) -> Any:
        if kind == INTENSITIES:
            return coded
        return List(Value("string")) if isinstance(kind, pl.List) else Value(kinds[kind])

    return Features({name: feature(kind) for name, kind in VOTES.items()})


def fit_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Cast ``rows`` to ``ROWS``, sort them, add what follows from them.

    ``difficulty`` is explained in ``warehouse.releases.difficulty``.

    ``expression`` is the index of the largest share; null if shares tie or there is no label. A
    synthetic row has the video, track and subject of the face that it edits, or none of the three.

    Raises:
        ReleaseError: columns, types or values do not fit a release.
    """
    fitted = _fit(rows, ROWS, "rows", optional=_OPTIONAL_ROWS).sort("face_id")
    for name in ("face_id", "crop", "n_votes", "source"):
        _refuse(fitted, pl.col(name).is_null(), f"Rows without {name}")
    synthetic = pl.col("source") == "synthetic"
    origin = ("video_id", "track_id", "subject_id")
    edit = synthetic & pl.all_horizontal(pl.col(name).is_not_null() for name in origin)
    for name in origin:
        _refuse(fitted, ~synthetic & pl.col(name).is_null(), f"Rows without {name}")
        alone = synthetic & ~edit & pl.col(name).is_not_null()
        _refuse(fitted, alone, f"Synthetic faces with a {name} alone")
    _refuse(fitted, pl.col("face_id").is_duplicated(), "Rows with a repeated face_id")
    known = pl.col("source").is_in(SOURCES)
    _refuse(fitted, ~known, f"Rows with a source other than {', '.join(SOURCES)}")
    _refuse(fitted, ~_is_distribution(), "Rows whose soft_label is not 8 shares that sum to 1")
    for name in ("open_set_share", "label_quality", "open_set_score"):
        # NaN compares as larger than every number, so this refuses NaN too.
        _refuse(fitted, ~pl.col(name).is_between(0.0, 1.0 + 1e-6), f"Rows with {name} outside 0..1")
    return with_difficulty(_with_argmax(fitted))


def fit_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """Cast ``votes`` to ``VOTES`` and sort them by face, rater and time.

    Raises:
        ReleaseError: an answer or rater kind is unknown, or a rater id is not a pseudonym.
    """
    fitted = _fit(votes, VOTES, "votes", optional=_OPTIONAL_VOTES)
    for name in ("face_id", "rater_id", "rater_kind"):
        _refuse(fitted, pl.col(name).is_null(), f"Votes without {name}")
    known = pl.col("rater_kind").is_in(RATER_KINDS)
    _refuse(fitted, ~known, f"Votes with a rater kind other than {', '.join(RATER_KINDS)}")
    unknown = pl.col("expressions").list.eval(~pl.element().is_in(ANSWERS)).list.any()
    _refuse(fitted, unknown, f"Votes with an answer other than {', '.join(ANSWERS)}")
    account = pl.col("rater_id").str.contains("@", literal=True)
    _refuse(fitted, account, "Votes with an e-mail address as rater_id")
    return fitted.with_columns(pl.col("was_cancelled").fill_null(False)).sort(
        "face_id", "rater_id", "updated_at", "created_at", maintain_order=True
    )


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse facts that card and report cannot print.

    Raises:
        ReleaseError: a known list holds anything but mappings with the needed keys.
    """
    for name, needed in _FACT_LISTS.items():
        entries = facts.get(name, [])
        if not isinstance(entries, list) or not all(
            isinstance(entry, Mapping) and needed <= entry.keys() for entry in entries
        ):
            raise ReleaseError(
                f"facts[{name!r}] is not a list of mappings with {', '.join(sorted(needed))}",
                got=repr(entries)[:80],
                hint="see the docstring of warehouse.releases.build",
            )


def _cast(values: pl.Expr, kind: pl.DataType | type[pl.DataType]) -> pl.Expr:
    if isinstance(kind, pl.Array) and isinstance(inner := kind.inner, pl.Array):
        # Polars 2.1 cannot cast a list of lists with a null to an array of arrays at once.
        values = values.cast(pl.List(pl.Array(inner.inner, inner.size)))
    return values.cast(kind)


def _fit(
    frame: pl.DataFrame,
    columns: dict[str, pl.DataType | type[pl.DataType]],
    name: str,
    *,
    optional: set[str],
) -> pl.DataFrame:
    missing = [column for column in columns if column not in {*frame.columns, *optional}]
    unknown = [column for column in frame.columns if column not in columns]
    if missing or unknown:
        raise ReleaseError(
            f"The columns of the {name} do not fit a release",
            got=f"missing {missing or 'none'}, unknown {unknown or 'none'}",
            hint="fit them to warehouse/releases/schema.py",
        )
    try:
        return frame.select(
            _cast(pl.col(column) if column in frame.columns else pl.lit(None), kind).alias(column)
            for column, kind in columns.items()
        )
    except pl.exceptions.PolarsError as error:
        raise ReleaseError(
            f"The types of the {name} do not fit a release",
            got=str(error).splitlines()[0],
            hint="fit them to warehouse/releases/schema.py",
        ) from error


def _refuse(frame: pl.DataFrame, wrong: pl.Expr, problem: str) -> None:
    bad = frame.filter(wrong)["face_id"]
    if len(bad):
        shown = ", ".join(map(str, bad.head(3))) + (" …" if len(bad) > 3 else "")
        raise ReleaseError(
            problem,
            got=f"{len(bad)} of {len(frame)} (faces {shown})",
            hint="fix the tables these rows are read from and run again",
        )


def _is_distribution() -> pl.Expr:
    shares = pl.col("soft_label").arr.to_list().cast(pl.List(pl.Float64))
    sums_to_one = (shares.list.sum() - 1.0).abs() <= _TOLERANCE
    # `list.sum` skips nulls, so test each share too. A null label is allowed.
    finite = shares.list.eval(pl.element().is_not_null() & pl.element().is_not_nan()).list.all()
    return shares.is_null() | (sums_to_one & finite & (shares.list.min() >= 0.0))


def _with_argmax(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``expression``, null if the two largest shares are within 1e-6."""
    shares = pl.col("soft_label").arr.to_list()
    top = shares.list.sort(descending=True)
    found = rows.select(
        largest=shares.list.arg_max().cast(pl.Int64),
        lead=top.list.get(0).cast(pl.Float64) - top.list.get(1),
    )
    return rows.with_columns(
        found.select(expression=pl.when(pl.col("lead") > 1e-6).then("largest")).to_series()
    )
