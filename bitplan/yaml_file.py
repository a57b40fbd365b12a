"""Reading of the small YAML files that people write: plain values only, and no key twice."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from bitplan.errors import UsageError


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, but a key that stands twice in one mapping is an error instead of a silent override."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} stands there twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_mapping(text: str, source: str | Path) -> dict[str, Any]:
    """The mapping in a YAML text; an empty text is an empty mapping. Raises UsageError naming the source."""
    try:
        loader = _UniqueKeys(text)
        try:
            found = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is not valid YAML: {error}; correct it there") from None
    except RecursionError:
        raise UsageError(f"{source} is nested too deeply; write lines of the form 'name: value'") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UsageError(f"{source} must hold lines of the form 'name: value'")
    return found


def read_mapping_file(path: Path) -> dict[str, Any]:
    """`read_mapping` of a file. Raises UsageError where it cannot be read."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {path}: {error}; check the path, its permissions and that it is text in UTF-8"
        ) from None
    return read_mapping(text, path)
