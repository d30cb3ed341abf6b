"""Words that our prose and names avoid, and the places that still use them. `python -m tests.docs.language PATH`.

Checked in Python: comments, docstrings, names that are defined, and texts of the product (errors, help, logs). Checked
in Markdown: everything outside code; of the changelog only the unreleased part. Checked in Lua: comments. Text in
backquotes is a quotation, and is not checked.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

# By word: what to write instead.
AVOIDED = {
    r"anew": "again, from the start",
    r"beside": "next to, together with, in addition to",
    r"besides": "in addition, also",
    r"behind(?! (?:an? |the |its |our |your |their )?(?:[\w-]+ )?"
    r"(?:proxy|proxies|balancer|nat|firewall|tls|gates?))": "after",
    r"be had": "be obtained",
    r"mend(?:s|ed|ing)?": "fix, repair, rebuild",
    r"stands(?! (?:for|in for))": "is; the noun is state or status",
    r"an? instant|instants|the instant": "time, timestamp",
    r"is away|was away|are away": "is unavailable, is unreachable",
    r"goes on|went on|go on|going on": "continues, resumes",
    r"came back|come back|comes back": "returned, bounced",
    r"house(?:s|keeping)?": "stack, maintenance",
    r"hands?(?!-| written|shake)": "claim, give, pass; by hand: manually",
    r"crew": "workers",
    r"told": "notified, shown, configured",
    r"at the most": "at most",
    r"thereby": "so",
    # An automation that installations have is named "tell somebody what is paused …".
    r"nobody|somebody(?! what is paused)": "name the person or the part",
    r"whoever|that which": "name the subject",
    r"is none|are none|was none": "say what it is not",
}
_WORDS = re.compile(r"\b(?:" + "|".join(AVOIDED) + r"|said)\b", re.IGNORECASE)
_NAMES = re.compile(
    r"(?<![a-z])(?:anew|beside|behind|mend|mends|mended|mending|stands|house|crew|told|nobody|somebody|whoever)(?![a-z])",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"``.*?``|`[^`]*`|“[^”]*”|\b\w+(?:\.\w+)+\b", re.DOTALL)
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Texts that are data: replies of receivers, and the name of a Unix account.
DATA = ("src/postroad/classify/evidence.py", "src/postroad/classify/text.py", "benchmarks/databases.py")


class Use(NamedTuple):
    """A word that is avoided, and its place."""

    file: str
    line: int
    word: str
    text: str


def files(*roots: Path) -> Iterator[Path]:
    """Every file below the roots whose language is checked."""
    for root in roots:
        if root.is_file():
            yield root
        else:
            yield from sorted(
                file
                for file in root.rglob("*")
                if file.suffix in (".py", ".lua", ".md")
                and not any(part == "__pycache__" or part.startswith(".") for part in file.relative_to(root).parts)
                and file.name != Path(__file__).name
            )


def uses(file: Path) -> Iterator[Use]:
    """Return each use of an avoided word in a file."""
    text, name = file.read_text(), str(file.relative_to(ROOT))
    if file.name == "CHANGELOG.md":
        part = unreleased(text)
        yield from _in_prose(name, text.count("\n", 0, text.index(part)) + 1, part)
    elif file.suffix == ".md":
        yield from _in_prose(name, 1, _FENCED.sub(lambda found: "\n" * found[0].count("\n"), text))
    elif file.suffix == ".lua":
        for number, line in enumerate(text.splitlines(), 1):
            if "--" in line:
                yield from _in_prose(name, number, line.split("--", 1)[1])
    else:
        yield from _in_python(name, text)


def unreleased(changelog: str) -> str:
    """Return the part of a changelog about the next release, from its title on."""
    start = changelog.index("## Unreleased")
    end = changelog.find("\n## ", start + 1)
    return changelog[start : end if end != -1 else None]


def _in_prose(name: str, first_line: int, prose: str) -> Iterator[Use]:
    plain = _QUOTED.sub(lambda found: "\n" * found[0].count("\n"), prose)
    for found in _WORDS.finditer(plain):
        before = plain.count("\n", 0, found.start())
        yield Use(name, first_line + before, found[0], plain.splitlines()[before].strip())


def _in_text(name: str, line: int, text: str) -> Iterator[Use]:
    # One word is a name, such as a key of JSON output.
    if not text.isidentifier() or _NAMES.search(text):
        yield from _in_prose(name, line, text)


def _in_python(name: str, text: str) -> Iterator[Use]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from _in_prose(name, token.start[0], token.string)
    tree = ast.parse(text)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            for item in body:  # also a text below an attribute
                if (
                    isinstance(item, ast.Expr)
                    and isinstance(item.value, ast.Constant)
                    and isinstance(item.value.value, str)
                ):
                    docstrings.add(item.value)
                    yield from _in_prose(name, item.lineno, item.value.value)
        for defined in _defined(node):
            if found := _NAMES.search(_HUMP.sub("_", defined).replace("_", " ")):
                yield Use(name, getattr(node, "lineno", 1), found[0].strip(), defined)
    if not name.startswith("tests/") and name not in DATA:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                yield from _in_text(name, node.lineno, node.value)


def _defined(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.Attribute(attr=name, ctx=ast.Store()):
            yield name


if __name__ == "__main__":
    everything = [use for argument in sys.argv[1:] for file in files(Path(argument).resolve()) for use in uses(file)]
    for use in everything:
        sys.stdout.write(f"{use.file}:{use.line}: {use.word}: {use.text[:110]}\n")
    sys.stdout.write(f"{len(everything)}\n")
