"""Saved pipelines on this machine: looked at before they are loaded, and failing in one way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warehouse.errors import ModelError
from warehouse.ids import file_sha256

FORMAT_VERSION = 1
"""Of ``model_index.json``; counts up when an older pipeline could not be read correctly."""


def check_format(version: object) -> None:
    """Raises:
    ModelError: ``version`` is not this package's.
    """
    if version != FORMAT_VERSION:
        raise ModelError(
            f"weights of format version {FORMAT_VERSION}",
            got=f"format version {version}",
            hint="export them again with this version of the package, or install theirs",
        )


def index_of(folder: Path) -> dict[str, Any]:
    """What ``model_index.json`` says.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"a saved pipeline in {folder.name}",
            got=f"no readable model_index.json ({type(error).__name__})",
            hint="run python -m synthesis.training.export, or name another folder",
        ) from None
    return index if isinstance(index, dict) else {}


def load(loader: Callable[..., Any], folder: Path, **options: Any) -> Any:
    """``loader(folder)``, from disk only; its many ways to fail are told as one.

    Raises:
        ModelError: whatever went wrong; the cause is attached.
    """
    from safetensors import SafetensorError

    expected = (OSError, ValueError, KeyError, AttributeError, ImportError, TypeError, RuntimeError)
    if not folder.is_dir():
        raise ModelError("a folder with weights", got=folder.name, hint="check the path")
    try:
        with _without_progress():
            pipeline = loader(
                folder,
                local_files_only=True,
                use_safetensors=True,
                # True asks for a package of its own, and these files are small.
                low_cpu_mem_usage=False,
                **options,
            )
    except (*expected, SafetensorError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"whole weights in {folder.name}",
            got=first[0].replace(str(folder), folder.name)[:200],
            hint="copy or export the folder again",
        ) from error
    _check_complete(pipeline, folder)
    _check_sums(folder)
    return pipeline


def _check_complete(pipeline: Any, folder: Path) -> None:
    """diffusers leaves weights that a file lacks at random, with no more than a warning."""
    from safetensors import safe_open

    # Not the VAE: old ones name their weights otherwise and are translated while loading.
    for name in ("unet", "conditioner"):
        part = getattr(pipeline, name, None)
        file = folder / name / "diffusion_pytorch_model.safetensors"
        if part is not None and file.exists():
            with safe_open(file, framework="pt") as opened:
                missing = set(part.state_dict()) - set(opened.keys())
            if missing:
                raise ModelError(
                    f"all weights of the {name} in {folder.name}",
                    got=f"{len(missing)} missing, the first {min(missing)}",
                    hint="copy or export the folder again",
                )


def _check_sums(folder: Path) -> None:
    """Weights that say which bytes they are must be those; a flipped bit loads without a word."""
    try:
        sums = json.loads((folder / "training.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # of somebody else's making
    for name, wanted in sums.items():
        if file_sha256(str(folder / name)) != wanted:
            raise ModelError(
                f"{name} in {folder.name} with SHA-256 {wanted[:12]}…",
                got="other bytes",
                hint="copy or export the folder again",
            )


@contextmanager
def _without_progress() -> Iterator[None]:
    """A dozen small files need no bar; the setting is the library's own and global."""
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
