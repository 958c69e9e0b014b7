"""Faces for coverage gaps: generated once, labelled, resumable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotation.raters.onnx_rater import rater_id_of, read_card, weights_of
from pipeline import runs
from pipeline.synthesis import jobs
from pipeline.synthesis.service import FaceGenerator, evaluation_raters
from tests.synthesis.tiny_models import pixel_pipeline
from warehouse.errors import ModelError, SettingsError
from warehouse.storage import media, tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

TABLE = "synthetic_faces"
JUDGE = rater_id_of(read_card(weights_of("judge")))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def state(home: Home) -> pl.DataFrame:
    return tables.read(home, TABLE).sort("face_id")


def test_generate_faces__empty_home(home: Home, generator: FaceGenerator) -> None:
    asked = jobs.plan(home, generator, 9)
    assert asked.height == 9
    count = jobs.generate_faces(home, generator, asked)
    assert count == (9, 0, 0)
    made = state(home)
    assert made["face_id"].to_list() == sorted(asked["face_id"])
    assert made["face_id"].str.contains(r"^syn-[0-9a-f]{16}$").all()
    assert made["model"].str.starts_with("risorius-face-").all()
    assert media.load(home, made["crop"][0]).shape == (224, 224, 3)
    assert made["action"].null_count() == 9
    assert views.query(home, "SELECT * FROM curated_synthetic_faces").is_empty()


def test_generate_faces__repeated(home: Home, generator: FaceGenerator) -> None:
    asked = jobs.plan(home, generator, 5)
    jobs.generate_faces(home, generator, asked)
    files = sorted(home.root.rglob("*.*"))
    before = {file: file.stat().st_mtime_ns for file in files if file.is_file()}
    assert jobs.generate_faces(home, generator, asked) == (0, 5, 0)
    assert {f: f.stat().st_mtime_ns for f in home.root.rglob("*.*") if f.is_file()} == before


def test_generate_faces__resumes_after_kill(
    tmp_path: Path, generator: FaceGenerator, home: Home
) -> None:
    asked, other = jobs.plan(home, generator, 20), Home.at(tmp_path / "other")
    jobs.generate_faces(other, generator, asked)

    def stop(part: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.generate_faces(home, generator, asked, progress=stop)
    assert state(home).height == 16
    assert jobs.generate_faces(home, generator, asked) == (4, 16, 0)
    assert state(home).equals(state(other))


def test_generate_faces__lost_crop(home: Home, generator: FaceGenerator) -> None:
    asked = jobs.plan(home, generator, 4)
    jobs.generate_faces(home, generator, asked)
    before = state(home)
    media.path_of(home, before["crop"][0]).unlink()
    assert jobs.generate_faces(home, generator, asked).generated == 1
    assert state(home).equals(before)
    assert media.path_of(home, before["crop"][0]).is_file()


def test_generate_faces__removes_unplanned_faces(home: Home, generator: FaceGenerator) -> None:
    asked = jobs.plan(home, generator, 8)
    jobs.generate_faces(home, generator, asked)
    jobs.label_faces(home, generator, evaluation_raters("default"))
    foreign = state(home).head(1).with_columns(face_id=pl.lit("syn-" + "0" * 16))
    tables.write(home, TABLE, foreign, part="elsewhere")
    before = state(home)
    gap = asked["gap"][0]
    fewer = asked.filter(pl.col("gap") != gap)
    count = jobs.generate_faces(home, generator, fewer)
    assert (count.generated, count.known) == (0, fewer.height)
    kept = [*fewer["face_id"], "syn-" + "0" * 16]
    assert state(home).equals(before.filter(pl.col("face_id").is_in(kept)))


def test_label_faces__once(home: Home, generator: FaceGenerator) -> None:
    asked = jobs.plan(home, generator, 6)
    jobs.generate_faces(home, generator, asked)
    lost = state(home)["crop"][0]
    media.path_of(home, lost).unlink()
    raters = evaluation_raters("default")
    assert jobs.label_faces(home, generator, raters) == 6
    assert jobs.label_faces(home, generator, raters) == 0
    made = state(home)
    assert sum(jobs.action_counts(home).values()) == 6
    gone = made.filter(pl.col("crop") == lost)
    assert gone["action"].to_list() == ["dropped"] * gone.height
    assert gone["reason"].str.starts_with("crop_gone").all()
    read = made.filter(pl.col("crop") != lost)
    assert np.allclose(read["soft_label"].to_numpy().sum(axis=1), 1, atol=1e-3)
    # A network of random weights draws noise, in which no finder finds a face.
    assert (read["reason"] == "not_a_face: none is found").all()
    assert views.query(home, "SELECT * FROM curated_synthetic_faces").is_empty()
    assert views.query(home, "SELECT sum(n) FROM synthetic_stages").item() == 6


def test_face_id__depends_on_every_setting(
    network: Path, generator: FaceGenerator, tmp_path: Path
) -> None:
    from synthesis.request import FaceRequest

    order = FaceRequest({12: 0.8, 4: 0.0}, "happiness", 3)
    same = FaceRequest({4: 0.0, 12: 0.8}, "happiness", 3)
    assert generator.face_id(order) == generator.face_id(same)
    picture = tmp_path / "r.png"
    picture.write_bytes(b"anything")
    others = [
        generator.face_id(FaceRequest({12: 0.8}, "happiness", 3)),
        generator.face_id(FaceRequest({12: 0.8, 4: 0.0}, None, 3)),
        generator.face_id(FaceRequest({12: 0.8, 4: 0.0}, "happiness", 4)),
        FaceGenerator(name=str(network), num_inference_steps=3).face_id(order),
        FaceGenerator(name=str(network), num_inference_steps=2, guidance_scale=1.0).face_id(order),
        FaceGenerator(name=str(network), num_inference_steps=2, guided=True).face_id(order),
        FaceGenerator(name=str(network), num_inference_steps=2, reference=picture).face_id(order),
    ]
    second = tmp_path / "second"
    pixel_pipeline(seed=1).save_pretrained(second)
    others.append(FaceGenerator(name=str(second), num_inference_steps=2).face_id(order))
    assert len({*others, generator.face_id(order)}) == len(others) + 1


def test_evaluation_raters__without_guide(home: Home, network: Path) -> None:
    guided = FaceGenerator(name=str(network), num_inference_steps=2, guided=True)
    assert guided.guide_id not in {rater.rater_id for rater in evaluation_raters("judge")}
    left = evaluation_raters("default", guide_id=guided.guide_id)
    assert guided.guide_id not in {rater.rater_id for rater in left}
    # The default rater was distilled from the guide, so it is no independent evaluator.
    assert [rater.rater_id for rater in left] == [JUDGE]
    with pytest.raises(SettingsError, match="guided the faces"):
        jobs.label_faces(home, guided, evaluation_raters("guide"))


def test_model__no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights of a face generator"):
        _ = FaceGenerator(name=str(tmp_path)).model
    with pytest.raises(ModelError, match="conditioner in"):
        _ = FaceGenerator(name=str(tmp_path)).supported_units


@pytest.mark.slow
def test_assets__materialize(home: Home, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISORIUS_HOME", str(home.root))
    monkeypatch.setenv("RISORIUS_SYNTHESIZER", str(network))
    monkeypatch.setenv("RISORIUS_SYNTH_FACES", "3")
    made = runs.materialize(home, "synth")
    assert made["coverage_gaps"]["lacking"] > 50
    assert made["coverage_gaps"]["heat_map"].count("data:image/png;base64") == 2
    assert made["synthetic_faces"]["drawn"] == 3
    assert "data:image/webp" in made["synthetic_faces"]["contact_sheet"]
    assert made["synthetic_labels"]["dropped"] == 3
    again = runs.materialize(home, "synth")
    assert (again["synthetic_faces"]["drawn"], again["synthetic_faces"]["known_before"]) == (0, 3)


NAN = [float("nan")] * 8


@pytest.mark.parametrize(
    ("check", "column", "value", "passed"),
    [
        ("synthetic_faces_stand_once", None, None, True),
        ("synthetic_faces_stand_once", "face_id", "syn-" + "0" * 16, False),
        ("synthetic_faces_stand_once", "crop", None, False),
        ("synthetic_faces_stand_once", "crop", "crops/00/gone.png", False),
        ("synthetic_faces_stand_once", "model", None, False),
        ("every_synthetic_face_has_an_action", None, None, True),
        ("every_synthetic_face_has_an_action", "action", None, False),
        ("every_synthetic_face_has_an_action", "action", "perhaps", False),
        ("every_synthetic_face_has_an_action", "reason", None, False),
        ("synthetic_labels_are_distributions", None, None, True),
        ("synthetic_labels_are_distributions", "soft_label", NAN, False),
        ("synthetic_labels_are_distributions", "soft_label", None, False),
        ("synthetic_labels_are_distributions", "soft_label", [0.5] * 8, False),
    ],
)
def test_checks__invalid_tables(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    check: str,
    column: str | None,
    value: object,
    passed: bool,
) -> None:
    from pipeline.defs import synthesis
    from pipeline.defs.resources import Workplace

    monkeypatch.setenv("RISORIUS_HOME", str(home.root))
    columns = TABLES[TABLE].columns
    crop = media.store(home, "crops", np.zeros((16, 16, 3), np.uint8))
    rows = pl.DataFrame(
        {
            **dict.fromkeys(columns),
            "face_id": ["syn-a", "syn-b"],
            "model": "risorius-face-0",
            "crop": crop,
            "soft_label": [[0.125] * 8] * 2,
            "action": "relabelled",
            "reason": "expression: …",
        },
        schema=TABLES[TABLE].schema,
        strict=False,
    )
    if column:
        rows = rows.with_columns(pl.lit(value, columns[column]).alias(column))
    # In two files: within one, the table itself refuses a repeated id.
    for part, row in zip(("gap-a", "gap-b"), rows.iter_slices(1), strict=True):
        tables.write(home, TABLE, row, part=part)
    assert getattr(synthesis, check)(Workplace()).passed is passed
