"""Synthesizers of the user's own; examples of docs/synthesizers.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from pipeline import release_inputs
from pipeline.synthesis import jobs
from pipeline.synthesis.service import evaluation_raters, generate, load_generator
from pipeline.synthesis.synthesizer import (
    CallableSynthesizer,
    Reference,
    au_change,
    editable_faces,
    read_reference,
)
from synthesis.request import FaceRequest
from tests.warehouse.people_home import FACES, face_id, people_home, release
from warehouse import releases
from warehouse.consent import parse as parse_consent
from warehouse.errors import ModelError, SettingsError
from warehouse.privacy.erase import forget
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

DOCS = Path(__file__).parents[2] / "docs" / "synthesizers.md"
BLANK = np.full(len(ACTION_UNITS), np.nan, np.float32)
FACE = np.full((64, 64, 3), 90, np.uint8)

PLUGIN = """
import numpy as np

CALLS = []

def draw(reference, au, expression, n, seeds):
    CALLS.append((reference, au, expression, n, seeds))
    return np.stack([np.full((64, 64), 40 + seed % 100, np.uint8) for seed in seeds])

def edit(reference, au, expression, n, seeds):
    CALLS.append((reference, au, expression, n, seeds))
    side = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3)
    return np.stack([(side * (1 + seed % 7) + reference.mean()).astype(np.uint8) for seed in seeds])

edit.relative = True
edit.licence = "CC-BY-4.0"
edit.supported_units = [4, 12]

def few(reference, au, expression, n, seeds): return np.zeros((1, 64, 64), np.uint8)
def wide(reference, au, expression, n, seeds): return np.zeros((n, 64, 48), np.uint8)
def small(reference, au, expression, n, seeds): return np.zeros((n, 8, 8), np.uint8)
def floats(reference, au, expression, n, seeds): return np.zeros((n, 64, 64))
def nothing(reference, au, expression, n, seeds): return None
def broken(reference, au, expression, n, seeds): raise ValueError("no weights")
def odd(reference, au, expression, n, seeds): return np.zeros((n, 64, 64), np.uint8)
odd.supported_units = [99]
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "own_faces.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_faces", None)
    import own_faces  # type: ignore[import-not-found]

    yield own_faces
    sys.modules.pop("own_faces", None)


@pytest.fixture
def consenting(tmp_path: Path) -> Home:
    """Return a home in which ann agreed to editing, and her faces are rated."""
    home = people_home(Home.at(tmp_path / "home"))
    for path in sorted((home.tables / "videos").glob("batch=*/*.parquet")):
        frame = pl.read_parquet(path, glob=False)
        agreed = pl.when(pl.col("subject_id") == "ann").then(pl.lit("yes, editing"))
        frame.with_columns(consent=agreed.otherwise("consent")).write_parquet(path)
    return home


def test_load_generator__calls_the_plugin(plugin: Any) -> None:
    generator = load_generator("own_faces:draw")
    requests = [FaceRequest({12: 0.5, 4: 0.0}, "happiness", seed) for seed in (3, 4)]
    faces = generator.generate([*requests, FaceRequest({1: 1.0}, None, 9)])
    assert faces.shape == (3, 224, 224, 3)
    assert faces[:, 0, 0, 0].tolist() == [43, 44, 49]
    (reference, au, expression, n, seeds), (_, second, none, _, _) = plugin.CALLS
    assert (reference, expression, n, seeds, none) == (None, "happiness", 2, [3, 4], None)
    assert (au[AU_INDEX[12]], au[AU_INDEX[4]]) == (0.5, 0.0)
    assert np.isnan(au[AU_INDEX[1]])
    assert second[AU_INDEX[1]] == 1.0
    assert generator.licence == "unknown"
    assert re.fullmatch(r"synthesizer-own-faces-draw-[0-9a-f]{8}", generator.model)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("few", "did not return 2 images"),
        ("wide", "not square"),
        ("small", "not square with 32 px"),
        ("floats", "not uint8"),
        ("nothing", "not images of one size"),
        ("broken", "ValueError: no weights"),
        ("odd", "supported_units"),
    ],
)
def test_generate__invalid_answer(plugin: Any, name: str, says: str) -> None:
    generator = CallableSynthesizer(f"own_faces:{name}")
    with pytest.raises(ModelError, match=says):
        generator.generate([FaceRequest({12: 0.5}, None, seed) for seed in range(2)])


def test_load_generator__invalid(plugin: Any) -> None:
    with pytest.raises(ModelError, match="cannot be imported"):
        load_generator("own_faces:missing")
    with pytest.raises(SettingsError, match="Only the networks of this package"):
        load_generator("own_faces:draw", guided=True)
    with pytest.raises(SettingsError, match="got none"):
        load_generator("own_faces:edit").generate([FaceRequest({12: 0.5})])


def test_relative__gets_the_change(plugin: Any) -> None:
    present = BLANK.copy()
    present[[AU_INDEX[12], AU_INDEX[1]]] = 0.2, 0.9
    reference = Reference("a", FACE, present)
    generator = CallableSynthesizer("own_faces:edit")
    generator.generate([FaceRequest({12: 0.9, 4: 0.5, 1: 0.0})], references=[reference])
    change = plugin.CALLS[0][1]
    assert change[AU_INDEX[12]] == pytest.approx(0.7)
    assert change[AU_INDEX[4]] == pytest.approx(0.5)
    assert change[AU_INDEX[1]] == 0  # not among its units
    assert np.count_nonzero(change) == 2
    assert au_change(present, present).tolist() == [0.0] * len(ACTION_UNITS)


def test_face_id__depends_on_model_and_face(plugin: Any) -> None:
    edit, draw = CallableSynthesizer("own_faces:edit"), CallableSynthesizer("own_faces:draw")
    request = FaceRequest({12: 0.5})
    ids = [edit.face_id(request, "a"), edit.face_id(request, "b"), draw.face_id(request)]
    assert len(set(ids)) == 3
    fixed = CallableSynthesizer("own_faces:edit", reference=Reference("a", FACE, BLANK))
    assert fixed.face_id(request) == ids[0]
    # A unit that is not supported changes nothing.
    assert edit.face_id(FaceRequest({12: 0.5, 1: 1.0}), "a") == ids[0]


def test_generate__into_a_folder(plugin: Any, tmp_path: Path) -> None:
    made = generate(FaceRequest({12: 0.8}), load_generator("own_faces:draw"), tmp_path / "out", n=2)
    assert made["drawn"] == 2
    assert made["model"].startswith("synthesizer-own-faces-draw-")
    assert made["edited"] == []
    # Plain squares show no face: the detector drops them, as for the shipped network.
    assert made["actions"] == {"kept": 0, "relabelled": 0, "dropped": 2}


CONSENTS = {
    "yes, editing": True, "research, editing until 2999-01-01": True, "may be edited": True,
    "yes": False, "": False, "no": False, "yes, no editing": False, "yes; not for editing": False,
    "withdrawn, editing": False, "editing until 2001-01-01": False, "editing until soon": False,
    "yes, without any use for edits": False, "generative training": False,
}  # fmt: skip


@pytest.mark.parametrize(("text", "allowed"), CONSENTS.items())
def test_consent__editing_is_never_implied(text: str, allowed: bool) -> None:
    assert parse_consent(text).permits_editing() is allowed
    assert not (allowed and parse_consent(text).permits_training())


def test_editable_faces__consent_only(consenting: Home) -> None:
    assert set(editable_faces(consenting)["subject_id"]) == {"ann"}


def test_read_reference__asks_for_consent(consenting: Home, tmp_path: Path) -> None:
    rater = evaluation_raters("default")[0]
    face = read_reference(consenting, face_id("ann-b", "ann", 0), consent=None, rater=rater)
    assert face.face_id == face.name == face_id("ann-b", "ann", 0)
    for given, says in (
        (face_id("bob-d", "bob", 0), "does not cover editing"),
        ("unknown-face", "neither an image file nor"),
    ):
        with pytest.raises(SettingsError, match=says):
            read_reference(consenting, given, consent="yes, editing", rater=rater)
    # A crop of the home is that person, under any path.
    bob = tables.read(consenting, "faces").filter(face_id=face_id("bob-d", "bob", 1))["crop"][0]
    copy = tmp_path / "copy.png"
    copy.write_bytes(media.path_of(consenting, bob).read_bytes())
    with pytest.raises(SettingsError, match=face_id("bob-d", "bob", 1)):
        read_reference(consenting, str(copy), consent="yes, editing", rater=rater)
    cv2.imwrite(str(tmp_path / "other.png"), FACE)
    with pytest.raises(SettingsError, match="does not cover editing"):
        read_reference(consenting, str(tmp_path / "other.png"), consent="yes", rater=rater)


def edited(home: Home, n: int = 6) -> pl.DataFrame:
    """Fill gaps by edits, accept them all, and return their rows."""
    generator = load_generator("own_faces:edit")
    jobs.generate_faces(home, generator, jobs.plan(home, generator, n))
    for part in jobs._written(home):
        path = tables.path_of(home, jobs.TABLE, part=part)
        rows = pl.read_parquet(path).with_columns(
            action=pl.lit("kept"), soft_label=pl.lit([0.0] * 7 + [1.0], pl.Array(pl.Float32, 8))
        )
        tables.write(home, jobs.TABLE, rows, part=part)
    return tables.read(home, jobs.TABLE)


def test_edits__of_consenting_faces_only(plugin: Any, consenting: Home) -> None:
    made = edited(consenting)
    assert made.height == 6
    anns = {face_id(clip, "ann", number) for clip, who in FACES.items() if "ann" in who
            for number in range(3)}  # fmt: skip
    assert set(made["reference"]) <= anns
    assert made["reference"].n_unique() > 1
    assert set(made["licence"]) == {"CC-BY-4.0"}
    again = load_generator("own_faces:edit")
    plugin.CALLS.clear()
    assert jobs.generate_faces(consenting, again, jobs.plan(consenting, again, 6)) == (0, 6, 0)
    assert not plugin.CALLS


def test_edits__no_consent_no_faces(plugin: Any, tmp_path: Path) -> None:
    home = people_home(Home.at(tmp_path / "other"))
    generator = load_generator("own_faces:edit")
    assert jobs.plan(home, generator, 6).is_empty()
    assert jobs.generate_faces(home, generator, jobs.plan(home, generator, 6)) == (0, 0, 0)


def test_edits__erased_with_the_person(plugin: Any, consenting: Home) -> None:
    made = edited(consenting)
    rows = release_inputs.rows(consenting).filter(pl.col("source") == "synthetic")
    assert set(rows["subject_id"]) == {"ann"}
    assert set(rows["licence"]) == {"CC-BY-4.0"}
    first = release(consenting, name="own", rows=release_inputs.rows(consenting))
    assert releases.leaks(first.path) == []
    crops = [media.path_of(consenting, key) for key in made["crop"]]
    assert all(crop.is_file() for crop in crops)
    report = forget(consenting, "subject", "ann")
    assert report.verification.complete
    assert tables.read(consenting, jobs.TABLE).is_empty()
    assert not any(crop.exists() for crop in crops)
    left = releases.load("own", home=consenting)
    faces = [row["face_id"] for part in left.values() for row in part]
    assert faces
    assert not any(face.startswith("syn-") for face in faces)


def test_edits__withdrawn_consent(plugin: Any, consenting: Home) -> None:
    edited(consenting)
    rows = release_inputs.rows(consenting)
    made = pl.col("source") == "synthetic"
    rows = rows.with_columns(consent=pl.when(made).then(pl.lit("yes")).otherwise("consent"))
    built = release(consenting, name="own", rows=rows)
    contents = releases.show(consenting, name="own")
    counts = {row["reason"]: row["n"] for row in contents["counts"] if row["stage"] == "release"}
    assert counts["consent_editing"] == 6
    assert built.rows == rows.height - 6


# --- The examples of the documentation ---


def example(name: str, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    text = re.search(rf"```python {name}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert text, f"docs/synthesizers.md has no {name}"
    (folder / name).write_text(text[1])


def test_docs__text_and_au_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.synthesis.tiny_models import stable_diffusion

    folder = tmp_path / "sd"
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    for part, network in stable_diffusion(side=32).items():
        network.save_pretrained(folder / part)
        library = type(network).__module__.split(".")[0]
        index[part] = [
            library if library == "diffusers" else type(network).__module__,
            type(network).__name__,
        ]
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    example("sd_faces.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("STABLE_DIFFUSION", str(folder))
    monkeypatch.setenv("STEPS", "2")
    generator = load_generator("sd_faces:draw")
    requests = [FaceRequest({12: 0.9}, "happiness", seed) for seed in (0, 1)]
    faces = generator.generate(requests)
    assert faces.shape == (2, 224, 224, 3)
    assert not np.array_equal(faces[0], faces[1])
    assert np.array_equal(faces, generator.generate(requests))


def test_docs__relative_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors.torch import save_file

    from tests.synthesis.tiny_models import WIDTH, _unet, stable_diffusion

    parts = stable_diffusion(side=32)
    for name in ("vae", "scheduler"):
        parts[name].save_pretrained(tmp_path / name)
    _unet(sample_size=16, in_channels=8, out_channels=4).save_pretrained(tmp_path / "unet")
    weight = torch.randn(2 * WIDTH, len(ACTION_UNITS))
    save_file({"weight": weight}, str(tmp_path / "au.safetensors"))
    example("face_edits.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FACE_EDITOR", str(tmp_path))
    monkeypatch.setenv("STEPS", "2")
    generator = load_generator("face_edits:edit")
    assert generator.relative
    ramp = np.repeat(np.linspace(0, 255, 64)[:, None, None], 64, 1).repeat(3, 2).astype(np.uint8)
    faces = [
        generator.generate([FaceRequest(au, None, 5)], references=[Reference(name, image, BLANK)])
        for au, name, image in (
            ({12: 0.9}, "gray", FACE), ({4: 0.9}, "gray", FACE), ({12: 0.9}, "ramp", ramp)
        )
    ]  # fmt: skip
    assert faces[0].shape == (1, 224, 224, 3)
    assert not np.array_equal(faces[0], faces[1])  # it reads the change
    assert not np.array_equal(faces[0], faces[2])  # it reads the reference
