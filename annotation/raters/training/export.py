"""Turn a training run into what is served: ``python -m annotation.raters.training.export --run
DIR``."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotation.raters.network import Served
from annotation.raters.onnx_rater import MachineRater, weights_of
from annotation.raters.training import folds, metrics
from annotation.raters.training.checkpoint import trained
from annotation.raters.training.targets import AU_SHAPES, UNRELIABLE
from warehouse.errors import ModelError
from warehouse.ids import file_sha256
from warehouse.storage import atomic

LARGEST_BYTES = 12_000_000
"""Weights travel inside the package; the budget keeps the wheel small."""

TOLERANCE = 1e-4
"""Largest difference between PyTorch and ONNX Runtime that is still rounding."""


def export(run: Path, weights: Path, *, model: str = "risorius") -> dict[str, Any]:
    """Write ``weights`` and the JSON beside it from a finished run; returns the JSON's content.

    Raises:
        ModelError: the run has no results yet, the file is too large, or ONNX Runtime does not
            give what PyTorch gives. In each case the old weights stay.
    """
    results = _results(run)
    served = Served(trained(run), results["temperature"]).eval()
    with atomic.replace_file(weights) as draft:
        _write_onnx(served, draft)
        _forget_the_machine(draft)
        size = draft.stat().st_size
        if size > LARGEST_BYTES:
            raise ModelError(
                f"weights of at most {LARGEST_BYTES} bytes",
                got=str(size),
                hint="train a smaller one",
            )
        _agree(served, draft)
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
            "rule": folds.RULE,
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


def _results(run: Path) -> dict[str, Any]:
    path = run / "results.json"
    if not path.is_file():
        raise ModelError(
            f"{path}",
            got="no such file",
            hint="let annotation.raters.training.train end, then export",
        )
    return json.loads(path.read_text())


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


def _forget_the_machine(path: Path) -> None:
    """Drop what the exporter notes beside each node: stack traces with this machine's paths."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(model, path)


def _agree(served: Served, path: Path) -> None:
    """Compare on noise and on a flat face, for one face and for several."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    side = served.network.shape.side
    rng = np.random.default_rng(0)
    for faces in (1, 5):
        gray = rng.integers(0, 256, (faces, side, side), dtype=np.uint8)
        gray[0] = 128
        with torch.inference_mode():
            wanted = [part.numpy() for part in served(torch.from_numpy(gray))]
        for name, one, two in zip(
            ("answers", "au", "feature"), wanted, session.run(None, {"gray": gray}), strict=True
        ):
            scale = max(1.0, float(np.abs(one).max()))
            apart = float(np.abs(one - two).max()) / scale
            if not apart < TOLERANCE:
                raise ModelError(
                    f"the same {name} from PyTorch and ONNX Runtime",
                    got=f"a difference of {apart:.2g}",
                    hint="export with another version of torch or onnxruntime",
                )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m annotation.raters.training.export", description=__doc__
    )
    parser.add_argument("--run", type=Path, required=True, help="folder given to train as --out")
    parser.add_argument("--to", type=Path, default=weights_of("default"))
    parser.add_argument("--model", default="risorius", help="its name in rater_id")
    options = parser.parse_args(arguments)
    card = export(options.run, options.to, model=options.model)
    rater = MachineRater(options.to)
    print(f"{rater.rater_id} on {rater.provider}, {options.to.stat().st_size / 1e6:.1f} MB")
    print(metrics.summary(card["valid"]))


if __name__ == "__main__":
    main()
