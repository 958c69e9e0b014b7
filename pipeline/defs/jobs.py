"""Jobs, named after the commands that run them; the UI can start them too."""

from typing import Any

import dagster as dg


def _job(name: str, description: str, *assets: str) -> Any:
    return dg.define_asset_job(name, dg.AssetSelection.assets(*assets), description=description)


ingest = _job(
    "ingest",
    "Find and rate the faces of a batch.",
    "raw_videos",
    "faces",
    "ratings",
    "clips",
    "segments",
    "sensors",
)
import_labels = _job(
    "import_labels",
    "Turn stored votes into soft labels without a server, for `risorius import`.",
    "identities",
    "near_duplicates",
    "soft_labels",
)
label_push = _job(
    "label_push",
    "Queue rated faces and create their Label Studio tasks.",
    "identities",
    "near_duplicates",
    "label_queue",
    "studio_tasks",
)
label_pull = _job("label_pull", "Pull votes and make soft labels.", "annotations", "soft_labels")
label_requeue = _job(
    "label_requeue", "Update the queue after a pull: faces with enough votes leave.", "label_queue"
)
audit = _job(
    "audit",
    "Run the audits and curate faces.",
    "label_noise",
    "open_set",
    "rater_drift",
    "near_duplicates",
    "curated_faces",
)
synth = _job(
    "synth",
    "Generate faces for coverage gaps.",
    "coverage_gaps",
    "synthetic_faces",
    "synthetic_labels",
)
release_create = _job("release_create", "Write a release version if anything changed.", "release")
