"""Damaged media, metadata and annotations, deterministic by seed."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2

from tests.media_files import pattern, sound_only, video


def payloads(kind: str, count: int, *, seed: int, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield suffix and bytes of ``count`` damaged copies, fixed by seed."""
    chance = random.Random(f"{kind} {seed}")
    sound = list(SOUND[kind](folder))
    for number in range(count):
        suffix, data = sound[number % len(sound)]
        warp = kind == "annotations" and number % 4
        yield suffix, warped(data, chance) if warp else damaged(data, chance)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Damage bytes in one to four ways.

    They are cut short, overwritten, dropped, repeated, swapped, or random bytes are added.
    """
    body = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(body) + 1)
        # Headers decide most, and lie at the front or at the end.
        at = chance.choice((at, min(len(body), chance.randrange(64)), max(0, len(body) - 64)))
        length = chance.choice((1, 1, 4, 16, 256))
        how = chance.randrange(6)
        if how == 0:
            del body[max(1, at) :]
        elif how == 1:
            body[at : at + length] = chance.randbytes(length)
        elif how == 2:
            del body[at : at + length]
        elif how == 3:
            body[at:at] = body[at : at + length] * chance.choice((1, 2, 50))
        elif how == 4:
            body[at : at + 4] = chance.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")
            )
        else:
            body[at:at] = chance.choice(
                (b"\0", b'"', b"\n", b"{", b"]", b"\xc3\x28", b"1e999", b"-")
            )
    return bytes(body)


def warped(data: bytes, chance: random.Random) -> bytes:
    """Replace one to five values of a JSON text by other JSON."""
    whole = [json.loads(data)]
    for _ in range(chance.randint(1, 5)):
        places = list(_places(whole))
        holder, key = places[chance.randrange(1, len(places))]
        holder[key] = copy.deepcopy(chance.choice(_ODD))
    return json.dumps(whole[0]).encode()


_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), 10**40, "", "\0", "\ud800", "x" * 10_000, "<script>",
    [], [None], [[]], {}, {"choices": 3}, {"choices": [["fear"]]}, {"": {"": None}}, ["fear", 1],
    {"rating": "five"}, {"text": [{}]}, {"choices": ["fear"] * 500},
)  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield value, key
        if isinstance(value[key], list | dict):
            yield from _places(value[key])


def _sound_media(folder: Path) -> Iterator[tuple[str, bytes]]:
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif"):
        done, data = cv2.imencode(suffix, pattern(3)[:, :, ::-1])
        assert done, suffix
        yield suffix, data.tobytes()
    for suffix in (".mp4", ".mkv", ".avi", ".mov", ".webm.mkv"):
        yield suffix, video(folder / f"sound{suffix}", frames=4).read_bytes()
    yield ".m4a", sound_only(folder / "sound.m4a").read_bytes()


def _sound_metadata(folder: Path) -> Iterator[tuple[str, bytes]]:
    import polars as pl

    rows = [
        {"file_name": f"{n}.png", "rater_id": f"r{n % 2}", "label": label, "subject_id": "ann"}
        for n, label in enumerate(("happy", "sadness", "neutral", "unknown"))
    ]
    counted = [{"file_name": "1.png", "votes": {"happy": 3, "fear": 1}, "created_at": "2026-01-31"}]
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    yield "metadata.csv", text.getvalue().encode()
    yield "metadata.jsonl", "\n".join(map(json.dumps, rows + counted)).encode()
    path = folder / "sound.parquet"
    pl.DataFrame(rows).write_parquet(path)
    yield "metadata.parquet", path.read_bytes()
    yield "videos.csv", b"file_name,subject_id,licence,consent,source\nx.mp4,ann,CC0-1.0,yes,lab\n"
    yield "sources.jsonl", b'{"uri": "x.mp4", "subject_id": "ann"}\n{"uri": "/y.png"}\n'


def sound_annotations(folder: Path) -> Iterator[tuple[str, bytes]]:
    """A task with two annotations, as the server tells it."""
    from annotation.label_studio.answers import result_of

    annotation = {
        "id": 7, "completed_by": 1, "updated_by": 1, "was_cancelled": False, "lead_time": 2.5,
        "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:01Z",
        "parent_prediction": None, "result": result_of(["fear", "surprise"]),
    }  # fmt: skip
    data = {"face_id": "v-0000-1", "crop": "/data/x.png", "context": "", "reason": "coverage"}
    task = {"id": 3, "data": data, "annotations": [annotation, annotation | {"id": 8}]}
    yield "task", json.dumps(task).encode()


SOUND: dict[str, Callable[[Path], Iterator[tuple[str, bytes]]]] = {
    "media": _sound_media,
    "metadata": _sound_metadata,
    "annotations": sound_annotations,
}
