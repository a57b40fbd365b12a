"""Makes `exported.onnx` anew, by torch's newer exporter (which takes onnxscript and a while), with a free batch:

python -m tests.interchange.record
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from .conftest import FREE, SHAPE, small_network


def main() -> None:
    path = Path(__file__).with_name("exported.onnx")
    x = torch.randn(2, *SHAPE)
    torch.onnx.export(small_network(), (x,), path, dynamo=True, external_data=False, verbose=False, dynamic_shapes=FREE)
    model = onnx.load(path)
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]  # traces with paths of the machine
    del model.metadata_props[:]
    onnx.save(model, path)


if __name__ == "__main__":
    main()
