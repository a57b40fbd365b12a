"""Drop-in `Conv2d` and `Linear` modules that run bitplan's kernels inside any torch module, for inference.

    module = replace_layers(build(), "out/network.bitplan", threads=1)

All drop-ins of a module share one loaded artifact. They read and return float32 on the CPU; images are taken as they
lie (channels first or last) and returned with their channels last in memory, which following operations keep.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitplan import network as nouns
from bitplan.encodings import encoding_of
from bitplan.errors import DataError, UsageError
from bitplan.formats import Range
from bitplan.kernels.artifact import layer_kernel, pack_artifact
from bitplan.kernels.layer_set import LayerSet
from bitplan.network import Network, Node, Padding, Shape
from bitplan.policies.variants import check_variant
from bitplan.suggest import suggestion
from bitplan.variant import F32, Variant

__all__ = ["Conv2d", "DropIn", "Linear", "layer_network", "operation_of", "replace_layers"]


class DropIn(nn.Module):
    """A layer of a LayerSet in the place of a torch module. It has no parameters and cannot be trained."""

    kind: type[nouns.Conv2d | nouns.Linear]

    def __init__(self, layers: LayerSet, name: str) -> None:
        """Raises UsageError where the set has no such layer, or one of the other kind."""
        super().__init__()
        if name not in layers.layers:
            raise UsageError(f"the artifact has no layer {name!r}; {suggestion(name, layers.layers, 'its layers')}")
        self.layers, self.name = layers, name
        self.info = layers.layers[name]
        if not isinstance(self.info.op, self.kind):
            raise UsageError(
                f"layer {name!r} of the artifact is a {type(self.info.op).__name__}, not a {self.kind.__name__}"
                "; use the class of that kind"
            )

    @classmethod
    def from_float(
        cls,
        module: nn.Module,
        variant: Variant | str,
        input_range: Range | None = None,
        input_shape: Sequence[int] = (),
        *,
        kernel: str | None = None,
        threads: int = 1,
    ) -> DropIn:
        """A single drop-in for a float32 layer, its weights rounded to the nearest that the variant can hold.

        `input_range` is how its input is held in the variant's activation format (float32 needs none); `input_shape`
        (C, H, W), (features,) or (rows, features) is what it is prepared for first.
        Raises UsageError where the module, the variant, the range or the shape do not go together."""
        variant = check_variant(_parsed(variant) if isinstance(variant, str) else variant)
        network = layer_network("layer", module, tuple(input_shape))
        node = network.layers[0]
        if not isinstance(node.op, cls.kind):
            raise UsageError(f"{cls.__name__}.from_float needs a torch {cls.__name__}, not {type(module).__name__}")
        form, shape = variant.activation, network.weight_shape(node)
        if form != F32 and input_range is None:
            raise UsageError(f"{variant} reads its input in {form}; give the input's range (bitplan.formats.Range)")
        if not encoding_of(variant).supports(shape):
            raise UsageError(f"a layer of shape {shape} cannot be {variant}; choose another variant")
        weights = float_weights("layer", module)
        for name, values in weights.items():
            if not np.isfinite(values).all():
                raise DataError(f"{name!r} holds values that are not finite; a layer like that cannot be encoded")
        size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
        weight = weights["layer.weight"].reshape(size)
        encoded = encoding_of(variant).quantise(weight, weights["layer.bias"], variant, shape.groups)
        ranges = {} if input_range is None else {network.inputs[0].name: {form: input_range}}
        kernels = {node.name: layer_kernel(node.name, variant, kernel)}
        artifact = pack_artifact(network, weights, {node.name: encoded}, ranges, kernels=kernels)
        return cls(LayerSet(artifact, threads), node.name)

    def forward(self, input: Tensor) -> Tensor:
        """Raises DataError for anything but a float32 tensor on the CPU that fits, where gradients are asked for, and
        while a trace is recorded. A code holds no NaN: in layers on codes it counts as the lowest number."""
        if not isinstance(input, Tensor):
            raise DataError(f"layer {self.name!r} reads a tensor, not a {type(input).__name__}; convert the input")
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            raise DataError(
                f"layer {self.name!r} cannot be traced: its result would be recorded as a constant; trace the module of floats instead"
            )
        if input.dtype != torch.float32 or input.device.type != "cpu":
            raise DataError(
                f"layer {self.name!r} reads float32 on the CPU, not {input.dtype} on {input.device}; convert the input"
            )
        if input.requires_grad and torch.is_grad_enabled():
            raise DataError(
                f"layer {self.name!r} only infers; call it under torch.inference_mode() or detach its input"
            )
        return self.run(input.detach().resolve_neg())

    def run(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.name!r}, {self.info.weight}, kernel={self.info.kernel}, isa={self.layers.isa}"


class Conv2d(DropIn):
    """y = conv(x) + bias of images [N, C, H, W], N, H and W as they come; padding is with zeros."""

    kind = nouns.Conv2d

    def __init__(self, layers: LayerSet, name: str) -> None:
        super().__init__(layers, name)
        op, weight = self.info.op, self.info.weight
        assert isinstance(op, nouns.Conv2d)
        self.in_channels, self.out_channels, self.groups = weight.in_channels, weight.out_channels, weight.groups
        self.kernel_size, self.stride, self.dilation = op.kernel, op.stride, op.dilation
        self.padding = (op.padding[0], op.padding[2])

    def run(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise DataError(
                f"layer {self.name!r} reads images [N, {self.in_channels}, H, W], not a tensor of shape {tuple(x.shape)}; reshape the input"
            )
        if not len(x):
            return x.new_empty((0, *output_shape(self.info.op, self.info.weight, tuple(x.shape[1:]))))
        interleaved = x.permute(0, 2, 3, 1)
        last = interleaved.is_contiguous()
        array = (interleaved if last else x.contiguous()).numpy()
        return torch.from_numpy(self.layers.compiled.run(self.info.number, array, last)).permute(0, 3, 1, 2)


class Linear(DropIn):
    """y = x W' + bias over the last axis of [..., features]."""

    kind = nouns.Linear

    def __init__(self, layers: LayerSet, name: str) -> None:
        super().__init__(layers, name)
        self.in_features, self.out_features = self.info.weight.in_channels, self.info.weight.out_channels

    def run(self, x: Tensor) -> Tensor:
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise DataError(
                f"layer {self.name!r} reads [..., {self.in_features}], not a tensor of shape {tuple(x.shape)}; reshape the input"
            )
        rows = x.reshape(-1, self.in_features)
        if not len(rows):
            return x.new_zeros(*x.shape[:-1], self.out_features)
        # As a batch of vectors: a layer is prepared once, whatever the number of rows.
        found = self.layers.compiled.run(self.info.number, rows.contiguous().numpy(), False)
        return torch.from_numpy(found).reshape(*x.shape[:-1], self.out_features)


def replace_layers(
    module: nn.Module, artifact: str | os.PathLike[str] | bytes | LayerSet, threads: int = 1, isa: str | None = None
) -> nn.Module:
    """The module in evaluation mode with the layers of an artifact in place of its own of the same path; changed in
    place and returned. The artifact is a file, its bytes, or a set that is loaded already (then `threads` and `isa`
    are its own).

    Raises UsageError, naming the layer, where the module has none of that path or a different one."""
    if isinstance(artifact, LayerSet):
        layers = artifact
    elif isinstance(artifact, bytes):
        layers = LayerSet(artifact, threads, isa)
    else:
        layers = LayerSet.load(artifact, threads, isa)
    paths = {name: found for name, found in module.named_modules(remove_duplicate=False) if name}
    replaced: dict[nn.Module, DropIn] = {}
    for name, info in layers.layers.items():
        if name not in paths:
            raise UsageError(
                f"the module has no layer {name!r}, which the artifact holds; {suggestion(name, paths, 'its modules')}"
            )
        try:
            same = (operation_of(paths[name]), weight_shape_of(paths[name])) == (info.op, info.weight)
        except UsageError:
            same = False
        if not same:
            raise UsageError(
                f"layer {name!r} is {paths[name]} in the module, but {info.op} with {info.weight} in the artifact; "
                "build the module that the artifact was made for"
            )
        replaced[paths[name]] = (Conv2d if isinstance(info.op, nouns.Conv2d) else Linear)(layers, name)
    swap(module, replaced)
    return module.eval()


def swap(module: nn.Module, modules: Mapping[nn.Module, nn.Module]) -> None:
    """Puts other modules in the place of some below `module`, wherever they are registered."""
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in modules:
                setattr(parent, name, modules[child])


def operation_of(module: nn.Module) -> nouns.Conv2d | nouns.Linear:
    """What a torch layer computes. Raises UsageError, with the reason, where bitplan has no such layer."""
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return nouns.Linear()
    if not (isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward):
        raise UsageError(
            f"{type(module).__name__} is neither torch.nn.Conv2d nor torch.nn.Linear; leave this layer in torch"
        )
    if module.padding_mode != "zeros":
        raise UsageError(f"it pads with {module.padding_mode}, not zeros; leave this layer in torch")
    # Left, right, top, bottom; `same` is resolved there too.
    left, right, top, bottom = module._reversed_padding_repeated_twice
    padding: Padding = (top, bottom, left, right)
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    return nouns.Conv2d(
        (kernel[0], kernel[1]), (stride[0], stride[1]), padding, (dilation[0], dilation[1]), module.groups
    )


def weight_shape_of(module: nn.Module) -> nouns.WeightShape:
    """The weight's shape of a torch layer."""
    assert isinstance(module, nn.Conv2d | nn.Linear)
    out, group_inputs, *kernel = module.weight.shape
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    return nouns.WeightShape(out, group_inputs * groups, (kernel[0], kernel[1]) if kernel else (1, 1), groups)


def output_shape(op: nouns.Conv2d | nouns.Linear, weight: nouns.WeightShape, shape: Shape) -> Shape:
    """The shape (without the batch) of a layer's value. Raises UsageError where it cannot read such an input."""
    if isinstance(op, nouns.Linear):
        if len(shape) not in (1, 2) or shape[-1] != weight.in_channels:
            raise UsageError(
                f"it reads ({weight.in_channels},) or (rows, {weight.in_channels}), not {shape}; give that"
            )
        return (*shape[:-1], weight.out_channels)
    if len(shape) != 3 or shape[0] != weight.in_channels:
        raise UsageError(f"it reads ({weight.in_channels}, height, width), not {shape}; give that")
    top, bottom, left, right = op.padding
    padded = (shape[1] + top + bottom, shape[2] + left + right)
    extent = [d * (k - 1) + 1 for d, k in zip(op.dilation, op.kernel, strict=True)]
    height, width = ((p - e) // s + 1 for p, e, s in zip(padded, extent, op.stride, strict=True))
    if min(height, width) < 1:
        raise UsageError(f"an input of shape {shape} is smaller than its kernel; give larger images")
    return (weight.out_channels, height, width)


def layer_nodes(name: str, module: nn.Module, shape: Shape) -> tuple[Node, Node]:
    """An input of the given shape (without the batch) and the layer that reads it. Raises UsageError."""
    op = operation_of(module)
    source = f"{name}.input"
    made = output_shape(op, weight_shape_of(module), shape)
    return Node(source, nouns.Input(), (), shape), Node(name, op, (source,), made)


def layer_network(name: str, module: nn.Module, shape: Shape) -> Network:
    """A network of this layer alone. Raises UsageError."""
    return Network(layer_nodes(name, module, shape), (name,))


def float_weights(name: str, module: nn.Module) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """A layer's float32 weight and bias (zeros where it has none) by their names in `network.Weights`."""
    assert isinstance(module, nn.Conv2d | nn.Linear)
    weight = module.weight.detach().float().cpu().numpy()
    bias = np.zeros(len(weight), np.float32) if module.bias is None else module.bias.detach().float().cpu().numpy()
    return {f"{name}.weight": np.array(weight, np.float32), f"{name}.bias": np.array(bias, np.float32)}


def _parsed(variant: str) -> Variant:
    try:
        return Variant.parse(variant)
    except ValueError as error:
        raise UsageError(str(error)) from None
