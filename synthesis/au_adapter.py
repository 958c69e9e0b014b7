"""AU adapter for Stable Diffusion: decoupled cross-attention.

Every cross-attention layer of the UNet gets a second pair of key and value maps for the AU
tokens and adds their output: ``Attn(Q, K_text, V_text) + scale * Attn(Q, K_au, V_au)``
(IP-Adapter, Ye et al., 2023). There is one token per unit: with a single token the softmax
over one element is always 1, and attention could not tell places of the image apart.

The UNet stays frozen. The trained weights are saved separately, in ``conditioner/`` and
``attention.safetensors``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from warehouse.errors import ModelError
from warehouse.storage import atomic

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

FORMAT_VERSION = 1
WEIGHTS = "attention.safetensors"
_CROSS = ".attn2.processor"


def install(unet: UNet2DConditionModel, *, tokens: int, scale: float = 1.0) -> None:
    """Add an AU branch to every cross-attention layer of ``unet``.

    Keys start as copies of the text's, values at zero: an untrained adapter changes nothing, and
    the first gradient reaches the values.

    Args:
        tokens: number of tokens of the conditioner, with the expression's.
        scale: weight of the AU branch beside the text.

    Raises:
        ModelError: the UNet has no cross-attention, or needs more than text and time (SDXL).
    """
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    check(unet)
    chosen = dict(unet.attn_processors)
    for name in [name for name in chosen if name.endswith(_CROSS)]:
        layer: Any = unet.get_submodule(name.removesuffix(".processor"))
        branch: Any = IPAdapterAttnProcessor2_0(
            hidden_size=layer.to_q.out_features,
            cross_attention_dim=layer.to_k.in_features,
            num_tokens=(tokens,),
            scale=scale,
        )
        branch.to_k_ip[0].weight.data.copy_(layer.to_k.weight.data)
        branch.to_v_ip[0].weight.data.zero_()
        chosen[name] = branch.to(device=layer.to_k.weight.device, dtype=layer.to_k.weight.dtype)
    unet.set_attn_processor(chosen)


def remove(unet: UNet2DConditionModel) -> None:
    """Remove the AU branches; the UNet's own weights are unchanged."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    if installed(unet):
        kept = dict(unet.attn_processors)
        own = dict(branches(unet))
        unet.set_attn_processor(
            {name: AttnProcessor2_0() if name in own else kept[name] for name in kept}
        )


def installed(unet: UNet2DConditionModel) -> bool:
    """Return whether the UNet has AU branches."""
    return any(True for _ in branches(unet))


def set_scale(unet: UNet2DConditionModel, scale: float) -> None:
    """Set the weight of the AU branch beside the text; 0 switches it off."""
    for _, branch in branches(unet):
        branch.scale = [scale]


def state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Return the branches' weights by layer, on the CPU."""
    return {
        f"{name}.{key}": weight.detach().cpu().contiguous()
        for name, branch in branches(unet)
        for key, weight in branch.state_dict().items()
    }


def save(unet: UNet2DConditionModel, conditioner: Any, folder: str | Path) -> None:
    """Write ``conditioner/`` and ``attention.safetensors`` into ``folder``.

    Raises:
        ModelError: no adapter is installed.
    """
    if not installed(unet):
        raise ModelError(
            "The UNet has no AU adapter", got="a plain UNet", hint="call install first"
        )
    conditioner.save_pretrained(Path(folder) / "conditioner")
    save_attention(unet, folder)


def save_attention(unet: UNet2DConditionModel, folder: str | Path) -> None:
    """Write ``attention.safetensors`` into ``folder``."""
    from safetensors.torch import save_file

    Path(folder).mkdir(parents=True, exist_ok=True)
    tokens = next(branch for _, branch in branches(unet)).num_tokens[0]
    about = {"format_version": FORMAT_VERSION, "tokens": tokens}
    with atomic.replace_file(Path(folder) / WEIGHTS) as draft:
        save_file(state(unet), draft, metadata={"risorius": json.dumps(about, sort_keys=True)})


def load(unet: UNet2DConditionModel, folder: str | Path) -> Any:
    """Install the adapter of ``folder`` and return its conditioner.

    Raises:
        ModelError: it is missing, of another version, or made for another UNet.
    """
    from synthesis.condition import AUConditioner

    load_attention(unet, folder)
    try:
        return AUConditioner.from_pretrained(Path(folder) / "conditioner", local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unfit(folder, f"no usable conditioner: {error}") from None


def load_attention(unet: UNet2DConditionModel, folder: str | Path) -> None:
    """Install the branches of ``folder``; all weights must match the UNet.

    Raises:
        ModelError: the file is missing, of another version, or made for another UNet.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(folder) / WEIGHTS, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("risorius", "{}"))
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise _unfit(folder, f"{WEIGHTS} unreadable: {error}") from None
    if about.get("format_version") != FORMAT_VERSION:
        raise _unfit(folder, f"format version {about.get('format_version')}")
    check(unet)
    wanted = {
        f"{name}.{key}": (layer.to_q.out_features, layer.to_k.in_features)
        for name, layer in _cross_layers(unet)
        for key in ("to_k_ip.0.weight", "to_v_ip.0.weight")
    }
    # Compare before installing, so that a refused file leaves the UNet unchanged.
    found = {key: tuple(weight.shape) for key, weight in weights.items()}
    if found != wanted:
        odd = sorted(key for key in found.keys() | wanted if found.get(key) != wanted.get(key))
        raise _unfit(folder, f"{len(odd)} layers that differ, the first {odd[0]}")
    install(unet, tokens=int(about["tokens"]))
    restore(unet, weights)


def restore(unet: UNet2DConditionModel, weights: dict[str, Tensor]) -> None:
    """Load weights of ``state`` into the installed branches; strict."""
    for name, branch in branches(unet):
        branch.load_state_dict({key: weights[f"{name}.{key}"] for key in branch.state_dict()})


def check(unet: UNet2DConditionModel) -> None:
    """Check that the UNet is of a Stable Diffusion 1 or 2.

    Raises:
        ModelError: it has no cross-attention, or needs more than text and time.
    """
    if not any(True for _ in _cross_layers(unet)):
        got = "a UNet without cross-attention"
    elif unet.config["addition_embed_type"] or unet.config["encoder_hid_dim_type"]:
        got = "a UNet that needs more than text and time, such as SDXL's"
    else:
        return
    raise ModelError(
        "The UNet is not of a Stable Diffusion 1 or 2", got=got, hint="give such a checkpoint"
    )


def branches(unet: UNet2DConditionModel) -> Iterator[tuple[str, Any]]:
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    for name, branch in unet.attn_processors.items():
        if isinstance(branch, IPAdapterAttnProcessor2_0):
            yield name, branch


def _cross_layers(unet: UNet2DConditionModel) -> Iterator[tuple[str, Any]]:
    for name in unet.attn_processors:
        if name.endswith(_CROSS):
            yield name, unet.get_submodule(name.removesuffix(".processor"))


def _unfit(folder: str | Path, got: str) -> ModelError:
    return ModelError(
        f"{Path(folder).name} has no AU adapter of format {FORMAT_VERSION} for this UNet",
        got=got,
        hint="train one with python -m synthesis.training.train_adapter",
    )
