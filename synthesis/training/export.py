"""Turn a training run into a pipeline: ``python -m synthesis.training.export --run DIR``."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from synthesis import noise_schedule, unet
from synthesis.pipeline import DEFAULT, FaceAUPipeline
from synthesis.training.checkpoint import trained
from warehouse.errors import ModelError
from warehouse.ids import file_sha256
from warehouse.storage import atomic

LARGEST_BYTES = 40_000_000
"""Weights travel inside the package; the budget keeps the wheel small."""

RECORD = "training.json"
"""Beside the weights: how they came about."""


def export(run: Path, folder: Path, *, unfinished: bool = False) -> dict[str, Any]:
    """Write the pipeline of a finished run to ``folder``; returns the record beside it.

    What is written is read back and must draw the same face, before anything is replaced.

    Args:
        unfinished: take a run that is still going on at its last checkpoint, to look at it.

    Raises:
        ModelError: the run has not ended, its weights are larger than ``LARGEST_BYTES``, or do
            not survive being saved. What was in ``folder`` stays.
    """
    pipeline, about = assemble(run)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as draft:
        written = Path(draft) / folder.name
        pipeline.save_pretrained(written, safe_serialization=True)
        # safetensors closes its files to other users; a package's must not be.
        for file in written.rglob("*.safetensors"):
            file.chmod(0o644)
        _check_size(written)
        _agree(pipeline, FaceAUPipeline.from_pretrained(written))
        record = {**about, **({} if unfinished else _results(run)), **_contents(written)}
        atomic.write_text(written / RECORD, json.dumps(record, indent=1) + "\n")
        _replace(written, folder)
    return record


def assemble(run: Path) -> tuple[FaceAUPipeline, dict[str, Any]]:
    """The averaged weights of a run as a pipeline, and what its checkpoint says of itself."""
    denoiser, about = trained(run)
    pipeline = FaceAUPipeline(
        unet=denoiser.unet,
        conditioner=denoiser.conditioner,
        scheduler=noise_schedule.sampling_scheduler(),
        codec=unet.codec(about["recipe"]["tier"]),
    )
    return pipeline, {"tier": about["recipe"]["tier"], **about}


def _results(run: Path) -> dict[str, Any]:
    path = run / "results.json"
    if not path.is_file():
        raise ModelError(
            f"{path}",
            got="no such file",
            hint="let synthesis.training.train end, or give --unfinished",
        )
    return json.loads(path.read_text())


def _contents(folder: Path) -> dict[str, Any]:
    files = sorted(folder.rglob("*.safetensors"))
    return {
        "sha256": {str(file.relative_to(folder)): file_sha256(str(file)) for file in files},
        "bytes": sum(file.stat().st_size for file in files),
    }


def _check_size(folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > LARGEST_BYTES:
        raise ModelError(
            f"weights of at most {LARGEST_BYTES} bytes", got=str(size), hint="train a smaller tier"
        )


def _agree(one: FaceAUPipeline, two: FaceAUPipeline) -> None:
    """Both must draw the same face from the same seed."""
    drawn = []
    for pipeline in (one, two):
        pipeline.set_progress_bar_config(disable=True)
        taught = pipeline.conditioner.config.supported[:1]
        au = dict.fromkeys(taught, 0.5)
        drawn.append(
            pipeline(
                au, "happiness", num_images_per_prompt=2, num_inference_steps=2, output_type="array"
            ).images
        )
    if not torch.equal(*(torch.from_numpy(images) for images in drawn)):
        raise ModelError(
            "the same faces before and after saving", got="others", hint="report this as a bug"
        )


def _replace(written: Path, folder: Path) -> None:
    """Move a folder into place; the old one goes only when the new one is whole."""
    old = written.parent / "old"
    if folder.exists():
        folder.rename(old)
    try:
        written.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m synthesis.training.export", description=__doc__
    )
    parser.add_argument("--run", type=Path, required=True, help="folder given to train as --out")
    parser.add_argument("--to", type=Path, default=DEFAULT)
    parser.add_argument(
        "--unfinished", action="store_true", help="a run still going on, to look at it"
    )
    options = parser.parse_args(arguments)
    record = export(options.run, options.to, unfinished=options.unfinished)
    print(f"{record['tier']}, {record['step']} steps, {record['bytes'] / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
