"""Measures the loss increase of every (layer, variant) alone, after local recovery.

The full-precision values of all images are kept at one point of the network and moved through it layer by layer; for
each variant of a layer only the rest of the network is executed. So the cost is about half a forward pass per choice,
and one pass for all prefixes together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

import numpy as np

from bitplan.errors import UsageError
from bitplan.network import Network, Weights, weights_hash
from bitplan.policies.realise.front import Images, count_images, default_batch
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.loss_walk import Job, LossWalk, Progress
from bitplan.profiles.metrics import Labels, effective_metric
from bitplan.variant import FLOAT32, Variant

Menu = Mapping[str, Sequence[Variant]]

MEMORY = 3 << 30
"""Bytes that the kept values may take; more images are measured in several walks through the network, with the layers
as they were recovered on the first walk's images."""

CODE = {
    "bitplan": ("formats.py", "operations.py", "simulate.py"),
    "bitplan.encodings": (),
    "bitplan.policies.realise": (),
}
"""Sources (of a package; none named: all) that decide what a variant costs: their digest is the encodings' version, so
that a profile measured with others is never reused."""


def profile_hashes(
    network: Network,
    weights: Weights,
    images: Images,
    labels: Labels | None = None,
    sources: Mapping[str, Sequence[str]] = CODE,
) -> dict[str, str]:
    """What a loss profile depends on, as SHA-256 in hexadecimal; `labels` only where the metric uses them, `sources` as
    in CODE."""
    data = hashlib.sha256()
    for name, array in sorted(images.items()) if isinstance(images, Mapping) else [("", images)]:
        data.update(f"{name} {array.dtype} {array.shape}".encode())
        data.update(np.ascontiguousarray(array).data)
    if labels is not None:
        data.update(np.ascontiguousarray(labels, np.int64).data)
    code = hashlib.sha256()
    for package, names in sources.items():
        for file in sorted(files(package).iterdir(), key=lambda file: file.name):
            if file.name in names or (not names and file.name.endswith(".py")):
                code.update(file.name.encode() + file.read_bytes())
    return {
        "network": network.content_hash,
        "weights": weights_hash(weights),
        "data": data.hexdigest(),
        "encodings": code.hexdigest(),
    }


def measure(
    network: Network,
    weights: Weights,
    images: Images,
    menu: Menu,
    *,
    labels: Labels | None = None,
    metric: str = "kl",
    batch: int | None = None,
    memory: int = MEMORY,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    profile: LossProfile | None = None,
) -> LossProfile:
    """The loss profile of `menu` (variants by layer) on raw images [N, C, H, W].

    Every layer is changed alone; its input is read as the variant reads it, all else stays float32. float32 costs 0 by
    definition. `metric`: see metrics.py. Entries of `profile` are taken over where its metric and hashes are the same.
    `checkpoint` names a journal: a measurement that was interrupted goes on from it, with the same result (for the same
    batch, memory and number of threads); it is removed by nobody, and started anew for other hashes.
    Raises UsageError for an unknown layer, DataError for images or labels that do not fit.
    """
    metric = effective_metric(network, metric)
    hashes = profile_hashes(network, weights, images, labels if metric == "task" else None)
    _check_menu(network, menu)
    known = dict(profile.increases) if profile is not None and profile.same_origin(metric, hashes) else {}
    choices = [(layer, variant) for layer, variants in menu.items() for variant in dict.fromkeys(variants)]
    wanted = {choice for choice in choices if choice not in known and choice[1] != FLOAT32}
    batch = batch or default_batch(network)
    if wanted:
        key = json.dumps([metric, hashes, batch, memory])
        with Journal(checkpoint, key) if checkpoint else nullcontext() as journal:
            job = Job(network, weights, images, frozenset(wanted), metric, labels, batch, memory)
            known |= LossWalk(job, journal, progress).run()
    zero = np.zeros(count_images(images), np.float32)
    known |= {choice: zero for choice in choices if choice[1] == FLOAT32}
    return LossProfile(metric, hashes, {**{c: known[c] for c in choices}, **known})


def _check_menu(network: Network, menu: Menu) -> None:
    names = [node.name for node in network.layers]
    for name in menu:
        if name not in names:
            raise UsageError(f"the menu names a layer {name!r} that does not exist; the layers are {', '.join(names)}")
