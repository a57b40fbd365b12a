"""The methods by which activation ranges are found, against what they are defined by."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.errors import UsageError
from bitplan.formats import top_code
from bitplan.policies.realise import calibrate
from bitplan.policies.realise.range_methods import METHODS, PERCENTILES, _divergence, best_range, whole
from bitplan.policies.realise.spread import BINS, Spread
from bitplan.recovery_names import RANGES
from bitplan.simulate import Simulator, fake_quantise

torch = pytest.importorskip("torch")


def spread_of(value):
    spread = Spread()
    spread.extend(value, "x")
    spread.fill(value)
    return spread


def value_of(kind):
    x = np.random.default_rng(1).normal(0.3, 1, 20_000)
    x = {
        "normal": x,
        "relu": np.maximum(x, 0),
        "outlier": np.append(x, [60.0] * 3),
        "negative": -np.abs(x),
        "zeros": np.append(np.abs(x), np.zeros(60_000)),
    }[kind]
    return torch.from_numpy(x.astype(np.float32))


KINDS = ["normal", "relu", "outlier", "negative", "zeros"]


def test_every_name_has_a_method():
    assert tuple(METHODS) == RANGES


@pytest.mark.parametrize("method", RANGES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["u8", "u4", "u2", "u1"])
def test_zero_is_exact_and_the_range_lies_within_the_extremes(method, kind, form):
    value = value_of(kind)
    held = best_range(spread_of(value), form, method)
    if form == "u1":
        assert held == best_range(spread_of(value), form)
        return
    assert float(fake_quantise(torch.zeros(1), held, form)) == 0.0
    widest = whole(float(value.min()), float(value.max()), top_code(form))
    assert 0 < held.scale <= widest.scale * (1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["u8", "u4"])
def test_minmax_clips_nothing(kind, form):
    value = value_of(kind)
    held = best_range(spread_of(value), form, "minmax")
    assert float((fake_quantise(value, held, form) - value).abs().max()) <= 0.501 * held.scale


@pytest.mark.parametrize("form", ["u8", "u4", "u2"])
def test_percentile_clips_its_share_of_an_end(form):
    value = value_of("zeros")
    held = best_range(spread_of(value), form, "percentile")
    clipped = float((value > held.scale * top_code(form) + float(value.max()) / BINS).double().mean())
    above = float((value > held.scale * top_code(form) - 2 * float(value.max()) / BINS).double().mean())
    assert clipped - 1e-9 <= 1 - PERCENTILES[form] <= above + 1e-9


@pytest.mark.parametrize("kind", ["normal", "relu", "outlier"])
def test_entropy_is_the_divergence_of_explicit_distributions(kind):
    spread, top = spread_of(value_of(kind)), 15
    scales = whole(spread.low, spread.high, top).scale * np.array([1.0, 0.6, 0.3])[:, None]
    zero_points = np.array([[0.0]]) if spread.low >= 0 else np.array([[3.0, 7.0]])
    found = _divergence(spread, scales, zero_points, top)
    for row, column in np.ndindex(found.shape):
        scale, zero = scales[row, 0], zero_points[0, column]
        codes = np.ceil(spread.centres / scale + zero - 0.5).astype(int)
        inside = (codes >= 0) & (codes <= top)
        p = np.where(inside, spread.counts, 0.0)
        ends = np.flatnonzero(inside)[[0, -1]]
        p[ends[0]] += spread.counts[: ends[0]].sum()
        p[ends[1]] += spread.counts[ends[1] + 1 :].sum()
        q = np.zeros(BINS)
        for code in range(top + 1):
            filled = inside & (codes == code) & (spread.counts > 0)
            q[filled] = spread.counts[filled].sum() / max(filled.sum(), 1)
        p, q = p / p.sum(), q / q.sum()
        for end in ends[q[ends] == 0]:  # an empty bin that clipped numbers are added to is like the others of its code
            q[end] = q[inside & (codes == codes[end])].max()
        where = p > 0
        wanted = (p[where] * np.log(p[where] / np.maximum(q[where], 1e-12))).sum()
        assert found[row, column] == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_a_few_outliers_do_not_stretch_the_range_of_methods_that_clip():
    spread = spread_of(value_of("outlier"))
    for method in ("mse", "percentile", "kl"):
        assert best_range(spread, "u4", method).scale < 0.5 * best_range(spread, "u4", "minmax").scale


def test_calibration_takes_a_method_by_name(small):
    simulator = Simulator(small.network, small.weights)
    by_method = {method: calibrate(simulator, small.images, ("u8", "u2"), method=method) for method in RANGES}
    scales = {method: held["stem"]["u2"].scale for method, held in by_method.items()}
    assert len(set(scales.values())) == len(RANGES)
    assert max(scales.values()) == scales["minmax"]
    assert len({held["x"]["u8"] for held in by_method.values()}) == 1  # bytes of an input are all covered


def test_an_unknown_name_is_refused():
    from bitplan.config import Config

    with pytest.raises(UsageError, match="did you mean 'percentile'"):
        Config(ranges="percentil")
    with pytest.raises(UsageError, match="leave equalise out"):
        Config(recovery=("equalise",), finetune="3epochs")
