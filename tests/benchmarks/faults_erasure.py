"""Erase a subject after kills and beside an ingest; search for them.

The search is not the product's: it knows the bytes and the pixels of every picture of the subject
in an undisturbed run, and compares them with every file and every image of the home. It runs in
forked children like the stages: threads of Polars do not survive a fork.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import importlib
import io
import multiprocessing
import os
import pickle
import random
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import faults_kill as kill
from tests.benchmarks.faults_kill import BATCH, KILLED, in_child

STAGES = ("ingest", "pull", "synth", "release")
SUBJECTS = ("ada", "ben")
ALIKE = 0.985
"""Correlation of two images at 32 x 32 pixels from which they count as one picture.

Pictures of other subjects of these homes stay far below (the result ``nearest other``)."""

_SYNTHESIS = {
    "RISORIUS_SYNTH_FACES": "4", "RISORIUS_SYNTHESIZER": "tests.benchmarks.faults_erasure:edit",
}  # fmt: skip
_MODULES = (
    "annotation.audit", "annotation.label_studio.sync", "pipeline.definitions", "datasets",
    "dagster._core.storage.base_storage", "dagster._core.storage.sqlite_storage", "sklearn",
    "onnxruntime", "pipeline.erasure", "warehouse.releases.redact",
)  # fmt: skip
"""What stages and erasures import: a fork then spends its time in them."""

_INLINE = re.compile(rb"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)")
_SIDE, _NEEDLE = 32, 48


@dataclass
class Erased:
    """What was left of the subjects after the trials of one stage.

    Attributes:
        late: kills that came after the stage had ended.
        left: pictures found by bytes or pixels, over all trials.
        ids: files that hold the id or the name of a file of the subject.
        incomplete: erasures that reported a trace or failed.
    """

    clean_s: float = 0.0
    trials: int = 0
    late: int = 0
    left: int = 0
    ids: int = 0
    incomplete: int = 0
    details: list[str] = field(default_factory=list)


@dataclass
class Known:
    """Bytes, pixels and ids of a subject in an undisturbed home."""

    needles: re.Pattern[bytes]
    ids: re.Pattern[bytes]
    pixels: np.ndarray


def after_kills(trials: int, *, seed: int, until: float | None = None) -> dict[str, Any]:
    """Kill a stage at a random moment, erase a subject, search the home."""
    from annotation.label_studio import server
    from warehouse.storage.home import Home

    chance, results = random.Random(seed), {stage: Erased() for stage in STAGES}
    _preload()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (homes := base / "homes").mkdir()
        address = server.up(base / "studio", homes)
        environment = kill._environment(address.url, address.token)
        os.environ.update(environment | {"RISORIUS_SYNTH_FACES": "4"})
        try:
            clean = Home.at(homes / "clean")
            before = _clean(clean, results, base=base)
            sight = in_child(_learn, clean, base / "known")
            for number in range(trials):
                if until is not None and time.monotonic() > until:
                    break
                stage, subject = STAGES[number % len(STAGES)], SUBJECTS[number // 4 % 2]
                home, one = Home.at(homes / f"trial-{number}"), results[stage]
                # A copy in another folder: its rows name the files of the home it was.
                shutil.copytree(before[stage], home.root)
                moment = chance.uniform(0, one.clean_s)
                died = in_child(_STAGE[stage], home, kill_after=moment) is KILLED
                one.late += not died
                what = f"trial {number} at {moment:.2f} s, {subject}"
                _erase_and_search(home, subject, base / "known", one, what)
                shutil.rmtree(home.root)
        finally:
            server.down(base / "studio")
    return {
        **sight,
        "stages": {name: asdict(one) for name, one in results.items()},
    }


def beside_ingest(trials: int, *, seed: int, until: float | None = None) -> dict[str, Any]:
    """Erase a subject at a random moment of an ingest in another process."""
    from warehouse.storage.home import Home

    chance, one = random.Random(seed), Erased()
    _preload()
    os.environ.update({"RISORIUS_WORKERS": "1", "RISORIUS_SYNTH_FACES": "0"})
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as name:
        clean = Home.at(Path(name) / "clean")
        _enlist(clean)
        shutil.copytree(clean.root, Path(name) / "before")
        started = time.monotonic()
        in_child(kill._ingest, clean)
        one.clean_s = round(time.monotonic() - started, 2)
        known = Path(name) / "known"
        sight = in_child(_learn, clean, known)
        for number in range(trials):
            if until is not None and time.monotonic() > until:
                break
            home = Home.at(Path(name) / f"trial-{number}")
            shutil.copytree(Path(name) / "before", home.root)
            moment = chance.uniform(0, one.clean_s)
            fork = multiprocessing.get_context("fork")
            ingest = fork.Process(target=in_child, args=(kill._ingest, home))
            ingest.start()
            time.sleep(moment)
            one.late += not ingest.is_alive()
            what = f"trial {number} at {moment:.2f} s"
            _erase_and_search(home, "ben", known, one, what, wait=ingest.join)
            shutil.rmtree(home.root)
    return {**sight, **asdict(one)}


def _erase_and_search(
    home: Any, subject: str, known: Path, one: Erased, what: str, *, wait: Any = None
) -> None:
    one.trials += 1
    try:
        traces = in_child(_erase, home, subject)
    except RuntimeError as error:
        traces = [str(error)[-300:]]
    if wait is not None:
        wait()
    one.incomplete += bool(traces)
    pictures, ids = in_child(_search, home.root, known, subject)
    one.left, one.ids = one.left + len(pictures), one.ids + len(ids)
    one.details += [f"{what}: {line}" for line in [*traces, *pictures, *ids][:5]]


def _preload() -> None:
    # More threads than this only wait for each other on tables of a few rows.
    os.environ["POLARS_MAX_THREADS"] = "1"
    for module in _MODULES:
        importlib.import_module(module)


def _learn(home: Any, file: Path) -> dict[str, Any]:
    """Store what is known; return how well it tells subjects apart."""
    known, nearest = learn(home, SUBJECTS)
    file.write_bytes(pickle.dumps(known))
    there = {who: len(search(home.root, known[who])[0]) for who in SUBJECTS}
    return {"nearest other": nearest, "found before": there}


def _search(root: Path, file: Path, subject: str) -> tuple[list[str], list[str]]:
    return search(root, pickle.loads(file.read_bytes())[subject])


def search(root: Path, known: Known) -> tuple[list[str], list[str]]:
    """Return the places of the subject's pictures, and of their ids."""
    pictures, ids = [], []
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        data, place = path.read_bytes(), str(path.relative_to(root))
        if known.ids.search(data) or known.ids.search(place.encode()):
            ids.append(f"{place}: an id")
        if known.needles.search(data):
            pictures.append(f"{place}: bytes")
            continue
        for image in _images(path, data):
            if (small := _small(image)) is not None and (known.pixels @ small).max() > ALIKE:
                pictures.append(f"{place}: pixels")
    return pictures, ids


def _clean(home: Any, results: dict[str, Erased], *, base: Path) -> dict[str, Path]:
    """Run every stage once; return copies of the home before each."""
    _enlist(home)
    before = {}
    for stage in ("ingest", "push", "pull", "audit", "synth", "release"):
        if stage in STAGES:
            before[stage] = base / f"before-{stage}"
            shutil.copytree(home.root, before[stage])
        started = time.monotonic()
        in_child(_STAGE[stage], home)
        if stage in STAGES:
            results[stage].clean_s = round(time.monotonic() - started, 2)
        if stage == "push":
            in_child(kill._vote, home)
    return before


def edit(
    reference: np.ndarray, au: np.ndarray, expression: str | None, n: int, seeds: list[int]
) -> np.ndarray:
    """Return darker copies of the reference, as a synthesizer does."""
    return np.stack([(reference * (0.9 - 0.1 * number)).astype(np.uint8) for number in range(n)])


edit.relative = True  # type: ignore[attr-defined]
edit.licence = "CC-BY-4.0"  # type: ignore[attr-defined]


def _enlist(home: Any) -> None:
    """Write two pictures of ada, a video of ben and a picture of cleo.

    Ada and ben agreed to edits of their faces, which a synthesizer then makes.
    """
    import av
    import cv2

    from tests.media_files import CARPHONE, SIX_PEOPLE, coded, package_file

    folder = home.inbox / BATCH
    folder.mkdir(parents=True)
    left = cv2.imread(str(SIX_PEOPLE))[:, :430]
    cv2.imwrite(str(folder / "ada.jpg"), left)
    cv2.imwrite(str(folder / "ada again.png"), left[:, ::-1])
    with av.open(str(CARPHONE)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    coded(folder / "ben.mp4", frames[:12], fps=30)
    shutil.copy(package_file("skimage", "data/astronaut.png"), folder / "cleo.png")
    lines = ["file_name,subject_id,consent,licence", *(
        f'{name},{who},"yes{edits}",CC-BY-4.0'
        for name, who, edits in (
            ("ada.jpg", "ada", ", editing"), ("ada again.png", "ada", ", editing"),
            ("ben.mp4", "ben", ", editing"), ("cleo.png", "cleo", ""),
        )
    )]  # fmt: skip
    (folder / "videos.csv").write_text("\n".join(lines) + "\n")


def _synth(home: Any) -> None:
    from pipeline import runs

    kill._at(home)
    runs.materialize(home, "synth")


_STAGE = kill.STAGE | {"synth": _synth}


def _erase(home: Any, subject: str) -> list[str]:
    """Erase as ``risorius forget``, without the server that the trials share."""
    from functools import partial

    from pipeline import erasure
    from warehouse.privacy import erase

    kill._at(home)
    history = partial(erasure._delete_run_history, home)
    return erase.forget(home, "subject", subject, after=[history]).verification.traces


def learn(home: Any, subjects: Sequence[str]) -> tuple[dict[str, Known], float]:
    """Return what is known of each subject, and the nearest other's image."""
    from warehouse.storage import tables

    videos = tables.read(home, "videos").drop_nulls("subject_id")
    faces = tables.read(home, "faces").join(videos.select("video_id", "subject_id"), on="video_id")
    pictures: dict[str, list[Path]] = {}
    for row in faces.iter_rows(named=True):
        files = [home.media / row[column] for column in ("crop", "context") if row[column]]
        pictures.setdefault(row["subject_id"], []).extend(files)
    for row in videos.iter_rows(named=True):
        pictures[row["subject_id"]].append(Path(row["uri"]))
    found, small = {}, {}
    for who, paths in pictures.items():
        bodies = {path.read_bytes() for path in paths}
        images = [_small(image) for body in bodies for image in _decoded(body)]
        small[who] = np.array([image for image in images if image is not None])
        middles = {body[len(body) // 2 : len(body) // 2 + _NEEDLE] for body in bodies}
        theirs = videos.filter(videos["subject_id"] == who)
        ids = [*theirs["video_id"], *(re.escape(Path(uri).name) for uri in theirs["uri"])]
        found[who] = Known(
            needles=re.compile(b"|".join(map(re.escape, sorted(middles)))),
            ids=re.compile("|".join(ids).encode()),
            pixels=small[who],
        )
    nearest = max(
        float((small[who] @ small[other].T).max())
        for who in subjects
        for other in small
        if other != who
    )
    return {who: found[who] for who in subjects}, round(nearest, 4)


def _images(path: Path, data: bytes) -> Iterator[np.ndarray]:
    """Yield every image of a file: itself, inline, in rows, in an archive."""
    yield from _decoded(data)
    for text in _INLINE.findall(data):
        whole = text[: len(text) // 4 * 4]  # a page of a database may cut it
        with contextlib.suppress(binascii.Error):
            yield from _decoded(base64.b64decode(whole))
    if data[:4] == b"PAR1":
        import polars as pl

        frame = pl.read_parquet(io.BytesIO(data))
        for name in {"image", "frames"} & set(frame.columns):
            for cell in frame[name].to_list():
                for image in cell if isinstance(cell, list) else [cell]:
                    yield from _decoded((image or {}).get("bytes") or b"")
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.namelist():
                yield from _decoded(archive.read(entry))


def _decoded(data: bytes) -> Iterator[np.ndarray]:
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if image is not None:
        yield image


def _small(image: np.ndarray) -> np.ndarray | None:
    """Return an image as a unit vector; None if it has one colour."""
    import cv2

    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(float).ravel()
    small -= small.mean()
    size = float(np.linalg.norm(small))
    return small / size if size > _SIDE else None
