"""The asset graph, listed so that review shows its changes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

EDGES = {
    "raw_videos": set(),
    "faces": {"raw_videos"},
    "ratings": {"faces"},
    "clips": {"ratings"},
    "segments": {"faces"},
    "sensors": {"segments"},
    "identities": {"ratings"},
    "near_duplicates": {"ratings"},
    "label_queue": {"identities", "near_duplicates"},
    "studio_tasks": {"label_queue"},
    "annotations": {"studio_tasks"},
    "soft_labels": {"annotations"},
    "label_noise": {"soft_labels"},
    "open_set": {"soft_labels"},
    "rater_drift": {"soft_labels"},
    "curated_faces": {"label_noise", "open_set", "near_duplicates", "rater_drift"},
    "coverage_gaps": {"curated_faces"},
    "synthetic_faces": {"coverage_gaps"},
    "synthetic_labels": {"synthetic_faces"},
    "release": {"curated_faces", "synthetic_labels", "clips"},
}
BY_BATCH = {"raw_videos", "faces", "ratings", "clips", "segments", "sensors"}
CHECKS = {
    "raw_videos:videos_add_up",
    "faces:faces_add_up",
    "ratings:ratings_are_distributions",
    "clips:clips_add_up",
    "segments:segments_add_up",
    "annotations:no_vote_lost",
    "annotations:votes_are_their_raters_own",
    "soft_labels:soft_labels_sum_to_one",
    "curated_faces:curated_faces_are_whole",
    "synthetic_faces:synthetic_faces_stand_once",
    "synthetic_labels:every_synthetic_face_has_an_action",
    "synthetic_labels:synthetic_labels_are_distributions",
    "release:release_is_sound",
    "release:release_terms_allow_its_use",
}


@pytest.fixture(scope="module")
def graph():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pipeline.definitions import defs

        return defs.resolve_asset_graph()


def test_definitions__assets_and_edges(graph) -> None:
    found = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert found == EDGES


def test_definitions__partitions(graph) -> None:
    found = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if graph.get(key).partitions_def is not None
    }
    assert found == BY_BATCH
    assert {graph.get(key).partitions_def.name for key in graph.get_all_asset_keys()
            if graph.get(key).partitions_def} == {"batches"}  # fmt: skip


def test_definitions__blocking_checks(graph) -> None:
    assert {
        f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys
    } == CHECKS
    assert all(graph.get(key).blocking for key in graph.asset_check_keys)


def test_definitions__asset_metadata(graph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert "One " in node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.group_name in {
            "ingest", "rating", "annotation", "audit", "synthesis", "release",
        }, key  # fmt: skip


def test_definitions__valid(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not match" not in done.stdout + done.stderr
