"""Pooling and means over the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite, prod
from typing import Any

from bitplan.capture.call import Call
from bitplan.capture.draft import DraftNode
from bitplan.network import AveragePool, MaxPool, Mean, Pad, Padding, Pair, Reshape


def _window(call: Call, dilation: Pair = (1, 1)) -> tuple[Pair, Pair, Padding, bool]:
    """Kernel, stride, padding, and whether ceil_mode had to widen the padding at the bottom or the right."""
    x = call.image()
    kernel, padding = call.pair("kernel_size"), call.pair("padding")
    stride = call.pair("stride") if call["stride"] else kernel
    # With ceil_mode the last window may reach over the edge; more padding on that side says the same.
    extra = [
        max(0, (out - 1) * s + d * (k - 1) + 1 - size - 2 * p)
        for out, s, d, k, size, p in zip(call.shape[1:], stride, dilation, kernel, x.shape[1:], padding, strict=True)
    ]
    sides = (padding[0], padding[0] + extra[0], padding[1], padding[1] + extra[1])
    return kernel, stride, sides, any(extra)


def max_pool(call: Call) -> DraftNode:
    dilation = call.pair("dilation")
    kernel, stride, padding, _ = _window(call, dilation)
    return call.add(MaxPool(kernel, stride, padding, dilation), [call.image()])


def max_pool_with_indices(call: Call) -> tuple[DraftNode, None]:
    return max_pool(call), None


def average_pool(call: Call) -> DraftNode:
    kernel, stride, padding, widened = _window(call)
    count_padding = bool(call["count_include_pad"]) and any(call.pair("padding"))
    if widened and count_padding:
        call.fail("uses ceil_mode together with counted padding", "use count_include_pad=False or ceil_mode=False")
    if call["divisor_override"] not in (None, prod(kernel)):
        call.fail("divides by a number of its own (divisor_override)", "scale its result instead")
    return call.add(AveragePool(kernel, stride, padding, count_padding or not any(padding)), [call.image()])


def _whole_divisor(call: Call) -> Pair:
    """The window of an adaptive pool whose output size divides its input size."""
    x = call.image()
    if any(size % out for size, out in zip(x.shape[1:], call.shape[1:], strict=True)):
        call.fail(
            f"pools {x.shape[1]}x{x.shape[2]} to {call.shape[1]}x{call.shape[2]}, in windows of uneven size",
            "choose an output size that divides the input size",
        )
    return x.shape[1] // call.shape[1], x.shape[2] // call.shape[2]


def adaptive_average_pool(call: Call) -> DraftNode:
    window = _whole_divisor(call)
    if call.shape[1:] == (1, 1):
        return call.add(Mean(keep=True), [call.image()])
    return call.add(AveragePool(window, window), [call.image()])


def adaptive_max_pool(call: Call) -> tuple[DraftNode, None]:
    window = _whole_divisor(call)
    return call.add(MaxPool(window, window), [call.image()]), None


def _axes(call: Call, x: DraftNode) -> set[int]:
    dims = call.arguments.get("dim")
    if dims is None or (isinstance(dims, Sequence) and not dims):
        call.fail("reduces over everything, the batch included", "reduce over height and width")
    return {call.axis(x, int(dim)) for dim in (dims if isinstance(dims, Sequence) else [dims])}


def mean(call: Call) -> DraftNode:
    if call.arguments.get("dtype") is not None:
        call.fail("changes the number format")
    x = call.node()
    axes, keep = _axes(call, x), bool(call["keepdim"])
    if len(x.shape) == 2 and axes == {1}:
        column = call.add(Reshape(), [x], (*x.shape, 1), name=call.default_name("column"))
        result = call.add(Mean(), [column], x.shape[:1])
        return call.add(Reshape(), [result], name=call.default_name("reshape")) if keep else result
    if len(x.shape) == 3 and axes == {1, 2}:
        return call.add(Mean(keep), [x])
    if len(x.shape) == 3 and axes in ({1}, {2}):
        window = (x.shape[1], 1) if axes == {1} else (1, x.shape[2])
        pooled = call.add(AveragePool(window, window), [x], (x.shape[0], *_pooled(x, window)))
        return pooled if keep else call.add(Reshape(), [pooled], name=call.default_name("reshape"))
    return call.fail(
        f"runs over axes {call['dim']} of [N, {', '.join(map(str, x.shape))}]", "run over height and width"
    )


def maximum(call: Call) -> DraftNode:
    x = call.image()
    if _axes(call, x) != {1, 2}:
        call.fail(f"runs over axes {call['dim']}", "run over height and width")
    window = (x.shape[1], x.shape[2])
    pooled = call.add(MaxPool(window, window), [x], (x.shape[0], 1, 1))
    return pooled if call["keepdim"] else call.add(Reshape(), [pooled], name=call.default_name("reshape"))


def _pooled(x: DraftNode, window: Pair) -> Pair:
    return x.shape[1] // window[0], x.shape[2] // window[1]


def pad(call: Call) -> DraftNode:
    """Constant padding of images; of vectors as images of one pixel."""
    if call.arguments.get("mode", "constant") != "constant":
        call.fail(f"pads by {call['mode']!r}", "pad with zeros")
    x = call.node()
    amounts = [int(amount) for amount in call["pad"]]
    axes = len(amounts) // 2
    if len(x.shape) not in (1, 3) or any(amounts[2 * len(x.shape) :]):
        call.fail(f"pads {axes} axes of [N, {', '.join(map(str, x.shape))}]", "pad height, width and channels only")
    if any(amount < 0 for amount in amounts):
        call.fail("crops by negative amounts", "crop with a slice: x[:, :, a:b, c:d]")
    vector = len(x.shape) == 1
    amounts = [0] * 4 + amounts if vector else amounts
    left, right, top, bottom, before, after = (amounts + [0] * 6)[:6]
    value = float(call.arguments.get("value") or 0.0)
    if not isfinite(value):
        call.fail(f"pads with {value}", "use the padding of the pool or convolution behind it")
    op = Pad((top, bottom, left, right), (before, after), value)
    if not vector:
        return call.add(op, [x])
    pixel = call.add(Reshape(), [x], (*x.shape, 1, 1), name=call.default_name("pixel"))
    padded = call.add(op, [pixel], (*call.shape, 1, 1))
    return call.add(Reshape(), [padded], name=call.default_name("reshape"))


POOLS: dict[str, Callable[[Call], Any]] = {
    "max_pool2d": max_pool,
    "max_pool2d_with_indices": max_pool_with_indices,
    "avg_pool2d": average_pool,
    "adaptive_avg_pool2d": adaptive_average_pool,
    "_adaptive_avg_pool2d": adaptive_average_pool,
    "adaptive_max_pool2d": adaptive_max_pool,
    "mean": mean,
    "amax": maximum,
    "pad": pad,
    "constant_pad_nd": pad,
}
