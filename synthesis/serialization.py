"""Save and load the components of a pipeline.

Load with ``FaceAUPipeline.from_pretrained``. ``DiffusionPipeline.from_pretrained`` searches for
the class inside diffusers only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from synthesis import au_adapter
from synthesis.condition import AUConditioner
from synthesis.latents import PixelCodec
from warehouse.errors import ModelError
from warehouse.ids import file_sha256

FORMAT_VERSION = 1
"""Of ``model_index.json``; raised when an older pipeline cannot be read correctly."""

DEFAULT = Path(__file__).parent / "weights" / "default"
ADAPTER = "adapter"

MOVED = {
    ("synthesis.codec", "PixelCodec"): PixelCodec,
    ("synthesis.conditioner", "AUConditioner"): AUConditioner,
}
"""Modules that ``model_index.json`` of older pipelines names, and where their classes are now."""


class SavedPipeline(DiffusionPipeline):
    """Components of ``FaceAUPipeline``, saved and loaded.

    Args:
        unet, conditioner, scheduler: in every pipeline.
        codec: for a network on pixels, instead of ``vae``.
        vae, text_encoder, tokenizer: of a Stable Diffusion.

    Raises:
        ModelError: the components do not fit together.
    """

    unet: Any
    conditioner: Any
    scheduler: Any
    codec: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any

    _optional_components = ["codec", "vae", "text_encoder", "tokenizer"]  # noqa: RUF012
    model_cpu_offload_seq = "text_encoder->conditioner->unet->vae"  # type: ignore[assignment]

    def __init__(
        self,
        unet: Any,
        conditioner: Any,
        scheduler: Any,
        codec: Any = None,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        _check_format(format_version)
        if (codec is None) == (vae is None):
            raise ModelError(
                "The pipeline needs either a codec or a VAE",
                got="neither" if codec is None else "both",
                hint="give codec=PixelCodec(...), or the vae of a Stable Diffusion",
            )
        if (text_encoder is None) != (tokenizer is None):
            raise ModelError(
                "The pipeline needs text encoder and tokenizer together",
                got="one of them",
                hint="give both or none",
            )
        self.register_modules(
            unet=unet,
            conditioner=conditioner,
            scheduler=scheduler,
            codec=codec,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        self.register_to_config(format_version=format_version)

    @classmethod
    def load_config(cls, *args: Any, **options: Any) -> Any:
        """Read ``model_index.json``; translate modules of older versions."""
        index = super().load_config(*args, **options)
        if isinstance(index, dict):
            for name, value in index.items():
                if isinstance(value, list) and (found := MOVED.get(tuple(value))):
                    index[name] = [found.__module__, found.__name__]
        return index

    @classmethod
    def from_default(cls) -> Self:
        """Load the network that ships with the package.

        Raises:
            ModelError: its weights are missing or damaged.
        """
        return cls.from_pretrained(DEFAULT)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Self:  # type: ignore[override]
        """Load a pipeline of ``save_pretrained``, with its AU adapter if any.

        Raises:
            ModelError: the folder has no usable pipeline, or one of another format version.
        """
        folder = Path(folder)
        index = _read_index(folder)
        if index.get("_class_name") != cls.__name__:
            raise ModelError(
                f"The folder does not hold a {cls.__name__}",
                got=f"a {index.get('_class_name')}",
                hint="load a Stable Diffusion with FaceAUPipeline.from_stable_diffusion",
            )
        _check_format(index.get("format_version"))
        pipeline = _load(super().from_pretrained, folder, **options)
        if (folder / ADAPTER).is_dir():
            au_adapter.load_attention(pipeline.unet, folder / ADAPTER)
        return pipeline

    @classmethod
    def from_stable_diffusion(
        cls,
        folder: str | Path,
        adapter_folder: str | Path | None = None,
        *,
        supported: Iterable[int] | None = None,
        **options: Any,
    ) -> Self:
        """Load a Stable Diffusion 1 or 2 in diffusers layout, with an AU adapter.

        Args:
            adapter_folder: written by ``synthesis.training.train_adapter``. None installs a new
                adapter, which changes nothing until it is trained.
            supported: units that the training of a new adapter supports; None: all.

        Raises:
            ModelError: the checkpoint or the adapter is missing or does not fit.
        """
        pipeline = _load(super().from_pretrained, Path(folder), conditioner=None, **options)
        unet = pipeline.unet
        if pipeline.vae is None or pipeline.text_encoder is None:
            raise ModelError(
                "The folder does not hold a Stable Diffusion with VAE and text encoder",
                got=Path(folder).name,
                hint="load the package's own network with FaceAUPipeline.from_pretrained",
            )
        au_adapter.check(unet)
        if adapter_folder is not None:
            conditioner = au_adapter.load(unet, adapter_folder)
        else:
            units = {} if supported is None else {"supported": tuple(supported)}
            conditioner = AUConditioner(width=unet.config.cross_attention_dim, **units)
            au_adapter.install(unet, tokens=len(conditioner.config.units) + 1)
        pipeline.register_modules(conditioner=conditioner.to(pipeline.device).eval())
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """Save as diffusers does, and the AU adapter in a folder of its own.

        Inside ``unet/`` its weights would be written but not read back: diffusers drops them
        with a warning and leaves plain attention.
        """
        if not au_adapter.installed(self.unet):
            super().save_pretrained(save_directory, **options)
            return
        au_adapter.save_attention(self.unet, Path(save_directory) / ADAPTER)
        branches = dict(self.unet.attn_processors)
        au_adapter.remove(self.unet)
        try:
            super().save_pretrained(save_directory, **options)
        finally:
            self.unet.set_attn_processor(branches)


def _check_format(version: object) -> None:
    if version != FORMAT_VERSION:
        raise ModelError(
            f"The weights are not of format version {FORMAT_VERSION}",
            got=f"format version {version}",
            hint="export them again with this version of the package, or install theirs",
        )


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder.name} has no readable model_index.json",
            got=type(error).__name__,
            hint="run python -m synthesis.training.export, or name another folder",
        ) from None
    return index if isinstance(index, dict) else {}


def _load(loader: Callable[..., Any], folder: Path, **options: Any) -> Any:
    """Call ``loader(folder)`` offline; raise each failure as a ``ModelError``."""
    from safetensors import SafetensorError

    expected = (OSError, ValueError, KeyError, AttributeError, ImportError, TypeError, RuntimeError)
    if not folder.is_dir():
        raise ModelError("There is no folder with weights", got=folder.name, hint="check the path")
    try:
        with _without_progress():
            pipeline = loader(
                folder,
                local_files_only=True,
                use_safetensors=True,
                # True needs accelerate, and these files are small.
                low_cpu_mem_usage=False,
                **options,
            )
    except (*expected, SafetensorError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"The weights in {folder.name} cannot be loaded",
            got=first[0].replace(str(folder), folder.name)[:200],
            hint="copy or export the folder again",
        ) from error
    _check_complete(pipeline, folder)
    _check_sums(folder)
    return pipeline


def _check_complete(pipeline: Any, folder: Path) -> None:
    """Refuse missing weights; diffusers leaves them random with a warning."""
    from safetensors import safe_open

    # Not the VAE: old ones use other weight names, translated while loading.
    for name in ("unet", "conditioner"):
        part = getattr(pipeline, name, None)
        file = folder / name / "diffusion_pytorch_model.safetensors"
        if part is not None and file.exists():
            with safe_open(file, framework="pt") as opened:
                missing = set(part.state_dict()) - set(opened.keys())
            if missing:
                raise ModelError(
                    f"The {name} in {folder.name} lacks weights",
                    got=f"{len(missing)} missing, the first {min(missing)}",
                    hint="copy or export the folder again",
                )


def _check_sums(folder: Path) -> None:
    """Compare files with checksums; diffusers loads a flipped bit silently."""
    try:
        sums = json.loads((folder / "training.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # exported by other software
    for name, wanted in sums.items():
        if file_sha256(str(folder / name)) != wanted:
            raise ModelError(
                f"{name} in {folder.name} does not have the recorded SHA-256 {wanted[:12]}…",
                got="other bytes",
                hint="copy or export the folder again",
            )


@contextmanager
def _without_progress() -> Iterator[None]:
    """Hide diffusers' global progress bar while small files load."""
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
