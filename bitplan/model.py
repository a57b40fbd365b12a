"""The user's trained network: the function that builds it, its weights file, and what is known of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.errors import UsageError
from bitplan.model_files import is_model_file, load_model_file
from bitplan.network import Preprocessing, Shape
from bitplan.suggest import suggestion
from bitplan.user_code import call_function, require_package
from bitplan.weights_file import check_finite, load_weights

if TYPE_CHECKING:
    from torch import nn

TORCHVISION = "torchvision:"
INFO_KEYS = ("mean", "std", "resize", "crop", "input_shape")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A torch module in evaluation mode on the CPU in float32; the preprocessing and the input's shape (batch left
    out) where the model's function told them."""

    module: nn.Module
    preprocessing: Preprocessing | None = None
    example_shape: Shape | None = None


def load_model(spec: str, weights: Path | None = None) -> LoadedModel:
    """Builds the model of `pkg.mod:function` or `torchvision:resnet18` and loads its weights file, if given; or reads a
    network from a file that brings its weights, a `torch.export` archive (.pt2) or an ONNX file (docs/interchange.md).

    The function takes no arguments and returns the module, or (module, info) with any of `INFO_KEYS` in info: mean
    and std on the images' own scale, resize and crop in pixels, input_shape (C, H, W). A torchvision network without
    a weights file has random weights, the same at each call.
    Raises UsageError where the model cannot be built, DataError for weights that do not fit or are not finite, and for
    model files as `load_model_file`."""
    require_package("torch", "loading a model")
    from torch import nn

    info: Mapping[str, Any] = {}
    if is_model_file(spec):
        if weights is not None:
            raise UsageError(f"model {spec} brings its weights; leave out weights {weights}")
        module, info = load_model_file(Path(spec))
    elif spec.startswith(TORCHVISION):
        module, info = _torchvision_model(spec)
    else:
        module = call_function(spec, "model")
        if isinstance(module, tuple) and len(module) == 2 and isinstance(module[1], Mapping):
            module, info = module
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"model {spec!r} returned a {type(module).__name__}; return a torch.nn.Module or (module, info dict)"
            )
    return ready_model(module, info, f"model {spec!r}", weights)


def ready_model(module: nn.Module, info: Mapping[str, Any], source: str, weights: Path | None = None) -> LoadedModel:
    """The module made ready for use, with what `info` says of it (see `load_model`); `source` leads errors. Raises UsageError and
    DataError."""
    module = module.cpu().float().eval().requires_grad_(False)
    if weights is not None:
        load_weights(module, weights)
    check_finite(module, source if weights is None else str(weights))
    return LoadedModel(module, *_described(info, source))


def _described(info: Mapping[str, Any], source: str) -> tuple[Preprocessing | None, Shape | None]:
    """Preprocessing and input shape. Keys that we do not know are the user's business unless they look misspelt."""
    for key in info:
        hint = suggestion(str(key), INFO_KEYS)
        if key not in INFO_KEYS and hint.endswith("?"):
            raise UsageError(f"{source}: unknown key {key!r} in its info; {hint}")
    shape: Shape | None = None
    try:
        if info.get("input_shape") is not None:
            shape = tuple(int(size) for size in info["input_shape"])
            if not shape or min(shape) < 1:
                raise ValueError(f"input_shape {shape} must hold positive sizes, the batch left out")
        described = Preprocessing(
            mean=_tuple(info.get("mean")),
            std=_tuple(info.get("std")),
            resize=int(info.get("resize") or 0),
            crop=int(info.get("crop") or 0),
        )
        preprocessing = None if described == Preprocessing() else described
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{source}: its info cannot be used: {error}; it may hold mean, std, resize, crop and input_shape"
        ) from None
    if preprocessing and preprocessing.mean and shape and len(preprocessing.mean) not in (1, shape[0]):
        raise UsageError(
            f"{source}: mean has {len(preprocessing.mean)} values for {shape[0]} channels; give one per channel"
        )
    return preprocessing, shape


def _tuple(value: Any) -> tuple[float, ...]:
    if value is None:
        return ()
    return (float(value),) if isinstance(value, int | float) else tuple(float(number) for number in value)


def _torchvision_model(spec: str) -> tuple[nn.Module, dict[str, Any]]:
    """A classification network of torchvision by name, and how its published weights were trained."""
    require_package("torchvision", f"model {spec!r}")
    import torch
    import torchvision

    name = spec.removeprefix(TORCHVISION)
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise UsageError(
            f"torchvision has no classification network {name!r}; {suggestion(name, names, 'its networks')}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torchvision.models.get_model(name, weights=None)
    published = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    crop = int(published.crop_size[0])
    return module, {
        "mean": [255 * value for value in published.mean],
        "std": [255 * value for value in published.std],
        "resize": int(published.resize_size[0]),
        "crop": crop,
        "input_shape": (3, crop, crop),
    }
