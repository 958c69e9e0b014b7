"""Load and run speech recognisers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.clips import transcripts
from pipeline.clips.transcripts import Cue
from warehouse.errors import ModelError, SettingsError

PLUGIN = '''
class Segment:
    def __init__(self, start, end, text):
        self.start, self.end, self.text = start, end, text

def hear(sound, rate):
    """Says how loud each second is."""
    for second in range(len(sound) // rate):
        part = sound[second * rate : (second + 1) * rate]
        if abs(part).max() > 0.1:
            yield Segment(second, second + 1, f"loud {abs(part).max():.1f}")

def broken(sound, rate):
    raise RuntimeError("no model")

def wrong(sound, rate):
    return [{"start": 0}]

nothing = 3
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package ``tiny_ears`` that registers ``tiny``."""
    (tmp_path / "tiny_ears.py").write_text(PLUGIN)
    info = tmp_path / "tiny_ears-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-ears\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{transcripts.ENTRY_POINTS}]\ntiny = tiny_ears:hear\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tiny_ears", raising=False)


@pytest.mark.parametrize("name", ["tiny", "tiny_ears:hear"])
def test_load_recogniser__by_name(installed: None, name: str) -> None:
    sound = np.zeros(3 * 100, np.float32)
    sound[150] = 0.5
    found = transcripts.recognise(transcripts.load_recogniser(name), sound, 100, name=name)
    assert found == [Cue(1.0, 2.0, "loud 0.5")]


@pytest.mark.parametrize("name", ["tiny_ears:broken", "tiny_ears:wrong"])
def test_recognise__failing_plugin(installed: None, name: str) -> None:
    with pytest.raises(ModelError, match=name):
        transcripts.recognise(
            transcripts.load_recogniser(name), np.zeros(100, np.float32), 100, name=name
        )


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("huge", SettingsError, "installed: tiny"),
        ("no_such_module:hear", ModelError, "cannot be imported"),
        ("tiny_ears:absent", ModelError, "cannot be imported"),
        ("tiny_ears:nothing", ModelError, "not callable"),
    ],
)
def test_load_recogniser__unknown_name(
    installed: None, name: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        transcripts.load_recogniser(name)
