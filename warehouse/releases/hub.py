"""Publish versions to a Hugging Face Hub and withdraw them from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.masking import public_url
from warehouse.releases import manifest, publication, versions
from warehouse.releases.load import leaks
from warehouse.releases.schema import CONFIGS
from warehouse.releases.verification import verify
from warehouse.storage import tables
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TYPE = "dataset"


@dataclass(frozen=True)
class Publication:
    """A published version, or the plan of a dry run.

    Attributes:
        tag: the version, for ``load_dataset(repo, revision=tag)``.
        private: whether the repository is private, or a new one would be; None if the Hub does
            not say.
        visibility: the same as a phrase, with the state of the repository.
        files: path in the repository to bytes.
        commit: of the Hub; None for a dry run.
        new: False if the tag already existed with these files.
    """

    repo: str
    endpoint: str
    tag: str
    private: bool | None
    visibility: str
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
    """Upload one version to ``repo`` and tag it.

    ``main`` then holds only that version.

    After an interruption, run it again: files on the Hub are not uploaded twice. The tag is set
    when all files are there, and never moved.

    Args:
        repo: ``namespace/name`` on the Hub.
        endpoint: of a Hub-compatible server; by default ``HF_ENDPOINT``, else the Hub itself.
        token: by default the token of huggingface_hub (``HF_TOKEN`` or its login).
        public: visibility of a new repository; an existing one keeps its own.
        dry_run: return the plan, with the visibility that the Hub reports, and upload nothing.

    Raises:
        ReleaseError: the version is damaged or leaks; the repository is or would be public, and
            licences or consents do not allow passing the version on; the Hub is unreachable,
            refuses, or has another dataset under this tag.
    """
    return _publish(
        Home.at(home), name=name, version=version, repo=repo, endpoint=endpoint, token=token,
        public=public, dry_run=dry_run,
    )  # fmt: skip


def _publish(
    place: Home,
    *,
    name: str,
    version: str | int,
    repo: str,
    endpoint: str | None,
    token: str | None,
    public: bool = False,
    dry_run: bool = False,
    replaces: bool = False,
) -> Publication:
    """Publish a version; with ``replaces`` one that has fewer faces.

    The latter is not held back: the rows that it removes are public until it is there.
    """
    from huggingface_hub import HfApi, constants

    path = versions.resolve(place, name, version)
    problems = verify(path) or leaks(path)
    if problems:
        raise ReleaseError(
            f"{name} {path.name} is not intact and cannot be published",
            got="; ".join(problems[:3]),
            hint="build a new version and publish that",
        )
    address = (endpoint or constants.ENDPOINT).rstrip("/")
    api = HfApi(endpoint=address, token=token)
    private, visibility = _visibility(api, repo, public=public, must_know=not dry_run)
    terms = publication.terms_of(place, path)
    if private is None and terms.barriers:
        visibility += f"; into a public one it is refused: {'; '.join(terms.barriers)}"
    elif private is False:
        if not replaces:
            _check_terms(f"{name} {path.name}", repo, visibility, terms)
        if terms.unstated:
            visibility += f"; {terms.unstated} of its faces state no consent"
    files = sorted(item for item in path.rglob("*") if item.is_file())
    planned = Publication(
        repo=repo,
        endpoint=public_url(address),
        tag=path.name,
        private=private,
        visibility=visibility,
        files={str(item.relative_to(path)): item.stat().st_size for item in files},
    )
    if dry_run:
        return planned
    with _hub_errors(address, repo):
        api.create_repo(repo, repo_type=_TYPE, private=bool(private), exist_ok=True)
        # It may have become public, or another one, since it was asked.
        if private and not replaces and not api.dataset_info(repo).private:
            _check_terms(f"{name} {path.name}", repo, "a public repository", terms)
        commit, new = _upload(api, path, planned)
    with versions.locked(place, name):
        versions.record_rows(place, name)
        versions.add_published(place, name, path.name, f"{planned.endpoint} {repo}")
    return replace(planned, commit=commit, new=new)


def withdraw(
    home: str | Path | Home,
    *,
    name: str,
    version: str,
    successor: str | None,
    location: str,
    token: str | None = None,
) -> list[str]:
    """Remove a withdrawn version from a Hub: tag, history and files.

    The tag is deleted, the successor published, the branch squashed into one commit, and large
    files that no branch or tag uses are deleted permanently. Other versions keep their tags.
    Downloaded copies cannot be removed.

    Args:
        version: the withdrawn version, ``v1``, …
        successor: the version that replaced it, or None.
        location: ``<endpoint> <repo>``, as in the column ``published`` of ``releases``.

    Returns:
        the steps taken, one line each.

    Raises:
        ReleaseError: the Hub is unreachable or refuses; run it again.
    """
    from huggingface_hub import HfApi

    endpoint, _, repo = location.partition(" ")
    api, done = HfApi(endpoint=endpoint, token=token), []
    with _hub_errors(endpoint, repo):
        tags = {ref.name for ref in api.list_repo_refs(repo, repo_type=_TYPE).tags}
        if version in tags:
            api.delete_tag(repo, tag=version, repo_type=_TYPE)
            done.append(f"tag {version} deleted")
        if successor is None:
            api.delete_repo(repo, repo_type=_TYPE, missing_ok=True)
            return [*done, f"{repo} deleted: no face is left in it"]
    _publish(
        Home.at(home), name=name, version=successor, repo=repo, endpoint=endpoint, token=token,
        replaces=True,
    )  # fmt: skip
    with _hub_errors(endpoint, repo):
        api.super_squash_history(repo, repo_type=_TYPE)
        # The squash created a new commit. Move the tag, or it keeps the old history alive.
        api.delete_tag(repo, tag=successor, repo_type=_TYPE)
        api.create_tag(repo, tag=successor, repo_type=_TYPE)
        done.append(f"{successor} published, history squashed")
        unused = _unused_files(api, repo)
        if unused:
            api.permanently_delete_lfs_files(repo, unused, repo_type=_TYPE)
            done.append(f"{len(unused)} stored files deleted")
    return done


def withdraw_all(home: str | Path | Home, *, token: str | None = None) -> dict[str, str]:
    """Withdraw every withdrawn version from all Hubs where it was published.

    Returns:
        ``<name> <version> <endpoint> <repo>`` to the steps taken, or the error. The next call
        tries failed ones again.
    """
    place = Home.at(home)
    rows = tables.read(place, "releases").filter(pl.col("withdrawn_at").is_not_null())
    found: dict[str, str] = {}
    for row in rows.sort("name", "version", "patch").iter_rows(named=True):
        label = str(versions.VersionNumber(row["version"], row["patch"] or 0))
        remaining = set(row["published"] or [])
        for location in sorted(remaining):
            key = f"{row['name']} {label} {location}"
            try:
                steps = withdraw(
                    place,
                    name=row["name"],
                    version=label,
                    successor=row["replaced_by"],
                    location=location,
                    token=token,
                )
            except ReleaseError as error:
                found[key] = f"not withdrawn: {error}"
                continue
            found[key] = "; ".join(steps)
            remaining.discard(location)
            with versions.locked(place, row["name"]):
                versions.update_row(place, row["name"], label, published=sorted(remaining))
    return found


def _upload(api: HfApi, path: Path, planned: Publication) -> tuple[str, bool]:
    """Return the commit that the tag names, and whether the tag is new."""
    repo, tag = planned.repo, planned.tag
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo, repo_type=_TYPE).tags}
    if tag in tags:
        published = api.hf_hub_download(repo, manifest.FILE, repo_type=_TYPE, revision=tag)
        if Path(published).read_bytes() != (path / manifest.FILE).read_bytes():
            raise ReleaseError(
                f"{repo} has another version under the tag {tag}",
                got="its manifest differs",
                hint="publish to another repository; a tag is never moved",
            )
        return tags[tag], False
    info = api.upload_folder(
        repo_id=repo,
        folder_path=path,
        repo_type=_TYPE,
        commit_message=f"{path.parent.name} {tag}",
        delete_patterns=[f"{prefix}*" for prefix in CONFIGS.values()],
    )
    # An upload may take several commits; only the head is complete.
    head = api.dataset_info(repo).sha or info.oid
    api.create_tag(repo, tag=tag, revision=head, repo_type=_TYPE, exist_ok=True)
    return head, True


def _visibility(api: HfApi, repo: str, *, public: bool, must_know: bool) -> tuple[bool | None, str]:
    """Ask the Hub; return whether the repository is private, and a phrase.

    For a dry run an answer is not needed.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        with _hub_errors(api.endpoint, repo):
            try:
                info = api.dataset_info(repo)
            except GatedRepoError:
                return False, "a public repository that exists, with gated access"
            except RepositoryNotFoundError:
                kind = "public" if public else "private"
                return not public, f"a new {kind} repository: this token finds none of this name"
    except ReleaseError as error:
        if must_know or "namespace/name" in error.problem:
            raise
        return None, f"its visibility is not known: {error.problem}"
    if not info.private:
        return False, "a public repository that exists"
    return True, "a private repository that exists" + (
        "; --public does not change it, its settings on the Hub do" if public else ""
    )


def _check_terms(version: str, repo: str, visibility: str, terms: publication.Terms) -> None:
    if terms.barriers:
        raise ReleaseError(
            f"Licence or consent do not allow passing {version} on to {repo}, {visibility}",
            got="; ".join(terms.barriers),
            hint=publication.HINT,
        )


def _unused_files(api: HfApi, repo: str) -> list[Any]:
    """Return stored large files that no branch or tag uses."""
    refs = api.list_repo_refs(repo, repo_type=_TYPE)
    used = {
        lfs.sha256
        for ref in (*refs.branches, *refs.tags)
        for file in api.list_repo_tree(repo, recursive=True, revision=ref.name, repo_type=_TYPE)
        if (lfs := getattr(file, "lfs", None))
    }
    stored = api.list_lfs_files(repo, repo_type=_TYPE)
    return [file for file in stored if file.file_oid not in used]


@contextmanager
def _hub_errors(endpoint: str, repo: str) -> Iterator[None]:
    """Convert errors of the Hub client to one clear line without HTTP headers."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The client moved from requests to httpx. Its HTTPError is a base of this class in both.
    roots: list[Any] = [kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"]
    try:
        yield
    except HFValidationError as error:
        raise ReleaseError(
            "The repository is not namespace/name", got=repr(repo), hint=str(error).splitlines()[0]
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise ReleaseError(
            f"{endpoint} refused {repo}",
            got=f"HTTP {status}: {(error.server_message or 'no reason given').splitlines()[0]}",
            hint="check the name and the write permission of HF_TOKEN; run the same command again",
        ) from None
    except (*roots, OSError, RuntimeError) as error:
        raise ReleaseError(
            f"The Hub at {endpoint} does not answer",
            got=type(error).__name__,
            hint="check --endpoint and the connection, and run the same command again; uploaded "
            "files are not sent twice",
        ) from None
