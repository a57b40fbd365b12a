"""What the knobs of a study make of configuration, menu and targets."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna", reason="studies need optuna: pip install 'bitplan[study]'")

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.optimizer.study import Choices, Range
from bitplan.studies.knobs import KINDS
from bitplan.studies.space import space_of
from bitplan.targets import Targets


def space(small, *knobs, objectives=("loss",), **config):
    return space_of(small.network, Config(**config), knobs, objectives, 30)


def names(menu, layer):
    return [str(variant) for variant in menu[layer]]


def test_without_knobs_the_usual_ones_include_what_the_planner_uses(small):
    made = space(small, recovery=("strong",))
    assert [knob.name for knob in made.knobs] == ["encodings", "kept", "estimator", "recovery"]
    assert {knob.name: knob.planner for knob in made.knobs} == {
        "encodings": "menu",
        "kept": "menu",
        "estimator": "tempered",
        "recovery": "strong",
    }
    assert all(knob.planner in knob.domain.values for knob in made.knobs)
    own = space(small, encodings=("int8", "int4"))
    assert [knob.name for knob in own.knobs] == ["estimator", "recovery"]


def test_every_knob_can_be_read_and_has_a_value_of_the_planners(small):
    values = {
        "calibration_size": "8..24",
        "tune_epochs": "1,2",
        "finetune": "0,1",
        "budget": "0.5..1",
        "latency": "0.5,1",
    }
    values |= {"encodings": "int8,int4+int2", "kept": "0.01,0.02+0.04", "activations": "u8+u4", "estimator": "gram"}
    values |= {
        "recovery": "fast,correct+tune",
        "ranges": "kl",
        "finetune.learning_rate": "0.001,0.01",
        "group:*": "int8",
    }
    made = space(small, *(f"{name}={text}" for name, text in values.items()))
    assert {knob.name for knob in made.knobs} == set(values) >= set(KINDS)
    settings = {knob.name: knob.planner for knob in made.knobs}
    assert made.config_of(settings).recovery_steps == Config().recovery_steps
    assert made.menu_of(settings) == space(small, "recovery=fast").menu_of({})
    assert made.targets_of(settings, Targets(bytes=100)) == Targets(bytes=100)


def test_settings_change_the_configuration(small):
    made = space(small, "finetune=0,2", "finetune.temperature=1,3", "recovery=correct+tune", "tune_epochs=1,3")
    found = made.config_of({"finetune": 2, "finetune.temperature": 3.0, "recovery": "correct+tune", "tune_epochs": 3})
    assert (found.finetune, found.finetune_options, found.tune_epochs) == (2, ("temperature=3.0",), 3)
    assert found.recovery_steps == ("correct", "tune")
    assert made.config_of({"finetune": 0, "finetune.temperature": 3.0}).finetune_options == ()


def test_kept_fractions_formats_and_groups_change_the_menu(small):
    made = space(small, "kept=0.01,0.03", "activations=u8+u4,menu", "group:stem=int8,menu", encodings=("int8", "apb"))
    menu = made.menu_of({"kept": 0.03, "activations": "u8+u4", "group:stem": "int8"})
    assert names(menu, "stem") == ["int8"]
    assert names(menu, "expand") == ["int8", "int8@u4", "apb:kept=0.03", "apb@u4:kept=0.03"]
    assert names(menu, "depthwise") == ["int8", "apb:kept=0.03"], "its groups read 8 bits alone"
    pinned = space(small, "activations=u4,menu", encodings=("int8",), pin=("expand=int4",))
    menu = pinned.menu_of({"activations": "u4"})
    assert (names(menu, "expand"), names(menu, "join")) == (["int4"], ["int8@u4"])


def test_a_range_of_kept_fractions_is_tried_at_a_few(small):
    (knob,) = space(small, "kept=0.005..0.05:log").knobs
    assert isinstance(knob.domain, Choices)
    assert knob.domain.values == ("menu", 0.005, 0.0079, 0.013, 0.02, 0.032, 0.05)


def test_shares_of_the_limits_are_knobs_where_they_are_objectives(small):
    made = space(small, "recovery=fast,none", objectives=("loss", "bytes"))
    assert made.knobs[-1].domain == Range(0.5, 1.0)
    limits = Targets(bytes=1000, latency=0.01, loss=0.5)
    assert made.targets_of({"budget": 0.6, "recovery": "fast"}, limits) == Targets(bytes=600, latency=0.01)


@pytest.mark.parametrize("knob", ["kept=0", "budget=1.5", "activations=u3", "tune_epochs=0", "finetune.temperature=x"])
def test_values_that_cannot_be_are_refused(small, knob):
    with pytest.raises(UsageError):
        space(small, knob)
