"""What may enter a release, and the columns it leaves with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.storage.schema import AU, BOOL, EXPRESSION, FLOAT, INT, INTENSITIES, TEXT, TIME
from warehouse.vocabulary import ACTION_UNITS, ANSWERS, EXPRESSIONS, RATER_KINDS

if TYPE_CHECKING:
    from datasets import Features

SPLITS = ("train", "validation", "test")
SOURCES = ("real", "synthetic", "imported")

ROWS: dict[str, pl.DataType | type[pl.DataType]] = {
    "face_id": TEXT, "video_id": TEXT, "track_id": TEXT, "subject_id": TEXT, "time_s": FLOAT,
    "crop": TEXT, "soft_label": EXPRESSION, "open_set_share": FLOAT, "n_votes": INT,
    "entropy": FLOAT, "au": AU, "valence": FLOAT, "arousal": FLOAT, "label_quality": FLOAT,
    "is_label_issue": BOOL, "open_set_score": FLOAT, "is_open_set": BOOL, "duplicate_of": TEXT,
    "source": TEXT, "licence": TEXT, "consent": TEXT, "near_group": TEXT,
}  # fmt: skip
"""One row per curated face. ``crop`` is a media key; ``soft_label`` follows ``EXPRESSIONS``.
Not released: ``consent``, which decides who enters (``warehouse.consent``), and ``near_group``, one
name for all faces of a chain of near pairs, which no split may part."""

UNRELEASED = ("consent", "near_group")

VOTES: dict[str, pl.DataType | type[pl.DataType]] = {
    "face_id": TEXT, "rater_id": TEXT, "rater_kind": TEXT, "validity": TEXT,
    "expressions": pl.List(TEXT), "confidence": TEXT, "valence": FLOAT, "arousal": FLOAT,
    "compounds": pl.List(TEXT), "free_label": TEXT, "au": INTENSITIES,
    "note": TEXT, "lead_time_s": FLOAT, "was_cancelled": BOOL, "saw_prediction": BOOL,
    "created_at": TIME, "updated_at": TIME,
}  # fmt: skip
"""One row per vote that stands, and per skip, which ``was_cancelled`` marks. ``au`` holds what this
rater coded by hand, as FACS numbers with intensities; most raters are never asked."""

_FACT_LISTS = {
    "stages": {"stage", "verdict", "n"},
    "audits": {"audit"},
    "models": {"name"},
    "rater_quality": {"rater_id"},
    "groups": {"group", "value"},
}
_OPTIONAL_ROWS = {"consent", "near_group"}
_OPTIONAL_VOTES = {
    "validity", "note", "saw_prediction", "created_at", "compounds", "free_label", "au",
}  # fmt: skip
_NEEDED_ROWS = ("face_id", "crop", "n_votes", "source")
_NEEDED_REAL = ("video_id", "track_id", "subject_id")
_NEEDED_VOTES = ("face_id", "rater_id", "rater_kind")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TOLERANCE = 1e-4


def check_name(name: str) -> str:
    """Return ``name`` if it can be a folder and a Hub repository.

    Raises:
        ReleaseError: it holds a slash, a space, ``..`` or anything else unfit.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ReleaseError(
            "a release name of 1 to 100 letters, digits, dots, dashes or underscores",
            got=repr(name),
            hint="choose another name, such as 'faces'",
        )
    return name


def features() -> Features:
    """The columns of config ``default``, in order."""
    from datasets import ClassLabel, Features, Image, List, Value

    text, number, yes = Value("string"), Value("float64"), Value("bool")
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
        }
    )  # fmt: skip


def vote_features() -> Features:
    """The columns of config ``votes``, in order."""
    from datasets import Features, List, Value

    kinds = {
        TEXT: "string", FLOAT: "float64", BOOL: "bool", TIME: "timestamp[us, tz=UTC]",
    }  # fmt: skip
    coded = List({"unit": Value("int64"), "intensity": Value("float64")})

    def feature(kind: pl.DataType | type[pl.DataType]) -> Any:
        if kind == INTENSITIES:
            return coded
        return List(Value("string")) if isinstance(kind, pl.List) else Value(kinds[kind])

    return Features({name: feature(kind) for name, kind in VOTES.items()})


def fit_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` with the contract's types, ordered by ``face_id``, plus ``expression``.

    ``expression`` is the index of the largest share, null where shares tie or none is given. A
    synthetic row has neither video nor track nor subject.

    Raises:
        ReleaseError: columns, types or values a release cannot stand for.
    """
    fitted = _fit(rows, ROWS, "rows", optional=_OPTIONAL_ROWS).sort("face_id")
    _refuse_null(fitted, _NEEDED_ROWS, "rows")
    made = pl.col("source") == "synthetic"
    for name in _NEEDED_REAL:
        # A made face shows nobody: it has no video and no subject, and may not claim one.
        _refuse(fitted, ~made & pl.col(name).is_null(), f"{name} in all rows", "none")
        _refuse(fitted, made & pl.col(name).is_not_null(), f"no {name} in made faces", "one")
    _refuse(fitted, pl.col("face_id").is_duplicated(), "each face_id once", "faces that repeat")
    _refuse(
        fitted, ~pl.col("source").is_in(SOURCES), f"a source among {', '.join(SOURCES)}", "others"
    )
    _refuse(
        fitted, ~_is_distribution(), "soft labels of eight shares that sum to 1", "ones that do not"
    )
    for name in ("open_set_share", "label_quality", "open_set_score"):
        # NaN compares as larger than every number here, so this refuses it too.
        beyond = ~pl.col(name).is_between(0.0, 1.0 + 1e-6)
        _refuse(fitted, beyond, f"{name} between 0 and 1", "values beyond")
    return _with_argmax(fitted)


def fit_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """``votes`` with the contract's types, ordered by face, rater and time.

    Raises:
        ReleaseError: unknown answers or rater kinds, or a rater id that is no pseudonym.
    """
    fitted = _fit(votes, VOTES, "votes", optional=_OPTIONAL_VOTES)
    _refuse_null(fitted, _NEEDED_VOTES, "votes")
    _refuse(
        fitted,
        ~pl.col("rater_kind").is_in(RATER_KINDS),
        f"a rater kind among {', '.join(RATER_KINDS)}",
        "others",
    )
    _refuse(
        fitted,
        pl.col("expressions").list.eval(~pl.element().is_in(ANSWERS)).list.any(),
        f"answers among {', '.join(ANSWERS)}",
        "others",
    )
    _refuse(
        fitted,
        pl.col("rater_id").str.contains("@", literal=True),
        "pseudonyms as rater ids",
        "what looks like e-mail addresses",
    )
    return fitted.with_columns(pl.col("was_cancelled").fill_null(False)).sort(
        "face_id", "rater_id", "updated_at", "created_at", maintain_order=True
    )


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse facts that card and report could not print.

    Raises:
        ReleaseError: a known list holds something else than mappings with their needed keys.
    """
    for name, needed in _FACT_LISTS.items():
        entries = facts.get(name, [])
        whole = isinstance(entries, list) and all(
            isinstance(entry, Mapping) and needed <= entry.keys() for entry in entries
        )
        if not whole:
            raise ReleaseError(
                f"facts[{name!r}] to be a list of mappings with {', '.join(sorted(needed))}",
                got=repr(entries)[:80],
                hint="see the docstring of warehouse.releases.build",
            )


def _fit(
    frame: pl.DataFrame,
    columns: dict[str, pl.DataType | type[pl.DataType]],
    what: str,
    *,
    optional: set[str],
) -> pl.DataFrame:
    missing = [name for name in columns if name not in frame.columns and name not in optional]
    unknown = [name for name in frame.columns if name not in columns]
    if missing or unknown:
        raise ReleaseError(
            f"the {what} of a release to have the columns {', '.join(columns)}",
            got=f"missing {missing or 'none'}, unknown {unknown or 'none'}",
            hint="fit them to warehouse/releases/schema.py",
        )
    try:
        return frame.select(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
            for name, kind in columns.items()
        )
    except pl.exceptions.PolarsError as error:
        raise ReleaseError(
            f"{what} that fit the types of a release",
            got=str(error).splitlines()[0],
            hint="fit them to warehouse/releases/schema.py",
        ) from error


def _refuse_null(frame: pl.DataFrame, names: tuple[str, ...], what: str) -> None:
    for name in names:
        _refuse(frame, pl.col(name).is_null(), f"{name} in all {what}", "none")


def _refuse(frame: pl.DataFrame, wrong: pl.Expr, expected: str, got: str) -> None:
    bad = frame.filter(wrong)["face_id"]
    if len(bad):
        shown = ", ".join(map(str, bad.head(3))) + (" …" if len(bad) > 3 else "")
        raise ReleaseError(
            expected,
            got=f"{got} in {len(bad)} of {len(frame)} (faces {shown})",
            hint="mend the tables these rows come from and run again",
        )


def _is_distribution() -> pl.Expr:
    shares = pl.col("soft_label").arr.to_list().cast(pl.List(pl.Float64))
    one = (shares.list.sum() - 1.0).abs() <= _TOLERANCE
    # A null or NaN among the shares makes a sum of its own; only a whole null label passes.
    whole = shares.list.eval(pl.element().is_not_null() & pl.element().is_not_nan()).list.all()
    return shares.is_null() | (one & whole & (shares.list.min() >= 0.0))


def _with_argmax(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``expression``: index of the largest share; null where another is within 1e-6 of it."""
    shares = pl.col("soft_label").arr.to_list()
    top = shares.list.sort(descending=True)
    found = rows.select(
        largest=shares.list.arg_max().cast(pl.Int64),
        lead=top.list.get(0).cast(pl.Float64) - top.list.get(1),
    )
    return rows.with_columns(
        found.select(expression=pl.when(pl.col("lead") > 1e-6).then("largest")).to_series()
    )
