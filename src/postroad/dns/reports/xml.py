"""XML from anybody, read without what makes XML dangerous: no DTD, so neither entities nor other files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from xml.parsers import expat

from postroad.errors import DataError

MAX_DEPTH = 16
MAX_NODES = 2_000
"""Of one part that is handed on whole."""
MAX_TEXT = 4_096
"""Characters of one element."""


@dataclass(slots=True)
class Node:
    """An element: its text, and its children by name, without namespaces."""

    text: str = ""
    children: dict[str, list[Node]] = field(default_factory=dict)

    def first(self, name: str) -> Node:
        """Return the first child of this name, or an empty one."""
        return self.children.get(name, [_EMPTY])[0]

    def all(self, name: str) -> list[Node]:
        return self.children.get(name, [])


_EMPTY = Node()


def read_xml(data: bytes, root: str, part: Callable[[str, Node], None]) -> None:
    """Hand on the children of the root, each when it is complete. Raises DataError.

    `part` gets name and content of each and keeps what it wants: a report of any length takes the memory of one part.
    """
    reader = _Reader(root, part)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DataError(f"its XML is broken: {error}") from None
    except (LookupError, ValueError) as error:  # an encoding that Python does not know, or that is none
        raise DataError(f"its XML cannot be decoded: {error}") from None


class _Reader:
    def __init__(self, root: str, part: Callable[[str, Node], None]) -> None:
        self._root = root
        self._part = part
        self._stack: list[tuple[str, Node]] = []
        self._nodes = 0

    def doctype(self, *_: object) -> None:
        raise DataError("it has a DTD, which no report has: it may be an attack")

    def start(self, tag: str, _attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if not self._stack and name != self._root:
            raise DataError(f"its root is <{name[:40]}>, and not <{self._root}>")
        self._nodes += 1
        if len(self._stack) >= MAX_DEPTH or self._nodes > MAX_NODES:
            raise DataError(f"<{name[:40]}> is nested too deeply, or in a part with too many elements")
        self._stack.append((name, Node()))

    def text(self, text: str) -> None:
        name, node = self._stack[-1]
        if len(self._stack) == 1:
            return  # Between the parts.
        if len(node.text) + len(text) > MAX_TEXT:
            raise DataError(f"the text of <{name[:40]}> has more than {MAX_TEXT:,} characters")
        node.text += text

    def end(self, _tag: str) -> None:
        name, node = self._stack.pop()
        node.text = node.text.strip()
        match len(self._stack):
            case 0:
                return
            case 1:
                self._nodes = 1
                self._part(name, node)
            case _:
                self._stack[-1][1].children.setdefault(name, []).append(node)
