"""Serve a small in-memory Hub on loopback for the client libraries.

Real sockets and the real clients; only the far end is ours. No Xet: clients set
``HF_HUB_DISABLE_XET=1``, as for any Hub-compatible server without it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "hf_of_the_test"
Tree = dict[str, bytes]


@dataclass
class Repo:
    private: bool
    commits: dict[str, Tree] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, tree: Tree) -> str:
        text = "".join(f"{path} {_sha256(data)}\n" for path, data in sorted(tree.items()))
        oid = hashlib.sha1(f"{len(self.commits)} {text}".encode()).hexdigest()
        self.commits[oid] = tree
        self.branches["main"] = oid
        return oid

    def sweep(self) -> None:
        """Forget commits that no branch and no tag names."""
        named = {*self.branches.values(), *self.tags.values()}
        self.commits = {oid: tree for oid, tree in self.commits.items() if oid in named}

    def at(self, revision: str) -> str | None:
        known = self.branches | self.tags | {oid: oid for oid in self.commits}
        return known.get(revision)


@dataclass
class Hub:
    """State of the server; after ``fail_after`` uploads it answers 500."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: int = 0
    fail_after: int | None = None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(path: str) -> bool:
    return path.endswith(".parquet")


def _missing(what: str, code: str) -> Response:
    return JSONResponse(
        {"error": what}, 404, headers={"X-Error-Code": code, "X-Error-Message": what}
    )


def _page(request: Request) -> str:
    return f"datasets/{request.path_params['owner']}/{request.path_params['name']}/commit"


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}
    if _is_large(path):
        entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 130}
    return entry


def application(hub: Hub) -> Starlette:
    def repo_of(request: Request) -> Repo | None:
        found = hub.repos.get(f"{request.path_params['owner']}/{request.path_params['name']}")
        signed = request.headers.get("authorization") == f"Bearer {TOKEN}"
        return found if found and (signed or not found.private) else None

    async def create(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid username or password."}, 401)
        asked = await request.json()
        name = f"{asked['organization']}/{asked['name']}"
        body = {"url": f"{hub.url}/datasets/{name}", "name": name}
        if name in hub.repos:
            return JSONResponse(body | {"error": "You already created this repo"}, 409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        hub.repos[name] = Repo(private=private)
        hub.repos[name].commit({".gitattributes": b"*.parquet filter=lfs\n"})
        return JSONResponse(body)

    async def delete(request: Request) -> Response:
        asked = await request.json()
        hub.repos.pop(f"{asked['organization']}/{asked['name']}", None)
        return Response()

    async def refs(request: Request) -> Response:
        repo = repo_of(request)
        if repo is None:
            return _missing("Repository not found", "RepoNotFound")
        said = [
            [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}
                for name, oid in one.items()
            ]
            for kind, one in (("heads", repo.branches), ("tags", repo.tags))
        ]
        return JSONResponse({"branches": said[0], "tags": said[1], "converts": []})

    async def info(request: Request) -> Response:
        repo = repo_of(request)
        if repo is None:
            return _missing("Repository not found", "RepoNotFound")
        oid = repo.at(request.path_params.get("revision", "main"))
        if oid is None:
            return _missing("Invalid rev id", "RevisionNotFound")
        name = f"{request.path_params['owner']}/{request.path_params['name']}"
        files = [{"rfilename": path} for path in sorted(repo.commits[oid])]
        return JSONResponse(
            {"id": name, "sha": oid, "private": repo.private, "siblings": files, "tags": [],
             "gated": False, "disabled": False, "downloads": 0, "likes": 0}
        )  # fmt: skip

    async def preupload(request: Request) -> Response:
        repo, asked = repo_of(request), await request.json()
        assert repo is not None
        tree = repo.commits[repo.branches["main"]]
        files = []
        for file in asked["files"]:
            path = file["path"]
            held = tree.get(path)
            answer = {"path": path, "uploadMode": "lfs" if _is_large(path) else "regular",
                      "shouldIgnore": False}  # fmt: skip
            if held is not None:
                answer["oid"] = _sha256(held) if _is_large(path) else _git_oid(held)
            files.append(answer)
        return JSONResponse({"files": files})

    async def batch(request: Request) -> Response:
        asked = await request.json()
        objects = [
            {"oid": one["oid"], "size": one["size"]}
            | (
                {}
                if one["oid"] in hub.blobs
                else {"actions": {"upload": {"href": f"{hub.url}/blobs/{one['oid']}"}}}
            )
            for one in asked["objects"]
        ]
        return JSONResponse(
            {"transfer": "basic", "objects": objects},
            media_type="application/vnd.git-lfs+json",
        )

    async def upload(request: Request) -> Response:
        if hub.fail_after is not None and hub.uploads >= hub.fail_after:
            return JSONResponse({"error": "the disk is full"}, 507)
        data = await request.body()
        assert _sha256(data) == request.path_params["oid"]
        hub.blobs[request.path_params["oid"]] = data
        hub.uploads += 1
        return Response()

    async def commit(request: Request) -> Response:
        repo = repo_of(request)
        assert repo is not None
        tree = dict(repo.commits[repo.branches["main"]])
        for line in (await request.body()).splitlines():
            said = json.loads(line)
            key, value = said["key"], said["value"]
            if key == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                tree[value["path"]] = hub.blobs[value["oid"]]
            elif key == "deletedFile":
                tree.pop(value["path"])
        oid = repo.commit(tree)
        return JSONResponse(
            {"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{_page(request)}/{oid}"}
        )

    async def tag(request: Request) -> Response:
        repo, word = repo_of(request), request.path_params["word"]
        assert repo is not None
        if request.method == "DELETE":
            repo.tags.pop(word)
            repo.sweep()
            return Response()
        name = (await request.json())["tag"]
        if name in repo.tags:
            return JSONResponse({"error": "Tag reference exists already"}, 409)
        oid = repo.at(word)
        assert oid is not None
        repo.tags[name] = oid
        return Response()

    async def squash(request: Request) -> Response:
        repo = repo_of(request)
        assert repo is not None
        repo.commit(repo.commits[repo.branches["main"]])
        repo.sweep()
        return Response()

    async def tree(request: Request) -> Response:
        repo = repo_of(request)
        oid = repo.at(request.path_params["revision"]) if repo else None
        if repo is None or oid is None:
            return _missing("Invalid rev id", "RevisionNotFound")
        under = request.path_params.get("path", "")
        files = {
            path: data
            for path, data in repo.commits[oid].items()
            if not under or path.startswith(f"{under}/")
        }
        if under and not files:
            return _missing("not found", "EntryNotFound")
        rest = {path: path.removeprefix(f"{under}/") if under else path for path in files}
        if request.query_params.get("recursive") in ("true", "True", "1"):
            shown = [_entry(path, files[path]) for path in sorted(files)]
        else:
            shown = [_entry(path, files[path]) for path in sorted(files) if "/" not in rest[path]]
        folders = {rest[path].split("/")[0] for path in files if "/" in rest[path]}
        prefix = f"{under}/" if under else ""
        shown += [
            {"type": "directory", "path": prefix + one, "size": 0, "oid": "0" * 40}
            for one in sorted(folders)
        ]
        return JSONResponse(shown)

    async def paths_info(request: Request) -> Response:
        repo = repo_of(request)
        oid = repo.at(request.path_params["revision"]) if repo else None
        if repo is None or oid is None:
            return _missing("Invalid rev id", "RevisionNotFound")
        form = await request.form() if "form" in request.headers["content-type"] else None
        asked = form.getlist("paths") if form else (await request.json())["paths"]
        files = repo.commits[oid]
        shown = [_entry(path, files[path]) for path in asked if path in files]
        shown += [
            {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
            for path in asked
            if any(file.startswith(f"{path}/") for file in files)
        ]
        return JSONResponse(shown)

    async def lfs_files(request: Request) -> Response:
        repo = repo_of(request)
        assert repo is not None
        if request.method == "POST":
            for oid in (await request.json())["deletions"]["sha"]:
                hub.blobs.pop(oid, None)
            return Response()
        rows = [
            {"fileOid": oid, "filename": "?", "oid": oid, "pushedAt": "2026-01-01T00:00:00.000Z",
             "ref": "main", "size": len(data)}
            for oid, data in sorted(hub.blobs.items())
        ]  # fmt: skip
        return JSONResponse(rows)

    async def resolve(request: Request) -> Response:
        repo = repo_of(request)
        if repo is None:
            return _missing("Repository not found", "RepoNotFound")
        oid = repo.at(request.path_params["revision"])
        if oid is None:
            return _missing("Invalid rev id", "RevisionNotFound")
        path = request.path_params["path"]
        if path not in repo.commits[oid]:
            return _missing("Entry not found", "EntryNotFound")
        data = repo.commits[oid][path]
        tag = _sha256(data) if _is_large(path) else _git_oid(data)
        headers = {"X-Repo-Commit": oid, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        span = request.headers.get("range", "")
        if span.startswith("bytes="):
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(data)
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            return Response(data[start:stop], 206, headers=headers)
        return Response(data, headers=headers, media_type="application/octet-stream")

    def whoami(request: Request) -> Response:
        return JSONResponse(
            {"type": "user", "name": "me", "auth": {"accessToken": {"role": "write"}}}
        )

    def validate(request: Request) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    one = "/api/datasets/{owner}/{name}"
    return Starlette(
        routes=[
            Route("/api/repos/create", create, methods=["POST"]),
            Route("/api/repos/delete", delete, methods=["DELETE"]),
            Route("/api/whoami-v2", whoami),
            Route("/api/validate-yaml", validate, methods=["POST"]),
            Route(one, info),
            Route(one + "/revision/{revision}", info),
            Route(one + "/refs", refs),
            Route(one + "/preupload/{revision}", preupload, methods=["POST"]),
            Route(one + "/commit/{revision}", commit, methods=["POST"]),
            Route(one + "/tag/{word}", tag, methods=["POST", "DELETE"]),
            Route(one + "/super-squash/{branch}", squash, methods=["POST"]),
            Route(one + "/tree/{revision}", tree),
            Route(one + "/tree/{revision}/{path:path}", tree),
            Route(one + "/paths-info/{revision}", paths_info, methods=["POST"]),
            Route(one + "/lfs-files", lfs_files),
            Route(one + "/lfs-files/batch", lfs_files, methods=["POST"]),
            Route("/datasets/{owner}/{name}.git/info/lfs/objects/batch", batch, methods=["POST"]),
            Route("/datasets/{owner}/{name}/resolve/{revision}/{path:path}", resolve),
            Route("/blobs/{oid}", upload, methods=["PUT"]),
        ]
    )


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub on a free port of loopback until the block ends."""
    hub = Hub()
    config = uvicorn.Config(application(hub), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(timeout=30)
