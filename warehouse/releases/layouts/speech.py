"""Write labelled speech: shares per file, or one rating per emotion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from warehouse import label_sets
from warehouse.errors import ReleaseError, SettingsError
from warehouse.releases.layouts import folds, segments
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe

_SETS = {"train": "Train", "validation": "Development", "test": "Test"}
_SUBSETS = {"train": "train", "validation": "dev", "test": "test"}
_SMOOTHING = 0.05
"""Weight that EMO-SUPERB spreads over the other classes."""


def write_superb(export: Export) -> None:
    """Write ``data/<name>/Audios``, ``Primary/labels_consensus_<k>.csv``.

    Shares count every vote and are smoothed as the reader's own labels are: 0.95 p + 0.05 (1 - p) /
    (K - 1). Ties stay. Fold 1 is the release's own split; with ``--folds K`` fold k tests on group
    k and develops on the next one.
    """
    found = segments.read(export)
    rows = segments.need(export, segments.labelled(export, found, soft=True), "audio")
    empty = pl.col("shares").list.sum() <= 0
    rows = export.leave_out(rows, empty, "no_class_for_its_labels").sort("name")
    words = [safe(word) for word in export.classes.words]
    root = f"data/{safe(str(export.contents['name']))}"
    shares = np.array(rows["shares"].to_list(), dtype=np.float64).reshape(-1, len(words))
    smooth = smoothed(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))
    speakers = [safe(who) for who in rows.select(segments.speakers(rows)).to_series()]
    for fold, names in _folds(export, rows):
        lines = (
            (f"{name}.wav", *row, who, split)
            for name, row, who, split in zip(rows["name"], smooth, speakers, names, strict=True)
        )
        header = ("FileName", *words, "SpkrID", "Split_Set")
        export.table(f"{root}/Primary/labels_consensus_{fold}.csv", lines, header=header)
    export.json(f"{root}/Primary/config.json", {
        "data_split_type": {"train": "Train", "dev": "Development", "test": "Test"},
        "categorical": {"emo_type": words},
        "dimensional": {"min": -1, "max": 1},
    })  # fmt: skip
    rows = rows.with_columns(path=pl.format(root + "/Audios/{}.wav", "name"))
    segments.media(export, rows, {"audio": segments.wav_writer(export, "{}")})
    export.keep(rows, key="segment_id")


def smoothed(shares: np.ndarray) -> np.ndarray:
    """Return shares of which each gives a little to the others."""
    rest = _SMOOTHING * (1 - shares) / max(shares.shape[1] - 1, 1)
    result: np.ndarray = (1 - _SMOOTHING) * shares + rest
    return result


def _folds(export: Export, rows: pl.DataFrame) -> Iterator[tuple[int, list[str]]]:
    if export.options.folds is None:
        yield 1, [_SETS[split] for split in rows["split"]]
        return
    named = rows.with_columns(face_id="segment_id", duplicate_of=pl.lit(None, pl.String))
    fold_of = folds.assign(named, export.options.folds).to_list()
    count = max(fold_of)
    for fold in range(1, count + 1):
        following = fold % count + 1 if count > 2 else 0
        places = {fold: "Test", following: "Development"}
        yield fold, [places.get(one, "Train") for one in fold_of]


def write_soft(export: Export) -> None:
    """Write ``{train,dev,test}_segment.csv`` of shares, and ``wav/``.

    What people called none of the classes, contempt among it, is ``Other``.
    """
    found = segments.read(export)
    rows = segments.need(export, segments.labelled(export, found, soft=True), "audio")
    number = pl.int_range(pl.len()).over("video_id")
    video = pl.col("video_id").map_elements(safe, pl.String)
    rows = rows.sort("split", "video_id", "start_s", "segment_id").with_columns(
        file=pl.format("{}_{}.wav", video, number.cast(pl.String).str.zfill(4))
    )
    words = export.classes.words
    other = words.index(export.classes.other) if export.classes.other else None
    for name, part in segments.by_split(rows, _SUBSETS):
        lines = []
        for file, shares, rest in part.select("file", "shares", "other").iter_rows():
            values = list(shares)
            if other is not None:
                values[other] += rest
            lines.append((file, *values))
        export.table(f"{name}_segment.csv", lines, header=("audio_name", *words))
    rows = rows.with_columns(path=pl.format("wav/{}", "file"))
    segments.media(export, rows, {"audio": segments.wav_writer(export, "{}")})
    export.keep(rows, key="segment_id")


def write_rated(export: Export) -> None:
    """Write ``<split>.parquet``: a sound, an emotion, its raters' answers.

    ``label`` is the text of a list of ``{rater: {emotion: 0, 1 or 2}}``. Only label sets that ask
    for an intensity give rows; their levels are carried over to 0 (absent), 1 (weak), 2 (strong).

    Raises:
        ReleaseError: no such question was asked.
    """
    found = segments.read(export)
    rated = _ratings(export)
    if not rated:
        raise ReleaseError(
            "No intensity of emotions was asked of people",
            got="no votes of a label set such as plutchik8",
            hint="ask one about the segments and build a new version",
        )
    rows = segments.need(export, found.unique("segment_id").sort("segment_id"), "audio")
    rows = export.leave_out(rows, ~pl.col("segment_id").is_in(list(rated)), "no_intensity")
    for split, part in segments.by_split(rows, {name: name for name in _SETS}):
        if part.height:
            _parquet(export, part, rated, name=f"{split}.parquet")
    export.keep(rows.with_columns(path=pl.col("split") + ".parquet"), key="segment_id")


def _ratings(export: Export) -> dict[str, dict[str, list[dict[str, dict[str, int]]]]]:
    """Return the answers of raters by segment and emotion."""
    found: dict[str, dict[str, list[dict[str, dict[str, int]]]]] = {}
    votes = segments.config(export, "segment_votes")
    for row in votes.sort("segment_id", "rater_id").iter_rows(named=True):
        try:
            asked = label_sets.load(row["label_set"] or "")
        except SettingsError:  # a set that only the annotation page knew
            continue
        if asked.choose != "intensity":
            continue
        top = max(asked.levels)
        for question, value in json.loads(row["answers"] or "{}").items():
            emotion = question.rpartition(".")[2]
            if emotion in asked.classes and value:
                level = float(value[0] if isinstance(value, list) else value)
                strength = 0 if level <= 0 else 1 if 2 * level <= top else 2
                answers = found.setdefault(row["segment_id"], {}).setdefault(emotion, [])
                answers.append({row["rater_id"]: {emotion.capitalize(): strength}})
    return found


def _parquet(export: Export, rows: pl.DataFrame, rated: Any, *, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sound = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("audioId", sound), ("label", pa.string()), ("segment_id", pa.string())])
    with pq.ParquetWriter(export.path(name), schema) as writer:

        def add(key: Any, data: bytes) -> None:
            wav = segments.to_wav(segments.samples_of(data))
            segment, file = key
            lines = [
                {"audioId": {"bytes": wav, "path": file}, "label": str(answers),
                 "segment_id": segment}
                for _, answers in sorted(rated[segment].items())
            ]  # fmt: skip
            writer.write_table(pa.Table.from_pylist(lines, schema=schema))

        keyed = rows.with_columns(path=pl.concat_list("segment_id", pl.col("name") + ".wav"))
        segments.media(export, keyed, {"audio": add})


EMO_SUPERB = Layout(
    "emo-superb", "speech and smoothed shares in folds", write_superb, order="expressions8",
    faces=False,
)  # fmt: skip
SOFT_CSV = Layout(
    "soft-csv", "speech and shares per subset", write_soft, order="basic7:abaw8", faces=False
)
RATED_AUDIO = Layout(
    "rated-audio", "Parquet of sounds with a rating per emotion", write_rated, faces=False
)
