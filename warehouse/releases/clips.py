"""Config ``clips``: moving faces as sequences of frames, with what was heard and said."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import sha256_of
from warehouse.releases import manifest, optical_flow, shards, versions
from warehouse.releases.schema import SPLITS
from warehouse.storage import atomic, mirror
from warehouse.storage.home import Home
from warehouse.storage.schema import FLOAT, INT, TEXT, WORDS
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

CLIPS: dict[str, pl.DataType | type[pl.DataType]] = {
    "clip_id": TEXT, "video_id": TEXT, "track_id": TEXT, "subject_id": TEXT, "start_s": FLOAT,
    "end_s": FLOAT, "onset_s": FLOAT, "apex_s": FLOAT, "offset_s": FLOAT, "apex_au": INT,
    "apex_intensity": FLOAT, "apex_expression": TEXT, "face_ids": pl.List(TEXT),
    "times": pl.List(FLOAT), "crops": pl.List(TEXT),
    "au": pl.List(pl.Array(pl.Float32, len(ACTION_UNITS))), "sound": TEXT, "words": WORDS,
    "source": TEXT, "licence": TEXT, "near_groups": pl.List(TEXT),
}  # fmt: skip
"""One row per clip. ``crops`` are media keys in the order of ``times``; ``sound`` is one too.
Seconds are those of the video. Not released: ``near_groups``, optional, names shared by clips whose
frames nearly repeat each other."""

SOUND_RATE = 16_000
"""Hertz of every sound that ``sound`` names."""

_FOLDER = "clips"
_MARKS = ("onset", "apex", "offset")


def features(*, sound: bool, flow: bool) -> Features:
    """The columns of config ``clips``, in order; ``audio`` and ``flow`` only where there are any.

    Audio is not decoded by itself: ``datasets`` needs torchcodec for that, and a set that cannot be
    read without it would be of little use. ``cast_column("audio", Audio())`` turns it on.
    """
    from datasets import Audio, ClassLabel, Features, Image, List, Value

    text, number, index = Value("string"), Value("float64"), Value("int64")
    return Features(
        {
            "frames": List(Image()),
            "clip_id": text, "video_id": text, "track_id": text, "subject_id": text,
            "face_ids": List(text), "times": List(number),
            "au": List(List(Value("float32"), length=len(ACTION_UNITS))),
            "start_s": number, "end_s": number,
            "onset_s": number, "apex_s": number, "offset_s": number,
            "onset": index, "apex": index, "offset": index,
            "apex_au": index, "apex_intensity": number,
            "apex_expression": ClassLabel(names=list(EXPRESSIONS)),
            "words": List({"start_s": number, "end_s": number, "text": text}),
            **({"audio": Audio(sampling_rate=SOUND_RATE, decode=False)} if sound else {}),
            **({"flow": List(Image())} if flow else {}),
            "source": text, "licence": text,
        }
    )  # fmt: skip


def fit(clips: pl.DataFrame | None) -> pl.DataFrame:
    """``clips`` with the contract's types, ordered; none for None.

    Raises:
        ReleaseError: columns or types do not fit, or a clip stands twice.
    """
    if clips is None:
        return pl.DataFrame(schema=CLIPS)
    try:
        fitted = clips.select(
            (pl.lit(None) if name == "near_groups" and name not in clips.columns else pl.col(name))
            .cast(kind)
            .alias(name)
            for name, kind in CLIPS.items()
        )
    except pl.exceptions.PolarsError as error:
        raise ReleaseError(
            "clips that fit warehouse/releases/clips.py",
            got=str(error).splitlines()[0],
            hint="mend the tables these rows come from and run again",
        ) from error
    if fitted["clip_id"].is_duplicated().any():
        raise ReleaseError(
            "each clip_id once", got="one that repeats", hint="mend the table clips and run again"
        )
    return fitted.sort("clip_id")


def entering(clips: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Clips of videos that have a face in the release: its people agreed, its terms allow it."""
    return clips.join(rows.select("video_id").unique(), on="video_id", how="semi").sort("clip_id")


def divided(clips: pl.DataFrame, rows: pl.DataFrame, conflicts: pl.DataFrame) -> pl.DataFrame:
    """Clips with ``split``: that of their video's faces, so that both configs part alike.

    Left out is a clip with a face that may be in no split, because it repeats one of another; and
    of clips in several splits with frames that nearly repeat each other, those in the split that
    has fewer of them.

    Args:
        rows: released faces, with ``split``; ``conflicts``: those that may be in none.
    """
    torn = pl.col("face_ids").list.eval(pl.element().is_in(conflicts["face_id"].implode()))
    splits = rows.select("video_id", "split").drop_nulls().unique()
    placed = clips.filter(~torn.list.any().fill_null(False)).join(splits, on="video_id")
    near = placed.select("clip_id", "split", group="near_groups").explode("group").drop_nulls()
    most = (
        near.group_by("group", "split")
        .len()
        .sort("group", "len", "split", descending=[False, True, False])
        .group_by("group", maintain_order=True)
        .agg(pl.col("split").first().alias("home"))
    )
    stray = near.join(most, on="group").filter(pl.col("split") != pl.col("home"))
    return placed.join(stray, on="clip_id", how="anti").sort("clip_id")


def fingerprint(home: Home, clips: pl.DataFrame) -> dict[str, int | str]:
    """Of every value and of the bytes of every sound, whose names do not stand for them."""
    sums = [sha256_of([sound(home, key)]) if key else None for key in clips["sound"]]
    return manifest.fingerprint(clips.with_columns(heard=pl.Series(sums, dtype=TEXT)))


def write(
    folder: Path, clips: pl.DataFrame, *, home: Home, shard_bytes: int, method: str | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write every split of config ``clips`` below ``folder``.

    Args:
        clips: as ``divided`` gives them.
        method: of optical flow, see ``optical_flow.METHODS``; None for none.

    Returns:
        rows per file; and what the manifest says: ``rows, frames, sounds, words, flow, sizes``.

    Raises:
        ReleaseError: a crop or a sound is gone or changed.
    """
    sounds = int(clips["sound"].is_not_null().sum())
    kind = features(sound=sounds > 0, flow=method is not None)
    files: dict[str, int] = {}
    sizes: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        part = clips.filter(pl.col("split") == split)
        if part.is_empty():
            continue
        written = shards.write(
            folder,
            part,
            stem=f"{_FOLDER}/{split}",
            kind=kind,
            sizes=_sizes(home, part),
            shard_bytes=shard_bytes,
            table=partial(_table, home=home, method=method),
        )
        sizes[split] = {"rows": part.height, "bytes": written.pop("")}
        files |= written
    return files, {
        "rows": clips.height,
        "frames": int(clips["crops"].list.len().sum()),
        "sounds": sounds,
        "words": int((clips["words"].list.len() > 0).sum()),
        "flow": method,
        "sizes": sizes,
    }


def again(home: Home, path: Path) -> tuple[pl.DataFrame, str | None]:
    """The clips of a version as ``write`` wants them, and its method of flow.

    Pictures and sounds that the media folder lost are put back from the version.
    """
    parts = []
    for split in SPLITS:
        for file in sorted((path / _FOLDER).glob(f"{split}-*.parquet")):
            frame = pl.read_parquet(file, glob=False)
            crops = [[shards.restored(home, one) for one in frames] for frames in frame["frames"]]
            heard = frame["audio"] if "audio" in frame.columns else [None] * frame.height
            names = dict(enumerate(EXPRESSIONS))
            whole = frame.with_columns(
                pl.col("apex_expression").replace_strict(names, return_dtype=TEXT, default=None),
                crops=pl.Series(crops, dtype=pl.List(TEXT)),
                sound=pl.Series([_restored(home, one) for one in heard], dtype=TEXT),
            )
            parts.append(fit(whole).with_columns(split=pl.lit(split)))
    method = (versions.manifest(path).get("clips") or {}).get("flow")
    return (pl.concat(parts) if parts else fit(None).with_columns(split=pl.lit(""))), method


def _restored(home: Home, heard: dict[str, Any] | None) -> str | None:
    if heard is None:
        return None
    key = f"sound/{PurePosixPath(heard['path']).name}"
    if not (target := mirror.ensure_local(home.media / key)).exists():
        atomic.write_bytes(target, heard["bytes"])
    return key


def sound(home: Home, key: str) -> bytes:
    """The bytes behind a key ``sound/<clip_id>.flac``.

    Raises:
        ReleaseError: it is none, or the file is gone.
    """
    parts = PurePosixPath(key).parts
    try:
        if len(parts) != 2 or parts[0] != "sound" or ".." in parts:
            raise FileNotFoundError(2, "no key of a sound")
        return mirror.ensure_local(home.media / key).read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"the sound {key} in the media folder",
            got=error.strerror or "an error on reading",
            hint="delete tables/clips of its batch and run its clips again",
        ) from error


def _sizes(home: Home, clips: pl.DataFrame) -> list[int]:
    frames = clips.select(crop=pl.col("crops"), face_id=pl.col("face_ids"), clip_id="clip_id")
    flat = frames.explode("crop", "face_id")
    flat = flat.with_columns(bytes=pl.Series(shards.picture_sizes(home, flat), dtype=INT))
    per_clip = dict(flat.group_by("clip_id").agg(pl.col("bytes").sum()).iter_rows())
    return [per_clip[clip] for clip in clips["clip_id"]]


def _table(clips: pl.DataFrame, schema: pa.Schema, *, home: Home, method: str | None) -> pa.Table:
    import pyarrow as pa

    frames: list[list[dict[str, Any]]] = [
        [
            {"bytes": shards.picture(home, key), "path": f"{face}{Path(key).suffix}"}
            for face, key in zip(row["face_ids"], row["crops"], strict=True)
        ]
        for row in clips.select("face_ids", "crops").iter_rows(named=True)
    ]
    made: dict[str, list[Any]] = {"frames": frames}
    if "audio" in schema.names:
        made["audio"] = [
            {"bytes": sound(home, key), "path": Path(key).name} if key else None
            for key in clips["sound"]
        ]
    if method is not None:
        made["flow"] = [
            [
                {"bytes": data, "path": f"{number}.png"}
                for number, data in enumerate(
                    optical_flow.pictures([frame["bytes"] for frame in sequence], method)
                )
            ]
            for sequence in frames
        ]
    names = {name: index for index, name in enumerate(EXPRESSIONS)}
    plain = clips.with_columns(
        pl.col("apex_expression").replace_strict(names, return_dtype=INT, default=None),
        *(_index(mark) for mark in _MARKS),
    ).to_arrow()
    columns = [
        pa.array(made[field.name], type=field.type)
        if field.name in made
        else plain[field.name].combine_chunks().cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _index(mark: str) -> pl.Expr:
    """Row of ``times`` at which something was seen; null where it was not, or no frame is there."""
    apart = pl.struct("times", f"{mark}_s").map_elements(
        lambda row: nearest(row["times"], row[f"{mark}_s"]), return_dtype=INT, skip_nulls=False
    )
    return apart.alias(mark)


def nearest(times: list[float], moment: float | None) -> int | None:
    """Which of ``times`` is ``moment``; None where there is no such frame."""
    if moment is None or not times:
        return None
    best = min(range(len(times)), key=lambda row: abs(times[row] - moment))
    return best if abs(times[best] - moment) < 1e-6 else None
