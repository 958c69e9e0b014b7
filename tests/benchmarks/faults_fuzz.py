"""Feed damaged media, metadata and annotations to the pipeline.

Each payload must end as a verdict, within a time limit and without a crash.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.benchmarks.faults_payloads import payloads, sound_annotations

SLOW_S = 30.0
"""A payload that takes longer counts as a hang; a sound one takes milliseconds."""

KINDS = ("media", "metadata", "annotations")


@dataclass
class Fuzzed:
    """Results of damaged payloads: verdicts, crashes and hangs."""

    verdicts: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.verdicts.values()) + len(self.crashes) + len(self.hangs)


def fuzz(kind: str, count: int, *, seed: int = 0) -> Fuzzed:
    """Feed ``count`` damaged payloads of a kind to a child process.

    The process may die or hang.
    """
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
        timeout, self._first = (240.0 if self._first else SLOW_S), False  # imports, a network
        try:
            return self._pipe.recv() if self._pipe.poll(timeout) else None
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
        except Exception as error:  # a crash, reported with its type
            said = f"crash {type(error).__name__}: {str(error)[:200]}"
        pipe.send(said)


Judge = Callable[[str, bytes], str]


def _media(folder: Path) -> Judge:
    from pipeline.faces import detect, extract, quality
    from pipeline.ingest import manifest

    detector = detect.load("centerface", threshold=0.5)

    def judge(suffix: str, data: bytes) -> str:
        path = folder / f"damaged{suffix}"
        path.write_bytes(data)
        row = manifest.describe(manifest.Source(path.name, uri=str(path)), batch="day")
        if row["verdict"] != "kept":
            return f"{row['verdict']} {_code(row['reason'])}"
        found = extract.extract(
            str(path), video_id=row["video_id"], batch="day", subject_id=None,
            detector=detector, gate=quality.Gate(), fps=5.0, save=lambda kind, image: "key",
        )  # fmt: skip
        return f"{found.verdict} {_code(found.reason)}"

    return judge


def _metadata(folder: Path) -> Judge:
    from pipeline.ingest import manifest, metadata
    from warehouse.errors import SettingsError

    def judge(suffix: str, data: bytes) -> str:
        place = folder / suffix.replace(".", "-")
        place.mkdir(exist_ok=True)
        (place / suffix).write_bytes(data)
        try:
            if suffix.startswith("metadata"):
                metadata.read(place)
            else:
                manifest.list_sources(place)
        except SettingsError as error:
            return "refused" if error.hint else "crash: an error without a way out"
        return "read"

    return judge


def _annotations(folder: Path) -> Judge:
    import polars as pl

    from annotation.label_studio.event_log import EventLog, frame

    names = {1: ("person-1", "person")}
    sound = json.loads(next(sound_annotations(folder))[1])

    def judge(suffix: str, data: bytes) -> str:
        """Compare a task with valid ids and stamps and damaged contents."""
        task = _merged(sound, data)
        kept: list[pl.DataFrame] = []
        events = EventLog(
            1, known=lambda: frame([]).lazy(), append=kept.append, now=datetime.now(UTC)
        )
        events.compare([task], names, lambda user_id, email: ("person-0", "person"))
        assert events.standing.height == len(task["annotations"]), "an annotation was lost"
        return "event"

    return judge


def _merged(sound: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Merge damaged JSON into a valid task.

    Text that is no JSON becomes the result and the face id.
    """
    try:
        damaged = json.loads(data)
    except ValueError:
        damaged = data.decode("utf-8", "replace")
    damaged_task = damaged if isinstance(damaged, dict) else {}
    given = damaged_task.get("data")
    answers = damaged_task.get("annotations")
    results = (
        [one.get("result") for one in answers if isinstance(one, dict)]
        if isinstance(answers, list)
        else [damaged]
    )
    return sound | {
        "data": given if isinstance(given, dict) else {"face_id": damaged},
        "annotations": [
            one | {"result": results[number] if number < len(results) else damaged}
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
    results = {}
    for kind, count in counts.items():
        started = time.monotonic()
        found = fuzz(kind, count, seed=seed)
        results[kind] = {
            "payloads": found.count,
            "verdicts": dict(found.verdicts.most_common()),
            "crashes": found.crashes,
            "hangs": found.hangs,
            "seconds": round(time.monotonic() - started, 1),
        }
    return results
