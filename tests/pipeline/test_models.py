"""Model packs: accepted terms, lookup by name, damage detection."""

from __future__ import annotations

import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import models
from warehouse.errors import MediaError, ModelError, SettingsError
from warehouse.storage import atomic
from warehouse.storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


@pytest.fixture
def recogniser(tmp_path: Path) -> Path:
    """A network of the interface that InsightFace takes for face recognition."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(size=(3, 512)).astype(np.float32), "w")
    nodes = [
        helper.make_node("ReduceMean", ["data"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 512])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    path = tmp_path / "w600k_tiny.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()


def _as_file(weights: Path, folder: Path) -> Path:
    return weights


def _as_folder(weights: Path, folder: Path) -> Path:
    place = folder / "pack"
    place.mkdir()
    shutil.copy(weights, place)
    (place / "notes.txt").write_text("not weights")
    return place


def _as_archive(weights: Path, folder: Path) -> Path:
    path = folder / "pack.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(weights, "pack/deep/" + weights.name)
        archive.writestr("../escape.onnx", b"x")
        archive.writestr("setup.py", b"raise SystemExit")
    return path


@pytest.mark.parametrize("form", [_as_file, _as_folder, _as_archive])
def test_add__and_remove(
    home: Home, tmp_path: Path, recogniser: Path, form: Callable[[Path, Path], Path]
) -> None:
    plan = models.plan(str(form(recogniser, tmp_path)), name="tiny", licence="MIT")
    pack = models.add(home, plan)
    assert pack.tasks == {recogniser.name: "recognition"}
    assert pack.licence == "MIT"
    assert sorted(path.name for path in (home.models / "tiny").iterdir()) == [
        "pack.json",
        recogniser.name,
    ]
    assert [path.name for path in home.models.iterdir()] == ["tiny"]
    assert not (home.models / "escape.onnx").exists()
    assert models.place_of(home, "tiny") == str(home.models / "tiny")
    assert models.licence_of(home, "tiny") == "MIT"
    assert models.add(home, plan).added_at == pack.added_at
    models.remove(home, "tiny")
    assert models.place_of(home, "tiny") == "tiny"
    assert "tiny" not in {pack.name for pack in models.listed(home)}


def test_add__zoo_url(
    home: Home, recogniser: Path, served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = served
    with zipfile.ZipFile(folder / "buffalo_s.zip", "w") as archive:
        archive.write(recogniser, recogniser.name)
    monkeypatch.setenv("RISORIUS_MODEL_ZOO", address + "/{}.zip")
    pack = models.add(home, models.plan("buffalo_s"))
    assert pack.licence == "InsightFace-non-commercial"
    assert pack.source == f"{address}/buffalo_s.zip"
    assert models.damaged(pack) == []
    with pytest.raises(MediaError, match="gone"):
        models.add(home, models.plan("buffalo_m"))
    assert [path.name for path in home.models.iterdir()] == ["buffalo_s"]


def test_verify__damaged_file(home: Home, recogniser: Path) -> None:
    pack = models.add(home, models.plan(str(recogniser), licence="MIT"))
    (Path(pack.place) / recogniser.name).write_bytes(b"cut short")
    assert models.damaged(models.find(home, pack.name)) == [recogniser.name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("not_onnx.onnx", b"\x80\x04K\x01."),
        ("empty.onnx", b""),
        ("weights.pkl", b"\x80\x04K\x01."),
    ],
)
def test_add__invalid_pack(home: Home, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError):
        models.add(home, models.plan(str(path), name="odd", licence="MIT"))
    assert list(home.models.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [
        ("mine.onnx", {}, "licence"),
        ("mine.onnx", {"licence": "my own"}, "licence"),
        ("centerface", {"licence": "MIT"}, "name"),
        ("mine.onnx", {"licence": "MIT", "name": "../up"}, "name"),
        (".onnx", {"licence": "MIT"}, "name"),
    ],
)
def test_plan__name_and_terms(source: str, given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        models.plan(source, **given)


def test_add__name_taken(home: Home, recogniser: Path) -> None:
    models.add(home, models.plan(str(recogniser), name="tiny", licence="MIT"))
    with pytest.raises(SettingsError, match="tiny"):
        models.add(home, models.plan(str(recogniser), name="tiny", licence="CC-BY-4.0"))
    with pytest.raises(ModelError, match="part of the package"):
        models.remove(home, "centerface")
    with pytest.raises(ModelError, match="among centerface"):
        models.remove(home, "nothing")


def test_list__terms_of_shipped_weights(home: Home) -> None:
    shown = {pack.name: pack.licence for pack in models.listed(home)}
    assert shown == {
        "centerface": "MIT",
        "default": "research-only",
        "guide": "research-only",
        "judge": "research-only",
        "synthesis": "research-only",
    }
    assert all(Path(pack.place).exists() for pack in models.listed(home))


def test_add__killed(home: Home, recogniser: Path) -> None:
    pack = models.add(home, models.plan(str(recogniser), name="tiny", licence="MIT"))
    draft = atomic.draft_path(home.models / "other")
    shutil.copytree(pack.place, draft)
    assert [one.name for one in models.listed(home) if not one.shipped] == ["tiny"]
    assert atomic.delete_stale_drafts(home.root, older_than_s=-1, now=time.time) == 1
    assert [path.name for path in home.models.iterdir()] == ["tiny"]


def test_terms__file_outside_registry(home: Home, recogniser: Path) -> None:
    models.add(home, models.plan(str(recogniser), name="tiny", licence="MIT"))
    assert models.licence_of(home, "tiny") == "MIT"
    assert models.licence_of(home, str(home.models / "tiny")) == "MIT"
    assert models.licence_of(home, "/elsewhere/tiny") == "unknown"
