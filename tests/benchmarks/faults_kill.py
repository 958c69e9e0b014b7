"""Kill each stage at a random time, run it again, compare the result.

Every trial works on a copy of the home as the stage found it. Stages run in forked children of a
process that has imported everything, so that a moment falls into the stage and not into imports.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STAGES = ("ingest", "push", "pull", "audit", "release")
BATCH = "day"
VOTERS = 3


@dataclass
class Killed:
    """What became of the trials of one stage.

    Attributes:
        clean_s: seconds of a run without a kill; kill times are drawn from it.
        same: trials that ended like the clean run; ``differ`` says of the others how.
        late: kills that came after the stage had ended; they count as trials, because so it goes.
    """

    clean_s: float = 0.0
    trials: int = 0
    same: int = 0
    late: int = 0
    differ: list[str] = field(default_factory=list)


def run(trials: int, *, seed: int, until: float | None = None) -> dict[str, Killed]:
    """Run ``trials`` kills, spread over the stages.

    No new kill starts after ``until`` (monotonic seconds).
    """
    from annotation.label_studio import server
    from warehouse.storage.home import Home

    chance = random.Random(seed)
    results = {stage: Killed() for stage in STAGES}
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        homes = base / "homes"
        homes.mkdir()
        address = server.up(base / "studio", homes)
        for key, value in _environment(address.url, address.token).items():
            os.environ[key] = value
        try:
            before = _clean(Home.at(homes / "clean"), results, base=base)
            for number in range(trials):
                if until is not None and time.monotonic() > until:
                    break
                stage = STAGES[number % len(STAGES)]
                _trial(stage, results[stage], number, before=before, homes=homes, chance=chance)
        finally:
            server.down(base / "studio")
    return results


def _environment(url: str, token: str) -> dict[str, str]:
    return {
        "LABEL_STUDIO_URL": url,
        "LABEL_STUDIO_API_KEY": token,
        "RISORIUS_WORKERS": "1",
        "RISORIUS_WANTED_VOTES": str(VOTERS),
        "RISORIUS_SYNTH_FACES": "0",
        "RISORIUS_PROJECT": "clean",
    }


def _clean(home: Any, results: dict[str, Killed], *, base: Path) -> dict[str, tuple[Path, Any]]:
    """Run every stage once; save the home before and the state after it."""
    in_child(_enlist, home)
    found = {}
    for stage in STAGES:
        before = base / f"before-{stage}"
        shutil.copytree(home.root, before)
        started = time.monotonic()
        in_child(STAGE[stage], home)
        results[stage].clean_s = round(time.monotonic() - started, 2)
        if stage == "push":
            in_child(_vote, home)
        found[stage] = (before, in_child(_state, home, stage))
    return found


def _trial(
    stage: str,
    killed: Killed,
    number: int,
    *,
    before: dict[str, tuple[Path, Any]],
    homes: Path,
    chance: random.Random,
) -> None:
    from warehouse.storage.home import Home

    source, wanted = before[stage]
    home = Home.at(homes / f"trial-{number}")
    shutil.copytree(source, home.root)
    # The server outlives the trial: a push gets a project of its own, a pull the one with votes.
    os.environ["RISORIUS_PROJECT"] = f"trial-{number}" if stage == "push" else "clean"
    moment = chance.uniform(0, killed.clean_s)
    try:
        died = in_child(STAGE[stage], home, kill_after=moment) is KILLED
        in_child(STAGE[stage], home)
        got = in_child(_state, home, stage)
    except RuntimeError as error:
        died, got = True, str(error)
    killed.trials += 1
    killed.late += not died
    if got == wanted:
        killed.same += 1
    else:
        killed.differ.append(f"trial {number} at {moment:.2f} s: {_difference(wanted, got)}")
    shutil.rmtree(home.root)


KILLED = object()


def in_child(work: Callable[..., Any], *given: Any, kill_after: float | None = None) -> Any:
    """Return what ``work`` returned in a forked process, or KILLED.

    The process has a process group of its own.

    Raises:
        RuntimeError: it failed; with the end of its traceback.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_child(work, given, writer)
    os.close(writer)
    killed = False
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            time.sleep(0.01)
        with_group = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        if with_group:
            os.killpg(pid, signal.SIGKILL)
            killed = True
    with open(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if killed:
        return KILLED
    answer = json.loads(said or b'{"error": "ended without a word"}')
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["value"]


def _be_child(work: Callable[..., Any], given: tuple[Any, ...], writer: int) -> None:
    os.setsid()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        said = {"value": work(*given)}
    except BaseException:
        said = {"error": traceback.format_exc()[-1500:]}
    with open(writer, "w") as pipe:
        json.dump(said, pipe, default=str)
    os._exit(0)


def _enlist(home: Any) -> None:
    """Write pictures of six people, each varied, and two unusable files."""
    import cv2

    from tests.media_files import SIX_PEOPLE
    from warehouse.storage import atomic

    # Beside the homes: what a file is called in the tables must not depend on the trial.
    folder = home.root.parent.parent / "films"
    folder.mkdir()
    whole = cv2.imread(str(SIX_PEOPLE))
    for name, image in (("plain", whole), ("mirrored", whole[:, ::-1]), ("dark", whole // 2)):
        cv2.imwrite(str(folder / f"{name}.jpg"), image)
    (folder / "text.mp4").write_text("no video\n" * 40)
    (folder / "empty.mp4").touch()
    lines = [json.dumps({"uri": str(path)}) + "\n" for path in sorted(folder.iterdir())]
    atomic.write_text(home.inbox / BATCH / "sources.jsonl", "".join(lines))


def _ingest(home: Any) -> None:
    from pipeline import runs

    _at(home)
    runs.add_batch(home, BATCH)
    runs.materialize(home, "ingest", batch=BATCH)


def _push(home: Any) -> None:
    from pipeline import runs

    _at(home)
    runs.materialize(home, "label_push")


def _vote(home: Any) -> None:
    from annotation.raters import simulated
    from pipeline import settings

    _at(home)
    simulated.vote_on_project(settings.load().label_studio, n_raters=VOTERS)


def _pull(home: Any) -> None:
    from pipeline import runs

    _at(home)
    runs.materialize(home, "label_pull")
    runs.materialize(home, "label_requeue")


def _audit(home: Any) -> None:
    from pipeline import runs

    _at(home)
    runs.materialize(home, "audit")


def _release(home: Any) -> None:
    from pipeline import runs

    _at(home)
    runs.materialize(home, "release_create")


STAGE: dict[str, Callable[[Any], None]] = {
    "ingest": _ingest, "push": _push, "pull": _pull, "audit": _audit, "release": _release,
}  # fmt: skip


def _at(home: Any) -> None:
    os.environ["RISORIUS_HOME"] = str(home.root)


def _state(home: Any, stage: str) -> Any:
    """Return the state of the home, after a push also its tasks by face."""
    from tests.end_to_end.state import end_state

    state = end_state(home.root)
    # A killed run leaves drafts to the next run that finds it dead.
    from pipeline.dagster_instance.instance import open_instance

    _at(home)
    open_instance(home)
    state["drafts"] = [str(path.name) for path in home.root.rglob(".draft-*")]
    state["checksums"] = _checksums(home)
    if stage == "push":
        from annotation.label_studio import sync
        from pipeline import settings

        workspace = settings.load().label_studio
        with workspace.connect() as client:
            tasks: Counter[str] = Counter()
            for project in sync.all_projects(workspace, client):
                for task in client.tasks(project.id, include="id,data", task_only=True):
                    tasks[task["data"]["face_id"]] += 1
        state["tasks"] = sorted(tasks.items())
    return json.loads(json.dumps(state, default=str))


def _checksums(home: Any) -> dict[str, Any]:
    """Return checksums of every file of every release.

    The card gives the build date by day alone.
    """
    return {
        str(path.relative_to(home.root)): json.loads(path.read_text())["files"]
        for path in sorted(home.releases.rglob("manifest.json"))
    }


def _difference(wanted: Any, got: Any) -> str:
    if not isinstance(got, dict):
        return str(got)[-600:]
    return "; ".join(
        f"{name}: {str(wanted.get(name))[:150]} became {str(got.get(name))[:150]}"
        for name in wanted.keys() | got.keys()
        if wanted.get(name) != got.get(name)
    )
