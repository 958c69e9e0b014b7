"""Read the segments of a version, give them classes, write their media."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases.layouts import classes
from warehouse.releases.layouts.core import Export
from warehouse.releases.layouts.files import array_of, with_stems
from warehouse.releases.schema import SPLITS

_MEDIA = ("video", "audio")
RATE = 16_000
"""Sampling rate in Hz of the sounds, as released and as every reader here expects."""

REASONS = ("rationale", "reason", "why")
"""Kinds of texts that say why a label was given."""

Shares = dict[str, np.ndarray]


def read(export: Export) -> pl.DataFrame:
    """Return a row per segment and label set, without media.

    Adds ``split``, ``has_video``, ``has_audio`` and ``text``, the transcript on one line. Rows that
    consent or licence refuse are left out.

    Raises:
        ReleaseError: the version holds no segments.
    """
    import pyarrow.parquet as pq

    parts = []
    for split in SPLITS:
        for file in export.files("segments", split):
            opened = pq.ParquetFile(export.read(file))
            names = opened.schema_arrow.names
            plain = [name for name in names if name not in _MEDIA]
            media = [f"{name}.path" for name in _MEDIA if name in names]
            frame = pl.DataFrame(pl.from_arrow(opened.read(columns=[*plain, *media])))
            there = {f"has_{name}": pl.col(name).struct.field("path").is_not_null()
                     if name in names else pl.lit(False) for name in _MEDIA}  # fmt: skip
            known = frame.with_columns(split=pl.lit(split), **there)
            parts.append(known.drop(_MEDIA, strict=False))
    if not parts:
        raise ReleaseError(
            "This version holds no segments",
            got=f"layout {export.options.layout}",
            hint="ingest videos with utterances, label them and build a new version",
        )
    whole = pl.concat(parts, how="diagonal_relaxed")
    # One row per segment, that of the set with most votes: segments are counted, not their sets.
    most = whole.sort("n_votes", descending=True, nulls_last=True, maintain_order=True)
    one = export.allowed(most.unique("segment_id", keep="first", maintain_order=True))
    rows = whole.join(one.select("segment_id"), on="segment_id", how="semi", maintain_order="left")
    rows = rows.filter(pl.col("n_votes").fill_null(0) >= export.options.min_votes)
    text = pl.col("transcript").str.replace_all(r"\s+", " ").str.strip_chars()
    stems = with_stems(one.sort("segment_id").select(face_id="segment_id"))
    return rows.with_columns(text=text.fill_null("")).join(
        stems.rename({"face_id": "segment_id", "stem": "name"}), on="segment_id"
    )


def labelled(export: Export, rows: pl.DataFrame, *, soft: bool = False) -> pl.DataFrame:
    """Return the segments with a class: ``word, number, shares, other``.

    A label of the layout's own set wins over one that is carried over by a declared map. ``shares``
    follow the classes; what went to no class or to the open set is ``other``; together they sum to
    1.

    Args:
        rows: of ``read``.
        soft: keep ties and those whose largest share has no class, without a word.
    """
    judged = []
    for (name,), part in rows.group_by("label_set", maintain_order=True):
        carried = export.classes.for_set(str(name)) if name is not None else None
        if carried is None:
            continue
        vectors = part.with_columns(soft_label=pl.col("distribution"))
        own = str(name) == export.classes.target
        judged.append(_with_shares(carried, carried.label(vectors)).with_columns(own=pl.lit(own)))
    if judged:
        best = pl.concat(judged).sort(
            "segment_id", "own", "n_votes", descending=[False, True, True]
        ).unique("segment_id", keep="first", maintain_order=True)  # fmt: skip
    else:
        best = rows.clear().with_columns(
            word=pl.lit(None, pl.String), number=pl.lit(None, pl.Int64),
            left_out=pl.lit(None, pl.String), other=pl.lit(0.0),
            shares=pl.lit(None, pl.List(pl.Float64)),
        )  # fmt: skip
    unlabelled = rows.join(best, on="segment_id", how="anti").unique("segment_id")
    export.leave_out(unlabelled, pl.lit(True), "no_label_of_these_classes")
    reason = pl.col("left_out")
    if soft:
        reason = pl.when(pl.col("shares").is_null()).then(reason.fill_null("no_label"))
    return export.leave_out(best, reason, None).drop("left_out").sort("split", "segment_id")


def _with_shares(carried: classes.Classes, judged: pl.DataFrame) -> pl.DataFrame:
    soft = array_of(judged["soft_label"], len(carried.answers))
    opened = judged["open_set_share"].fill_null(0.0).to_numpy()
    shares = carried.mass(np.nan_to_num(soft)) * (1 - opened)[:, None]
    if carried.other:
        shares[:, carried.words.index(carried.other)] += opened
    known = ~np.isnan(soft).any(axis=1) | (opened > 0)
    listed = [row.tolist() if has else None for row, has in zip(shares, known, strict=True)]
    return judged.drop("soft_label", "distribution").with_columns(
        shares=pl.Series(listed, dtype=pl.List(pl.Float64)),
        other=pl.Series(1 - shares.sum(axis=1)).clip(0, 1),
    )


def need(export: Export, rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Leave out segments without text, sound or video.

    Args:
        columns: of ``text, audio, video``.
    """
    for name in columns:
        lacking = pl.col("text") == "" if name == "text" else ~pl.col(f"has_{name}")
        rows = export.leave_out(rows, lacking, {"text": "no_transcript"}.get(name, f"no_{name}"))
    return rows


def sentiments(rows: pl.DataFrame, order: str) -> dict[str, str]:
    """Return the word of a sentiment label by segment.

    Args:
        rows: of ``read``.
        order: ``<label set>:<order>``.
    """
    return words_of(rows, classes.read(order, label_set=None, map_file=None, faces=False))


def words_of(rows: pl.DataFrame, target: classes.Classes) -> dict[str, str]:
    """Return the class of each segment that a declared map gives one."""
    found: dict[str, str] = {}
    for (name,), part in rows.group_by("label_set", maintain_order=True):
        carried = target.for_set(str(name)) if name is not None else None
        if carried is None or not any(carried.of.values()):
            continue
        judged = carried.label(part.with_columns(soft_label=pl.col("distribution")))
        said = judged.drop_nulls("word").select("segment_id", "word")
        found |= {segment: word for segment, word in said.iter_rows() if segment not in found}
    return found


def moods(export: Export, name: str) -> dict[str, float]:
    """Return the mean number that people gave to a question, by segment."""
    given: dict[str, list[float]] = {}
    for row in config(export, "segment_votes").iter_rows(named=True):
        value = json.loads(row["answers"] or "{}").get(name)
        if isinstance(value, int | float):
            given.setdefault(row["segment_id"], []).append(float(value))
    return {segment: sum(values) / len(values) for segment, values in given.items()}


def config(export: Export, name: str) -> pl.DataFrame:
    """Return all rows of ``segment_votes``, ``texts`` or ``spans``."""
    parts = [
        pl.read_parquet(export.read(file), glob=False).with_columns(split=pl.lit(split))
        for split in SPLITS
        for file in export.files(name, split)
    ]
    if not parts:
        return pl.DataFrame(
            schema={"segment_id": pl.String, "answers": pl.String, "item_kind": pl.String,
                    "item_id": pl.String, "kind": pl.String, "text": pl.String,
                    "words": pl.List(pl.String), "author_kind": pl.String,
                    "label_set": pl.String, "label": pl.String, "start_s": pl.Float64,
                    "end_s": pl.Float64, "cues": pl.List(pl.String), "rater_id": pl.String}
        )  # fmt: skip
    return pl.concat(parts, how="diagonal_relaxed")


def texts(export: Export, *kinds: str) -> dict[str, list[str]]:
    """Return the texts about each segment, people's first.

    Machines' texts count only if they are asked for.
    """
    rows = _said(export, *kinds).sort(
        pl.col("author_kind") != "person", "item_id", maintain_order=True
    )
    found: dict[str, list[str]] = {}
    for segment, text in rows.select("item_id", "text").drop_nulls().iter_rows():
        found.setdefault(segment, []).append(" ".join(text.split()))
    return found


def open_words(export: Export) -> dict[str, list[str]]:
    """Return the words given to each segment, by falling count.

    Machines' words count only if machines' texts are asked for.
    """
    rows = _said(export, "open_words").explode("words").drop_nulls("words")
    counted = (
        rows.group_by("item_id", "words")
        .len()
        .sort("item_id", "len", "words", descending=[False, True, False])
    )
    found: dict[str, list[str]] = {}
    for segment, word, _ in counted.iter_rows():
        found.setdefault(segment, []).append(word)
    return found


def _said(export: Export, *kinds: str) -> pl.DataFrame:
    rows = config(export, "texts").filter(
        pl.col("item_kind") == "segment", pl.col("kind").is_in(kinds)
    )
    by_machine = pl.col("author_kind") != "person"
    if not export.options.machine_text:
        return rows.filter(~by_machine)
    if count := rows.filter(by_machine).height:
        export.notes.append(f"{count} texts of the kinds {', '.join(kinds)} are machines'")
    return rows


def media(
    export: Export,
    rows: pl.DataFrame,
    writers: Mapping[str, Callable[[Any, bytes], None]],
    *,
    key: str = "path",
) -> None:
    """Hand the sound and video of each segment to a writer.

    Args:
        rows: ``segment_id, split`` and the column ``key``, which writers receive.
        writers: ``audio`` (FLAC) or ``video`` (MP4) to what writes the bytes.
    """
    places = dict(rows.select("segment_id", key).iter_rows())
    done: set[str] = set()
    files = [file for split in SPLITS for file in export.files("segments", split)]
    for row in export.stream(files, ["segment_id", *writers]):
        segment = row["segment_id"]
        if segment in places and segment not in done:
            done.add(segment)
            for name, write in writers.items():
                if (cell := row.get(name)) is not None and cell["bytes"]:
                    write(places[segment], cell["bytes"])


def wav_writer(export: Export, pattern: str) -> Callable[[Any, bytes], None]:
    """Return a writer of 16 kHz mono PCM16 below a pattern with ``{}``."""

    def write(name: Any, data: bytes) -> None:
        export.path(pattern.format(name)).write_bytes(to_wav(samples_of(data)))

    return write


def copy_writer(export: Export, pattern: str) -> Callable[[Any, bytes], None]:
    """Return a writer of the bytes as they are."""

    def write(name: Any, data: bytes) -> None:
        export.path(pattern.format(name)).write_bytes(data)

    return write


def samples_of(data: bytes) -> np.ndarray:
    """Return int16[n] at 16 kHz of an encoded sound.

    Raises:
        ReleaseError: the bytes are no sound.
    """
    import av

    try:
        with av.open(io.BytesIO(data), "r") as container:
            resampler = av.AudioResampler("s16", "mono", RATE)
            parts = [
                made.to_ndarray().ravel()
                for frame in container.decode(audio=0)
                for made in resampler.resample(frame)
            ]
            parts += [made.to_ndarray().ravel() for made in resampler.resample(None)]
    except (av.FFmpegError, IndexError) as error:
        raise ReleaseError(
            "The sound of a segment cannot be decoded",
            got=str(error),
            hint="build a new version of the release",
        ) from error
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def to_wav(samples: np.ndarray) -> bytes:
    """Return a WAV file of int16 samples at 16 kHz."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.ascontiguousarray(samples, dtype="<i2").tobytes())
    return data.getvalue()


def dialogues(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``dialogue`` and ``utterance``, numbers from 0.

    Turns follow their start, then the speaker. Segments of no dialogue form one per video. Numbers
    of dialogues are unique within a split.
    """
    key = pl.coalesce("dialogue_id", "video_id")
    ordered = rows.with_columns(key=key).sort("split", "key", "start_s", "speaker", "segment_id")
    return ordered.with_columns(
        dialogue=pl.col("key").rank("dense").over("split").cast(pl.Int64) - 1,
        utterance=pl.int_range(pl.len()).over("split", "key"),
    )


def speakers(rows: pl.DataFrame) -> pl.Expr:
    """Return the name of the speaker, else the pseudonym of the subject."""
    return pl.coalesce("speaker", "subject_id")


def by_split(rows: pl.DataFrame, names: Mapping[str, str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the reader's name of each split and its rows, also if empty."""
    for split, name in names.items():
        yield name, rows.filter(pl.col("split") == split)
