"""Remove a leaver from the parts of a home; each part may be cleared again after a crash."""

from __future__ import annotations

import polars as pl

from warehouse.errors import MediaError
from warehouse.privacy.data_subject import DataSubject
from warehouse.storage import atomic, media, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


def from_tables(home: Home, leaver: DataSubject) -> int:
    """Drop their rows and blank what still names them; returns how many rows went."""
    removed = 0
    for table in TABLES.values():
        pattern = "batch=*/*.parquet" if table.by_batch else "*.parquet"
        for path in sorted((home.tables / table.name).glob(pattern)):
            frame = pl.read_parquet(path, glob=False)
            stay = _scrubbed(frame.filter(~_theirs(frame, leaver)), leaver)
            if stay.equals(frame):
                continue
            removed += frame.height - stay.height
            if stay.is_empty():
                atomic.remove(path)
                continue
            footer = dict(pl.read_parquet_metadata(path))
            footer.pop("ARROW:schema", None)
            with atomic.replace_file(path) as draft:
                stay.write_parquet(draft, compression="zstd", statistics=True, metadata=footer)
    return removed


def _theirs(frame: pl.DataFrame, leaver: DataSubject) -> pl.Expr:
    ids = {
        "face_id": leaver.faces,
        "track_id": leaver.tracks,
        "video_id": leaver.videos,
        "subject_id": (leaver.name,) if leaver.kind == "subject" else (),
    }
    held = [
        pl.col(name).is_in(pl.Series(values, dtype=pl.String).implode()).fill_null(False)
        for name, values in ids.items()
        if name in frame.columns
    ]
    # A shared video stays for the others in it; its row must not name who left.
    if "uri" in frame.columns:
        held = [expr & ~pl.col("video_id").is_in(leaver.shared) for expr in held]
    return pl.any_horizontal(held) if held else pl.lit(False)


def _scrubbed(frame: pl.DataFrame, leaver: DataSubject) -> pl.DataFrame:
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    blank = {"context": list(leaver.contexts)}
    if leaver.kind == "subject":
        blank["subject_id"] = [leaver.name]
    changed = []
    if "sound" in frame.columns:
        # What is heard and said in a shared video may be theirs.
        shared = pl.col("video_id").is_in(pl.Series(leaver.shared, dtype=pl.String).implode())
        texts.remove("sound")
        changed += [pl.when(~shared).then(pl.col(name)).alias(name) for name in ("sound", "words")]
    for name in texts:
        value = pl.col(name)
        gone = value.str.contains_any(list(leaver.ids)) if leaver.ids else pl.lit(False)
        if name in blank:
            gone = gone | value.is_in(blank[name])
        # The key of a row stays: ids of others do not contain theirs.
        changed.append(pl.when(gone.fill_null(False)).then(None).otherwise(value).alias(name))
    return frame.with_columns(changed)


def from_media(home: Home, leaver: DataSubject) -> int:
    """Delete their pictures, but for crops that the very same pixels of others need."""
    used: set[str] = set()
    for table in ("faces", "synthetic_faces"):
        names = [name for name in ("crop", "context") if name in TABLES[table].columns]
        rows = tables.scan(home, table).select(names).collect()
        used.update(key for name in names for key in rows[name].drop_nulls())
    removed = 0
    for key in sorted({*leaver.crops, *leaver.contexts} - used):
        try:
            path = media.path_of(home, key)
        except MediaError:
            continue
        removed += path.exists()
        atomic.remove(path)
    # Clips and sounds are named after their track; those of a shared video show and hold them too.
    heads = {*leaver.tracks, *leaver.videos, *leaver.shared}
    for folder in ("clips", "sound"):
        mirror.sync(home.media / folder, force=True)
        for path in sorted((home.media / folder).glob("*")):
            video, _, rest = path.stem.partition("-")
            if heads & {path.stem, video, f"{video}-{rest.partition('-')[0]}"}:
                removed += 1
                atomic.remove(path)
    return removed
