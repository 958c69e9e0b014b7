"""Keep the signals beside a video, and cut them to its segments.

``<video>.<kind>.csv`` or ``.parquet`` holds one column of seconds (``time_s``) and one column per
channel. Without a column of seconds the file states its rate: ``# rate_hz: 64`` and
``# offset_s: 0.5`` before the header of a CSV, or the metadata keys of a Parquet file.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from warehouse import sidecar
from warehouse.errors import MediaError, SettingsError
from warehouse.ids import file_sha256, sha256_of
from warehouse.privacy import tombstones
from warehouse.storage import atomic, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

FOLDER = "sensors"
"""Media folder: ``sensors/<sensor_id>.parquet`` with ``time_s`` and the channels."""

MAX_GAP_STEPS = 5.0
"""A longer pause than this many samples is a gap."""

_TIMES = ("time_s", "time", "seconds", "t", "timestamp_s")
_STATED = re.compile(r"#\s*(rate_hz|offset_s)\s*[:=]\s*(\S+)\s*")
_METHOD = "sensors 1"


@dataclass(frozen=True)
class Signal:
    """Samples of one sensor on the time of its video.

    Attributes:
        times: float64[n], seconds from the first frame, rising.
        values: float64[n, c]; NaN where a channel has no value.
        note: a remark about how it was read.
    """

    times: np.ndarray
    channels: tuple[str, ...]
    values: np.ndarray
    note: str | None = None

    @property
    def rate_hz(self) -> float:
        """Samples per second, from the median step."""
        return round(1 / float(np.median(np.diff(self.times))), 6)

    def cut(self, start_s: float, end_s: float) -> Signal:
        """Return the samples of a segment, on the time of the segment."""
        inside = (self.times >= start_s) & (self.times < end_s)
        return Signal(self.times[inside] - start_s, self.channels, self.values[inside])

    def frame(self) -> pl.DataFrame:
        """Return it as a table: ``time_s`` and a column per channel."""
        columns = {name: self.values[:, n] for n, name in enumerate(self.channels)}
        return pl.DataFrame({"time_s": self.times, **columns}).fill_nan(None)


def find_sensors(home: Home, batch: str) -> int:
    """Write ``sensors`` for a batch's videos with signals beside them.

    A file that cannot be read is a failed row with the reason. Nothing is kept of a video in which
    an erased person is seen.

    Returns:
        Number of videos processed; unchanged ones are not counted.
    """
    videos = tables.read(home, "videos", batch=batch).filter(pl.col("duration_s") > 0)
    segments = tables.read(home, "segments", batch=batch).filter(pl.col("verdict") == "kept")
    written = tables.parts(home, "sensors", batch=batch)
    blocklist = tombstones.blocklist(home)
    done, present = 0, set[str]()
    for video in videos.unique("video_id", keep="first", maintain_order=True).to_dicts():
        name = video["video_id"]
        files = sensors_of(Path(video["uri"]))
        if not files or blocklist.find_shared(video=name) is not None:
            continue
        present.add(name)
        own = segments.filter(pl.col("video_id") == name)
        parts = [_METHOD, *(file_sha256(str(path)) for path in files.values())]
        parts.append(own.select("segment_id", "start_s", "end_s").write_ndjson())
        fingerprint = sha256_of([part.encode() for part in parts])[:16]
        place = {"part": name, "batch": batch}
        if tables.metadata(home, "sensors", **place).get("fingerprint") == fingerprint:
            continue
        rows = [row for kind, path in files.items() for row in _rows(home, video, own, kind, path)]
        frame = pl.DataFrame(rows, schema=TABLES["sensors"].schema)
        tables.write(home, "sensors", frame, **place, metadata={"fingerprint": fingerprint})
        _remove_media(home, name, keep=set(frame["media"].drop_nulls()))
        done += 1
    for orphan in written - present:
        tables.remove(home, "sensors", part=orphan, batch=batch)
        _remove_media(home, orphan, keep=set())
    return done


def sensors_of(video: Path) -> dict[str, Path]:
    """Return the signals beside a video by kind."""
    found: dict[str, Path] = {}
    for path in sorted(video.parent.glob("*")):
        kind = sidecar.kind_of(path.name)
        if kind and sidecar.owner_of(path.name) in (video.name, video.stem) and kind != "segments":
            found.setdefault(kind, path)
    return found


def read(path: Path) -> Signal:
    """Read a file of samples.

    Raises:
        MediaError: it has no samples, no times or rate, or times that do not rise.
    """
    suffix = path.suffix.lower()
    if suffix == ".edf":
        raise _bad("EDF is not read", hint="export the signal as CSV or Parquet")
    try:
        frame, stated = _read_parquet(path) if suffix == ".parquet" else _read_csv(path)
    except (pl.exceptions.PolarsError, csv.Error, SettingsError, OSError) as error:
        raise _bad(str(error).splitlines()[0]) from None
    named = {sidecar.plain_name(name): name for name in frame.columns}
    time = next((named[name] for name in _TIMES if name in named), None)
    channels = tuple(name for name in frame.columns if name != time)
    if not channels or frame.height < 2:
        raise _bad(f"{frame.height} samples of {len(channels)} channels")
    texts = [name for name in frame.columns if not frame[name].dtype.is_numeric()]
    if texts:
        raise _bad(f"not numbers: {', '.join(texts[:3])}")
    values = frame.select(pl.col(channels).cast(pl.Float64)).fill_null(float("nan")).to_numpy()
    if time is not None:
        times = frame[time].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        times = times + stated.get("offset_s", 0.0)
    elif stated.get("rate_hz", 0.0) > 0:
        times = stated.get("offset_s", 0.0) + np.arange(frame.height) / stated["rate_hz"]
    else:
        raise _bad("no column time_s and no rate_hz", hint="add a column of seconds")
    if not np.isfinite(times).all():
        raise _bad("a time is missing or not finite")
    steps = np.diff(times)
    if (steps <= 0).any():
        raise _bad(f"times do not rise after {times[int(np.argmax(steps <= 0))]:g} s")
    gaps = int((steps > MAX_GAP_STEPS * np.median(steps)).sum())
    note = f"gaps: {gaps} pauses longer than {MAX_GAP_STEPS:g} samples" if gaps else None
    return Signal(times, channels, values, note)


def _rows(
    home: Home, video: dict[str, Any], segments: pl.DataFrame, kind: str, path: Path
) -> list[dict[str, Any]]:
    """Write the media of a signal and its cuts; return their rows."""
    row = dict.fromkeys(TABLES["sensors"].columns) | {
        "sensor_id": f"{video['video_id']}-x{kind}", "video_id": video["video_id"],
        "batch": video["batch"], "kind": kind, "sha256": file_sha256(str(path)),
    }  # fmt: skip
    try:
        signal = read(path)
    except MediaError as error:
        return [row | {"verdict": "failed", "reason": error.got}]
    if signal.times[0] >= video["duration_s"] or signal.times[-1] < 0:
        said = f"outside_video: {signal.times[0]:g} to {signal.times[-1]:g} s"
        return [row | {"verdict": "failed", "reason": f"{said} of {video['duration_s']:g} s"}]
    whole = _row(home, row, signal, note=signal.note)
    cuts = []
    for one in segments.sort("start_s", "segment_id").iter_rows(named=True):
        part = signal.cut(one["start_s"], one["end_s"])
        if len(part.times):
            own = {"sensor_id": f"{one['segment_id']}-x{kind}"}
            cuts.append(_row(home, row | own, part, shift=one["start_s"], rate=signal.rate_hz))
    return [whole, *cuts]


def _row(
    home: Home,
    row: dict[str, Any],
    signal: Signal,
    *,
    shift: float = 0.0,
    rate: float | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    key = f"{FOLDER}/{row['sensor_id']}.parquet"
    data = io.BytesIO()
    signal.frame().write_parquet(data, compression="zstd")
    atomic.write_bytes(home.media / key, data.getvalue())
    return row | {
        "channels": list(signal.channels), "rate_hz": rate or signal.rate_hz, "media": key,
        "offset_s": float(signal.times[0]), "start_s": shift + float(signal.times[0]),
        "end_s": shift + float(signal.times[-1]), "verdict": "kept", "reason": note,
    }  # fmt: skip


def _read_csv(path: Path) -> tuple[pl.DataFrame, dict[str, float]]:
    lines = sidecar.read_text(path).split("\n")
    stated = _stated(found.groups() for line in lines if (found := _STATED.fullmatch(line.strip())))
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    separator = sidecar.separator_of(rows[0] if rows else "")
    if separator != ",":
        rows = [line.replace(",", ".") for line in rows]  # a comma is the decimal point here
    data = io.BytesIO("\n".join(rows).encode())
    return pl.read_csv(data, separator=separator, infer_schema_length=None), stated


def _read_parquet(path: Path) -> tuple[pl.DataFrame, dict[str, float]]:
    metadata = pl.read_parquet_metadata(path)
    named = ((name, metadata[name]) for name in ("rate_hz", "offset_s") if name in metadata)
    return pl.read_parquet(path, glob=False), _stated(named)


def _stated(pairs: Any) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in pairs}
    except ValueError as error:
        raise _bad(str(error)) from None


def _bad(found: str, *, hint: str = "correct the file beside the video") -> MediaError:
    return MediaError("The signal cannot be read", got=f"bad_sensor: {found}", hint=hint)


def _remove_media(home: Home, video_id: str, *, keep: set[str]) -> None:
    folder = home.media / FOLDER
    mirror.sync(folder)
    for path in sorted(folder.glob(f"{video_id}-*")):
        if f"{FOLDER}/{path.name}" not in keep:
            atomic.remove(path)
