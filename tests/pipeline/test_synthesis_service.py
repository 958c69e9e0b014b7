"""Requested faces, generated into a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.synthesis.service import RECORD, FaceGenerator, generate
from synthesis.request import FaceRequest, sweep_requests
from warehouse.errors import MediaError, SettingsError

RISORIUS = [sys.executable, "-c", "from pipeline.cli import main; main()"]


def record(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / RECORD).read_text())["faces"]


@pytest.mark.parametrize(
    ("au", "expression", "said"),
    [
        ("AU99=0.5", None, "AU99. Choose from AU1,"),
        ("AU12=1.5", None, "0..1"),
        ("AU26=1,AU27=1", None, "AU26 and AU27"),
        ("AU12", None, "UNIT=INTENSITY"),
        ("", "bored", "one of neutral, happiness"),
        ("", "unknown", "one of neutral, happiness"),
    ],
)
def test_parse__invalid(au: str, expression: str | None, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        FaceRequest.parse(au, expression)


def test_generate__nothing_requested(generator: FaceGenerator, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Nothing is requested"):
        generate(FaceRequest({}), generator, tmp_path)


def test_sweep_requests__one_per_face() -> None:
    request = FaceRequest.parse("AU12=0.8,AU6=C", "happy", seed=5)
    assert sweep_requests(request, 3) == [
        FaceRequest({12: 0.8, 6: 0.5}, "happiness", seed) for seed in (5, 6, 7)
    ]


def test_sweep_requests__keep_the_seed_along_a_row() -> None:
    requests = sweep_requests(FaceRequest({4: 0.5}), 2, 12)
    assert [request.seed for request in requests] == [0] * 5 + [1] * 5
    assert [request.au[12] for request in requests] == [0, 0.25, 0.5, 0.75, 1] * 2
    assert {request.au[4] for request in requests} == {0.5}


def test_sweep_requests__contradiction() -> None:
    with pytest.raises(SettingsError, match="AU26 and AU27"):
        sweep_requests(FaceRequest({26: 0.5}), 1, 27)


def test_generate__images_sheet_and_measurements(generator: FaceGenerator, tmp_path: Path) -> None:
    request, calls = FaceRequest.parse("AU12=0.8,AU11=0.3", "happiness"), []
    found = generate(request, generator, tmp_path, n=3, progress=lambda *call: calls.append(call))
    assert (found["drawn"], found["unsupported"]) == (3, [11])
    assert Path(found["sheet"]).is_file()
    assert sum(found["actions"].values()) == 3
    assert found["measured"]["au"]["AU12"]["asked"] == pytest.approx(0.8)
    assert 0 <= found["measured"]["au"]["AU12"]["seen"] <= 1
    assert found["measured"]["au"]["AU11"]["seen"] is None
    assert sum(found["measured"]["expression"].values()) == pytest.approx(1, abs=1e-3)
    entries = record(tmp_path)
    assert len(entries) == 3
    for entry in entries:
        assert (tmp_path / entry["file"]).is_file()
        assert entry["asked"]["au"] == {"AU12": 0.8, "AU11": 0.3}
        assert entry["reason"] is not None or entry["action"] == "kept"
    assert calls[-1][2:] == (6, 6)


def test_generate__only_what_is_missing(generator: FaceGenerator, tmp_path: Path) -> None:
    first = generate(FaceRequest.parse("AU12=0.8"), generator, tmp_path, n=2)
    again = generate(FaceRequest.parse("AU12=0.8"), generator, tmp_path, n=2)
    assert again == {**first, "drawn": 0}
    more = generate(FaceRequest.parse("AU12=0.8"), generator, tmp_path, n=4)
    assert more["drawn"] == 2
    assert more["faces"][:2] == first["faces"]
    other = generate(FaceRequest.parse("AU4=0.8"), generator, tmp_path, n=2)
    assert other["drawn"] == 2
    assert len(record(tmp_path)) == 6


def test_generate__resumes_after_kill(generator: FaceGenerator, tmp_path: Path) -> None:
    request = FaceRequest({12: 0.8})

    def stop(stage: str, item: str, done: int, total: int) -> None:
        if done > 16 * generator.num_inference_steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(request, generator, tmp_path, n=18, progress=stop)
    assert len(record(tmp_path)) == 16
    found = generate(request, generator, tmp_path, n=18)
    assert (found["drawn"], len(found["faces"])) == (2, 18)


def test_generate__sweep_sheet(generator: FaceGenerator, tmp_path: Path) -> None:
    import cv2

    found = generate(FaceRequest.parse(""), generator, tmp_path, n=2, sweep=12)
    assert len(found["faces"]) == 10
    assert cv2.imread(found["sheet"]).shape == (16 + 2 * (96 + 16), 108 + 5 * 96, 3)


@pytest.mark.parametrize("text", ["", "[]", '{"faces": [{}]}'], ids=["empty", "list", "no id"])
def test_generate__damaged_record(generator: FaceGenerator, tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(SettingsError, match="cannot be read"):
        generate(FaceRequest.parse("AU12=0.8"), generator, tmp_path, n=1)
    assert (tmp_path / RECORD).read_text() == text


def test_generate__folder_not_writable(generator: FaceGenerator, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match="cannot be written"):
        generate(FaceRequest.parse("AU12=0.8"), generator, tmp_path / "file" / "out", n=1)


def test_generate__reference_without_face(network: Path, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    picture = tmp_path / "wall.png"
    cv2.imwrite(str(picture), np.full((240, 320, 3), 128, np.uint8))
    generator = FaceGenerator(name=str(network), num_inference_steps=2, reference=picture)
    with pytest.raises(MediaError, match="No face is found"):
        generate(FaceRequest.parse("AU12=0.8"), generator, tmp_path / "out", n=1)


def _synth(network: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RISORIUS, "synth", *words, "--home", str(folder / "home"), "--out", str(folder / "out")],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "RISORIUS_SYNTHESIZER": str(network)},
    )  # fmt: skip


@pytest.mark.slow
def test_command__json(network: Path, tmp_path: Path) -> None:
    done = _synth(network, tmp_path, "--au", "AU12=0.8", "-n", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["faces"]) == 2
    assert "drawing 20/20" in done.stderr


def test_command__error(network: Path, tmp_path: Path) -> None:
    refused = _synth(network, tmp_path, "--au", "AU12=7")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Traceback" not in refused.stderr
    assert "0..1" in refused.stderr
