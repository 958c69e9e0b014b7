"""The faults of ``tests.benchmarks.faults``, fewer of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import faults_fuzz, faults_payloads, faults_secrets, faults_services


@pytest.mark.parametrize(
    ("kind", "count"), [("metadata", 200), ("annotations", 120), ("media", 48)]
)
def test_damaged_payloads_end_as_verdicts(kind: str, count: int) -> None:
    found = faults_fuzz.fuzz(kind, count, seed=1)
    assert (found.crashes, found.hangs) == ([], [])
    assert found.count == count
    if kind != "annotations":  # of these every one is an event
        assert len(found.verdicts) > 1, found.verdicts


@pytest.mark.parametrize("words", [["metadata"], ["annotations"], ["media"]])
def test_the_same_seed_damages_the_same_bytes(words: list[str], tmp_path: Path) -> None:
    first, again, other = (
        [data for _, data in faults_payloads.payloads(words[0], 12, seed=seed, folder=tmp_path)]
        for seed in (1, 1, 2)
    )
    if words != ["media"]:  # encoders put times into what they write
        assert first == again
    assert first != other


def test_runs_at_once_on_one_home_lose_no_write() -> None:
    told = faults_services.at_once(runs=4, partitions=16)
    assert told["errors"] == []
    assert (told["lost partitions"], told["lost rows"], told["rows twice"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_store_that_fails_one_call_in_ten_gives_the_same_release() -> None:
    told = faults_services.object_store(share=0.1, seed=2)
    assert told["failed"] > 5, told
    assert told["lost"] == 0
    assert told["release identical"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_planted_secrets_are_found_in_no_output_and_no_file(tmp_path: Path) -> None:
    told = faults_secrets.search(tmp_path)
    assert told["exit codes"] == faults_secrets.EXPECTED
    assert told["files searched"] > 50
    assert told["found"] == []


_KILL = """
import importlib, json, sys
from dataclasses import asdict
from tests.benchmarks import faults_kill
modules = "annotation.audit", "pipeline.definitions", "annotation.label_studio.sync", "datasets"
for module in modules:
    importlib.import_module(module)
told = faults_kill.run(5, seed=int(sys.argv[1]))
print(json.dumps({stage: asdict(killed) for stage, killed in told.items()}))
"""


@pytest.mark.slow
@pytest.mark.studio
@pytest.mark.timeout(900)
def test_a_kill_in_each_stage_and_one_more_run_end_like_a_clean_run() -> None:
    # In a process of its own: what forks must hold no thread of pytest's.
    done = subprocess.run(
        [sys.executable, "-c", _KILL, "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert {stage: killed["differ"] for stage, killed in told.items()} == {
        stage: [] for stage in told
    }
    assert sum(killed["same"] for killed in told.values()) == 5
