"""Film strips in the report: clips, frames and curves."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from tests.warehouse.test_release_clips import sequences
from tests.warehouse.test_release_pages import Tags
from warehouse import releases
from warehouse.releases.clips import CLIPS
from warehouse.releases.report import CURVE_HEIGHT, CURVE_WIDTH, film_strips
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS

Inputs = Callable[..., dict[str, Any]]
UNITS = [unit.number for unit in ACTION_UNITS]


def ratings(**levels: float) -> list[float]:
    """One rating: ``AU12=0.5`` and nought elsewhere."""
    return [levels.get(f"AU{number}", 0.0) for number in UNITS]


def clip(name: str, **given: Any) -> dict[str, Any]:
    """Four frames in a second, a smile that peaks on the third."""
    rising = [ratings(AU12=level, AU6=level / 2, AU4=0.3) for level in (0.0, 0.25, 1.0, 0.5)]
    return dict.fromkeys(CLIPS) | {
        "clip_id": name, "video_id": f"video-{name}", "subject_id": name, "split": "train",
        "start_s": 2.0, "end_s": 4.0, "onset_s": 2.5, "apex_s": 3.0, "offset_s": None,
        "apex_au": 12, "apex_intensity": 1.0, "times": [2.0, 2.5, 3.0, 4.0],
        "crops": [f"{name}/{number}" for number in range(4)], "au": rising,
    } | given  # fmt: skip


def shown(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return film_strips(pl.DataFrame(rows, schema={**CLIPS, "split": pl.String}), lambda key: key)


def test_strip__frames_and_curve() -> None:
    (one,) = shown(clip("ann"))
    frames = [(frame["title"], frame["second"], frame["image"]) for frame in one["frames"]]
    assert frames == [("onset", 0.5, "ann/1"), ("apex", 1.0, "ann/2"), ("last frame", 2.0, "ann/3")]
    assert one["events"] == [{"title": "onset", "x": 80.0}, {"title": "apex", "x": 160.0}]
    # The unit of the apex is drawn last, above the ones beside it.
    assert [curve["code"] for curve in one["curves"]][1:] == ["AU6", "AU12"]
    assert (CURVE_WIDTH, CURVE_HEIGHT) == (320.0, 72.0)
    assert one["curves"][-1]["path"] == "M0.0 72.0 L80.0 54.0 L160.0 0.0 L320.0 36.0"
    assert (one["unit"].number, one["seconds"]) == (12, 2.0)


def test_curve__unrated_frame() -> None:
    rated = clip("ann")["au"]
    (one,) = shown(clip("ann", au=[rated[0], rated[1], None, rated[3]]))
    assert one["curves"][-1]["path"] == "M0.0 72.0 L80.0 54.0 M320.0 36.0"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"au": [None] * 4, "apex_au": None}, id="nothing rated"),
        pytest.param(
            {"au": None, "apex_au": None, "apex_intensity": None}, id="no list of ratings"
        ),
        pytest.param({"end_s": 2.0}, id="no length"),
        pytest.param({"subject_id": None}, id="no subject"),
        pytest.param({"apex_au": 99}, id="unknown unit"),
    ],
)
def test_strip__incomplete_clips(given: dict[str, Any]) -> None:
    (one,) = shown(clip("ann", **given))
    assert len(one["frames"]) == 3
    rated = given.get("au", True) is True
    assert bool(one["curves"]) == rated
    assert (one["unit"] is not None) == rated


def test_strips__order() -> None:
    names = [
        clip(f"{who}{number}", subject_id=who, apex_intensity=strength)
        for who, strengths in {
            "a": (0.9, 0.8, 0.7, 0.6, 0.5),
            "b": (0.4,),
            "c": (0.95, 0.2),
        }.items()
        for number, strength in enumerate(strengths)
    ]
    assert [one["clip_id"] for one in shown(*names)] == ["c0", "a0", "b0", "a1", "c1", "a2"]
    assert shown(*reversed(names)) == shown(*names)
    assert shown() == shown(clip("ann", times=[], crops=[], au=[])) == []


def test_report__clips(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    plain = (releases.build(home, **given).path / "report.html").read_text()
    assert 'id="clips"' not in plain
    moving = sequences(home, given["rows"])
    release = releases.build(home, **given | {"name": "moving"}, sequences=moving)
    page = (release.path / "report.html").read_text()
    part = page.split('<section id="clips">')[1].split("</section>")[0]
    assert "4 of 4 clips" in part
    assert part.count("<svg") == 4
    # Without an onset or offset frame the clip's ends are used, unless the apex is there.
    assert part.count("first frame of clip") == 4
    assert part.count("last frame of clip") == 3
    assert part.count("on no frame") == 1
    assert len(re.findall(r'src="data:image/jpeg;base64,[^"]+"', part)) == 4 + 4 + 3
    tags = Tags()
    tags.feed(page)
    assert all(link.startswith("data:image/jpeg;base64,") for link in tags.links)
    assert "script" not in tags.names
    assert tags.handlers == []
