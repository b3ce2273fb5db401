"""YAML that a stranger may have written: read within limits, so that a small file cannot fill memory or time."""

from typing import Any

import yaml

MAX_BYTES = 1_000_000
TOO_LARGE = f"it is larger than {MAX_BYTES / 1e6:g} MB"
MAX_VALUES = 200_000
"""With what aliases repeat counted as often as it is repeated."""

MAX_NUMBER_LENGTH = 1_000
"""Characters of a value that is not text: numbers take time that grows with the square of their length."""


class UnreadableYamlError(ValueError):
    """A text is not YAML, or not within the limits; the message is the part of a sentence that says why."""


def load_yaml(text: str | bytes) -> Any:  # noqa: ANN401 -- whatever YAML can hold
    """Read YAML of plain values.

    Raises:
        UnreadableYamlError: If it is none, or larger than any file of its kind has reason to be.
    """
    if len(text) > MAX_BYTES:
        raise UnreadableYamlError(TOO_LARGE)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _require_few_values(node)
        return loader.construct_document(node)
    except UnreadableYamlError:
        raise
    except RecursionError as error:
        raise UnreadableYamlError("it is nested too deeply") from error
    except Exception as error:  # the parser raises anything on values that are none, such as the date 2026-13-45
        raise UnreadableYamlError(" ".join(str(error).split()) or type(error).__name__) from error


def _require_few_values(node: yaml.Node) -> None:
    """Check how many values there are once every alias is followed."""
    num_values: dict[int, int] = {}

    def count(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > MAX_NUMBER_LENGTH and not node.tag.endswith(":str"):
                raise UnreadableYamlError(f"it has a number of {len(node.value)} characters")
            return 1
        if id(node) not in num_values:
            num_values[id(node)] = MAX_VALUES  # until it is known: a value that holds itself never ends
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            num_values[id(node)] = 1 + sum(map(count, parts))
        if num_values[id(node)] > MAX_VALUES:
            raise UnreadableYamlError(f"it has more than {MAX_VALUES:,} values, aliases followed")
        return num_values[id(node)]

    count(node)
