"""Write and read config ``clips``: frames with audio, words and flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import sha256_of
from warehouse.releases import manifest, shards
from warehouse.releases.schema import CONFIGS, SPLITS
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
"""One row per clip. ``crops`` are media keys in the order of ``times``; ``sound`` is a media key.
Seconds count from the start of the video. ``near_groups`` is optional and not released: it names
groups of clips with nearly equal frames."""

SOUND_RATE = 16_000
"""Sampling rate in Hz of every file that ``sound`` names."""

FLOW_METHODS = ("dis", "farneback")
"""Dense inverse search (Kroeger et al., 2016, doi:10.1007/978-3-319-46493-0_29) and polynomial
expansion (Farneback, 2003, doi:10.1007/3-540-45103-X_50), both from OpenCV."""

_FLOW_SIDE = 112
_FLOW_SCALE = 16
"""A flow image has ``_FLOW_SIDE`` px. Red, green are ``128 + _FLOW_SCALE * d`` for a displacement
of ``d`` pixels right and down, clipped to 0..255: steps of 1/16 px, up to 8 px."""

_EVENTS = ("onset", "apex", "offset")


def features(*, sound: bool, flow: bool) -> Features:
    """Return the columns of ``clips``; ``audio`` and ``flow`` are optional.

    Audio is not decoded, because ``datasets`` needs torchcodec for that and the config must load
    without it. ``cast_column("audio", Audio())`` turns decoding on.
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


def fit_clips(clips: pl.DataFrame | None) -> pl.DataFrame:
    """Cast ``clips`` to ``CLIPS`` and sort them; None gives no rows.

    Raises:
        ReleaseError: columns or types do not fit, or a clip_id is repeated.
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
            "The clips do not fit warehouse/releases/clips.py",
            got=str(error).splitlines()[0],
            hint="fix the tables these rows are read from and run again",
        ) from error
    repeated = fitted.filter(pl.col("clip_id").is_duplicated())["clip_id"]
    if len(repeated):
        raise ReleaseError(
            "A clip_id is repeated", got=repr(repeated[0]), hint="fix the table clips and run again"
        )
    return fitted.sort("clip_id")


def in_released_videos(clips: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Keep clips of videos with a released face.

    Consent and terms then hold for the clips too.
    """
    return clips.join(rows.select("video_id").unique(), on="video_id", how="semi").sort("clip_id")


def assign_splits(clips: pl.DataFrame, rows: pl.DataFrame, conflicts: pl.DataFrame) -> pl.DataFrame:
    """Add ``split`` to clips: the split of their video's faces.

    Clips with a face in ``conflicts`` are left out. If clips in several splits have nearly equal
    frames, only the split with most of them keeps them.

    Args:
        rows: released faces, with ``split``.
        conflicts: faces that fit no split.
    """
    torn = pl.col("face_ids").list.eval(pl.element().is_in(conflicts["face_id"].implode()))
    splits = rows.select("video_id", "split").drop_nulls().unique()
    assigned = clips.filter(~torn.list.any().fill_null(False)).join(splits, on="video_id")
    near = assigned.select("clip_id", "split", group="near_groups").explode("group").drop_nulls()
    largest = (
        near.group_by("group", "split")
        .len()
        .sort("group", "len", "split", descending=[False, True, False])
        .group_by("group", maintain_order=True)
        .agg(pl.col("split").first().alias("keeps"))
    )
    stray = near.join(largest, on="group").filter(pl.col("split") != pl.col("keeps"))
    return assigned.join(stray, on="clip_id", how="anti").sort("clip_id")


def fingerprint(home: Home, clips: pl.DataFrame) -> dict[str, int | str]:
    """Fingerprint all values and sounds.

    Sounds count by their bytes, because their keys are not hashes.
    """
    sums = [sha256_of([_read_sound(home, key)]) if key else None for key in clips["sound"]]
    return manifest.fingerprint(clips.with_columns(heard=pl.Series(sums, dtype=TEXT)))


def write_clips(
    folder: Path, clips: pl.DataFrame, *, home: Home, shard_bytes: int, method: str | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write every split of config ``clips`` below ``folder``.

    Args:
        clips: as ``assign_splits`` returns them.
        method: optical flow, one of ``FLOW_METHODS``; None for no flow.

    Returns:
        rows per file, and for the manifest ``rows, frames, sounds, words, flow, sizes``.

    Raises:
        ReleaseError: a crop or a sound is missing or was changed.
    """
    sounds = int(clips["sound"].is_not_null().sum())
    kind = features(sound=sounds > 0, flow=method is not None)
    files: dict[str, int] = {}
    sizes: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        part = clips.filter(pl.col("split") == split)
        if part.is_empty():
            continue
        written, num_bytes = shards.write_shards(
            folder,
            part,
            stem=f"clips/{split}",
            kind=kind,
            sizes=_sizes(home, part),
            shard_bytes=shard_bytes,
            table=partial(_table, home=home, method=method),
        )
        sizes[split] = {"rows": part.height, "bytes": num_bytes}
        files |= written
    return files, {
        "rows": clips.height,
        "frames": int(clips["crops"].list.len().sum()),
        "sounds": sounds,
        "words": int((clips["words"].list.len() > 0).sum()),
        "flow": method,
        "sizes": sizes,
    }


def read_clips(home: Home, path: Path) -> tuple[pl.DataFrame, str | None]:
    """Return the clips of a version and their flow method.

    Images and sounds that are missing in the media folder are restored from the version.
    """
    parts = []
    for split in SPLITS:
        for file in sorted((path / CONFIGS["clips"]).glob(f"{split}-*.parquet")):
            frame = pl.read_parquet(file, glob=False)
            crops = [
                [shards.restore_crop(home, one) for one in images] for images in frame["frames"]
            ]
            audio = frame["audio"] if "audio" in frame.columns else [None] * frame.height
            names = dict(enumerate(EXPRESSIONS))
            whole = frame.with_columns(
                pl.col("apex_expression").replace_strict(names, return_dtype=TEXT, default=None),
                crops=pl.Series(crops, dtype=pl.List(TEXT)),
                sound=pl.Series([_restore_sound(home, one) for one in audio], dtype=TEXT),
            )
            parts.append(fit_clips(whole).with_columns(split=pl.lit(split)))
    method = (manifest.read(path).get("clips") or {}).get("flow")
    return (pl.concat(parts) if parts else fit_clips(None).with_columns(split=pl.lit(""))), method


def nearest(times: list[float], second: float | None) -> int | None:
    """Return the index of the frame at ``second``; None if no frame is there."""
    if second is None or not times:
        return None
    best = min(range(len(times)), key=lambda index: abs(times[index] - second))
    return best if abs(times[best] - second) < 1e-6 else None


def check_flow_method(method: str | None) -> None:
    """Refuse an unknown method of optical flow.

    Raises:
        ReleaseError: ``method`` is neither None nor one of ``FLOW_METHODS``.
    """
    if method is not None and method not in FLOW_METHODS:
        raise ReleaseError(
            f"The optical flow method is not one of {', '.join(FLOW_METHODS)}",
            got=repr(method),
            hint="change RISORIUS_CLIP_FLOW",
        )


def flow_images(frames: Sequence[bytes], method: str) -> list[bytes]:
    """Compute the optical flow between neighbouring frames as PNG files.

    Args:
        frames: n encoded images of one face.
        method: one of ``FLOW_METHODS``.

    Returns:
        n - 1 images of 112 px; ``flow_displacement`` decodes them.
    """
    import cv2

    gray = [_gray(data) for data in frames]
    flow = flow_function(method)
    found = []
    for before, after in pairwise(gray):
        image = np.full((_FLOW_SIDE, _FLOW_SIDE, 3), 128, dtype=np.uint8)
        # OpenCV stores channels as blue, green, red.
        scaled = np.rint(128 + _FLOW_SCALE * flow(before, after))
        image[:, :, 2:0:-1] = np.clip(scaled, 0, 255).astype(np.uint8)
        found.append(cv2.imencode(".png", image)[1].tobytes())
    return found


def flow_displacement(image: np.ndarray) -> np.ndarray:
    """Decode a flow image uint8[h, w, 3] RGB to float32[h, w, 2].

    The values are displacements in pixels, right and down.
    """
    return (np.asarray(image)[:, :, :2].astype(np.float32) - 128) / _FLOW_SCALE


def flow_function(name: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Return a function from two pictures uint8[h, w] to their flow.

    Args:
        name: one of ``FLOW_METHODS``.
    """
    import cv2

    if name == "dis":
        dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return lambda before, after: dense.calc(before, after, None)  # type: ignore[call-overload]

    def farneback(before: np.ndarray, after: np.ndarray) -> Any:
        start = np.zeros((*before.shape, 2), dtype=np.float32)
        return cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0)

    return farneback


def _gray(data: bytes) -> np.ndarray:
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ReleaseError(
            "A frame cannot be decoded",
            got=f"{len(data)} bytes that are no image",
            hint="ingest its batch again",
        )
    return cv2.resize(image, (_FLOW_SIDE, _FLOW_SIDE), interpolation=cv2.INTER_AREA)


def _read_sound(home: Home, key: str) -> bytes:
    """Return the bytes of a key ``sound/<clip_id>.flac``.

    Raises:
        ReleaseError: the key is invalid, or the file is missing.
    """
    parts = PurePosixPath(key).parts
    try:
        if len(parts) != 2 or parts[0] != "sound" or ".." in parts:
            raise FileNotFoundError(2, "invalid key")
        return mirror.ensure_local(home.media / key).read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"Sound {key} cannot be read from the media folder",
            got=error.strerror or str(error),
            hint="delete tables/clips of its batch and run its clips again",
        ) from error


def _restore_sound(home: Home, audio: dict[str, Any] | None) -> str | None:
    if audio is None:
        return None
    key = f"sound/{PurePosixPath(audio['path']).name}"
    if not (target := mirror.ensure_local(home.media / key)).exists():
        atomic.write_bytes(target, audio["bytes"])
    return key


def _sizes(home: Home, clips: pl.DataFrame) -> list[int]:
    frames = clips.select(crop=pl.col("crops"), face_id=pl.col("face_ids"), clip_id="clip_id")
    flat = frames.explode("crop", "face_id")
    flat = flat.with_columns(bytes=pl.Series(shards.crop_sizes(home, flat), dtype=INT))
    per_clip = dict(flat.group_by("clip_id").agg(pl.col("bytes").sum()).iter_rows())
    return [per_clip[clip] for clip in clips["clip_id"]]


def _table(clips: pl.DataFrame, schema: pa.Schema, *, home: Home, method: str | None) -> pa.Table:
    import pyarrow as pa

    frames: list[list[dict[str, Any]]] = [
        [
            {"bytes": shards.read_crop(home, key), "path": f"{face}{Path(key).suffix}"}
            for face, key in zip(row["face_ids"], row["crops"], strict=True)
        ]
        for row in clips.select("face_ids", "crops").iter_rows(named=True)
    ]
    made: dict[str, list[Any]] = {"frames": frames}
    if "audio" in schema.names:
        made["audio"] = [
            {"bytes": _read_sound(home, key), "path": Path(key).name} if key else None
            for key in clips["sound"]
        ]
    if method is not None:
        flows = [flow_images([frame["bytes"] for frame in images], method) for images in frames]
        made["flow"] = [
            [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(flow)]
            for flow in flows
        ]
    names = {name: index for index, name in enumerate(EXPRESSIONS)}
    plain = clips.with_columns(
        pl.col("apex_expression").replace_strict(names, return_dtype=INT, default=None),
        *(_frame_index(event) for event in _EVENTS),
    ).to_arrow()
    columns = [
        pa.array(made[field.name], type=field.type)
        if field.name in made
        else plain[field.name].combine_chunks().cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _frame_index(event: str) -> pl.Expr:
    """Return the index of an event's frame; null if there is none."""
    index = pl.struct("times", f"{event}_s").map_elements(
        lambda row: nearest(row["times"], row[f"{event}_s"]), return_dtype=INT, skip_nulls=False
    )
    return index.alias(event)
