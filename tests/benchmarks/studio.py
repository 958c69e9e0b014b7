"""Measure how fast faces are pushed to Label Studio and votes pulled.

Run ``python -m tests.benchmarks.studio``.

A real server of its own on this machine, over SQLite. The rival is the vendor's SDK with one call
per task, in the same run, on a sample; speeds are given as ratios. Writes ``results/studio.json``
and ``results/studio.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from annotation.label_studio import event_log, installation, projects, server, users
from annotation.label_studio.answers import result_of
from annotation.label_studio.client import Address, LabelStudioClient
from tests.annotation.label_studio.conftest import api, pull, push
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

RESULTS = Path(__file__).parent / "results"
VOTES = 5
NEW = 50
SAMPLE = 100

WANTED = {
    "push_ratio": ("push: times faster than one SDK call per task", ">=", 10.0),
    "pull_ratio": ("pull: times faster than one SDK call per task", ">=", 10.0),
    "own_s": (f"incremental pull of {NEW} new votes: own seconds beyond the server's", "<=", 2.0),
}


def named(user_id: int, email: str) -> tuple[str, str]:
    return f"person-{user_id:08x}", "person"


def faces_of(count: int) -> pl.DataFrame:
    names = [f"bench-0000-{number}" for number in range(count)]
    shown = {"crop": "crops/aa/x.png", "context": "contexts/aa/x.jpg", "reason": "coverage"}
    return pl.DataFrame({"face_id": names}).with_columns(
        pl.lit(value).alias(name) for name, value in shown.items()
    )


def voted_project(client: LabelStudioClient, home: Home, count: int, raters: list[int]) -> int:
    """Create a project of ``count`` tasks, each with a vote of each rater.

    Tasks are imported with their votes.
    """
    made = projects.ensure_project(
        client, title=f"votes {count}", wanted_votes=VOTES, media_dir=home.media
    )
    names = faces_of(count)["face_id"].to_list()
    for start in range(0, count, 250):
        tasks = [
            {
                "data": {"face_id": name, "crop": "", "context": "", "reason": ""},
                "annotations": [
                    {
                        "completed_by": rater, "ground_truth": False, "lead_time": 3.0,
                        "result": result_of([EXPRESSIONS[(len(name) + number) % 8]]),
                    }
                    for number, rater in enumerate(raters)
                ],
            }
            for name in names[start : start + 250]
        ]  # fmt: skip
        api(client, "POST", f"/api/projects/{made.id}/import?commit_to_project=true", tasks)
    return made.id


def make_old(home: Home) -> None:
    """Spread the times of votes over a day that ended a day ago.

    A pull reads the minute before the newest known vote again, and an import stamps all votes
    within that minute.
    """
    with (
        closing(sqlite3.connect(home.studio / "data" / installation.DATABASE)) as connection,
        connection,
    ):
        for table, task in (("task", "id"), ("task_completion", "task_id")):
            age = f"'-' || (86400 + {task} * 9973 % 80000) || ' seconds'"
            for column in ("updated_at", "created_at"):
                connection.execute(f"UPDATE {table} SET {column} = datetime({column}, {age})")
        connection.execute("UPDATE project SET created_at = datetime(created_at, '-3 days')")


class Timed(LabelStudioClient):
    """A client that adds up the seconds it waits for the server."""

    waited = 0.0

    def _get(self, path: str, **params: Any) -> Any:
        start = time.perf_counter()
        try:
            return super()._get(path, **params)
        finally:
            self.waited += time.perf_counter() - start


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = call()
    return time.perf_counter() - start, made


def pushing(
    client: LabelStudioClient, home: Home, address: Address, count: int
) -> dict[str, float]:
    from label_studio_sdk import LabelStudio

    ours = projects.ensure_project(client, title="push", wanted_votes=VOTES, media_dir=home.media)
    theirs = projects.ensure_project(
        client, title="rival", wanted_votes=VOTES, media_dir=home.media
    )
    took, pushed = seconds(lambda: push(client, ours.id, faces_of(count)))
    assert pushed.new == count
    again, pushed = seconds(lambda: push(client, ours.id, faces_of(count)))
    assert pushed.new == 0
    sdk = LabelStudio(base_url=address.url, api_key=address.token)
    rows = faces_of(min(SAMPLE, count)).to_dicts()
    slow, _ = seconds(lambda: [sdk.tasks.create(project=theirs.id, data=row) for row in rows])
    return {
        "push_s": took, "push_again_s": again, "push_per_s": count / took,
        "sdk_push_per_s": len(rows) / slow, "push_ratio": count / took * slow / len(rows),
    }  # fmt: skip


def pulling(
    client: LabelStudioClient, home: Home, address: Address, count: int, voters: list[Any]
) -> dict[str, float]:
    from label_studio_sdk import LabelStudio

    number = voted_project(client, home, count, [person.user_id for person in voters])
    make_old(home)
    none = TABLES["annotations"].empty()
    given = {"rater_of": named, "now": datetime.now(UTC)}
    took, pulled = seconds(lambda: pull(client, number, known=none, **given))
    assert pulled.complete
    assert pulled.events.height == count * VOTES
    sdk = LabelStudio(base_url=address.url, api_key=address.token)
    ids = [task["id"] for task in client.tasks(number, include="id", task_only=True)]
    sample = ids[:: max(1, len(ids) // SAMPLE)][:SAMPLE]
    slow, _ = seconds(lambda: [sdk.annotations.list(id=task) for task in sample])
    with LabelStudioClient(voters[0].address(address.url)) as late:
        for task in ids[:NEW]:
            api(late, "POST", f"/api/tasks/{task}/annotations/", {"result": result_of(["fear"])})
    with Timed(address) as timed:
        more, new = seconds(lambda: pull(timed, number, known=pulled.events, **given))
    assert new.complete
    assert new.events.height == NEW
    return {
        "pull_s": took, "pull_per_s": count / took, "sdk_pull_per_s": len(sample) / slow,
        "pull_ratio": count / took * slow / len(sample), "incremental_s": more,
        "server_s": timed.waited, "own_s": more - timed.waited,
    }  # fmt: skip


_CHILD = """
import sys
from tests.benchmarks import studio
print(studio.peak_of(*sys.argv[1:]))
"""


def peak_of(what: str, url: str, token: str, number: str, count: str) -> float:
    """Return peak resident megabytes of a push, a pull, or a sign-in.

    Each runs in a process of its own.
    """
    with LabelStudioClient(Address(url=url, token=token)) as client:
        if what == "push":
            push(client, int(number), faces_of(int(count)))
        elif what == "pull":
            pull_into_table(client, int(number))
        else:
            client.sdk.users.whoami()
    # Not ru_maxrss: a child begins with the peak of the process that made it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def pull_into_table(client: LabelStudioClient, number: int) -> None:
    """Pull for the first time as the pipeline does.

    Events are written to the table while they are read.
    """
    with tempfile.TemporaryDirectory() as folder:
        home, parts = Home.at(Path(folder) / "home"), itertools.count()

        def append(events: pl.DataFrame) -> None:
            tables.write(home, "annotations", events, part=f"part-{next(parts)}")

        found = event_log.pull(
            client, number, known=partial(tables.scan, home, "annotations"), append=append,
            rater_of=named, now=datetime.now(UTC),
        )  # fmt: skip
        assert found.complete


def memory(
    client: LabelStudioClient, home: Home, address: Address, sizes: list[int], voters: list[Any]
) -> Any:
    def child(what: str, number: int, count: int) -> float:
        words = [what, address.url, address.token, str(number), str(count)]
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *words],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        return float(done.stdout)

    found = []
    for size in sizes:
        empty = projects.ensure_project(
            client, title=f"memory {size}", wanted_votes=VOTES, media_dir=home.media
        )
        voted = voted_project(client, home, size, [person.user_id for person in voters])
        found.append(
            {
                "faces": size,
                "idle_mb": child("idle", 0, 0),
                "push_mb": child("push", empty.id, size),
                "pull_mb": child("pull", voted, size),
            }
        )
    return found


def measured(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(Path(folder) / "home")
        address = server.up(
            home.studio, home.media, progress=lambda line: print(line, file=sys.stderr)
        )
        try:
            with LabelStudioClient(address) as client:
                voters = [
                    users.add(client, home, f"voter-{number}@example.org")
                    for number in range(VOTES)
                ]
                return {
                    "date": time.strftime("%Y-%m-%d", time.gmtime()),
                    "commit": revision(),
                    "hardware": hardware(),
                    "faces": count,
                    **pushing(client, home, address, count),
                    **pulling(client, home, address, count, voters),
                    "memory": memory(
                        client, home, address, [max(10, count // 5), max(20, count // 2)], voters
                    ),
                }
        finally:
            server.down(home.studio)


def page(result: dict[str, Any]) -> str:
    lines = [
        "# Label Studio: faces there, votes back",
        "",
        f"{result['date']}, commit {result['commit']}, {result['hardware']}, other work running. "
        f"{result['faces']} faces, {VOTES} votes each; Label Studio on the same machine over "
        f"SQLite. All {result['faces'] * VOTES} annotations lie in one project. "
        f"The SDK is measured on {SAMPLE} tasks of the same server in the same run.",
        "",
        "| figure | value | wanted | met |",
        "|---|---|---|---|",
    ]
    for key, (title, sense, bound) in WANTED.items():
        met = result[key] >= bound if sense == ">=" else result[key] <= bound
        sign = "≥" if sense == ">=" else "≤"
        lines.append(
            f"| {title} | {result[key]:.2f} | {sign} {bound:g} | {'yes' if met else '**no**'} |"
        )
    lines += [
        "",
        "| step | seconds | tasks per second | SDK, tasks per second |",
        "|---|---|---|---|",
        f"| push | {result['push_s']:.1f} | {result['push_per_s']:.0f} "
        f"| {result['sdk_push_per_s']:.1f} |",
        f"| push again, nothing new | {result['push_again_s']:.1f} | | |",
        f"| pull everything | {result['pull_s']:.1f} | {result['pull_per_s']:.0f} "
        f"| {result['sdk_pull_per_s']:.1f} |",
        f"| pull {NEW} new votes of {result['faces'] * VOTES} | {result['incremental_s']:.1f} "
        f"(server {result['server_s']:.1f}) | | |",
        "",
        f"Peak memory of a process that does only that, with {VOTES} votes a face; the pull writes "
        "its events to the table:",
        "",
        "| faces | idle, MB | push, MB | pull, MB |",
        "|---|---|---|---|",
    ]
    for row in result["memory"]:
        lines.append(
            f"| {row['faces']} | {row['idle_mb']:.0f} | {row['push_mb']:.0f} "
            f"| {row['pull_mb']:.0f} |"
        )
    small, big = result["memory"][0], result["memory"][-1]
    votes = (big["faces"] - small["faces"]) * VOTES
    grown = 1024 * (big["pull_mb"] - small["pull_mb"]) / votes
    lines += ["", f"Between the two sizes the pull grows by {grown:.1f} kB a vote."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.studio", description=__doc__)
    parser.add_argument("--faces", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    result = measured(options.faces)
    atomic.write_text(options.out / "studio.json", json.dumps(result, indent=1) + "\n")
    text = page(result)
    atomic.write_text(options.out / "studio.md", text)
    print(text)


if __name__ == "__main__":
    main()
