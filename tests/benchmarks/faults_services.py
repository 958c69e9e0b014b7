"""Run against services that fail at times, and many runs at once.

Nothing may be lost or written twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tests.object_store import BUCKET, KEYS, Faults, failing, s3_server

Answer = TypeVar("Answer")

_TRIES = 60


def object_store(*, share: float, seed: int) -> dict[str, Any]:
    """Build a release in a bucket that fails ``share`` of the calls.

    It is compared with a release in a local folder, and read on another machine.
    """
    import warehouse
    from tests.warehouse.people_home import people_home, release
    from warehouse import releases
    from warehouse.storage import mirror
    from warehouse.storage.home import Home

    with tempfile.TemporaryDirectory() as name, s3_server() as url:
        local = people_home(Home.at(Path(name) / "local"))
        built = release(local)
        with (
            failing(url, share=share, seed=seed) as (proxy, faults),
            variables(KEYS | {"AWS_ENDPOINT_URL": proxy}),
        ):
            homes = []
            for machine in ("a", "b"):
                with variables({"RISORIUS_WORK": str(Path(name) / machine)}):
                    homes.append(Home.at(f"s3://{BUCKET}/faults"))
            mine, other = homes
            started = time.monotonic()
            people_home(mine)
            shared = release(mine)
            for folder in (other.root, other.media):
                mirror.sync(folder, force=True)
            seconds = time.monotonic() - started
            wanted, got = (
                {table: _rows(warehouse.connect(home), table) for table in ("faces", "annotations")}
                for home in (local, other)
            )
            seen = releases.show(other, name="faces")
            same = (
                releases.manifest.read(built.path)["files"]
                == releases.manifest.read(shared.path)["files"]
                == seen["files"]
            )
        mirror._open.cache_clear()
    return {
        **_faults(faults), "lost": sum(wanted[t] != got[t] for t in wanted),
        "release identical": same and not seen["problems"], "seconds": round(seconds, 1),
    }  # fmt: skip


def label_studio(
    address: Any, media_dir: Path, *, share: float, faces: int, votes: int, seed: int
) -> dict[str, Any]:
    """Push and pull votes through a proxy that fails some calls.

    ``faces`` is the number of faces, ``share`` the fraction of failed calls.

    A command that ends with an error is given again, as a person would; writes are never repeated
    by the client, so what counts is that nothing is there twice and no vote is missing.
    """
    import polars as pl

    from annotation.label_studio import projects, users
    from annotation.label_studio.answers import result_of
    from annotation.label_studio.client import Address, LabelStudioClient
    from tests.annotation.label_studio.conftest import api, pull, push
    from warehouse.storage.home import Home
    from warehouse.storage.schema import TABLES

    title = f"faults {seed} {time.time_ns() % 10**8}"
    rows = pl.DataFrame({"face_id": [f"fault-0000-{n}" for n in range(faces)]}).with_columns(
        crop=pl.lit("crops/aa/x.png"), context=pl.lit(""), reason=pl.lit("coverage")
    )

    def named(user_id: int, email: str) -> tuple[str, str]:
        return f"person-{user_id:08x}", "person"

    with (
        LabelStudioClient(address) as straight,
        failing(address.url, share=share, seed=seed) as (url, faults),
    ):
        ends: Counter[str] = Counter()

        def through(work: Callable[[LabelStudioClient], Answer]) -> Answer:
            with LabelStudioClient(Address(url, address.token)) as client:
                return again(lambda: work(client), ends)

        made = through(
            lambda client: projects.ensure_project(
                client, title=title, wanted_votes=votes, media_dir=media_dir
            )
        )
        through(lambda client: push(client, made.id, rows))
        tasks = [
            (task["id"], task["data"]["face_id"])
            for task in straight.tasks(made.id, include="id,data", task_only=True)
        ]
        raters = [
            users.add(straight, Home.at(media_dir.parent / "people"), f"r{seed}-{n}@example.org")
            for n in range(votes)
        ]
        for rater in raters:
            with LabelStudioClient(rater.address(address.url)) as voter:
                for task, _ in tasks:
                    body = {"result": result_of(["fear"])}
                    api(voter, "POST", f"/api/tasks/{task}/annotations/", body)
        held = TABLES["annotations"].empty()
        for _ in range(3):  # more pulls must add nothing
            known = held
            pulled = through(
                lambda client, known=known: pull(
                    client, made.id, known=known, rater_of=named, now=datetime.now(UTC)
                )
            )
            held = pl.concat([held, pulled.events])
        api(straight, "DELETE", f"/api/projects/{made.id}/")
    twice = sum(n - 1 for n in Counter(face for _, face in tasks).values())
    return {
        **_faults(faults), "commands given again": sum(ends.values()),
        "faces lost": faces - len({face for _, face in tasks}), "faces twice": twice,
        "votes lost": faces * votes - held.select("face_id", "rater_id").n_unique(),
        "votes twice": held.height - held.select("face_id", "rater_id").n_unique(),
    }  # fmt: skip


def at_once(*, runs: int, partitions: int) -> dict[str, Any]:
    """Ingest in several processes at once into one home and one table.

    There are ``runs`` processes and ``partitions`` batches.
    """
    import cv2
    import polars as pl

    from tests.media_files import pattern
    from warehouse.storage import tables
    from warehouse.storage.home import Home

    with tempfile.TemporaryDirectory() as name:
        home = Home.at(Path(name) / "home")
        for number in range(partitions):
            folder = home.inbox / f"b{number}"
            folder.mkdir(parents=True)
            for each in range(2):
                picture = pattern(number * 2 + each)
                picture[0, :2] = (number % 256, each, number // 256)
                cv2.imwrite(str(folder / f"{each}.png"), picture)
        workers = [
            subprocess.Popen(
                [*_PYTHON, str(home.root), str(run), str(runs), str(partitions)],
                stderr=subprocess.PIPE, text=True,
            )
            for run in range(runs)
        ]  # fmt: skip
        errors = [
            said for worker in workers if (said := worker.communicate()[1]) and worker.returncode
        ]
        videos = tables.read(home, "videos").group_by("batch").len()
        rows = tables.read(home, "tombstones")
        return {
            "runs": runs, "partitions": partitions, "errors": errors,
            "lost partitions": partitions - videos.height,
            "lost rows": 2 * partitions - int(videos["len"].sum()) + partitions - rows.height,
            "rows twice": rows.height - rows.select(pl.col("what").n_unique()).item(),
        }  # fmt: skip


_AT_ONCE = """
import sys
import polars as pl
from pipeline.ingest import register
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
home, run, runs, partitions = Home.at(sys.argv[1]), *map(int, sys.argv[2:])
table = TABLES["tombstones"]
for number in range(run, partitions, runs):
    register.register(home, f"b{number}", workers=1)
    row = dict.fromkeys(table.columns) | {"what": f"b{number}", "why": str(run)}
    tables.write(home, "tombstones", pl.DataFrame([row], schema=table.schema), part=f"b{number}")
"""

_PYTHON = [sys.executable, "-c", _AT_ONCE]


def again(work: Callable[[], Answer], ends: Counter[str]) -> Answer:
    """Repeat ``work`` while it ends with an error that asks for it."""
    from warehouse.errors import StudioError

    for _ in range(_TRIES):
        try:
            return work()
        except StudioError as error:
            ends[error.got] += 1
    raise AssertionError(f"no end after {_TRIES} tries: {ends.most_common(3)}")


@contextmanager
def variables(given: dict[str, str]) -> Iterator[None]:
    """The environment with these variables while the block runs."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _faults(faults: Faults) -> dict[str, Any]:
    return {"calls": faults.calls, "failed": faults.total, "by kind": asdict(faults)["failed"]}


def _rows(connection: Any, table: str) -> list[Any]:
    # Where a home lies is the one thing in which two of them may differ.
    query = f"SELECT * FROM {table} ORDER BY ALL"
    return connection.execute(query).fetchall()
