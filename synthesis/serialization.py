"""The parts of a pipeline: put together, saved, and loaded again.

Load with ``FaceAUPipeline.from_pretrained``: ``DiffusionPipeline.from_pretrained`` looks for the
class inside diffusers and does not find it there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

import synthesis.latents  # noqa: F401
from synthesis import au_adapter
from synthesis.condition import AUConditioner
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


DEFAULT = Path(__file__).parent / "weights" / "default"
ADAPTER = "adapter"


class Assembly(DiffusionPipeline):
    """What ``FaceAUPipeline`` is made of; knows nothing of drawing.

    Args:
        unet, conditioner, scheduler: in every pipeline.
        codec: for a network on pixels, instead of ``vae``.
        vae, text_encoder, tokenizer: of a Stable Diffusion.

    Raises:
        ModelError: parts that do not go together.
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
        check_format(format_version)
        if (codec is None) == (vae is None):
            raise ModelError(
                "either a codec or a VAE",
                got="neither" if codec is None else "both",
                hint="give codec=PixelCodec(...), or the vae of a Stable Diffusion",
            )
        if (text_encoder is None) != (tokenizer is None):
            raise ModelError(
                "text encoder and tokenizer together", got="one of them", hint="give both or none"
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
    def from_default(cls) -> Self:
        """The network that comes with the package.

        Raises:
            ModelError: its weights are missing or damaged.
        """
        return cls.from_pretrained(DEFAULT)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Self:  # type: ignore[override]
        """A pipeline saved by ``save_pretrained``, with its AU adapter if it has one.

        Raises:
            ModelError: nothing usable is there, or it is of another version.
        """
        folder = Path(folder)
        index = index_of(folder)
        if index.get("_class_name") != cls.__name__:
            raise ModelError(
                f"a saved {cls.__name__}",
                got=f"a {index.get('_class_name')}",
                hint="load a Stable Diffusion with FaceAUPipeline.from_stable_diffusion",
            )
        check_format(index.get("format_version"))
        pipeline = load(super().from_pretrained, folder, **options)
        if (folder / ADAPTER).is_dir():
            au_adapter.load_attention(pipeline.unet, folder / ADAPTER)
        return pipeline

    @classmethod
    def from_stable_diffusion(
        cls,
        folder: str | Path,
        adapter_folder: str | Path | None = None,
        *,
        taught: Iterable[int] | None = None,
        **options: Any,
    ) -> Self:
        """A Stable Diffusion 1 or 2 in diffusers layout with an AU adapter.

        Args:
            adapter_folder: written by ``synthesis.training.train_adapter``. Without it the
            adapter is
                new and changes nothing until it is trained.
            taught: for a new adapter, the units that its training will know; None: all.

        Raises:
            ModelError: the checkpoint or the adapter is missing or does not fit.
        """
        pipeline = load(super().from_pretrained, Path(folder), conditioner=None, **options)
        unet = pipeline.unet
        if pipeline.vae is None or pipeline.text_encoder is None:
            raise ModelError(
                "a Stable Diffusion with VAE and text encoder",
                got=f"{Path(folder).name}, which has not both",
                hint="load the package's own kind with FaceAUPipeline.from_pretrained",
            )
        au_adapter.check(unet)
        if adapter_folder is not None:
            conditioner = au_adapter.load(unet, adapter_folder)
        else:
            known = {} if taught is None else {"taught": tuple(taught)}
            conditioner = AUConditioner(width=unet.config.cross_attention_dim, **known)
            au_adapter.install(unet, tokens=len(conditioner.config.units) + 1)
        pipeline.register_modules(conditioner=conditioner.to(pipeline.device).eval())
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """As in diffusers; the AU adapter goes into a folder of its own.

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
