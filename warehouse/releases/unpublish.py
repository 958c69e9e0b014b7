"""Take versions that somebody left off the Hubs where they were published, history and all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases import versions
from warehouse.releases.hub import KIND, hub, publish
from warehouse.storage import tables
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def withdraw(
    home: str | Path | Home,
    *,
    name: str,
    version: str,
    successor: str | None,
    place: str,
    token: str | None = None,
) -> list[str]:
    """Take a withdrawn version off a Hub: its tag, its history and its stored files.

    The old tag goes first, then the successor is published, the branch squashed into one commit,
    and large files that no branch or tag needs are deleted for good. Other versions keep their
    tags. Copies that somebody downloaded are out of reach.

    Args:
        version: ``v1``, …: withdrawn. ``successor`` took its place, None for nothing.
        place: ``<endpoint> <repo>``, as the column ``published`` of ``releases`` says.

    Returns:
        what was done, one line each.

    Raises:
        ReleaseError: the Hub is away or refuses; run it again.
    """
    from huggingface_hub import HfApi

    endpoint, _, repo = place.partition(" ")
    api, done = HfApi(endpoint=endpoint, token=token), []
    with hub(endpoint, repo):
        tags = {ref.name for ref in api.list_repo_refs(repo, repo_type=KIND).tags}
        if version in tags:
            api.delete_tag(repo, tag=version, repo_type=KIND)
            done.append(f"tag {version} deleted")
        if successor is None:
            api.delete_repo(repo, repo_type=KIND, missing_ok=True)
            return [*done, f"{repo} deleted: nobody is left in it"]
    publish(home, name=name, version=successor, repo=repo, endpoint=endpoint, token=token)
    with hub(endpoint, repo):
        api.super_squash_history(repo, repo_type=KIND)
        # The squash gave the branch a new commit; the tag must not keep the old history alive.
        api.delete_tag(repo, tag=successor, repo_type=KIND)
        api.create_tag(repo, tag=successor, repo_type=KIND)
        done.append(f"{successor} published, history squashed")
        stale = _unneeded(api, repo)
        if stale:
            api.permanently_delete_lfs_files(repo, stale, repo_type=KIND)
            done.append(f"{len(stale)} stored files deleted")
    return done


def withdraw_all(home: str | Path | Home, *, token: str | None = None) -> dict[str, str]:
    """``withdraw`` every withdrawn version from everywhere it was published.

    Returns:
        ``<name> <version> <endpoint> <repo>`` to what was done, or why it could not be; what
        failed is tried again by the next call.
    """
    base = Home.at(home)
    rows = tables.read(base, "releases").filter(pl.col("withdrawn_at").is_not_null())
    told: dict[str, str] = {}
    for row in rows.sort("name", "version", "patch").iter_rows(named=True):
        label = str(versions.Number(row["version"], row["patch"] or 0))
        left = set(row["published"] or [])
        for place in sorted(left):
            key = f"{row['name']} {label} {place}"
            given = {"name": row["name"], "version": label, "successor": row["replaced_by"]}
            try:
                told[key] = "; ".join(withdraw(base, **given, place=place, token=token))
            except ReleaseError as error:
                told[key] = f"still there: {error}"
                continue
            left.discard(place)
            with versions.locked(base, row["name"]):
                versions.note(base, row["name"], label, published=sorted(left))
    return told


def _unneeded(api: HfApi, repo: str) -> list[Any]:
    """Stored large files that no branch and no tag holds any more."""
    refs = api.list_repo_refs(repo, repo_type=KIND)
    needed = {
        lfs.sha256
        for ref in (*refs.branches, *refs.tags)
        for file in api.list_repo_tree(repo, recursive=True, revision=ref.name, repo_type=KIND)
        if (lfs := getattr(file, "lfs", None))
    }
    stored = api.list_lfs_files(repo, repo_type=KIND)
    return [file for file in stored if file.file_oid not in needed]
