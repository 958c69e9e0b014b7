"""Signals beside a video: reading, cuts, verdicts."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pipeline.segments import sensors
from tests.pipeline.segments.test_segments import home_of
from warehouse.errors import MediaError
from warehouse.storage import tables
from warehouse.storage.schema import TABLES


@pytest.mark.parametrize(
    ("text", "rate", "first", "note"),
    [
        ("time_s,eda\n0.5,1\n0.75,2\n1.0,3\n", 4.0, 0.5, None),
        ("Time;EDA;BVP\n0,0;1,5;2\n0,1;1,6;\n", 10.0, 0.0, None),
        ("# rate_hz: 64\n# offset_s = -0.25\neda\n1\n2\n", 64.0, -0.25, None),
        ("time_s\teda\n0\t1\n1\t1\n2\t1\n9\t1\n", 1.0, 0.0, "gaps: 1 pauses longer than 5 samples"),
    ],
)
def test_read__times_and_rate(
    tmp_path: Path, text: str, rate: float, first: float, note: str | None
) -> None:
    path = tmp_path / "talk.eda.csv"
    path.write_text(text)
    found = sensors.read(path)
    assert (found.rate_hz, found.times[0], found.note) == (rate, first, note)
    assert found.channels[0].lower() == "eda"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.eda.csv", b"time_s,eda\n0,1\n0,2\n", "times do not rise after 0 s"),
        ("a.eda.csv", b"time_s,eda\n0,1\n,2\n", "a time is missing"),
        ("a.eda.csv", b"time_s,eda\n0,1\n1,high\n", "not numbers: eda"),
        ("a.eda.csv", b"eda\n1\n2\n", "no column time_s and no rate_hz"),
        ("a.eda.csv", b"# rate_hz: often\neda\n1\n2\n", "bad_sensor"),
        ("a.eda.csv", b"time_s,eda\n0,1\n", "1 samples of 1 channels"),
        ("a.eda.csv", b"", "bad_sensor"),
        ("a.eda.csv", b"\x89PNG\r\n\x1a\n\0\0", "bad_sensor"),
        ("a.eda.parquet", b"PAR1", "bad_sensor"),
        ("a.eda.edf", b"0", "EDF is not read"),
    ],
)
def test_read__names_what_is_wrong(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(MediaError, match=message):
        sensors.read(path)


def test_find_sensors__whole_and_cut_to_segments(tmp_path: Path) -> None:
    video = tmp_path / "talk.mp4"
    video.write_bytes(b"0")
    lines = "".join(f"{step / 4},{step}\n" for step in range(16))
    (tmp_path / "talk.eda.csv").write_text(f"time_s,level\n{lines}")
    (tmp_path / "talk.mp4.late.csv").write_text("time_s,level\n9,1\n10,2\n")
    (tmp_path / "other.eda.csv").write_text("")
    home = home_of(tmp_path, video)
    row = {"segment_id": "v0-s1", "video_id": "v0", "batch": "b", "start_s": 1.0, "end_s": 2.0,
           "verdict": "kept"}  # fmt: skip
    segments = pl.DataFrame([row], schema=TABLES["segments"].schema)
    tables.write(home, "segments", segments, part="v0", batch="b")
    assert sensors.find_sensors(home, "b") == 1
    assert sensors.find_sensors(home, "b") == 0
    found = {one["sensor_id"]: one for one in tables.read(home, "sensors").to_dicts()}
    assert found["v0-xlate"]["reason"] == "outside_video: 9 to 10 s of 4 s"
    assert (found["v0-xeda"]["rate_hz"], found["v0-xeda"]["end_s"]) == (4.0, 3.75)
    cut = pl.read_parquet(home.media / found["v0-s1-xeda"]["media"])
    assert cut["time_s"].to_list() == [0.0, 0.25, 0.5, 0.75]
    assert cut["level"].to_list() == [4.0, 5.0, 6.0, 7.0]
    (tmp_path / "talk.eda.csv").unlink()
    (tmp_path / "talk.mp4.late.csv").unlink()
    sensors.find_sensors(home, "b")
    assert tables.read(home, "sensors").is_empty()
    assert list((home.media / "sensors").iterdir()) == []
