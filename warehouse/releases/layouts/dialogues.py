"""Write dialogues as MELD, and as json lists of a dialogue each."""

from __future__ import annotations

import json

import polars as pl

from warehouse.releases.layouts import segments
from warehouse.releases.layouts.core import Export, Layout
from warehouse.releases.layouts.files import safe

_HEADER = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID",
    "Season", "Episode", "StartTime", "EndTime",
)  # fmt: skip
_MELD = {"train": "train", "validation": "dev", "test": "test"}
_JSON = {"train": "train", "validation": "valid", "test": "test"}
_SPEAKERS = 9
"""Width of the one-hot vector that readers of MELD's json expect."""


def write_meld(export: Export) -> None:
    """Write ``{train,dev,test}_sent_emo.csv`` and ``dia<D>_utt<U>.mp4``.

    Dialogues and utterances count from 0 within a split. The sentiment is that of a sentiment
    question; it is empty where none was asked. Season and episode are unknown.
    """
    found = segments.read(export)
    sentiments = segments.sentiments(found, "sentiment3:meld")
    rows = segments.need(export, segments.labelled(export, found), "text")
    rows = segments.dialogues(rows).with_columns(shown=segments.speakers(rows))
    folder = pl.col("split").replace_strict(_MELD, return_dtype=pl.String)
    rows = rows.with_columns(
        path=pl.format("{}/dia{}_utt{}.mp4", folder, "dialogue", "utterance"),
        file=folder + "_sent_emo.csv",
    )
    for name, part in segments.by_split(rows, _MELD):
        lines = (
            (place, row["text"], row["shown"], row["word"], sentiments.get(row["segment_id"]),
             row["dialogue"], row["utterance"], None, None, clock(row["start_s"]),
             clock(row["end_s"]))
            for place, row in enumerate(part.iter_rows(named=True), start=1)
        )  # fmt: skip
        export.table(f"{name}_sent_emo.csv", lines, header=_HEADER)
    segments.media(export, rows, {"video": segments.copy_writer(export, "{}")})
    # Without a video the row of the csv is all there is.
    shown = pl.when("has_video").then("path").otherwise("file")
    export.keep(rows.with_columns(path=shown), key="segment_id")


def clock(seconds: float) -> str:
    """Return ``hh:mm:ss,mmm``."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d},{milliseconds:03d}"


def write_erc(export: Export) -> None:
    """Write ``data/<name>.{train,valid,test}.json``: dialogues of equal lists.

    ``genders`` holds one-hot vectors by the rank of the speaker in the dialogue, as MELD's files
    do; no gender is stated. Beyond nine speakers the last place is shared.
    """
    found = segments.read(export)
    rows = segments.need(export, segments.labelled(export, found), "text")
    rows = segments.dialogues(rows).with_columns(shown=segments.speakers(rows))
    name = safe(str(export.contents["name"]))
    rows = rows.with_columns(
        path=pl.format(
            "data/{}.{}.json",
            pl.lit(name),
            pl.col("split").replace_strict(_JSON, return_dtype=pl.String),
        )
    )
    for kind, part in segments.by_split(rows, _JSON):
        dialogues = {}
        for (number,), turns in part.group_by("dialogue", maintain_order=True):
            ranks = {one: rank for rank, one in enumerate(dict.fromkeys(turns["shown"]))}
            dialogues[str(number)] = {
                "labels": turns["number"].to_list(),
                "sentences": turns["text"].to_list(),
                "genders": [_one_hot(ranks[one]) for one in turns["shown"]],
                "speakers": turns["shown"].to_list(),
            }
        export.text(f"data/{name}.{kind}.json", [json.dumps(dialogues, ensure_ascii=False)])
    export.keep(rows, key="segment_id")


def _one_hot(rank: int) -> list[int]:
    return [int(place == min(rank, _SPEAKERS - 1)) for place in range(_SPEAKERS)]


MELD = Layout("meld", "csv files and clips of MELD", write_meld, order="basic7:meld", faces=False)
ERC_JSON = Layout(
    "erc-json", "json files of dialogues, as PRC-Emo", write_erc, order="basic7:meld", faces=False
)
