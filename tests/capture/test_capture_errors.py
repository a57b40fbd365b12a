"""What is refused, and that the refusal names the operation, the module path and what can be done."""

from __future__ import annotations

import re
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitplan.capture import capture
from bitplan.errors import DataError, UnsupportedError, UsageError
from bitplan.network import Preprocessing

X = torch.randn(2, 4, 6, 6)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Named(nn.Module):
    """The module under test as `block.inner`."""

    def __init__(self, inner):
        super().__init__()
        self.block = nn.ModuleDict({"inner": inner})

    def forward(self, x):
        return self.block["inner"](x)


REFUSED = {
    "activation": (nn.GELU(), "gelu in module 'block.inner': is not supported; train with"),
    "norm": (nn.GroupNorm(2, 4), "group_norm in module 'block.inner'.*BatchNorm2d"),
    "batch statistics": (nn.BatchNorm2d(4, track_running_stats=False), "statistics of the batch; keep running stat"),
    "batch norm of sequences": (nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(4)), "'block.inner.1'.*normalise images"),
    "padding mode": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "pad in module 'block.inner'.*'reflect'"),
    "conv of sequences": (nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 2, 3)), "conv1d in module 'block.inner.1'"),
    "transposed conv": (nn.ConvTranspose2d(4, 4, 2), "conv_transpose2d in module 'block.inner'"),
    "uneven adaptive pool": (nn.AdaptiveAvgPool2d(4), "pools 6x6 to 4x4, in windows of uneven size; choose"),
    "ceil mode": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), "ceil_mode together with counted padding"),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
    "softmax": (nn.Softmax(2), "softmax in module 'block.inner': runs over axis 2"),
    "log softmax": (nn.LogSoftmax(1), "return the logits or a softmax"),
    "pad with infinity": (nn.ConstantPad2d(1, float("inf")), "pads with inf"),
    "pad rows": (Function(lambda x: F.pad(x.flatten(2), (1, 1))), "pads 1 axes"),
    "crop": (nn.ZeroPad2d(-1), "crops by negative amounts; crop with a slice"),
    "concat": (Function(lambda x: torch.cat([x, x], 2)), "cat in module 'block.inner': joins along axis 2"),
    "concat of constants": (Function(lambda x: torch.cat([x, torch.ones(2, 4, 6, 6) * X[0, 0, 0]], 1)), "constants"),
    "mean": (Function(lambda x: x.mean(1)), "mean in module 'block.inner': runs over axes"),
    "maximum": (Function(lambda x: x.amax(1)), "amax in module 'block.inner': runs over axes"),
    "maximum of everything": (Function(lambda x: x.max()), "max in module 'block.inner'"),
    "constant image": (Function(lambda x: x + torch.arange(36.0).view(6, 6)), "one number per channel"),
    "growing constant": (Function(lambda x: x.mean((2, 3), True) * torch.ones(6, 6)), "one number per channel"),
    "spatial gate": (Function(lambda x: x * x[:, :1]), r"combines the shapes \(4, 6, 6\) and \(1, 6, 6\)"),
    "quotient": (Function(lambda x: x / x), "divides by a value of the network"),
    "reciprocal": (Function(lambda x: 1 / x), "reciprocal in module 'block.inner'"),
    "rounded quotient": (Function(lambda x: torch.div(x, 2, rounding_mode="floor")), "rounds its quotient"),
    "matrix product": (Function(lambda x: x @ x), "'other' depends on the input"),
    "dynamic convolution": (Function(lambda x: F.conv2d(x, x)), "'weight' depends on the input"),
    "clamp by values": (Function(lambda x: torch.clamp(x, min=torch.zeros(6))), "bound of its own"),
    "clamp by nan": (Function(lambda x: x.clamp(max=float("nan"))), "clamps by NaN"),
    "expand": (Function(lambda x: F.relu(x.mean((2, 3), True).expand(-1, -1, 6, 6))), "only an add or a mul"),
    "repeat": (Function(lambda x: x[:, :1].expand(-1, 4, -1, -1)), "repeats"),
    "half": (Function(lambda x: x.half().float()), "keep the network in float32"),
    "forced dropout": (Function(lambda x: F.dropout(x, 0.5, True)), "at random|random numbers|dropout"),
    "random": (Function(lambda x: x + torch.rand(1)), "draws random numbers"),
    "one number": (Function(lambda x: x.mean((2, 3))[:, 0]), "one number per image"),
    "output of constants": (Function(lambda x: (x, torch.ones(2))), "output 1 .* does not depend on its input"),
    "the same output twice": (Function(lambda x: (x.relu(),) * 2), "outputs 0 and 1 are the same value"),
    # what mixes the images of a batch, or fixes their number
    "sum over the batch": (Function(lambda x: x - x.mean(0, keepdim=True)), "batch"),
    "softmax over the batch": (nn.Softmax(0), "works along the batch axis"),
    "slice of the batch": (Function(lambda x: x[:1]), "batch"),
    "batch moved": (Function(lambda x: x.transpose(0, 1)), "batch"),
    "batch flattened": (Function(lambda x: x.reshape(-1)), "batch"),
    "batch written down": (Function(lambda x: x.reshape(2, -1)), "depends on the batch size"),
    "sizes written down": (Function(lambda x: x.reshape(2, 144)), "fails on a random batch.*for any batch size"),
    "batch in a branch": (Function(lambda x: x if x.shape[0] == 2 else -x), "differs from the module's"),
    # what tracing cannot follow
    "a branch on data": (Function(lambda x: x if x.sum() > 0 else -x), "torch.export: .*torch.fx: "),
    "a conditional": (
        Function(lambda x: torch.cond(x.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (x,))),
        "cannot be traced|sub-program|not supported",
    ),
    "a number taken out": (Function(lambda x: x * x.max().item()), "cannot be traced|not supported|max"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    module, message = REFUSED[case]
    with pytest.raises(UnsupportedError) as caught:
        capture(Named(module), X)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stateful_module():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return x + self.calls

    with pytest.raises(UnsupportedError, match="changes 'calls' while it runs"):
        capture(Counter(), X)


def test_state_that_tracing_cannot_see():
    seen = []

    def forward(x):
        seen.append(1)
        return x * len(seen)

    with pytest.raises(UnsupportedError, match=r"output '\w+' differs .* on the example.*state kept between calls"):
        capture(Function(forward), X)


def test_a_module_that_cannot_be_copied():
    with pytest.raises(UnsupportedError, match="Function cannot be copied"):
        capture(Function(x for x in ()), X)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("tensor", ["0.weight", "1.running_var"])
def test_weights_that_are_not_finite_are_named(tensor, bad):
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    module.state_dict()[tensor].view(-1)[2] = bad
    with pytest.raises(DataError, match=f"'{tensor}' holds NaN or infinite"):
        capture(module, X)


def test_weights_that_become_infinite_when_folded():
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    module[1].running_var[:] = -1
    with pytest.raises(DataError, match="weight of '0' is not finite once"):
        capture(module, X)


def test_a_division_by_zero():
    with pytest.raises(DataError, match="scale of 'output' is not finite"):
        capture(Function(lambda x: x / 0), X)


def test_an_output_that_is_not_finite():
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    for part in module:
        nn.init.constant_(part.weight, sys.float_info.max**0.1)
    with pytest.raises(DataError, match="output '1' is not finite"):
        capture(module, X * 1e10)


def test_weights_of_another_format():
    with pytest.raises(UnsupportedError, match=r"'weight' is torch.float64.*\.float\(\)"):
        capture(nn.Conv2d(4, 4, 3).double(), X)


@pytest.mark.parametrize(
    ("module", "example", "reason"),
    [
        (nn.Conv2d(3, 8, 3), X[:, :1], r"shape \(1, 6, 6\) \(batch left out\): RuntimeError: .*3 channels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(10, 2)), X, r"shape \(4, 6, 6\) .*cannot be multiplied"),
        (Function(lambda x: x.view(2, 5, -1)), X, r"shape \(4, 6, 6\) .*invalid for input of size 288"),
    ],
)
def test_an_example_that_the_network_itself_cannot_take_is_not_put_down_to_tracing(module, example, reason):
    with pytest.raises(DataError, match=f"the network itself cannot take .*{reason}.*--data.*input_shape") as caught:
        capture(module, example)
    assert "trace" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("example", [X, X[:1]])
def test_a_network_for_one_image_only(example):
    with pytest.raises(UnsupportedError, match=r"takes one image but not 2 .*write x\.flatten\(1\)"):
        capture(Function(lambda x: x.view(1, 144)), example)


class Two(nn.Module):
    def forward(self, image, mask, *, scale=1.0):
        return image * scale + mask


class KeywordOnly(nn.Module):
    def forward(self, image, *, scale):
        return image * scale


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (Two(), X, r"Two\.forward takes 2 inputs \(image, mask\), but 1 example was given"),
        (Two(), (X, X, X), "takes 2 inputs .* but 3 examples were given"),
        (KeywordOnly(), X, r"takes 2 inputs \(image, scale\), but 1 example was given"),
        (nn.ReLU(), (X, X), r"takes 1 input \(input\), but 2 examples were given"),
    ],
)
def test_another_number_of_inputs_than_examples(module, example, message):
    with pytest.raises(UsageError, match=message):
        capture(module, example)


EXAMPLES = {
    "array": (X.numpy(), "example 0 must be a float32 torch tensor"),
    "list": ([X], "example 0 must be a float32 torch tensor"),
    "bytes": (X.to(torch.uint8), "not torch.uint8"),
    "vector": (X[0, 0, 0], "the first axis is the batch"),
    "empty": (X[:0], "no axis may be empty"),
    "unequal": ((X, X[:1]), "the same for all examples"),
}


@pytest.mark.parametrize("case", EXAMPLES)
def test_unusable_examples(case):
    example, message = EXAMPLES[case]
    with pytest.raises(UsageError, match=message):
        capture(nn.ReLU(), example)


def test_an_example_that_is_not_finite():
    with pytest.raises(DataError, match="example 0 holds NaN"):
        capture(nn.ReLU(), X / 0)


def test_something_else_than_a_module():
    with pytest.raises(UsageError, match=r"needs a torch\.nn\.Module, not function"):
        capture(lambda x: x, X)


def test_preprocessing_that_does_not_fit():
    with pytest.raises(UsageError, match="preprocessing has 3 channels"):
        capture(nn.ReLU(), X, preprocessing=Preprocessing((1.0, 2.0, 3.0), (1.0, 1.0, 1.0)))
