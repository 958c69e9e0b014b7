"""The jobs the command line runs; a person can launch them from the UI as well."""

import dagster as dg

INGEST = dg.AssetSelection.assets("raw_videos", "faces", "ratings", "clips")
QUEUE = dg.AssetSelection.assets("identities", "near_duplicates", "label_queue", "studio_tasks")
REQUEUE = dg.AssetSelection.assets("label_queue")
BELIEVE = dg.AssetSelection.assets("annotations", "soft_labels")
AUDIT = dg.AssetSelection.assets(
    "label_noise", "open_set", "rater_drift", "near_duplicates", "curated_faces"
)
SYNTHESIS = dg.AssetSelection.assets("coverage_gaps", "synthetic_faces", "synthetic_labels")
RELEASE = dg.AssetSelection.assets("release")

ingest = dg.define_asset_job("ingest", INGEST, description="Videos of a batch into rated faces.")
queue = dg.define_asset_job("queue", QUEUE, description="Rated faces into Label Studio tasks.")
requeue = dg.define_asset_job("requeue", REQUEUE, description="What people still owe.")
believe = dg.define_asset_job("believe", BELIEVE, description="Votes into soft labels.")
audit = dg.define_asset_job("audit", AUDIT, description="What not to trust, and what is curated.")
synthesize = dg.define_asset_job(
    "synthesize", SYNTHESIS, description="Faces made for what the curated ones lack."
)
cut_release = dg.define_asset_job(
    "cut_release", RELEASE, description="A new version, if anything is new."
)
