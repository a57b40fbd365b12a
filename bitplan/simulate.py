"""A Network with some of its layers encoded, executed in torch: what profiles, calibration and recovery evaluate.

The meaning is that of the runtime. A value that is read in codes is fake-quantised for its reader (`fake_quantise`);
the value itself stays the f32 number its node made, so it can be kept, compared and resumed from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.errors import DataError, UsageError
from bitplan.formats import Formats, Range, Ranges, derive_formats, residual_format, top_code
from bitplan.network import IDENTITY, SAME_RANGE, Conv2d, Input, Linear, Network, Node, ScaleShift, Weights
from bitplan.operations import convolve, dense, execute, finish, scale_shift, shared
from bitplan.variant import F32, FLOAT32, FORMATS, U1, U8

Array = np.ndarray | Tensor
Layers = Mapping[str, EncodedLayer]
Values = dict[str, Tensor]


def fake_quantise(x: Tensor, held: Range, form: str) -> Tensor:
    """What is left of x in a format of codes, in float32: scale (q - zero_point) with

    u8, u4, u2   q = clamp(round(x (1 / scale)) + zero_point, 0, 2^bits - 1), ties to even
    u1           q = 1 where x > scale (0.5 - zero_point), else 0
    """
    scale = np.float32(held.scale)
    if form == U1:
        low, high = (float(scale * np.float32(code - held.zero_point)) for code in (0, 1))
        return torch.where(x > float(held.threshold()), high, low)
    inverse = float(np.float32(1) / scale)
    # The zero point is moved into the bounds: exact, and one pass over memory fewer.
    return (x * inverse).round_().clamp_(-held.zero_point, top_code(form) - held.zero_point).mul_(float(scale))


class Simulator:
    """Executes `network` with the given float32 weights; every method runs in inference mode.

    A layer absent from `layers` runs in float32 with the original weights. `ranges` are taken as `range_of` says.
    """

    def __init__(self, network: Network, weights: Weights) -> None:
        """Raises DataError where a weight is missing."""
        self.network = network
        self._position = {node.name: index for index, node in enumerate(network)}
        self._last_read = {
            name: self._position[readers[-1].name] for name, readers in network.readers.items() if readers
        }
        self._weights = {node.name: _tensors(node, weights) for node in network if _array_names(node)}
        mean, std = network.preprocessing.mean, network.preprocessing.std
        self._mean = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1) if mean else None
        self._std = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1) if std else None

    def arrays(self, node: Node) -> tuple[Tensor, Tensor]:
        """A node's float32 weight and bias, or scale and shift, as they were given but for the order in memory."""
        return self._weights[node.name]

    @torch.inference_mode()
    def preprocess(self, raw: Array) -> Tensor:
        """(x - mean) / std of raw [N, ...] on its stated scale, as float32 channels first.
        Raises DataError where the channels do not match the preprocessing."""
        x = (raw if isinstance(raw, Tensor) else shared(raw)).to(torch.float32)
        if self._mean is None or self._std is None:
            return x
        if x.ndim != 4 or x.shape[1] != self._mean.shape[1]:
            raise DataError(
                f"images of shape {tuple(x.shape)} do not fit a preprocessing of {self._mean.shape[1]} channels; "
                "give [N, C, H, W]"
            )
        return (x - self._mean).div_(self._std)

    def outputs(
        self, raw: Array | Mapping[str, Array], layers: Layers | None = None, ranges: Ranges | None = None
    ) -> Values:
        """The network's outputs [N, *shape] as f32 for raw [N, ...] (by input name if there are several)."""
        return self.values(raw, layers, ranges, self.network.outputs)

    @torch.inference_mode()
    def values(
        self,
        raw: Array | Mapping[str, Array],
        layers: Layers | None = None,
        ranges: Ranges | None = None,
        keep: Collection[str] | None = None,
    ) -> Values:
        """All values, or those named in `keep`, as their nodes make them: f32, before any fake quantisation.
        Raises UsageError for an unknown name and for a missing range, DataError for an array of the wrong shape."""
        return self._run(self._inputs(raw), 0, layers, ranges, self._position if keep is None else keep)

    @torch.inference_mode()
    def resume(
        self, values: Mapping[str, Tensor], start: int, layers: Layers | None = None, ranges: Ranges | None = None
    ) -> Values:
        """The network's outputs, executing nodes[start:] only. `values` holds every earlier value that is read
        there (see `needed`), as `values` returned it. Raises UsageError where one is missing."""
        return self._run(values, start, layers, ranges, self.network.outputs)

    def needed(self, start: int) -> tuple[str, ...]:
        """The values that `resume(..., start)` has to be given: those made before nodes[start] that it reads or
        returns, and the network's later inputs."""
        return tuple(
            node.name
            for index, node in enumerate(self.network)
            if (
                isinstance(node.op, Input)
                if index >= start
                else self._last_read.get(node.name, -1) >= start or node.name in self.network.outputs
            )
        )

    @torch.inference_mode()
    def node(
        self, node: Node, inputs: Sequence[Tensor], layer: EncodedLayer | None = None, held: Range | None = None
    ) -> Tensor:
        """One node's value from its inputs, already in the format in which it reads them; a Conv2d or Linear adds
        its second input, if given one, as the residual. A layer that reads codes needs `held`, the range of its first
        input. Raises UsageError where that is missing."""
        if isinstance(node.op, ScaleShift):
            return scale_shift(node.op, inputs[0], *self._weights[node.name])
        if not isinstance(node.op, Conv2d | Linear):
            return execute(node, inputs)
        if layer is not None and layer.variant.activation != F32:
            if held is None:
                raise UsageError(f"layer {node.name!r} as {layer.variant} reads codes; give the range of its input")
            return _integer_layer(node, inputs, layer, held)
        weight, bias = self._weights[node.name] if layer is None else _float_tensors(node, layer)
        residual = inputs[1] if len(inputs) > 1 else None
        if isinstance(node.op, Conv2d):
            return convolve(node.op, inputs[0], weight, bias, residual)
        return dense(node.op, inputs[0], weight, bias, residual)

    def _run(
        self,
        given: Mapping[str, Tensor],
        start: int,
        layers: Layers | None,
        ranges: Ranges | None,
        keep: Collection[str],
    ) -> Values:
        layers, ranges = layers or {}, ranges or {}
        self._check_names(layers, keep)
        formats = derive_formats(
            self.network,
            {n.name: layers[n.name].variant if n.name in layers else FLOAT32 for n in self.network.layers},
        )
        live: Values = {name: given[name] for name in self.needed(start) if name in given}
        quantised: dict[tuple[str, str], Tensor] = {}
        kept: Values = {name: given[name] for name in keep if self._position[name] < start and name in given}
        for index in range(start, 1 + max((self._position[name] for name in keep), default=-1)):
            node = self.network.nodes[index]
            if isinstance(node.op, Input):
                value = _take(given, node.name, node.name)
            else:
                inputs = self._read(node, formats, ranges, live, quantised)
                held = first_range(self.network, node, formats, ranges)
                value = self.node(node, inputs, layers.get(node.name), held)
                del inputs
            if node.name in keep:
                kept[node.name] = value
            if node.name in self._last_read:
                live[node.name] = value
            del value
            for name in node.inputs:
                if self._last_read[name] == index:
                    live.pop(name, None)
                    for form in FORMATS:
                        quantised.pop((name, form), None)
        missing = [name for name in keep if name not in kept]
        if missing:
            raise UsageError(f"value {missing[0]!r} is made before node {start} and was not given")
        return {name: kept[name] for name in keep}

    def _read(
        self,
        reader: Node,
        formats: Formats,
        ranges: Ranges,
        live: Values,
        quantised: dict[tuple[str, str], Tensor],
    ) -> list[Tensor]:
        found = []
        for name, form in zip(reader.inputs, input_formats(reader, formats), strict=True):
            value = _take(live, name, reader.name)
            if form != F32 and (name, form) not in quantised:
                held = range_of(self.network, name, form, formats, ranges)
                quantised[name, form] = fake_quantise(value, held, form)
            found.append(value if form == F32 else quantised[name, form])
        return found

    def _inputs(self, raw: Array | Mapping[str, Array]) -> Values:
        nodes = self.network.inputs
        if not isinstance(raw, Mapping):
            if len(nodes) != 1:
                raise DataError(
                    f"the network has the inputs {[n.name for n in nodes]}; give a mapping with all of them"
                )
            raw = {nodes[0].name: raw}
        found: Values = {}
        for node in nodes:
            if node.name not in raw:
                raise DataError(f"input {node.name!r} is missing; give an array for it")
            if tuple(raw[node.name].shape[1:]) != node.shape:
                raise DataError(
                    f"input {node.name!r} has shape {tuple(raw[node.name].shape)}; the network reads [N, "
                    f"{', '.join(map(str, node.shape))}]"
                )
            x = self.preprocess(raw[node.name])
            found[node.name] = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        return found

    def _check_names(self, layers: Iterable[str], keep: Iterable[str]) -> None:
        for name in (*layers, *keep):
            if name not in self._position:
                raise UsageError(f"the network has no node {name!r}")


def input_formats(node: Node, formats: Formats) -> tuple[str, ...]:
    """The format in which a node reads each of its inputs."""
    first = formats.read[node.name]
    others = residual_format(first) if isinstance(node.op, Conv2d | Linear) else first
    return (first, *(others for _ in node.inputs[1:]))


def range_of(network: Network, name: str, form: str, formats: Formats, ranges: Ranges) -> Range:
    """The range that a value has in a format of codes, that of its `range_source`. Raises UsageError, naming the value,
    where there is none."""
    source = range_source(network, name, form, formats, ranges)
    held = ranges.get(source, {}).get(form)
    if held is None:
        raise UsageError(f"value {source!r} is read as {form} but has no range for that; calibrate it")
    return held


def range_source(network: Network, name: str, form: str, formats: Formats, ranges: Ranges) -> str:
    """The value whose range counts: the value itself, but in u8 the one that it was moved from where one of SAME_RANGE
    moved the codes or has no range there."""
    source = network.by_name[name]
    while (
        form == U8
        and isinstance(source.op, SAME_RANGE)
        and (formats.read[source.name] == U8 or U8 not in ranges.get(source.name, {}))
    ):
        source = network.by_name[source.inputs[0]]
    return source.name


def first_range(network: Network, node: Node, formats: Formats, ranges: Ranges) -> Range | None:
    """The range of a node's first input in the format in which it is read; None for f32. Raises as `range_of`."""
    form = formats.read[node.name]
    return None if form == F32 else range_of(network, node.inputs[0], form, formats, ranges)


def _take(values: Mapping[str, Tensor], name: str, reader: str) -> Tensor:
    if name not in values:
        raise UsageError(f"node {reader!r} needs the value {name!r}, which was not given")
    return values[name]


def _array_names(node: Node) -> tuple[str, ...]:
    if isinstance(node.op, Conv2d | Linear):
        return (f"{node.name}.weight", f"{node.name}.bias")
    if isinstance(node.op, ScaleShift):
        return (f"{node.name}.scale", f"{node.name}.shift")
    return ()


def _tensors(node: Node, weights: Weights) -> tuple[Tensor, Tensor]:
    for name in _array_names(node):
        if name not in weights:
            raise DataError(f"the weights lack {name!r}; give those of this network")
    first, second = (_float32(weights[name]) for name in _array_names(node))
    return first.contiguous(memory_format=torch.channels_last) if first.ndim == 4 else first, second


def _integer_layer(node: Node, inputs: Sequence[Tensor], layer: EncodedLayer, held: Range) -> Tensor:
    """A layer over codes in the runtime's order: sums of code x level, exact in float32 below 2^24, then one
    multiplier and one bias per channel, rounded where the runtime rounds. Values near a rounding threshold would
    otherwise fall on different sides now and then."""
    scale = np.float32(held.scale)
    # The codes less the one that pads, so that zeros may stand for padding. What is read are scale (q - zero_point).
    codes = inputs[0] * float(np.float32(1) / scale)
    if held.zero_point != held.padding:
        codes.add_(held.zero_point - held.padding)
    codes.round_()
    levels = shared(layer.levels.astype(np.float32))
    sums = layer.levels.reshape(len(layer.scale), -1).sum(1, dtype=np.float64)
    multiplier = layer.scale * scale
    bias = (layer.bias.astype(np.float64) - held.zero_point * sums * multiplier).astype(np.float32)
    per_channel = (-1, 1, 1) if isinstance(node.op, Conv2d) else (-1,)
    offset, factor, shift = (
        torch.from_numpy(np.asarray(values, np.float32)).view(per_channel)
        for values in (held.padding * sums, multiplier, bias)
    )
    if isinstance(node.op, Conv2d):
        weight = levels.contiguous(memory_format=torch.channels_last)
        y = convolve(replace(node.op, activation=IDENTITY), codes, weight, None)
    else:
        y = dense(Linear(), codes, levels.reshape(len(levels), -1), None)
    return finish(y.add_(offset).mul_(factor).add_(shift), inputs[1] if len(inputs) > 1 else None, node.activation)


def _float_tensors(node: Node, layer: EncodedLayer) -> tuple[Tensor, Tensor]:
    weight = _float32(layer.weight)
    if isinstance(node.op, Linear):
        return weight.reshape(weight.shape[0], -1), _float32(layer.bias)
    return weight.contiguous(memory_format=torch.channels_last), _float32(layer.bias)


def _float32(array: np.ndarray) -> Tensor:
    return shared(np.asarray(array, np.float32))
