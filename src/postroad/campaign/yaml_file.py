"""Loads the subset of YAML that campaign files use, with limits on size, depth and the expansion of aliases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from postroad.errors import ConfigError

MAX_CHARACTERS: Final = 200_000
MAX_DEPTH: Final = 20
"""Limit of nested mappings and lists."""
MAX_VALUES: Final = 10_000
"""Limit of keys, texts, mappings and lists, each counted as often as aliases repeat it."""


class _Loader(yaml.SafeLoader):
    """Loader that reads every scalar except null as text. YAML 1.1 would read 10:30 as 630 and no as false."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as its parent has it)
        first: [(tag, pattern) for tag, pattern in known if tag.endswith((":null", ":merge"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # by node: number of values and depth

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and check its size and depth. An alias counts as the whole node that it repeats."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) not in (None, "!"):
            raise _error(event, "tags such as !!int are not available")
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise _error(event, f"it is nested deeper than {MAX_DEPTH} levels")
            node = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        if node is not None and id(node) not in self._sizes:
            if isinstance(event, yaml.AliasEvent):
                raise _error(event, "an alias is within the value that it repeats")
            self._sizes[id(node)] = self._measure(node)
        size, depth = self._sizes[id(node)] if node is not None else (0, 0)
        if size > MAX_VALUES:
            raise _error(event, f"it has more than {MAX_VALUES:,} values")
        if self._depth + depth > MAX_DEPTH:
            raise _error(event, f"it is nested deeper than {MAX_DEPTH} levels")
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 1, 1
        children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
        sizes = [self._sizes[id(child)] for child in children]
        return 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)


def _error(event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(None, None, problem, event.start_mark)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class TextPlace:
    """Where a text of a YAML file is written, to name the place of a fault in it.

    ``field``: keys of the value, joined by dots. ``source``: the file's content. ``node``: the value.
    """

    path: Path
    field: str
    source: str
    node: yaml.ScalarNode

    def where(self, column: int) -> str:
        """Return file, line, column and field of a character. ``column``: its place in the text, from 1."""
        index = self._index(column - 1)
        line = self.source.count("\n", 0, index) + 1
        return f"{self.path}, line {line}, column {index - self.source.rfind(chr(10), 0, index)}, {self.field}"

    def _index(self, offset: int) -> int:
        """Return the place in the file of a character of the text, which may be quoted, escaped or folded."""
        index, end = self.node.start_mark.index, self.node.end_mark.index
        if self.node.style in ("|", ">"):
            index = self.source.index("\n", index) + 1
        elif self.node.style is not None:
            index += 1
        found = index
        for character in self.node.value[: offset + 1]:
            # Blanks are skipped: a line break with its indentation may have become one of them.
            if not character.isspace() and (place := self.source.find(character, index, end)) >= 0:
                found, index = place, place + 1
        return found if offset < len(self.node.value) else min(found + 1, end)


def text_place(path: Path, source: str, root: yaml.Node, *keys: str) -> TextPlace | None:
    """Return where the text with these keys is written; None if there is no such text."""
    node: yaml.Node | None = root
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for name, value in pairs if name.value == key), None)
    if not isinstance(node, yaml.ScalarNode):
        return None
    return TextPlace(path=path, field=".".join(keys), source=source, node=node)


def load_yaml(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """Load the single document of a text.

    Args:
        path: The file, for errors.
        text: Its content.

    Returns:
        The document as nodes, which have line numbers, and as values.

    Raises:
        ConfigError: The text is not YAML, or exceeds a limit; the error names file and line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the file has more than {MAX_CHARACTERS:,} characters", where=str(path))
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _require_single_keys(path, node)
        return node, loader.construct_document(node) if node is not None else None
    except yaml.reader.ReaderError as error:
        where = f"{path}, line {text.count(chr(10), 0, error.position) + 1}"
        raise ConfigError(f"not YAML: the character {chr(error.character)!r}", where=where) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"not YAML: {error.problem or error.context}", where=f"{path}{line}") from None


def _require_single_keys(path: Path, node: yaml.Node | None) -> None:
    """Raise ConfigError for a repeated key, of which YAML would silently use the last."""
    for mapping in _mappings(node):
        seen: set[str] = set()
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConfigError(
                    f"{key.value!r} is given twice", where=f"{path}, line {key.start_mark.line + 1}, {key.value}"
                )
            seen.add(str(key.value))


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Yield every mapping under a node once, even if aliases repeat it."""
    visited: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def line_of(node: yaml.Node, loc: Sequence[Any]) -> int:
    """Return the line of a field's name, or, if the field is missing, the line of its parent."""
    line = int(node.start_mark.line)
    for part in loc:
        children: list[tuple[Any, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            children = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(number, value, value) for number, value in enumerate(node.value)]
        for name, key, value in children:
            if name == part:
                node, line = value, int(key.start_mark.line)
                break
        else:
            return int(node.start_mark.line) + 1
    return line + 1
