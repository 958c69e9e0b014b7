"""From a released face back to its video, votes, models and the runs that made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.settings import Settings
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from dagster import DagsterInstance

BY_BATCH = ("raw_videos", "faces", "ratings")
WHOLE = (
    "identities", "near_duplicates", "annotations", "soft_labels", "label_noise", "open_set",
)  # fmt: skip
OF_MADE = ("synthetic_faces", "synthetic_labels")


def trace(settings: Settings, *, version: str, face: str) -> dict[str, Any]:
    """``releases.lineage``, and ``runs``: asset to the id of the run that last wrote it before
    this version was made. Records of runs go when somebody is forgotten; then it is empty.

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
            assets=WHOLE if found["made"] is None else OF_MADE,
        )
    }


def runs(
    home: Home, *, name: str, version: str, batch: str | None, assets: tuple[str, ...] = WHOLE
) -> dict[str, str]:
    """Asset to run id, the release last; without the release's own record, nothing is said."""
    if not (home.dagster / "history").is_dir():
        return {}
    from pipeline.dagster_instance.instance import open_instance

    instance = open_instance(home)
    made = _release(instance, name, version)
    if made is None:
        return {}
    run, when = made
    wanted = [(asset, batch) for asset in BY_BATCH if batch] + [(asset, None) for asset in assets]
    found = {asset: _last(instance, asset, key, before=when) for asset, key in wanted}
    return {asset: one for asset, one in found.items() if one} | {"release": run}


def _release(instance: DagsterInstance, name: str, version: str) -> tuple[str, float] | None:
    """Run and time of the materialization that made a version, not of those that found it."""
    from dagster import AssetKey

    cursor = None
    while True:
        page = instance.fetch_materializations(AssetKey("release"), limit=200, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            told = {key: value.value for key, value in event.metadata.items()} if event else {}
            if (told.get("name"), told.get("version"), told.get("created")) == (
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
