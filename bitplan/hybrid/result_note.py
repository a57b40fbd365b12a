"""The line that tells how to load a result."""

from __future__ import annotations

from bitplan.config import Config
from bitplan.model_files import is_model_file


def result_note(config: Config) -> str:
    """LOAD.md of a result folder."""
    module, _, function = (config.model or "").partition(":")
    call = "build()"
    if config.model is None:
        built = "from bitplan.example import example_module as build"
    elif is_model_file(config.model):
        built, call = "from bitplan.model import load_model", f"load_model({config.model!r}).module"
    elif module == "torchvision":
        built = _import("torchvision.models", function)
    else:
        built = _import(module, function)
    return f"""# Layers of a network, made by `optimize --hybrid`

`network.bitplan` holds the layers that `policy.json` decided on; the rest of the network stays in torch. The module
takes the same (preprocessed) images and returns what it did:

```python
{built}
from bitplan.kernels.torch_modules import replace_layers

module = replace_layers({call}, "network.bitplan", threads={config.threads})
```

Where `build` returns (module, info), take the module; load its trained weights first where they lie in a file of their
own.
"""


def _import(module: str, function: str) -> str:
    return f"from {module} import {function}" + ("" if function == "build" else " as build")
