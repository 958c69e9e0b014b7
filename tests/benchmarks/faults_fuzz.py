"""Damaged media, metadata and annotation payloads: each must end as a verdict, soon and alive."""

from __future__ import annotations

import copy
import csv
import io
import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2

from tests.media_files import pattern, sound_only, video

SLOW_S = 30.0
"""A payload that takes longer counts as a hang; a sound one takes milliseconds."""

KINDS = ("media", "metadata", "annotations")


@dataclass
class Fuzzed:
    """How damaged payloads ended: by verdict, and the ones that broke something."""

    verdicts: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.verdicts.values()) + len(self.crashes) + len(self.hangs)


def fuzz(kind: str, count: int, *, seed: int = 0) -> Fuzzed:
    """Give ``count`` damaged payloads of a kind to a process that may die or hang."""
    found = Fuzzed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worker = _Worker(kind, folder)
        try:
            for number, data in enumerate(payloads(kind, count, seed=seed, folder=folder)):
                said = worker.judge(data)
                if said is None:
                    (found.hangs if worker.alive else found.crashes).append(f"{kind} {number}")
                    worker.kill()
                    worker = _Worker(kind, folder)
                elif said.startswith("crash"):
                    found.crashes.append(f"{kind} {number}: {said}")
                else:
                    found.verdicts[said] += 1
        finally:
            worker.kill()
    return found


def payloads(kind: str, count: int, *, seed: int, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name suffix and bytes of ``count`` damaged copies; the same for the same seed."""
    chance = random.Random(f"{kind} {seed}")
    sound = list(SOUND[kind](folder))
    for number in range(count):
        suffix, data = sound[number % len(sound)]
        warp = kind == "annotations" and number % 4
        yield suffix, warped(data, chance) if warp else damaged(data, chance)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One to four of: cut short, bytes overwritten, dropped, repeated, swapped, nonsense added."""
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
    """JSON in which one to five values, wherever they stand, became other JSON."""
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


def _sound_annotations(folder: Path) -> Iterator[tuple[str, bytes]]:
    from annotation.studio.answers import result_of

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
    "annotations": _sound_annotations,
}


class _Worker:
    """A process that judges payloads one by one."""

    def __init__(self, kind: str, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(kind, folder, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._first = True

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def judge(self, data: tuple[str, bytes]) -> str | None:
        """The verdict; None when it died or did not answer in time."""
        self._pipe.send(data)
        patience, self._first = (240.0 if self._first else SLOW_S), False  # imports, a network
        try:
            return self._pipe.recv() if self._pipe.poll(patience) else None
        except EOFError:
            self._process.join(5)
            return None

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(kind: str, folder: Path, pipe: Connection) -> None:
    judge = JUDGES[kind](folder)
    while True:
        suffix, data = pipe.recv()
        try:
            said = judge(suffix, data)
        except Exception as error:  # what must not happen, told with its kind
            said = f"crash {type(error).__name__}: {str(error)[:200]}"
        pipe.send(said)


Judge = Callable[[str, bytes], str]


def _media(folder: Path) -> Judge:
    from pipeline.faces import detect, extract, quality, sources

    detector = detect.load("centerface", threshold=0.5)

    def judge(suffix: str, data: bytes) -> str:
        path = folder / f"damaged{suffix}"
        path.write_bytes(data)
        row = sources.describe(sources.Source(path.name, uri=str(path)), batch="day")
        if row["verdict"] != "kept":
            return f"{row['verdict']} {_code(row['reason'])}"
        found = extract.extract(
            str(path), video_id=row["video_id"], batch="day", subject_id=None,
            detector=detector, gate=quality.Gate(), fps=5.0, keep=lambda kind, image: "key",
        )  # fmt: skip
        return f"{found.verdict} {_code(found.reason)}"

    return judge


def _metadata(folder: Path) -> Judge:
    from pipeline import metadata
    from pipeline.faces import sources
    from warehouse.errors import SettingsError

    def judge(suffix: str, data: bytes) -> str:
        place = folder / suffix.replace(".", "-")
        place.mkdir(exist_ok=True)
        (place / suffix).write_bytes(data)
        try:
            if suffix.startswith("metadata"):
                metadata.read(place)
            else:
                sources.list_sources(place)
        except SettingsError as error:
            return "refused" if error.mend else "crash: an error without a way out"
        return "read"

    return judge


def _annotations(folder: Path) -> Judge:
    import polars as pl

    from annotation.studio.events import Raters, Standing, frame
    from annotation.studio.ledger import Ledger

    raters = Raters(named={1: ("person-1", "person")}, other=lambda _: ("person-0", "person"))
    sound = json.loads(next(_sound_annotations(folder))[1])

    def judge(suffix: str, data: bytes) -> str:
        """The server vouches for ids and stamps; answers and task data are whatever was sent."""
        task = _merged(sound, data)
        kept: list[pl.DataFrame] = []
        ledger = Ledger(1, known=lambda: frame([]).lazy(), keep=kept.append)
        standing = Standing(ledger, pulled_at=datetime.now(UTC), newest=None)
        standing.compare([task], raters)
        assert standing.rows.height == len(task["annotations"]), "an annotation was lost"
        return "event"

    return judge


def _merged(sound: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Damaged text where it still is JSON; else the text itself as the answer and the face."""
    try:
        told = json.loads(data)
    except ValueError:
        told = data.decode("utf-8", "replace")
    damaged_task = told if isinstance(told, dict) else {}
    given = damaged_task.get("data")
    answers = damaged_task.get("annotations")
    results = (
        [one.get("result") for one in answers if isinstance(one, dict)]
        if isinstance(answers, list)
        else [told]
    )
    return sound | {
        "data": given if isinstance(given, dict) else {"face_id": told},
        "annotations": [
            one | {"result": results[number] if number < len(results) else told}
            for number, one in enumerate(sound["annotations"])
        ],
    }


def _code(reason: str | None) -> str:
    return (reason or "").split(":")[0]


JUDGES: dict[str, Callable[[Path], Judge]] = {
    "media": _media,
    "metadata": _metadata,
    "annotations": _annotations,
}


def report(counts: dict[str, int], *, seed: int = 0) -> dict[str, Any]:
    """Every kind, with its verdicts and what broke."""
    told = {}
    for kind, count in counts.items():
        started = time.monotonic()
        found = fuzz(kind, count, seed=seed)
        told[kind] = {
            "payloads": found.count,
            "verdicts": dict(found.verdicts.most_common()),
            "crashes": found.crashes,
            "hangs": found.hangs,
            "seconds": round(time.monotonic() - started, 1),
        }
    return told
