"""Parses untrusted XML without its dangerous features: DTDs are rejected, and with them entities and external files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.parsers import expat

from postroad.dns.reports.encoding import repair_xml, to_utf8
from postroad.dns.reports.problems import Problems
from postroad.errors import DataError

MAX_DEPTH = 16
MAX_NODES = 2_000
"""Maximum number of elements in one part."""
MAX_TEXT = 4_096
"""Maximum number of characters in one element."""
MAX_RESTARTS = 20
"""Maximum number of restarts after syntax errors in one report."""
_PART = re.compile(rb"(?i)<(?:[a-z0-9]{1,20}:)?(?:report_metadata|policy_published|record)(?=[\s>])")


@dataclass(slots=True)
class Node:
    """An element.

    Attributes:
        text: Its text.
        wrong: What was omitted because of a limit.
        children: Its children by name, in lower case and without namespaces.
    """

    text: str = ""
    wrong: str = ""
    children: dict[str, list[Node]] = field(default_factory=dict)

    def first(self, name: str) -> Node:
        """Return the first child of this name, or an empty one."""
        return self.children.get(name, [_EMPTY])[0]

    def all(self, name: str) -> list[Node]:
        return self.children.get(name, [])


_EMPTY = Node()


def parse_xml(data: bytes, root: str, part: Callable[[str, Node], None], problems: Problems) -> None:
    """Parse XML and pass each child of the root to a callback, so that memory for one part suffices.

    A syntax error is added to the problems, and parsing continues with the next part.

    Args:
        data: The XML.
        root: The name of the root element.
        part: Called with name and content of each child of the root.
        problems: The problems of the report.

    Raises:
        DataError: The XML has a DTD, another root, or exceeds a limit.
    """
    data = repair_xml(to_utf8(data, problems), problems)
    broken_at = _parse(data, root, part, problems)
    for _ in range(MAX_RESTARTS):
        following = _PART.search(data, broken_at + 1) if broken_at is not None else None
        if following is None:
            return
        start = following.start()
        ended_at = _parse(memoryview(data)[start:], root, part, problems, inside=True)
        broken_at = None if ended_at is None else start + ended_at


def _parse(
    data: bytes | memoryview, root: str, part: Callable[[str, Node], None], problems: Problems, *, inside: bool = False
) -> int | None:
    """Parse XML up to the first syntax error.

    Args:
        data: The XML.
        root: The name of the root element.
        part: Called with name and content of each child of the root.
        problems: The problems of the report.
        inside: Whether the data begins with a part instead of the root.

    Returns:
        The position of the error, or None.
    """
    reader = _XmlReader(root, part)
    parser = expat.ParserCreate("utf-8")  # overrides the XML declaration
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    opened = f"<{root}>".encode() if inside else b""
    try:
        parser.Parse(opened, False)
        parser.Parse(data, True)
    except expat.ExpatError as error:
        problems.add(f"its XML is broken: {expat.ErrorString(error.code)} at byte {parser.ErrorByteIndex:,}")
        return max(0, parser.ErrorByteIndex - len(opened))
    return None


class _XmlReader:
    def __init__(self, root: str, part: Callable[[str, Node], None]) -> None:
        self._root = root
        self._part = part
        self._stack: list[tuple[str, Node]] = []
        self._nodes = 0

    def doctype(self, *_: object) -> None:
        raise DataError("it has a DTD, which a report never has: it may be an attack")

    def start(self, tag: str, _attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2].lower()
        if not self._stack and name != self._root:
            raise DataError(f"its root is <{name[:40]}> instead of <{self._root}>")
        self._nodes += 1
        if len(self._stack) >= MAX_DEPTH or self._nodes > MAX_NODES:
            raise DataError(f"<{name[:40]}> is nested too deeply, or in a part with too many elements")
        self._stack.append((name, Node()))

    def text(self, text: str) -> None:
        name, node = self._stack[-1]
        if len(self._stack) == 1:
            return  # text between the parts
        if node.wrong:
            return
        if len(node.text) + len(text) > MAX_TEXT:
            node.text, node.wrong = "", f"the text of <{name[:40]}> has more than {MAX_TEXT:,} characters"
            return
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
                self._stack[-1][1].wrong = self._stack[-1][1].wrong or node.wrong
                self._stack[-1][1].children.setdefault(name, []).append(node)
