"""Export a trained rater to ONNX.

Run ``python -m annotation.raters.training.export --run DIR``.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotation.raters.network import Served
from annotation.raters.onnx_rater import OnnxRater, weights_of
from annotation.raters.training.dataset import RULE
from annotation.raters.training.distill import trained
from annotation.raters.training.targets import AU_SHAPES, UNRELIABLE
from warehouse.errors import ModelError
from warehouse.ids import file_sha256
from warehouse.storage import atomic
from warehouse.training import checkpoint, loop

LARGEST_BYTES = 12_000_000
"""Weights are part of the wheel, whose size is limited."""

TOLERANCE = 1e-4
"""Largest difference between PyTorch and ONNX Runtime that counts as rounding."""


def export(run: Path, weights: Path, *, model: str = "risorius") -> dict[str, Any]:
    """Write ``weights`` and the JSON beside it; return the JSON's content.

    Args:
        model: name in the rater's id.

    Raises:
        ModelError: the run has no results yet, the file is too large, or ONNX Runtime and
            PyTorch disagree. The old weights are left unchanged.
    """
    results = checkpoint.results_of(run)
    served = Served(trained(run), results["temperature"]).eval()
    with atomic.replace_file(weights) as draft:
        _write_onnx(served, draft)
        _remove_metadata(draft)
        size = draft.stat().st_size
        if size > LARGEST_BYTES:
            raise ModelError(
                f"The weights are larger than {LARGEST_BYTES} bytes",
                got=f"{size} bytes",
                hint="train a smaller network",
            )
        _compare(served, draft)
    card = {
        "model": model,
        "sha256": file_sha256(str(weights)),
        "side": served.network.shape.side,
        "action_units": [int(unit) for unit in results["au_scale"]],
        "unreliable_action_units": [u for u in UNRELIABLE if str(u) in results["au_scale"]],
        "silent_action_units": [u for u in AU_SHAPES if str(u) not in results["au_scale"]],
        "parameters": sum(p.numel() for p in served.network.parameters()),
        "shape": served.network.shape.as_dict(),
        "trained_on": {
            "data": "FER2013 images with FER+ votes (Barsoum et al., 2016)",
            "split": "train",
            "part": results["recipe"]["part"],
            "rule": RULE,
            "teachers": results.get("teachers", []),
            **results["images"],
        },
        **{
            name: results[name]
            for name in (
                "date", "commit", "hardware", "device", "precision", "recipe", "steps", "minutes",
                "temperature", "plurality_power", "au_scale", "valid",
            )
        },
    }  # fmt: skip
    atomic.write_text(weights.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
    return card


def _write_onnx(served: Served, path: Path) -> None:
    side = served.network.shape.side
    example = torch.randint(0, 256, (2, side, side), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.onnx.export(
        served,
        (example,),
        str(path),
        input_names=["gray"],
        output_names=["answers", "au", "feature"],
        dynamic_shapes={"gray": {0: torch.export.Dim("faces", min=1, max=4096)}},
        dynamo=True,
        external_data=False,
        optimize=True,
        verbose=False,
    )


def _remove_metadata(path: Path) -> None:
    """Remove the exporter's stack traces, which hold paths of this machine."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(model, path)


def _compare(served: Served, path: Path) -> None:
    """Compare PyTorch with ONNX Runtime on noise and a flat face.

    Both are compared for one face and for several.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    side = served.network.shape.side
    rng = np.random.default_rng(0)
    for faces in (1, 5):
        gray = rng.integers(0, 256, (faces, side, side), dtype=np.uint8)
        gray[0] = 128
        with torch.inference_mode():
            expected = [part.numpy() for part in served(torch.from_numpy(gray))]
        outputs = session.run(None, {"gray": gray})
        for name, one, two in zip(("answers", "au", "feature"), expected, outputs, strict=True):
            difference = float(np.abs(one - two).max()) / max(1.0, float(np.abs(one).max()))
            if not difference < TOLERANCE:
                raise ModelError(
                    f"PyTorch and ONNX Runtime disagree about {name}",
                    got=f"a difference of {difference:.2g}",
                    hint="export with another version of torch or onnxruntime",
                )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m annotation.raters.training.export", description=__doc__
    )
    parser.add_argument("--run", type=Path, required=True, help="folder given to train as --out")
    parser.add_argument("--to", type=Path, default=weights_of("default"), help="file to write")
    parser.add_argument("--model", default="risorius", help="name in rater_id")
    options = parser.parse_args(arguments)
    card = export(options.run, options.to, model=options.model)
    rater = OnnxRater(options.to)
    print(f"{rater.rater_id} on {rater.provider}, {options.to.stat().st_size / 1e6:.1f} MB")
    print(loop.summary(card["valid"]))


if __name__ == "__main__":
    main()
