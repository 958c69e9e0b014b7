"""A folder of pictures with votes becomes faces with soft labels, once."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import polars as pl
import pytest
from rich.console import Console

from pipeline import import_dataset, importers, runs
from pipeline.cli import audit as audits
from pipeline.importers.samples import Options
from pipeline.ingest.manifest import list_sources
from pipeline.settings import load, thresholds
from tests.media_files import CARPHONE, SIX_PEOPLE, pattern
from warehouse.errors import SettingsError
from warehouse.storage import tables, views
from warehouse.storage.home import Home


def dataset(folder: Path) -> Path:
    """Write frames of a man, one twice, a group photo and an empty picture."""
    folder.mkdir()
    with av.open(str(CARPHONE)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    for number in (0, 40, 80):
        cv2.imwrite(str(folder / f"man{number}.png"), frames[number])
    (folder / "copy.png").write_bytes((folder / "man0.png").read_bytes())
    (folder / "group.jpg").write_bytes(SIX_PEOPLE.read_bytes())
    cv2.imwrite(str(folder / "empty.png"), pattern(0)[:, :, ::-1])
    cv2.imwrite(str(folder / "unnamed.png"), frames[60])
    write(folder, ("man0.png", {"happy": 2, "neutral": 1}), ("man40.png", {"sad": 3}),
          ("man80.png", {"fear": 1}), ("copy.png", {"happy": 1}), ("group.jpg", {"joy": 4}),
          ("empty.png", {"NF": 2}), ("absent.png", {"anger": 1}))  # fmt: skip
    return folder


def write(folder: Path, *rows: tuple[str, dict[str, int]]) -> None:
    lines = (json.dumps({"file_name": name, "votes": votes}) for name, votes in rows)
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def imported(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Home, Path, import_dataset.ImportReport]:
    folder = dataset(tmp_path_factory.mktemp("data") / "my set")
    home = tmp_path_factory.mktemp("home")
    return Home.at(home), folder, import_dataset.run(load(home=home, workers=1), str(folder))


def test_import__counts(imported) -> None:
    home, _, result = imported
    facts = result.facts
    assert (facts["batch"], facts["votes"], facts["new"]) == ("my-set", 15, 15)
    assert facts["format"] == "metadata"
    # Only the picture that is not there loses its vote: the empty one is a face as a whole.
    assert (facts["votes on kept faces"], facts["votes on pictures without a kept face"]) == (14, 1)
    assert facts["pictures without a vote"] == 1
    said = "\n".join(facts["notes"])
    assert "1 frames show no face that was found: the whole frame is the face" in said
    assert "1 pictures show several faces and name none" in said
    videos = tables.read(home, "videos")
    assert videos.height == 8
    assert videos["source"].unique().to_list() == ["imported"]
    reasons = {row["file"]: row["reason"].split(":")[0] for row in facts["mishaps"]}
    assert reasons == {"absent.png": "missing", "man0.png": "duplicate"}
    whole = tables.read(home, "faces").filter(pl.col("reason") == "whole_frame")
    assert whole["verdict"].to_list() == ["kept"]
    assert whole["bbox"].to_list() == [[0, 0, 160, 120]]
    assert whole["keypoints"].to_list() == [None]


def test_import__labels_from_votes(imported) -> None:
    home, *_ = imported
    labels = views.query(
        home,
        """SELECT split_part(uri, '/', -1) AS file, soft_labels.* FROM soft_labels
           JOIN faces USING (face_id) JOIN videos USING (video_id, batch)
           WHERE videos.verdict = 'kept' ORDER BY file""",
    )
    files = ["copy.png", "empty.png", "group.jpg", "man40.png", "man80.png"]
    assert labels["file"].to_list() == files
    # The same bytes are one picture; a seat that votes on both of its files has one vote.
    assert labels["n_votes"].to_list() == [3, 2, 4, 3, 1]
    # Three seats say sadness and the machine surprise: both count.
    assert 0.2 < labels["expression"][3][3] < 0.9
    # The only label of a picture is its dataset's statement; the prior only softens it.
    assert labels["expression"][4].max() > 0.45
    curated = views.query(home, "SELECT source, count(*) AS n FROM curated_faces GROUP BY ALL")
    assert curated.rows() == [("imported", 5)]
    raters = tables.read(home, "annotations")["rater_id"].unique()
    assert raters.str.contains(r"^person-seat-0\d-[0-9a-f]{8}$").all()


def test_import__audits(imported, monkeypatch: pytest.MonkeyPatch) -> None:
    home, *_ = imported
    monkeypatch.setenv("RISORIUS_HOME", str(home.root))
    monkeypatch.setenv("RISORIUS_AUDIT_LABEL_NOISE", "0.6")
    made = runs.materialize(home, "audit")
    found = {row["audit"]: row for row in audits.findings(home)}
    assert list(found) == ["label_noise", "near_duplicates", "open_set", "curation"]
    assert [row["n"] for row in found.values()] == [5, found["near_duplicates"]["n"], 5, 5]
    assert sum(found["curation"]["decisions"].values()) == 5
    # Three unanimous smiles of the group photo's best face and three sad ones of the man.
    assert "data:image/webp" in made["label_noise"]["worst"]
    assert made["rater_drift"]["drifting"] == "none"
    audits.show(audits.findings(home), Console(quiet=True))
    monkeypatch.setenv("RISORIUS_AUDIT_OPEN_SET", "2")
    with pytest.raises(SettingsError, match="RISORIUS_AUDIT_OPEN_SET"):
        thresholds()


def again(home: Home, folder: Path, batch: str) -> import_dataset.Recorded:
    """Read a folder of metadata and record its votes; find no faces."""
    dataset, read = import_dataset.spooled(
        home, folder, importers.load("metadata"), Options(), batch=batch
    )
    return import_dataset.record(home, read, dataset.words, batch=batch)


def test_import__repeated(imported) -> None:
    home, folder, result = imported
    before = tables.read(home, "annotations").height
    done = again(home, folder, "my-set")
    assert (done.height, done.placed) == (0, result.counts["votes on kept faces"])
    write(folder, ("man0.png", {"happy": 2, "neutral": 1}), ("man40.png", {"sad": 2, "fear": 1}))
    done = again(home, folder, "my-set")
    assert done.events["created"] >= 1
    assert done.events["deleted"] >= 9
    assert tables.read(home, "annotations").height == before + done.height
    votes = views.query(home, "SELECT label, count(*) AS n FROM votes GROUP BY ALL ORDER BY label")
    assert votes.rows() == [("fear", 1), ("happiness", 2), ("neutral", 1), ("sadness", 2)]
    assert again(home, folder, "my-set").height == 0


def test_import__copies_into_batch_once(imported) -> None:
    home, folder, _ = imported
    listing = home.inbox / "my-set" / "sources.jsonl"
    before = listing.read_text()
    again(home, folder, "my-set")
    assert listing.read_text() == before
    other = home.inbox / "filmed" / "sources.jsonl"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"uri": str(CARPHONE)}) + "\n")
    with pytest.raises(SettingsError, match="--name"):
        again(home, folder, "filmed")


@pytest.mark.parametrize("rater", ["ada@example.org", "Ada Lovelace"])
def test_import__pseudonyms(tmp_path: Path, rater: str) -> None:
    home = Home.at(tmp_path / "home")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"x")
    (folder / "metadata.csv").write_text(f"file_name,rater_id,label\na.png,{rater},fear\n")
    again(home, folder, "b")
    stored = tables.read(home, "annotations")
    assert rater not in str(stored.to_dicts())
    assert stored["rater_id"].str.contains(r"^person-[0-9a-f]{8}$").all()


def test_import__missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not a folder"):
        import_dataset.run(load(home=tmp_path), str(tmp_path / "missing"))


def test_import__names_that_are_no_text(tmp_path: Path) -> None:
    """Bad names and links are reported; the other picture is imported."""
    folder, home = tmp_path / "set", Home.at(tmp_path / "home")
    (folder / "away").mkdir(parents=True)
    (folder / "good.png").write_bytes(b"x")
    (folder / "link").symlink_to(folder / "away")
    (folder / "p\udcff.png").write_bytes(b"x")
    votes = {"happy": 2, "sad": 1}
    write(folder, ("good.png", votes), ("a\0.png", votes), ("caf\udce9.png", votes))
    done = again(home, folder, "set")
    listed = {source.file_name: source.failure for source in list_sources(home.inbox / "set")}
    codes = {name: failure and failure.split(":")[0] for name, failure in listed.items()}
    bad = "unreadable_name"
    assert codes == {
        "good.png": None, "a\\x00.png": bad, "caf\\xe9.png": bad, "p\\xff.png": bad
    }  # fmt: skip
    assert (done.height, done.placed) == (9, 0)
    assert import_dataset.linked_folders(folder) == [
        "1 linked folders were not followed (link); copy them here"
    ]
