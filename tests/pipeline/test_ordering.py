"""Faces to order, as a person at a shell orders them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.synthesis.generator import Maker
from pipeline.synthesis.options import Wish
from pipeline.synthesis.service import RECORD, deliver
from warehouse.errors import MediaError, SettingsError

RISORIUS = [sys.executable, "-c", "from pipeline.cli import main; main()"]


def record(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / RECORD).read_text())["faces"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"au": "AU99=0.5", "expression": None}, "one of AU1,"),
        ({"au": "AU12=1.5", "expression": None}, "0..1"),
        ({"au": "AU26=1,AU27=1", "expression": None}, "AU26 or AU27"),
        ({"au": "AU12", "expression": None}, "action units such as"),
        ({"au": "", "expression": "bored"}, "one of neutral, happiness"),
        ({"au": "", "expression": "unknown"}, "one of neutral, happiness"),
        ({"au": "", "expression": None}, "something to show"),
        ({"au": "", "expression": None, "sweep": "AU77"}, "one of AU1,"),
    ],
)
def test_a_wish_nobody_can_draw_is_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Wish.of(n=1, seed=0, **words)


def test_a_wish_becomes_one_order_per_face() -> None:
    wish = Wish.of("AU12=0.8,AU6=C", "happy", n=3, seed=5)
    assert [(order.au, order.expression, order.seed) for order in wish.orders] == [
        ({12: 0.8, 6: 0.5}, "happiness", seed) for seed in (5, 6, 7)
    ]


def test_a_sweep_keeps_the_seed_along_a_row() -> None:
    orders = Wish.of("AU4=0.5", None, n=2, seed=0, sweep="au12").orders
    assert [order.seed for order in orders] == [0] * 5 + [1] * 5
    assert [order.au[12] for order in orders] == [0, 0.25, 0.5, 0.75, 1] * 2
    assert {order.au[4] for order in orders} == {0.5}


def test_a_sweep_through_a_contradiction_is_refused() -> None:
    with pytest.raises(SettingsError, match="AU26 or AU27"):
        _ = Wish.of("AU26=0.5", None, n=1, seed=0, sweep="AU27").orders


def test_it_delivers_pictures_a_sheet_and_what_was_measured(maker: Maker, tmp_path: Path) -> None:
    wish, told = Wish.of("AU12=0.8,AU11=0.3", "happiness", n=3, seed=0), []
    found = deliver(wish, maker, tmp_path, say=lambda *words: told.append(words)).facts
    assert (found["drawn"], found["untaught"]) == (3, [11])
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
    assert told[-1][2:] == (6, 6)


def test_the_same_order_again_draws_nothing_a_larger_one_the_rest(
    maker: Maker, tmp_path: Path
) -> None:
    first = deliver(Wish.of("AU12=0.8", None, n=2, seed=0), maker, tmp_path).facts
    again = deliver(Wish.of("AU12=0.8", None, n=2, seed=0), maker, tmp_path).facts
    assert again == {**first, "drawn": 0}
    more = deliver(Wish.of("AU12=0.8", None, n=4, seed=0), maker, tmp_path).facts
    assert more["drawn"] == 2
    assert more["faces"][:2] == first["faces"]
    other = deliver(Wish.of("AU4=0.8", None, n=2, seed=0), maker, tmp_path).facts
    assert other["drawn"] == 2
    assert len(record(tmp_path)) == 6


def test_a_killed_order_goes_on(maker: Maker, tmp_path: Path) -> None:
    wish = Wish.of("AU12=0.8", None, n=18, seed=0)

    def stop(stage: str, item: str, done: int, total: int) -> None:
        if done > 16 * maker.steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(wish, maker, tmp_path, say=stop)
    assert len(record(tmp_path)) == 16
    found = deliver(wish, maker, tmp_path).facts
    assert (found["drawn"], len(found["faces"])) == (2, 18)


def test_a_sweep_has_its_sheet(maker: Maker, tmp_path: Path) -> None:
    import cv2

    found = deliver(Wish.of("", None, n=2, seed=0, sweep="AU12"), maker, tmp_path).facts
    assert len(found["faces"]) == 10
    assert cv2.imread(found["sheet"]).shape == (16 + 2 * (96 + 16), 108 + 5 * 96, 3)


@pytest.mark.parametrize("text", ["", "[]", '{"faces": [{}]}'], ids=["empty", "list", "no id"])
def test_a_damaged_record_is_not_overwritten(maker: Maker, tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(SettingsError, match="a readable"):
        deliver(Wish.of("AU12=0.8", None, n=1, seed=0), maker, tmp_path)
    assert (tmp_path / RECORD).read_text() == text


def test_a_place_nobody_may_write_is_told(maker: Maker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match="room and the right to write"):
        deliver(Wish.of("AU12=0.8", None, n=1, seed=0), maker, tmp_path / "file" / "out")


def test_a_reference_without_a_face_is_refused(network: Path, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    picture = tmp_path / "wall.png"
    cv2.imwrite(str(picture), np.full((240, 320, 3), 128, np.uint8))
    maker = Maker(name=str(network), steps=2, reference=picture)
    with pytest.raises(MediaError, match="a face"):
        deliver(Wish.of("AU12=0.8", None, n=1, seed=0), maker, tmp_path / "out")


def test_the_command_speaks_json_and_refuses_in_one_line(network: Path, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RISORIUS, "synth", *words, "--home", str(tmp_path / "home")],
            capture_output=True, text=True, timeout=240, check=False,
            env={**os.environ, "RISORIUS_SYNTHESIZER": str(network)},
        )  # fmt: skip

    out = tmp_path / "out"
    done = run("--au", "AU12=0.8", "-n", "2", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["faces"]) == 2
    assert "drawing 20/20" in done.stderr
    refused = run("--au", "AU12=7", "--out", str(out))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Traceback" not in refused.stderr
    assert "0..1" in refused.stderr
