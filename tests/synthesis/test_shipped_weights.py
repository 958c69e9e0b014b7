"""The weights in the package, loaded the way a notebook does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from synthesis.pipeline import DEFAULT
from warehouse.ids import file_sha256

SCRIPT = """
from synthesis import FaceAUPipeline

pipeline = FaceAUPipeline.from_default()
pipeline.set_progress_bar_config(disable=True)
asked = {"au": [{12: 0.8}, {4: 0.8}], "expression": ["happiness", None]}
faces = pipeline(**asked, generator=0, output_type="array", num_inference_steps=3)
print(faces.images.shape, faces.images.dtype, [label["au"] for label in faces.labels])
"""


def test_from_default__fresh_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "(2, 48, 48) uint8 [{12: 0.8}, {4: 0.8}]" in done.stdout


def test_shipped_weights__card_and_record() -> None:
    record = json.loads((DEFAULT / "training.json").read_text())
    card = (DEFAULT / "MODEL_CARD.md").read_text()
    for name, wanted in record["sha256"].items():
        assert file_sha256(str(DEFAULT / name)) == wanted
    assert record["sha256"]["unet/diffusion_pytorch_model.safetensors"] in card
    assert not [file for file in Path(DEFAULT).rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]
