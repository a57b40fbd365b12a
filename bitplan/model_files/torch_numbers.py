"""Enumerations of torch's archive schema as torch's own values."""

from __future__ import annotations

import torch

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}


def dtype_of(number: int) -> torch.dtype:
    """Raises ValueError for complex numbers, 8-bit floats and the like."""
    if number not in DTYPES:
        raise ValueError(f"tensors of type number {number} are not known here")
    return DTYPES[number]
