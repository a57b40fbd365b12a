"""From a decision to the layers and ranges that an artifact is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.errors import DataError, UsageError
from bitplan.formats import Range, Ranges, derive_formats
from bitplan.network import Network, Node, Weights
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.checkpoint import LayerRecords
from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.front import Front, Images, count_images, default_batch, peak_bytes, take
from bitplan.policies.realise.subject import Recovery, Subject
from bitplan.policies.realise.warm import WarmStart
from bitplan.policies.variants import supports
from bitplan.recovery_names import DEFAULT_RANGES
from bitplan.simulate import Simulator
from bitplan.variant import F32, FLOAT32, FORMATS, U8, Variant

Progress = Callable[[int, int, str], None]
"""Called with the work done, the whole work (same unit) and what is being done."""

MEMORY = 3 << 30
"""Bytes that the values of both networks may take."""


@dataclass(frozen=True)
class Realisation:
    """The layers as the artifact stores them, and the ranges of every value in the formats that the layers need."""

    layers: dict[str, EncodedLayer]
    ranges: dict[str, dict[str, Range]]


def quantise(network: Network, node: Node, weights: Weights, variant: Variant) -> EncodedLayer:
    """A layer's weights and bias rounded to the nearest that the variant can hold.
    Raises UsageError where the encoding does not support the layer, DataError where a weight is not finite."""
    encoding, shape = encoding_of(variant), network.weight_shape(node)
    if not supports(variant, shape):
        raise UsageError(f"layer {node.name!r} of shape {shape} cannot be {variant}; choose another variant")
    for name in (f"{node.name}.weight", f"{node.name}.bias"):
        if not np.all(np.isfinite(weights[name])):
            raise DataError(f"{name!r} holds values that are not finite; the network must be repaired or trained again")
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    weight = np.asarray(weights[f"{node.name}.weight"], np.float32).reshape(size)
    return encoding.quantise(weight, weights[f"{node.name}.bias"], variant, shape.groups)


def realise(
    network: Network,
    weights: Weights,
    images: Images,
    variants: Mapping[str, Variant],
    *,
    ranges: Ranges | None = None,
    method: str = DEFAULT_RANGES,
    recoveries: Sequence[Recovery] = (correct,),
    batch: int | None = None,
    memory: int = MEMORY,
    warm: WarmStart | None = None,
    finished: LayerRecords | None = None,
    progress: Progress | None = None,
) -> Realisation:
    """Carries out one variant per layer with the help of raw calibration images [N, C, H, W].

    `ranges` are calibrated by `method` (range_methods.py) if not given. If the values of all images do not fit into
    `memory` bytes, recovery uses as many images as do; a channel's statistics come from all pixels, so large images need
    fewer of them.
    With `warm`, layers that keep their variant are taken from there and only corrected, if anything is recovered at all;
    others are made of its floats, to be like the trained layer; its ranges must be those given.
    Layers that are in `finished` are taken from there, others are put there once they are recovered.
    With every layer float32 the network stays bit-identical. Raises UsageError for a missing or unknown layer.
    """
    check_variants(network, variants)
    simulator = Simulator(network, weights)
    batch = batch or default_batch(network)
    needed = code_formats(variants.values())
    if progress:
        progress(0, len(network.layers), "activation ranges" if ranges is None and needed else "")
    if ranges is None:
        held = calibrate(simulator, images, needed, batch=batch, method=method)
    else:
        held = {name: dict(by_format) for name, by_format in ranges.items()}
    formats = derive_formats(network, variants)
    layers = {
        node.name: (warm.kept(node.name, variants[node.name]) if warm else None)
        or quantise(network, node, warm.floats if warm else weights, variants[node.name])
        for node in network.layers
    }
    if all(variant == FLOAT32 for variant in variants.values()):
        return Realisation(layers, held)
    images = take(images, slice(min(count_images(images), max(1, memory // (2 * peak_bytes(simulator))))))
    trained = (warm.layers, held, derive_formats(network, warm.variants)) if warm else ()
    full = Front.of_images(simulator, images, batch)
    quantised = full.fork()
    finished = finished or LayerRecords(None, "")
    for done, node in enumerate(network.layers):
        if progress:
            progress(done, len(network.layers), f"{node.name} as {variants[node.name]}")
        position = network.nodes.index(node)
        full.advance(position, *trained)
        quantised.advance(position, layers, held, formats)
        known = finished.get(node.name, network.weight_shape(node), variants[node.name])
        if known is not None:
            layers[node.name] = known
            continue
        subject = Subject(node, full, quantised, held, formats, warm.reference(node.name, network) if warm else None)
        taken_over = warm is not None and warm.kept(node.name, variants[node.name]) is not None
        for recover in [correct][: len(recoveries)] if taken_over else recoveries:
            layers[node.name] = recover(subject, layers[node.name])
        finished.add(node.name, layers[node.name])
    if progress:
        progress(len(network.layers), len(network.layers), "realised")
    return Realisation(layers, held)


def code_formats(variants: Iterable[Variant]) -> tuple[str, ...]:
    """The formats of codes in which values may be read under these variants: the layers' own, and u8 for residuals and
    operations without weights."""
    found = {variant.activation for variant in variants} - {F32}
    return tuple(form for form in FORMATS if form in found or (found and form == U8))


def check_variants(network: Network, variants: Mapping[str, Variant]) -> None:
    """Raises UsageError unless there is exactly one variant for every layer."""
    names = [node.name for node in network.layers]
    for name in variants:
        if name not in names:
            raise UsageError(f"there is no layer {name!r}; the layers are {', '.join(names)}")
    for name in names:
        if name not in variants:
            raise UsageError(f"layer {name!r} has no variant; every layer needs one (float32 keeps it as it is)")
