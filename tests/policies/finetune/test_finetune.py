"""Training as a whole: the loss falls, a killed training ends with the same bits, float32 stays as it is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bitplan.capture import capture
from bitplan.encodings import encoding_of
from bitplan.errors import DataError, FileFormatError, UsageError
from bitplan.example import PREPROCESSING, example_data, example_module
from bitplan.network import Conv2d
from bitplan.policies.realise import Realisation, realise
from bitplan.policies.realise.finetune import Settings, checked, finetune, parse_settings
from bitplan.policies.realise.finetune.layer import Norm
from bitplan.policies.realise.finetune.network import TrainedNetwork
from bitplan.policies.realise.finetune.settings import LEARNING_RATES
from bitplan.policies.realise.finetune.train import training_key
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

QUICK = Settings(epochs=2, batch=8, held_back=8)


def uniform(small: Any, text: str) -> dict[str, Variant]:
    """Below 8 bits the layer with groups reads 8 bits."""
    found = {node.name: Variant.parse(text) for node in small.network.layers}
    return found | {"depthwise": Variant(found["depthwise"].encoding)} if "@" in text else found


def realised(small: Any, variants: dict[str, Variant]) -> Realisation:
    return realise(small.network, small.weights, small.images, variants)


def same(a: Realisation, b: Realisation) -> bool:
    return a.ranges == b.ranges and all(
        np.array_equal(a.layers[name].weight, b.layers[name].weight)
        and np.array_equal(a.layers[name].bias, b.layers[name].bias)
        for name in a.layers
    )


@pytest.mark.parametrize(
    "encoding",
    ["coded:bits=2", "codedternary:bits=1", "xor:bits=1", "pruned:kept=0.3", "prunedfloat:kept=0.3", "float32"],
)
def test_networks_of_coded_layers_are_trained_within_their_bytes(small, encoding: str) -> None:
    variants = uniform(small, "int4") | {"join": Variant.parse(encoding)}
    found = finetune(
        small.network, small.weights, small.images, variants, realised(small, variants), settings=QUICK
    ).realisation
    layer = found.layers["join"]
    assert len(encoding_of(layer.variant).pack(layer)) == encoding_of(layer.variant).size_bytes(
        layer.shape, layer.variant
    )


@pytest.mark.parametrize("variant", ["int4", "ternary", "binary@u4", "binary@u1"])
def test_the_trained_network_begins_as_the_simulation_and_is_projected_exactly(small, variant: str) -> None:
    variants = uniform(small, variant)
    start = realised(small, variants)
    network = TrainedNetwork(small.network, small.weights, variants, start, Settings(normalise=False))
    simulator = Simulator(small.network, small.weights)
    exact = simulator.outputs(small.images, start.layers, start.ranges)["classifier"]
    with torch.no_grad():
        found = network(simulator.preprocess(small.images).clone())["classifier"]
    # not to the last bit: a value that lies that near a threshold of codes may fall on its other side
    assert float((found - exact).abs().mean()) < 0.02 * float(exact.abs().mean())
    assert same(network.realisation(), start)


@pytest.mark.parametrize("variant", ["int8", "prunedfloat:kept=0.9"])
def test_batch_norm_begins_as_nothing_and_is_folded_again(small, variant: str) -> None:
    variants = uniform(small, variant)
    start = realised(small, variants)
    network = TrainedNetwork(small.network, small.weights, variants, start, Settings(normalise=True))
    assert all(
        network.layer(node.name).norm is not None for node in small.network.layers if isinstance(node.op, Conv2d)
    )
    simulator = Simulator(small.network, small.weights)
    network.observe(simulator.preprocess(small.images).clone())
    folded = network.realisation()
    before, after = (simulator.outputs(small.images, r.layers, r.ranges)["classifier"] for r in (start, folded))
    assert float((after - before).abs().max()) < 0.02 * float(before.abs().max())


@pytest.mark.parametrize("variant", ["ternary", "binary"])
def test_the_loss_falls_on_the_example_network(variant: str) -> None:
    data = example_data()
    network, weights = capture(example_module(), torch.zeros(2, 1, 28, 28), preprocessing=PREPROCESSING)
    images, variants = data.calibration_x[:240], {node.name: Variant(variant) for node in network.layers}
    start = realise(network, weights, images, variants)
    found = finetune(network, weights, images, variants, start, settings=Settings(epochs=2, batch=24, augment="none"))
    assert found.history[-1].loss < found.history[1].loss
    assert found.best_epoch > 0
    assert found.best.held_back < 0.95 * found.history[0].held_back


def test_a_float32_policy_comes_back_as_it_is(small) -> None:
    variants = dict.fromkeys(uniform(small, "int8"), FLOAT32)
    start = realised(small, variants)
    found = finetune(small.network, small.weights, small.images, variants, start, settings=QUICK)
    assert found.realisation is start
    for node in small.network.layers:
        values = found.realisation.layers[node.name].values
        assert values.tobytes() == small.weights[f"{node.name}.weight"].tobytes()


def test_a_start_that_nothing_improves_on_comes_back(small) -> None:
    variants = uniform(small, "int8")
    start = realised(small, variants)
    settings = parse_settings(["learning_rate=3", "augment=none"], epochs=1, batch=8, held_back=8)
    found = finetune(small.network, small.weights, small.images, variants, start, settings=settings)
    assert found.best_epoch == 0
    assert found.realisation is start


def test_time_and_patience_end_a_training(small) -> None:
    variants = uniform(small, "binary")
    start = realised(small, variants)
    common = (small.network, small.weights, small.images, variants, start)
    assert len(finetune(*common, settings=QUICK, seconds=1e-9).history) == 2  # the first epoch tells how long they are
    settings = parse_settings(["learning_rate=3", "patience=1"], epochs=6, batch=8, held_back=8)
    assert len(finetune(*common, settings=settings).history) < 7


KILLED = """
import os, runpy, signal, sys
from pathlib import Path
import pytest
pytest.fixture = lambda *given, **options: given[0] if given and callable(given[0]) else lambda function: function
from bitplan.policies.realise import realise
from bitplan.policies.realise.finetune import Settings, finetune
from bitplan.variant import Variant

small = runpy.run_path(sys.argv[1])["small"]()
variants = {node.name: Variant("apb", parameters=(("kept", 0.02),)) for node in small.network.layers}
start = realise(small.network, small.weights, small.images, variants)
steps = iter(range(1000))

def progress(done, total, doing):
    if next(steps) == 10:
        os.kill(os.getpid(), signal.SIGKILL)

settings = Settings(epochs=4, batch=8, held_back=8, apb_kept="learned")
finetune(
    small.network, small.weights, small.images, variants, start,
    settings=settings, checkpoint=Path(sys.argv[2]), progress=progress,
)
"""
"""Ends by SIGKILL in the middle of the third epoch. Not forked: a fork of a process that has trained cannot train."""


def test_a_training_that_was_killed_ends_with_the_same_bits(small, tmp_path: Path) -> None:
    variants = {node.name: Variant("apb", parameters=(("kept", 0.02),)) for node in small.network.layers}
    start = realised(small, variants)
    common = (small.network, small.weights, small.images, variants, start)
    settings = Settings(epochs=4, batch=8, held_back=8, apb_kept="learned")
    whole = finetune(*common, settings=settings, checkpoint=tmp_path / "whole")
    conftest = Path(__file__).parents[2] / "conftest.py"
    killed = subprocess.run([sys.executable, "-c", KILLED, conftest, tmp_path / "killed"], check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    seen: list[int] = []
    resumed = finetune(
        *common, settings=settings, checkpoint=tmp_path / "killed", progress=lambda done, *_: seen.append(done)
    )
    assert seen[0] == 8  # two epochs of four steps were done
    assert same(resumed.realisation, whole.realisation)
    assert resumed.history == whole.history


def test_a_checkpoint_of_another_training_or_version_is_not_gone_on_from(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = uniform(small, "binary")
    start = realised(small, variants)
    common = (small.network, small.weights, small.images, variants, start)
    path = tmp_path / "checkpoint"
    first = finetune(*common, settings=QUICK, checkpoint=path)
    other = finetune(*common, settings=Settings(epochs=2, batch=8, held_back=8, seed=1), checkpoint=path)
    assert first.history[1:] != other.history[1:]
    assert other.set_aside is not None
    monkeypatch.setattr("bitplan.policies.realise.finetune.checkpoint.FORM", "bitplan fine-tuning 3")
    newer = finetune(*common, settings=Settings(epochs=2, batch=8, held_back=8, seed=1), checkpoint=path)
    assert newer.set_aside is not None
    assert newer.history == other.history
    path.write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match="no checkpoint"):
        finetune(*common, settings=QUICK, checkpoint=path)


def test_a_loss_of_the_users_own(small) -> None:
    variants = uniform(small, "binary")
    start = realised(small, variants)
    common = (small.network, small.weights, small.images, variants, start)

    def loss(outputs, full, labels):
        return (outputs["classifier"] - full["classifier"]).abs().mean()

    found = finetune(*common, settings=QUICK, loss=checked(loss, "mine"), loss_name="mine")
    assert 0 < found.best.held_back < 10
    with pytest.raises(UsageError, match=r"'mine' returned \[32, 5\]|'mine' returned \[8, 5\]"):
        finetune(*common, settings=QUICK, loss=checked(lambda a, b, c: a["classifier"], "mine"))
    with pytest.raises(UsageError, match="'mine' raised KeyError"):
        finetune(*common, settings=QUICK, loss=checked(lambda a, b, c: a["none"], "mine"))


class TestBadInput:
    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("learning_rat=1", "learning_rate"),
            ("learning_rate", "must look like"),
            ("learning_rate=fast", "must be a number"),
            ("batch=0", "batch is 0"),
            ("ternary=four", "learned, twn, ptq"),
            ("bf16=1", "true or false"),
            ("temperature=0", "above 0"),
            ("zeros=1", "below 1"),
            ("clip=nan", "finite"),
        ],
    )
    def test_options(self, text: str, match: str) -> None:
        with pytest.raises(UsageError, match=match):
            parse_settings([text])

    def test_data(self, small) -> None:
        variants = uniform(small, "binary")
        start = realised(small, variants)
        common = (small.network, small.weights)
        with pytest.raises(DataError, match="10 training images at least"):
            finetune(*common, small.images[:6], variants, start)
        with pytest.raises(DataError, match="3 labels for 40"):
            finetune(*common, small.images, variants, start, labels=np.zeros(3, np.int64))
        with pytest.raises(DataError, match="have none"):
            finetune(*common, small.images, variants, start, settings=Settings(task=1.0))

    def test_a_training_that_diverges(self, small) -> None:
        variants = uniform(small, "int4")
        start = realised(small, variants)
        settings = Settings(epochs=3, batch=8, held_back=8, optimiser="sgd", learning_rate=1e30, clip=0)
        with pytest.raises(DataError, match="lower learning_rate"):
            finetune(small.network, small.weights, small.images, variants, start, settings=settings)


def test_batch_norm_of_one_value_per_channel_uses_what_it_has_seen() -> None:
    norm = Norm(3).train()
    y = torch.arange(3.0).view(1, 3, 1, 1)
    assert torch.allclose(norm(y), y, atol=1e-4)
    assert torch.equal(norm.mean, torch.zeros(3))


def test_a_checkpoint_is_known_by_the_rate_that_is_used(small) -> None:
    variants = uniform(small, "ternary")
    start = realised(small, variants)

    def key(**options: Any) -> str:
        common = (small.network, small.weights, small.images, variants, start, None, None)
        return training_key(*common, Settings(**options), "")

    assert key() == key(learning_rate=LEARNING_RATES["adamw"])
    assert len({key(), key(learning_rate=0.001), key(normalise=False), key(epochs=3)}) == 4


def test_bfloat16_trains_with_batch_norm_and_without(small) -> None:
    variants = uniform(small, "ternary")
    start = realised(small, variants)
    for normalise in (True, False):
        settings = Settings(epochs=2, batch=8, held_back=8, bf16=True, normalise=normalise)
        found = finetune(small.network, small.weights, small.images, variants, start, settings=settings)
        assert np.isfinite([epoch.held_back for epoch in found.history]).all()
        assert len({epoch.held_back for epoch in found.history}) > 1
