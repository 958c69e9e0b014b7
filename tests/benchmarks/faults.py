"""Measure how the pipeline survives faults.

Run ``python -m tests.benchmarks.faults``.

Kills at random moments, services that fail at times, many runs at once, damaged files and
answers, planted secrets. Counts are what was run, not what was hoped for. Writes
``results/faults.json`` and ``results/faults.md``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks import (
    faults_erasure,
    faults_fuzz,
    faults_inputs,
    faults_kill,
    faults_secrets,
    faults_services,
)
from warehouse.build_info import hardware, revision
from warehouse.storage import atomic

RESULTS = Path(__file__).parent / "results"
_ROUNDS = 8
_INPUTS = ("consents", "media", "layouts")
PARTS = (
    "kill", "at_once", "fuzz", "object_store", "label_studio", "secrets",
    "erasure", "erasure_beside", *_INPUTS,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--payloads", type=int, default=2000, help="media; as many of the others")
    parser.add_argument("--minutes", type=float, default=None, help="no new kill after so long")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument(
        "--add", action="store_true", help="kills are added to those counted at this commit"
    )
    options = parser.parse_args()
    path = RESULTS / "faults.json"
    for part in options.only:
        started = time.monotonic()
        found = RUN[part](options)
        # Read only now: parts may be run side by side.
        results = json.loads(path.read_text()) if path.exists() else {}
        before = results.get(part, {})
        if part == "kill" and options.add and _same_commit(before):
            found = _together(before["found"], found)
            started -= before["seconds"]
        results[part] = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": revision(), "hardware": hardware(),
            "seed": options.seed, "seconds": round(time.monotonic() - started, 1), "found": found,
        }  # fmt: skip
        RESULTS.mkdir(exist_ok=True)
        atomic.write_text(path, json.dumps(results, indent=1, sort_keys=True) + "\n")
        atomic.write_text(RESULTS / "faults.md", page(results))
        print(json.dumps({part: found}, indent=1), flush=True)


def _kill(options: argparse.Namespace) -> dict[str, Any]:
    # Everything a stage needs, so that a fork finds it imported.
    for module in (
        "annotation.audit",
        "pipeline.definitions",
        "annotation.label_studio.sync",
        "datasets",
    ):
        importlib.import_module(module)

    until = time.monotonic() + 60 * options.minutes if options.minutes else None
    done = faults_kill.run(options.kills, seed=options.seed, until=until)
    return {stage: asdict(killed) for stage, killed in done.items()}


def _erasure(options: argparse.Namespace) -> dict[str, Any]:
    until = time.monotonic() + 60 * options.minutes if options.minutes else None
    return faults_erasure.after_kills(options.kills, seed=options.seed, until=until)


def _erasure_beside(options: argparse.Namespace) -> dict[str, Any]:
    return faults_erasure.beside_ingest(20, seed=options.seed)


def _same_commit(before: dict[str, Any]) -> bool:
    # The results themselves are a change to the tree.
    now, then = (name.partition("+")[0] for name in (revision(), before.get("commit", "")))
    return now == then


def _together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Kills of two runs, of other seeds, counted as one."""
    return {
        stage: {name: one[stage][name] + value for name, value in row.items()}
        | {"clean_s": max(one[stage]["clean_s"], row["clean_s"])}
        for stage, row in other.items()
    }


def _at_once(options: argparse.Namespace) -> dict[str, Any]:
    return faults_services.at_once(runs=8, partitions=200)


def _fuzz(options: argparse.Namespace) -> dict[str, Any]:
    half = options.payloads // 2
    counts = {"media": options.payloads, "metadata": half, "annotations": options.payloads - half}
    return faults_fuzz.report(counts, seed=options.seed)


def _object_store(options: argparse.Namespace) -> dict[str, Any]:
    return faults_services.object_store(share=0.1, seed=options.seed)


def _label_studio(options: argparse.Namespace) -> dict[str, Any]:
    from annotation.label_studio import server

    with tempfile.TemporaryDirectory() as name:
        media = Path(name) / "media"
        address = server.up(Path(name) / "studio", media)
        try:
            rounds = [
                faults_services.label_studio(
                    address, media, share=0.2, faces=50, votes=2, seed=options.seed + number
                )
                for number in range(_ROUNDS)
            ]
        finally:
            server.down(Path(name) / "studio")
    kinds = {kind for one in rounds for kind in one["by kind"]}
    return {
        "rounds": _ROUNDS,
        "by kind": {kind: sum(one["by kind"].get(kind, 0) for one in rounds) for kind in kinds},
        **{what: sum(one[what] for one in rounds) for what in rounds[0] if what != "by kind"},
    }


def _secrets(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        return faults_secrets.search(Path(name))


RUN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "kill": _kill, "at_once": _at_once, "fuzz": _fuzz, "object_store": _object_store,
    "label_studio": _label_studio, "secrets": _secrets,
    "erasure": _erasure, "erasure_beside": _erasure_beside,
    "consents": lambda _: faults_inputs.consents(), "media": lambda _: faults_inputs.media(),
    "layouts": lambda _: faults_inputs.layouts(),
}  # fmt: skip


def page(results: dict[str, Any]) -> str:
    """The table of results, one row per fault; what was not run yet says so."""
    lines = [
        "# Faults", "",
        "Written by `python -m tests.benchmarks.faults`; details in `faults.json`.", "",
        "| fault | target | result | run |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for part, (fault, target, tell) in _ROWS.items():
        if part not in results:
            lines.append(f"| {fault} | {target} | not run | |")
            continue
        one = results[part]
        run = f"{one['date']}, {one['commit']}, {one['hardware']}, {one['seconds']:.0f} s"
        lines.append(f"| {fault} | {target} | {tell(one['found'])} | {run} |")
    lines += ["", *_kills(results.get("kill")), *_verdicts(results.get("fuzz"))]
    lines += _wrong({part: results[part]["found"] for part in _INPUTS if part in results})
    return "\n".join(lines) + "\n"


def _tell_kill(found: dict[str, Any]) -> str:
    same, trials = (sum(stage[name] for stage in found.values()) for name in ("same", "trials"))
    late = sum(stage["late"] for stage in found.values())
    return f"{same} of {trials} ({late} of the kills came after the stage had ended)"


def _tell_fuzz(found: dict[str, Any]) -> str:
    return "; ".join(
        f"{kind}: {one['payloads']} payloads, {len(one['crashes'])} crashes, "
        f"{len(one['hangs'])} hangs"
        for kind, one in found.items()
    )


def _tell_at_once(found: dict[str, Any]) -> str:
    return (
        f"{found['runs']} runs, {found['partitions']} partitions: {found['lost partitions']} "
        f"lost, {found['lost rows']} rows lost, {found['rows twice']} twice, "
        f"{len(found['errors'])} errors"
    )


def _tell_object_store(found: dict[str, Any]) -> str:
    same = "the same" if found["release identical"] else "ANOTHER"
    return (
        f"{found['failed']} of {found['calls']} calls failed; {found['lost']} tables differ, "
        f"{same} release as in a local home"
    )


def _tell_label_studio(found: dict[str, Any]) -> str:
    return (
        f"{found['failed']} of {found['calls']} calls failed, commands given again "
        f"{found['commands given again']} times; faces lost {found['faces lost']}, twice "
        f"{found['faces twice']}; votes lost {found['votes lost']}, twice {found['votes twice']}"
    )


def _tell_secrets(found: dict[str, Any]) -> str:
    return (
        f"{len(found['found'])} found of {found['secrets planted']} planted, in the output of "
        f"{found['commands']} commands and in {found['files searched']} files"
    )


def _tell_inputs(found: dict[str, Any]) -> str:
    return f"{found['right']} of {found['cases']}"


def _tell_erasure(found: dict[str, Any]) -> str:
    stages = found["stages"].values()
    trials, late, left, ids, incomplete = (
        sum(stage[name] for stage in stages)
        for name in ("trials", "late", "left", "ids", "incomplete")
    )
    return (
        f"{left} pictures left after {trials} kills ({late} of them after the stage had ended); "
        f"{ids} files with an id, {incomplete} erasures incomplete"
    )


def _tell_beside(found: dict[str, Any]) -> str:
    whole = found["trials"] - found["incomplete"]
    return (
        f"{whole} of {found['trials']} complete, {found['left']} pictures and {found['ids']} files "
        f"with an id left ({found['late']} erasures came after the ingest)"
    )


_ROWS: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    "kill": ("kill -9 at random moments of ingest, push, pull, audit, release",
             "the end state of a clean run, 200 of 200", _tell_kill),
    "at_once": ("8 runs at once on one home, 200 partitions", "no lost write", _tell_at_once),
    "fuzz": ("damaged media, metadata and annotation payloads",
             "2,000 and 2,000: no crash, no hang, a verdict each", _tell_fuzz),
    "object_store": ("an object store that fails 10 % of the calls",
                     "completes, nothing lost", _tell_object_store),
    "label_studio": ("a Label Studio that fails 20 % of the calls",
                     "completes, nothing lost", _tell_label_studio),
    "secrets": ("planted secrets in any output", "0", _tell_secrets),
    "consents": ("wordings of consent", "40 of 40 read as meant; none unread goes out",
                 _tell_inputs),
    "media": ("containers and stills", "30 of 30: right times, size, direction, or a clear refusal",
              _tell_inputs),
    "layouts": ("layouts of metadata", "25 of 25 read, or refused in a sentence", _tell_inputs),
    "erasure": ("a subject erased after kill -9 at random moments of ingest, pull, synth, release",
                "0 of their pictures left, by bytes and by pixels, after 200 kills",
                _tell_erasure),
    "erasure_beside": ("a subject erased beside a running ingest", "20 of 20, nothing left",
                       _tell_beside),
}  # fmt: skip


def _kills(one: dict[str, Any] | None) -> list[str]:
    if one is None:
        return []
    lines = ["## Kills by stage", "", "| stage | clean run, s | trials | same end | late |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for stage, killed in one["found"].items():
        lines.append(
            f"| {stage} | {killed['clean_s']} | {killed['trials']} | {killed['same']} "
            f"| {killed['late']} |"
        )
    differ = [line for killed in one["found"].values() for line in killed["differ"]]
    return [*lines, "", *(f"- {line}" for line in differ), ""]


def _verdicts(one: dict[str, Any] | None) -> list[str]:
    if one is None:
        return []
    lines = ["## Verdicts on damaged payloads", "", "| kind | verdict | payloads |",
             "| --- | --- | --- |"]  # fmt: skip
    for kind, found in one["found"].items():
        lines += [f"| {kind} | {verdict} | {n} |" for verdict, n in found["verdicts"].items()]
    broken = [each for found in one["found"].values() for each in found["crashes"] + found["hangs"]]
    return [*lines, "", *(f"- {each}" for each in broken)]


def _wrong(found: dict[str, dict[str, Any]]) -> list[str]:
    rows = [
        f"| {part} | {name} | {one['expected']} | {one['got']} |"
        for part, each in found.items()
        for name, one in each["wrong"].items()
    ]
    head = ["", "## Inputs that came out otherwise", "", "| kind | input | right | got |",
            "| --- | --- | --- | --- |"]  # fmt: skip
    return [*head, *rows] if rows else []


if __name__ == "__main__":
    main()
