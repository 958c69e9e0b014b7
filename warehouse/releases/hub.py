"""A version onto a Hub, byte for byte: private unless asked, one tag per version, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.releases import versions
from warehouse.releases.load import leaks, verify
from warehouse.releases.shards import CONFIGS
from warehouse.storage import tables
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DEFAULT_ENDPOINT = "https://huggingface.co"
KIND = "dataset"


@dataclass(frozen=True)
class Publication:
    """What was, or would be, published.

    Attributes:
        tag: the version, as ``load_dataset(repo, revision=tag)`` names it.
        files: path in the repository to bytes.
        commit: of the Hub; None for a dry run.
        new: False when the tag was there with these very files.
    """

    repo: str
    endpoint: str
    tag: str
    private: bool
    files: dict[str, int]
    commit: str | None = None
    new: bool = True

    @property
    def url(self) -> str:
        return f"{self.endpoint}/datasets/{self.repo}/tree/{self.tag}"


def publish(
    home: str | Path | Home,
    *,
    name: str,
    version: str | int = "latest",
    repo: str,
    endpoint: str | None = None,
    token: str | None = None,
    public: bool = False,
    dry_run: bool = False,
) -> Publication:
    """Upload one version to ``repo`` and tag it; ``main`` then holds that version alone.

    Run it again after an interruption: what the Hub has is not sent twice, and a tag is set only
    when every file is there. A tag that exists is never moved.

    Args:
        repo: ``namespace/name`` on the Hub.
        endpoint: of a Hub-compatible server; by default ``HF_ENDPOINT``, else the Hub itself.
        token: by default the one that huggingface_hub finds (``HF_TOKEN`` or its own login).
        public: only decides when the repository is made; an existing one keeps its visibility.
        dry_run: say what would be sent and send nothing.

    Raises:
        ReleaseError: the version is damaged or leaks; the Hub is away, refuses, or has another
            dataset under this tag.
    """
    from huggingface_hub import HfApi, constants

    place = Home.at(home)
    path = versions.resolve(place, name, version)
    problems = [*verify(path), *leaks(path)]
    if problems:
        raise ReleaseError(
            f"{name} {path.name} as it was built, before others get it",
            got="; ".join(problems[:3]),
            hint="build a new version and publish that",
        )
    address = (endpoint or constants.ENDPOINT).rstrip("/")
    planned = Publication(
        repo=repo, endpoint=address, tag=path.name, private=not public, files=_sizes(path)
    )
    if dry_run:
        return planned
    api = HfApi(endpoint=address, token=token)
    with hub(address, repo):
        commit, new = _send(api, path, planned)
    with versions.locked(place, name):
        versions.record(place, name)
        _note(place, name, path.name, f"{address} {repo}")
    return Publication(**{**vars(planned), "commit": commit, "new": new})


def _send(api: HfApi, path: Path, planned: Publication) -> tuple[str, bool]:
    """The commit that the tag names, and whether the tag is new."""
    repo, tag = planned.repo, planned.tag
    api.create_repo(repo, repo_type=KIND, private=planned.private, exist_ok=True)
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo, repo_type=KIND).tags}
    if tag in tags:
        _refuse_other(api, path, planned)
        return tags[tag], False
    info = api.upload_folder(
        repo_id=repo,
        folder_path=path,
        repo_type=KIND,
        commit_message=f"{path.parent.name} {tag}",
        delete_patterns=[f"{place}*" for place in CONFIGS.values()],
    )
    # What was sent in several commits is whole at the head, and only there.
    head = api.dataset_info(repo).sha or info.oid
    api.create_tag(repo, tag=tag, revision=head, repo_type=KIND, exist_ok=True)
    return head, True


def _refuse_other(api: HfApi, path: Path, planned: Publication) -> None:
    there = Path(
        api.hf_hub_download(planned.repo, versions.MANIFEST, repo_type=KIND, revision=planned.tag)
    )
    if there.read_bytes() != (path / versions.MANIFEST).read_bytes():
        raise ReleaseError(
            f"{planned.tag} of {planned.repo} to be this very version",
            got="another one under the same tag",
            hint="publish to another repository; a tag is never moved",
        )


def _sizes(path: Path) -> dict[str, int]:
    files = sorted(item for item in path.rglob("*") if item.is_file())
    return {str(item.relative_to(path)): item.stat().st_size for item in files}


def _note(home: Home, name: str, version: str, place: str) -> None:
    rows = tables.read(home, "releases").filter(pl.col("name") == name)
    label = pl.format("v{}", "version") + pl.when(pl.col("patch") > 0).then(
        pl.format(".{}", "patch")
    ).otherwise(pl.lit(""))
    known = rows.filter(label == version)["published"].explode().drop_nulls().to_list()
    versions.note(home, name, version, published=sorted({*known, place}))


@contextmanager
def hub(endpoint: str, repo: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one clear line, without its headers."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The client's transport has changed its package before; its errors' root is a base of this.
    roots: list[Any] = [kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"]
    try:
        yield
    except HFValidationError as error:
        raise ReleaseError(
            "a repository written namespace/name", got=repr(repo), hint=str(error).splitlines()[0]
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise ReleaseError(
            f"{endpoint} to take {repo}",
            got=f"HTTP {status}: {(error.server_message or 'no reason given').splitlines()[0]}",
            hint="check the name, and that HF_TOKEN may write there; run the same command again",
        ) from None
    except (*roots, OSError, RuntimeError) as error:
        raise ReleaseError(
            f"a Hub that answers at {endpoint}",
            got=f"{type(error).__name__}",
            hint="check --endpoint and the connection, and run the same command again: what was "
            "sent is not sent twice",
        ) from None
