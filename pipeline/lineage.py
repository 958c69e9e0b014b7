"""Trace a released face to its inputs and their Dagster runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.settings import Settings
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from dagster import DagsterInstance

PARTITIONED = ("raw_videos", "faces", "ratings")
UNPARTITIONED = (
    "identities", "near_duplicates", "annotations", "soft_labels", "label_noise", "open_set",
)  # fmt: skip
OF_SYNTHETIC = ("synthetic_faces", "synthetic_labels")


def trace(settings: Settings, *, version: str, face: str) -> dict[str, Any]:
    """Return ``releases.lineage`` and ``runs``, asset to run id.

    The run is the last one that wrote the asset before this version was made. An erasure deletes
    the records of runs; ``runs`` is then empty.

    Raises:
        ReleaseError: the version does not hold this face.
    """
    from warehouse import releases

    found = releases.lineage(settings.place, name=settings.release, version=version, face=face)
    origin = found["origin"]
    return found | {
        "runs": runs(
            settings.place,
            name=settings.release,
            version=found["release"]["version"],
            batch=origin["batch"] if origin else None,
            assets=UNPARTITIONED if found["made"] is None else OF_SYNTHETIC,
        )
    }


def runs(
    home: Home,
    *,
    name: str,
    version: str,
    batch: str | None,
    assets: tuple[str, ...] = UNPARTITIONED,
) -> dict[str, str]:
    """Return asset to run id, the release last.

    It is empty without a record of the release's run.
    """
    if not (home.dagster / "history").is_dir():
        return {}
    from pipeline.dagster_instance.instance import open_instance

    instance = open_instance(home)
    made = _release(instance, name, version)
    if made is None:
        return {}
    run, when = made
    wanted = [(asset, batch) for asset in PARTITIONED if batch] + [
        (asset, None) for asset in assets
    ]
    found = {asset: _last(instance, asset, key, before=when) for asset, key in wanted}
    return {asset: one for asset, one in found.items() if one} | {"release": run}


def _release(instance: DagsterInstance, name: str, version: str) -> tuple[str, float] | None:
    """Return run id and time of the materialization that created a version."""
    from dagster import AssetKey

    cursor = None
    while True:
        page = instance.fetch_materializations(AssetKey("release"), limit=200, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            metadata = event.metadata if event else {}
            facts = {key: value.value for key, value in metadata.items()}
            if (facts.get("name"), facts.get("version"), facts.get("created")) == (
                name, version, True,
            ):  # fmt: skip
                return record.run_id, record.timestamp
        if not page.has_more:
            return None
        cursor = page.cursor


def _last(instance: DagsterInstance, asset: str, batch: str | None, *, before: float) -> str | None:
    from dagster import AssetKey, AssetRecordsFilter

    asked = AssetRecordsFilter(
        AssetKey(asset), asset_partitions=[batch] if batch else None, before_timestamp=before
    )
    records = instance.fetch_materializations(asked, limit=1).records
    return records[0].run_id if records else None
