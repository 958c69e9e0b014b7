"""Write and read the configs about segments: labels, votes, texts, spans.

``segments`` has one row per segment and label set, with its video and sound. ``segment_votes``
holds the votes behind the labels, ``texts`` and ``spans`` what people wrote and marked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse import label_sets
from warehouse.errors import ReleaseError, SettingsError
from warehouse.ids import sha256_of
from warehouse.releases import manifest, shards
from warehouse.releases.schema import CONFIGS, SPLITS
from warehouse.storage import atomic, mirror
from warehouse.storage.home import Home
from warehouse.storage.schema import BOOL, FLOAT, INT, TEXT

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

Columns = Mapping[str, pl.DataType | type[pl.DataType]]

SEGMENTS: Columns = {
    "segment_id": TEXT, "video_id": TEXT, "subject_ids": pl.List(TEXT), "kind": TEXT,
    "start_s": FLOAT, "end_s": FLOAT, "dialogue_id": TEXT, "turn": INT, "speaker": TEXT,
    "role": TEXT, "transcript": TEXT, "language": TEXT, "video": TEXT, "sound": TEXT,
    "label_set": TEXT, "distribution": pl.List(pl.Float32), "open_set_share": FLOAT,
    "n_votes": INT, "entropy": FLOAT, "agreement": FLOAT, "source": TEXT, "licence": TEXT,
    "consent": TEXT, "answered": BOOL,
}  # fmt: skip
"""One row per segment and label set. ``video`` and ``sound`` are media keys; ``consent`` and
``answered`` decide eligibility and are not released."""

VOTES: Columns = {
    "segment_id": TEXT, "video_id": TEXT, "rater_id": TEXT, "rater_kind": TEXT,
    "label_set": TEXT, "labels": pl.List(TEXT), "answers": TEXT,
}  # fmt: skip

TEXTS: Columns = {
    "item_kind": TEXT, "item_id": TEXT, "video_id": TEXT, "kind": TEXT, "text": TEXT,
    "words": pl.List(TEXT), "language": TEXT, "author_kind": TEXT, "rater_id": TEXT,
}  # fmt: skip

SPANS: Columns = {
    "item_kind": TEXT, "item_id": TEXT, "video_id": TEXT, "label_set": TEXT, "label": TEXT,
    "start_s": FLOAT, "end_s": FLOAT, "cues": pl.List(TEXT), "rater_id": TEXT,
    "rater_kind": TEXT,
}  # fmt: skip

NAMES = ("segments", "segment_votes", "texts", "spans")
"""The configs, in the order of the card."""

_COLUMNS = dict(zip(NAMES, (SEGMENTS, VOTES, TEXTS, SPANS), strict=True))
_UNRELEASED = ("consent", "answered")
_MEDIA = {"video": "video", "sound": "audio"}
"""Column of media keys to the column of bytes in the release."""

_SOUND_RATE = 16_000
_ROW_BYTES = 512
"""Assumed size of a row without its media when files are cut."""


@dataclass(frozen=True)
class Items:
    """Rows of the four configs; in a version each has a column ``split``."""

    segments: pl.DataFrame
    segment_votes: pl.DataFrame
    texts: pl.DataFrame
    spans: pl.DataFrame

    def frames(self) -> dict[str, pl.DataFrame]:
        """Return config to rows, in the order of ``NAMES``."""
        return {name: getattr(self, name) for name in NAMES}

    @property
    def is_empty(self) -> bool:
        """Whether no config has a row."""
        return all(frame.is_empty() for frame in self.frames().values())


def fit(given: Mapping[str, pl.DataFrame] | None) -> Items:
    """Cast rows to the columns of each config and sort them.

    Args:
        given: config of ``NAMES`` to rows; a config may lack.

    Raises:
        ReleaseError: columns or types do not fit.
    """
    fitted = {}
    for name, columns in _COLUMNS.items():
        frame = (given or {}).get(name)
        if frame is None:
            fitted[name] = pl.DataFrame(schema=dict(columns))
            continue
        try:
            cast = frame.select(pl.col(column).cast(kind) for column, kind in columns.items())
        except pl.exceptions.PolarsError as error:
            raise ReleaseError(
                f"The rows of {name} do not fit warehouse/releases/items.py",
                got=str(error).splitlines()[0],
                hint="fix the tables these rows are read from and run again",
            ) from error
        order = [column for column, kind in columns.items() if not isinstance(kind, pl.List)]
        fitted[name] = cast.sort(order, nulls_last=True, maintain_order=True)
    return Items(**fitted)


def members(items: Items) -> pl.DataFrame:
    """Return a row per segment and subject, as ``splits.assign`` reads it."""
    rows = items.segments.unique("segment_id", maintain_order=True)
    return rows.select(
        "video_id", face_id="segment_id", subject_id="subject_ids",
        duplicate_of=pl.lit(None, pl.String),
    ).explode("subject_id").with_columns(
        # A row without a subject would count as a synthetic face.
        pl.col("subject_id").fill_null("video-" + pl.col("video_id"))
    )  # fmt: skip


def released(items: Items, segments: pl.DataFrame, others: Mapping[str, pl.Series]) -> Items:
    """Keep the rows of released items.

    Args:
        segments: ``segment_id`` of the released segments.
        others: kind of item to ids, for texts and spans about clips; of a kind without an entry
            (videos, dialogues) those of videos with a released segment stay.
    """
    kept = items.segments.join(segments, on="segment_id", how="semi")
    ids = {"segment": kept["segment_id"].unique(), **others}
    in_video = pl.col("video_id").is_in(kept["video_id"].unique().implode())
    known = pl.col("item_kind").is_in(list(ids))
    named = pl.any_horizontal(
        (pl.col("item_kind") == kind) & pl.col("item_id").is_in(found.implode())
        for kind, found in ids.items()
    )
    about = named | (~known & in_video)
    return Items(
        kept,
        items.segment_votes.join(kept, on="segment_id", how="semi"),
        items.texts.filter(about),
        items.spans.filter(about),
    )


def assign_splits(items: Items, videos: Mapping[str, str]) -> Items:
    """Add ``split``: that of the item's video."""
    split = pl.col("video_id").replace_strict(dict(videos), default=None, return_dtype=TEXT)
    return Items(
        **{
            name: frame.with_columns(split=split).filter(pl.col("split").is_not_null())
            for name, frame in items.frames().items()
        }
    )


def fingerprint(home: Home, items: Items) -> dict[str, Any]:
    """Fingerprint all values and media; media count by their bytes."""
    rows = items.segments.drop(*_UNRELEASED)
    keys = pl.concat([rows[name] for name in _MEDIA]).drop_nulls().unique().sort()
    sums = {key: sha256_of([_read(home, key)]) for key in keys}
    for name in _MEDIA:
        hashed = [sums[key] if key else None for key in rows[name]]
        rows = rows.with_columns(pl.Series(f"{name}_sha256", hashed, dtype=TEXT))
    frames = items.frames() | {"segments": rows}
    return {name: manifest.fingerprint(frame) for name, frame in frames.items() if frame.height}


def features(config: str, *, video: bool = True, sound: bool = True) -> Features:
    """Return the columns of a config.

    Videos and sounds are not decoded, because ``datasets`` needs torchcodec for that and the
    config must load without it. ``cast_column("video", Video())`` turns decoding on.
    """
    from datasets import Audio, Features, List, Value, Video

    def feature(kind: Any) -> Any:
        if isinstance(kind, pl.List):
            return List(feature(kind.inner))
        return Value({TEXT: "string", INT: "int64", FLOAT: "float64"}.get(kind, "float32"))

    media: dict[str, Any] = {}
    columns = dict(_COLUMNS[config])
    if config == "segments":
        if video:
            media["video"] = Video(decode=False)
        if sound:
            media["audio"] = Audio(sampling_rate=_SOUND_RATE, decode=False)
        for name in (*_UNRELEASED, *_MEDIA):
            del columns[name]
        columns = {"segment_id": TEXT, "video_id": TEXT, "subject_id": TEXT} | columns
    return Features(media | {name: feature(kind) for name, kind in columns.items()})


def write(
    folder: Path, items: Items, *, home: Home, shard_bytes: int
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write every config that has rows below ``folder``.

    Returns:
        rows per file, and config to facts for the manifest: ``rows, sizes, label_sets`` and of
        ``segments`` also ``videos, sounds, texts``.

    Raises:
        ReleaseError: a video or a sound is missing.
    """
    files: dict[str, int] = {}
    facts: dict[str, Any] = {}
    for name, frame in items.frames().items():
        if frame.is_empty():
            continue
        facts[name] = _facts(name, frame)
        kind = features_of(name, facts[name])
        sizes: dict[str, dict[str, int]] = {}
        for split in SPLITS:
            part = frame.filter(pl.col("split") == split)
            if part.is_empty():
                continue
            written, num_bytes = shards.write_shards(
                folder, part, stem=f"{CONFIGS[name]}{split}", kind=kind,
                sizes=_sizes(home, part), shard_bytes=shard_bytes,
                table=partial(_table, home=home),
            )  # fmt: skip
            sizes[split] = {"rows": part.height, "bytes": num_bytes}
            files |= written
        facts[name]["sizes"] = sizes
    return files, facts


def features_of(config: str, facts: Mapping[str, Any]) -> Features:
    """Return the columns of a config in the version that ``facts`` describe."""
    if config != "segments":
        return features(config)
    return features(config, video=facts["videos"] > 0, sound=facts["sounds"] > 0)


def read(home: Home, path: Path, keep: Callable[[pl.DataFrame], pl.DataFrame]) -> Items:
    """Return the rows of a version.

    Videos and sounds that are missing in the media folder are restored from the version.

    Args:
        keep: called with the rows of each file before media are restored.
    """
    found: dict[str, pl.DataFrame] = {}
    for name, columns in _COLUMNS.items():
        parts = [pl.DataFrame(schema=dict(columns) | {"split": TEXT})]
        for split in SPLITS:
            for file in sorted((path / CONFIGS[name]).glob(f"{split}-*.parquet")):
                frame = keep(pl.read_parquet(file, glob=False))
                if name == "segments":
                    frame = _with_keys(home, frame)
                whole = frame.with_columns(split=pl.lit(split))
                parts.append(whole.select(parts[0].columns).cast(parts[0].schema))
        found[name] = pl.concat(parts)
    return Items(**found)


def _with_keys(home: Home, frame: pl.DataFrame) -> pl.DataFrame:
    for key, column in _MEDIA.items():
        cells = frame[column] if column in frame.columns else [None] * frame.height
        keys = pl.Series(key, [_restore(home, cell) for cell in cells], dtype=TEXT)
        frame = frame.drop(column, strict=False).with_columns(keys)
    return frame.with_columns(consent=pl.lit(None, TEXT), answered=pl.lit(True))


def _facts(name: str, frame: pl.DataFrame) -> dict[str, Any]:
    facts: dict[str, Any] = {"rows": frame.height}
    if name == "segments":
        one = frame.unique("segment_id")
        facts |= {
            "segments": one.height,
            "videos": int(one["video"].is_not_null().sum()),
            "sounds": int(one["sound"].is_not_null().sum()),
            "transcripts": int(one["transcript"].is_not_null().sum()),
        }
    if "label_set" in frame.columns:
        counts = frame.filter(pl.col("label_set").is_not_null()).group_by("label_set").len()
        facts["label_sets"] = {
            label_set: {"rows": rows, "classes": _classes(label_set)}
            for label_set, rows in counts.sort("label_set").iter_rows()
        }
    if "author_kind" in frame.columns:
        facts["authors"] = dict(frame.group_by("author_kind").len().sort("author_kind").iter_rows())
    return facts


def _classes(name: str) -> list[str] | None:
    """Return the classes in the order of distributions; None if unknown here."""
    try:
        return list(label_sets.load(name).classes)
    except SettingsError:
        return None


def _sizes(home: Home, frame: pl.DataFrame) -> list[int]:
    sizes = [_ROW_BYTES] * frame.height
    for name in _MEDIA if "segment_id" in frame.columns and "video" in frame.columns else ():
        for row, key in enumerate(frame[name]):
            if key:
                sizes[row] += len(_read(home, key))
    return sizes


def _table(frame: pl.DataFrame, schema: pa.Schema, *, home: Home) -> pa.Table:
    import pyarrow as pa

    made = {
        column: [{"bytes": _read(home, key), "path": Path(key).name} if key else None
                 for key in frame[name]]
        for name, column in _MEDIA.items()
        if column in schema.names
    }  # fmt: skip
    plain = frame.drop(*_MEDIA, strict=False)
    if "subject_ids" in plain.columns:
        plain = plain.with_columns(subject_id=pl.col("subject_ids").list.first())
    rows = plain.to_arrow()
    columns = [
        pa.array(made[field.name], type=field.type)
        if field.name in made
        else rows[field.name].combine_chunks().cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _read(home: Home, key: str) -> bytes:
    """Return the bytes of a key ``segments/<segment_id>.mp4`` or ``.flac``.

    Raises:
        ReleaseError: the key is invalid, or the file is missing.
    """
    parts = PurePosixPath(key).parts
    try:
        if len(parts) != 2 or parts[0] != "segments" or ".." in parts:
            raise FileNotFoundError(2, "invalid key")
        return mirror.ensure_local(home.media / key).read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"{key} cannot be read from the media folder",
            got=error.strerror or str(error),
            hint="delete tables/segments of its batch and run its segments again",
        ) from error


def _restore(home: Home, cell: Mapping[str, Any] | None) -> str | None:
    if cell is None:
        return None
    key = f"segments/{PurePosixPath(cell['path']).name}"
    if not (target := mirror.ensure_local(home.media / key)).exists():
        atomic.write_bytes(target, cell["bytes"])
    return key
