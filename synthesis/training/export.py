"""Export a trained generator as a pipeline.

Run ``python -m synthesis.training.export --run DIR``.
"""

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
from synthesis.training.train import trained
from warehouse.errors import ModelError
from warehouse.ids import file_sha256
from warehouse.storage import atomic
from warehouse.training import checkpoint

LARGEST_BYTES = 30_000_000
"""Largest size of the weights in the package: a wheel of all weights stays below 60 MB."""

RECORD = "training.json"
"""File beside the weights: how they were trained."""


def export(
    run: Path, folder: Path, *, half: bool = True, unfinished: bool = False
) -> dict[str, Any]:
    """Write the pipeline of a run to ``folder``; return its record.

    The written pipeline is read back and must give the same faces before ``folder`` is replaced.

    Args:
        half: store the weights in float16, which halves the files. They are loaded and used in
            float32.
        unfinished: export the last checkpoint of a run that has not ended.

    Raises:
        ModelError: the run has not ended, its weights are larger than ``LARGEST_BYTES`` and
            ``folder`` is that of the package, or they differ after saving. ``folder`` is left
            unchanged.
    """
    pipeline, about = assemble(run)
    parts = (pipeline.unet, pipeline.conditioner)
    for part in parts if half else ():
        part.half()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as draft:
        written = Path(draft) / folder.name
        pipeline.save_pretrained(written, safe_serialization=True)
        # safetensors makes files unreadable for other users; those of a package must not be.
        for file in written.rglob("*.safetensors"):
            file.chmod(0o644)
        if folder.resolve() == DEFAULT.resolve():
            _check_size(written)
        for part in parts:
            part.float()
        _compare(pipeline, FaceAUPipeline.from_pretrained(written))
        record = {
            **about,
            "storage": "float16" if half else "float32",
            **({} if unfinished else checkpoint.results_of(run)),
            **_contents(written),
        }
        atomic.write_text(written / RECORD, json.dumps(record, indent=1) + "\n")
        _replace(written, folder)
    return record


def assemble(run: Path) -> tuple[FaceAUPipeline, dict[str, Any]]:
    """Build a pipeline of a run's averaged weights; add the run's facts."""
    denoiser, about = trained(run)
    pipeline = FaceAUPipeline(
        unet=denoiser.unet,
        conditioner=denoiser.conditioner,
        scheduler=noise_schedule.sampling_scheduler(),
        codec=unet.codec(about["recipe"]["tier"]),
    )
    return pipeline, {"tier": about["recipe"]["tier"], **about}


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
            f"The weights are larger than {LARGEST_BYTES} bytes",
            got=f"{size} bytes",
            hint="train a smaller tier, store float16, or export to another folder",
        )


def _compare(one: FaceAUPipeline, two: FaceAUPipeline) -> None:
    """Check that both generate the same faces from the same seed."""
    generated = []
    for pipeline in (one, two):
        pipeline.set_progress_bar_config(disable=True)
        au = dict.fromkeys(pipeline.conditioner.config.supported[:1], 0.5)
        generated.append(
            pipeline(
                au, "happiness", num_images_per_prompt=2, num_inference_steps=2, output_type="array"
            ).images
        )
    if not torch.equal(*(torch.from_numpy(images) for images in generated)):
        raise ModelError(
            "The saved pipeline generates other faces", got="", hint="report this as a bug"
        )


def _replace(written: Path, folder: Path) -> None:
    """Replace a folder; restore the old one if that fails."""
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
    parser.add_argument("--to", type=Path, default=DEFAULT, help="folder to write")
    parser.add_argument("--float32", action="store_true", help="store float32 instead of float16")
    parser.add_argument(
        "--unfinished", action="store_true", help="export the last checkpoint of a run"
    )
    options = parser.parse_args(arguments)
    record = export(
        options.run, options.to, half=not options.float32, unfinished=options.unfinished
    )
    print(f"{record['tier']}, {record['step']} steps, {record['bytes'] / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
