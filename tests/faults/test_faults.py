"""The faults of ``tests.benchmarks.faults``, fewer of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import (
    faults_erasure,
    faults_fuzz,
    faults_payloads,
    faults_secrets,
    faults_services,
)
from tests.warehouse.people_home import PER_TRACK, people_home, video_id
from warehouse.privacy import erase
from warehouse.storage import media, tables
from warehouse.storage.home import Home


@pytest.mark.parametrize(
    ("kind", "count"), [("metadata", 200), ("annotations", 120), ("media", 48)]
)
def test_fuzz__payloads_end_as_verdicts(kind: str, count: int) -> None:
    found = faults_fuzz.fuzz(kind, count, seed=1)
    assert (found.crashes, found.hangs) == ([], [])
    assert found.count == count
    if kind != "annotations":  # of these every one is an event
        assert len(found.verdicts) > 1, found.verdicts


@pytest.mark.parametrize("words", [["metadata"], ["annotations"], ["media"]])
def test_payloads__deterministic_by_seed(words: list[str], tmp_path: Path) -> None:
    first, again, other = (
        [data for _, data in faults_payloads.payloads(words[0], 12, seed=seed, folder=tmp_path)]
        for seed in (1, 1, 2)
    )
    if words != ["media"]:  # encoders put times into what they write
        assert first == again
    assert first != other


def test_at_once__loses_no_write() -> None:
    results = faults_services.at_once(runs=4, partitions=16)
    assert results["errors"] == []
    assert (results["lost partitions"], results["lost rows"], results["rows twice"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_object_store__one_call_in_ten_fails() -> None:
    results = faults_services.object_store(share=0.1, seed=2)
    assert results["failed"] > 5, results
    assert results["lost"] == 0
    assert results["release identical"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_secrets__in_no_output_or_file(tmp_path: Path) -> None:
    results = faults_secrets.search(tmp_path)
    assert results["exit codes"] == faults_secrets.EXPECTED
    assert results["files searched"] > 50
    assert results["found"] == []


_KILL = """
import importlib, json, sys
from dataclasses import asdict
from tests.benchmarks import faults_kill
modules = "annotation.audit", "pipeline.definitions", "annotation.label_studio.sync", "datasets"
for module in modules:
    importlib.import_module(module)
results = faults_kill.run(5, seed=int(sys.argv[1]))
print(json.dumps({stage: asdict(killed) for stage, killed in results.items()}))
"""


@pytest.mark.slow
@pytest.mark.studio
@pytest.mark.timeout(900)
def test_kill__rerun_equals_a_clean_run() -> None:
    # In a process of its own: what forks must hold no thread of pytest's.
    done = subprocess.run(
        [sys.executable, "-c", _KILL, "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert {stage: killed["differ"] for stage, killed in results.items()} == {
        stage: [] for stage in results
    }
    assert sum(killed["same"] for killed in results.values()) == 5


def texture(seed: int) -> np.ndarray:
    """Return random blocks; drawn faces have nearly equal pixels."""
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def test_search_of_erasures__finds_bytes_and_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.warehouse.people_home.drawn_face", texture)
    home = people_home(Home.at(tmp_path / "home"))
    known, nearest = faults_erasure.learn(home, ("bob",))
    assert nearest < faults_erasure.ALIKE
    found, ids = faults_erasure.search(home.root, known["bob"])
    assert len(found) > 2 * PER_TRACK
    assert ids
    crop = media.load(
        home, tables.read(home, "faces").filter(video_id=video_id("bob-d"))["crop"][0]
    )
    erase.forget(home, "subject", "bob")
    assert faults_erasure.search(home.root, known["bob"]) == ([], [])
    (home.root / "left").write_bytes(media.encode(crop[::2, ::2], ".jpg"))
    assert faults_erasure.search(home.root, known["bob"]) == (["left: pixels"], [])
