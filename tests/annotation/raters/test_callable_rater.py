"""Run the example of annotation/README.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from annotation import raters
from warehouse.vocabulary import AU_INDEX

README = Path(__file__).parents[3] / "annotation" / "README.md"


class Column:
    """The part of a pandas column that the example uses."""

    def __init__(self, values: list[float]) -> None:
        self.iloc = values

    def __len__(self) -> int:
        return len(self.iloc)


class Detector:
    """Replaces py-feat's detector, whose weights tests do not have."""

    def __init__(self, au_model: str) -> None:
        assert au_model == "xgb"

    def detect_image(self, path: str) -> object:
        from PIL import Image

        bright = np.asarray(Image.open(path)).mean() / 255
        seen = {"AU01": bright, "AU12": 1.2, "AU99": 0.5} if bright > 0.1 else {}
        columns = ("AU01", "AU12", "AU99")
        aus = {name: Column([seen[name]] if seen else []) for name in columns}
        return type("Fex", (), {"aus": aus})()


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    code = re.search(
        r"<!-- example: my_rater.py -->\n```python\n(.*?)```", README.read_text(), re.S
    )
    assert code
    (tmp_path / "my_rater.py").write_text(code[1])
    feat = ModuleType("feat")
    feat.Detector = Detector  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "feat", feat)
    monkeypatch.delitem(sys.modules, "my_rater", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_rater:rate"


def test_readme_example__adds_action_units(example: str) -> None:
    faces = np.stack([np.full((112, 112, 3), 128, np.uint8), np.zeros((112, 112, 3), np.uint8)])
    theirs, ours = raters.load(example).rate(faces), raters.load().rate(faces)
    assert raters.load(example).rater_id.startswith("machine-my-rater-rate-")
    assert np.array_equal(theirs.expression, ours.expression)
    assert np.array_equal(theirs.plurality, ours.plurality)
    assert theirs.au[0, AU_INDEX[1]] == pytest.approx(128 / 255)
    assert theirs.au[0, AU_INDEX[12]] == 1
    # A face that their model does not find and units that it does not know are NaN.
    assert np.isnan(theirs.au[1]).all()
    assert np.isfinite(theirs.au[0]).sum() == 2
