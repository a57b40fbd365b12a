"""The configuration: options over file over defaults, checked by name, and saved so that it comes back."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitplan.config import READERS, Config, load_config, merge, save_resolved
from bitplan.errors import UsageError
from bitplan.network import Preprocessing
from bitplan.targets import Targets

FULL: dict[str, Any] = {
    "model": "pkg.mod:build",
    "weights": "net.safetensors",
    "data": "cifar10:data",
    "mean": [123.7, 116.3, 103.5],
    "std": [58.4, 57.1, 57.4],
    "resize": 256,
    "crop": 224,
    "target_latency": "20ms",
    "budget": "2MB",
    "memory": "8MiB",
    "max_loss": 0.5,
    "max_drop": "1%",
    "full_precision_weights": "2%",
    "objective": "latency",
    "metric": "pkg.mod:metric",
    "loss_metric": "task",
    "encodings": ["int8", "apb:kept=0.02"],
    "pin": ["fc=int8", "blocks.*=int4"],
    "exclude": ["stem"],
    "recovery": ["correct", "tune"],
    "ranges": "kl",
    "tune_epochs": 12,
    "compare": ["fitting"],
    "threads": 2,
    "batch": 4,
    "calibration_size": 100,
    "loss_size": 64,
    "test_size": 1000,
    "hybrid": False,
    "seed": 7,
    "time_limit": "90s",
    "finetune": "30epochs",
    "finetune_time": "60min",
    "finetune_options": ["learning_rate=0.001"],
    "train_data": "cifar10:data",
    "loss": "pkg.mod:loss",
    "polish": 150,
    "rounds": 3,
    "device_profile": "laptop.arrow",
    "margin": 1.5,
    "loss_profile": "loss.arrow",
    "link_policies": 3,
    "jobs": 4,
    "backend": "dask",
    "cluster": "tcp://10.0.0.1:8786",
    "output": "out",
}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "optimize.yaml"
    path.write_text(text)
    return path


def test_every_field_can_stand_in_the_file() -> None:
    assert set(FULL) == set(READERS) == {field.name for field in fields(Config)} - {"sources"}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    for config in (Config(), merge(FULL), Config(pin=("a=int8", "*: ?=int4"), data="où:f", max_loss=1e-9)):
        path = tmp_path / "deep" / "resolved.yaml"
        save_resolved(path, config)
        assert merge({}, load_config(path)) == config


@given(
    st.builds(
        Config,
        mean=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
        std=st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3),
        max_loss=st.none() | st.floats(0, 1e9),
        time_limit=st.floats(1e-3, 1e9),
        budget=st.none() | st.integers(1, 10**12),
        full_precision_weights=st.none() | st.integers(0, 10**9) | st.floats(1e-6, 0.9),
        exclude=st.lists(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=","), min_size=1)),
    )
)
def test_any_configuration_comes_back(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    path = tmp_path_factory.mktemp("config") / "resolved.yaml"
    save_resolved(path, config)
    assert merge({}, load_config(path)) == config


def test_options_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = load_config(written(tmp_path, "budget: 2MB\nthreads: 2\npin: [a=int8]\nmodel:\n"))
    config = merge({"threads": 4, "batch": None, "pin": [], "encodings": ()}, file)
    assert (config.threads, config.budget, config.batch, config.pin, config.model) == (4, "2MB", 1, ("a=int8",), None)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert merge({}, load_config(written(tmp_path, "# nothing yet\n"))) == Config()


def test_the_targets_are_numbers() -> None:
    assert merge(FULL).targets == Targets(0.02, 2_000_000, 8 * 2**20, 0.5, 0.01, 0.02, "latency")
    assert Config().targets == Targets()


@pytest.mark.parametrize(
    "share, number",
    [("2%", 0.02), ("0.02", 0.02), (0.02, 0.02), (5000, 5000), ("5000", 5000), ("0", 0), (0, 0), ("0%", 0)],
)
def test_full_precision_weights_are_a_share_or_a_number(share: Any, number: float) -> None:
    assert Config(full_precision_weights=share).targets.full_precision_weights == number


def test_lists_may_be_written_with_commas() -> None:
    config = merge(
        {"mean": "123.7, 116.3,103.5", "std": ["1", "2", "3"], "encodings": "int8,apb:kept=0.02", "pin": ["a=int8"]}
    )
    assert config.mean == (123.7, 116.3, 103.5) and config.std == (1.0, 2.0, 3.0)
    assert config.encodings == ("int8", "apb:kept=0.02") and config.pin == ("a=int8",)
    assert merge({"mean": 127.5, "std": 64}).mean == (127.5,)


def test_given_preprocessing_stands_over_the_models() -> None:
    own = Preprocessing((1.0,), (2.0,), 256, 224)
    assert Config().preprocessing_over(own) == own
    assert Config(crop=200).preprocessing_over(own) == Preprocessing((1.0,), (2.0,), 256, 200)
    assert Config(mean=(3.0,)).preprocessing_over(own) == Preprocessing((3.0,), (2.0,), 256, 224)
    with pytest.raises(UsageError, match="mean has 3 values and std has 1"):
        Config(mean=(3.0, 3.0, 3.0), std=(1.0,)).preprocessing_over(own)


WRONG = {
    "budgt: 2MB": "unknown key 'budgt'; did you mean 'budget'",
    "target-latency: 20ms": "unknown key 'target-latency'; did you mean 'target_latency'",
    "xyz: 1": "unknown key 'xyz'; known keys are model, weights",
    "budget: 2XB": "budget '2XB': unknown unit 'xb'",
    "budget: [2MB]": r"budget is \['2MB'\] \(list\); it must be a size such as 2MB",
    "budget: true": r"budget is True \(bool\)",
    "budget: 0": "budget '0' must be above zero",
    "target_latency: 20": "target_latency '20' needs a unit: s, ms or us",
    "max_drop: 150%": "max_drop '150%' must be a percentage up to",
    "full_precision_weights: 1.5": "must be a percentage such as 2%, or a whole number",
    "full_precision_weights: 100%": "is no limit; leave it out",
    "full_precision_weights: -1": "must be a percentage such as 2%",
    "full_precision_weights: many": "must be a percentage such as 2%",
    "threads: two": r"threads is 'two' \(str\); it must be a whole number of at least 1",
    "threads: 0": "threads is 0 .*at least 1",
    "batch: 1.5": r"batch is 1.5 \(float\)",
    "seed: true": r"seed is True \(bool\)",
    "objective: losss": "objective is 'losss' .*must be one of loss, bytes, latency, memory; did you mean 'loss'",
    "objective: []": "objective is ",
    "loss_metric: mse": "loss_metric is 'mse' .*must be one of kl, task",
    "metric: top1": "metric is 'top1' .*must look like 'pkg.mod:function'",
    "model: 3": r"model is 3 \(int\); it must be a text",
    "model: ''": "model is '' .*must be a text",
    "weights: 3": "weights is 3 .*must be a path",
    "mean: [a, b]": "mean is 'a' .*must be a number per channel",
    "mean: [[1]]": r"mean is \[1\] .*must be a number per channel",
    "mean: .nan": "must be a number per channel",
    "pin: {fc: int8}": "pin is {'fc': 'int8'} .*must be a list of texts",
    "pin: [3]": "pin is 3 .*must be a text",
    "max_loss: .inf": "max_loss is inf .*finite number",
    "time_limit: -1": "time_limit is -1",
    "time_limit: 5 apples": "time_limit '5 apples'",
    "threads: 1\nthreads: 2": "'threads' stands there twice",
    "- threads": "must hold lines of the form 'name: value'",
    "1: 2": "must hold lines of the form 'name: value'",
    "a: [": "not valid YAML",
    "!!python/name:os.system x: 1": "not valid YAML",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=WRONG[text]) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    path = written(tmp_path, "")
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match=r"cannot read .*optimize\.yaml"):
        load_config(path)
    path.write_text("[" * 2000)
    with pytest.raises(UsageError, match=r"nested too deeply|not valid YAML"):
        load_config(path)


def test_wrong_options_are_named() -> None:
    with pytest.raises(UsageError, match="unknown option 'pins'; did you mean 'pin'"):
        merge({"pins": ["a=int8"]})
    with pytest.raises(UsageError, match="threads is 0"):
        merge({"threads": 0})
    with pytest.raises(UsageError, match="mean has 1 values and std has 2"):
        merge({"mean": [1], "std": [1, 2]})


def test_the_loss_metrics_are_those_that_can_be_measured() -> None:
    from bitplan.config_values import LOSS_METRICS
    from bitplan.profiles.metrics import METRICS

    assert set(LOSS_METRICS) == set(METRICS)
