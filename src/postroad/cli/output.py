"""The one place that prints: lines and tables for people, JSON for scripts, one clear message for an error.

Data is printed as data. No function here reads markup, and control characters are shown as escapes: see
`postroad.printable`. A style is asked for by `Styled`::

    print_line(Styled("header", "bold"), f": {header}")

On a terminal a table has a frame and its cells wrap. Elsewhere a row is a line, complete, without colours or frames.
``sys.stdout`` is looked up at each call, so that a test may replace it. Rich is imported for a terminal only.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

import typer
from rich.cells import cell_len

from postroad.errors import PostroadError, UsageError
from postroad.printable import is_hidden, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

EXIT_BROKEN_PIPE = 141
"""The reader of our output went away, as `head` does: 128 and the number of SIGPIPE."""

_COLUMN_GAP = "  "
_DESCRIPTION = "{task.description:<12}"
_HIDDEN_IN_JSON = re.compile(r"[^\x20-\x7e]")


class Styled(NamedTuple):
    """Text in a style of Rich, such as ``bold red``. Only a terminal shows it."""

    text: str
    style: str


Cell = object
"""What a table shows: `Styled`, or a value that `_words` puts into words."""


def print_line(*parts: str | Styled) -> None:
    """Print one line to standard output. A line break in the data is shown as an escape."""
    _write(sys.stdout, parts)


def print_text(text: str) -> None:
    """Print a text of several lines, such as a message's source, to standard output. Line breaks and tabs stay."""
    _write(sys.stdout, [text.replace("\r\n", "\n")], keep="\n\t")


def print_note(*parts: str | Styled) -> None:
    """Print one line about the course of the work to standard error."""
    _write(sys.stderr, parts)


def print_warning(text: str) -> None:
    """Print one line to standard error that needs attention."""
    print_note(Styled("warning", "bold yellow"), f" {text}")


def print_error(error: PostroadError) -> None:
    """Print to standard error what happened, where, and what to do next. With --json it is one object on one line."""
    print_failure(error.exit_code, error.message, where=error.where, remedy=error.remedy)


def print_failure(code: int, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
    """Print an error that has no exception of ours. ``code``: the exit code."""
    if json_is_wanted():
        failure = {"code": code, "message": message, "where": where, "remedy": remedy}
        _emit(sys.stderr, _json({"error": failure}, sys.stderr) + "\n")
        return
    print_note(Styled("error", "bold red"), f" {where}: " if where else " ", message)
    for line in remedy.split("\n") if remedy else ():
        print_note(f"      {line}")


def print_traceback(text: str) -> None:
    """Print the traceback of a fault of ours to standard error. Its message may hold data."""
    _write(sys.stderr, [text.rstrip("\n")], keep="\n")


def output_is_terminal() -> bool:
    """Whether a person sees standard output, and no file or other program does."""
    return sys.stdout.isatty()


def json_is_wanted() -> bool:
    """Whether the command line asks for JSON. Errors may occur before its options are read."""
    words = sys.argv[1:]
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def print_json(value: Any) -> None:
    """Print one value on one line to standard output."""
    _emit(sys.stdout, _json(_plain(value), sys.stdout) + "\n")


def print_json_list(fields: Mapping[str, Any], name: str, items: Iterable[Any]) -> None:
    """Print one object on one line, whose last field is a list that is not in memory as a whole.

    Args:
        fields: The other fields; at least one.
        name: Name of the list.
        items: Its items.
    """
    head = _json(_plain(fields), sys.stdout)
    _emit(sys.stdout, f"{head[:-1]}, {_json(name, sys.stdout)}: [")
    for number, item in enumerate(items):
        _emit(sys.stdout, f"{', ' if number else ''}{_json(_plain(item), sys.stdout)}")
    _emit(sys.stdout, "]}\n")


def _json(value: Any, stream: TextIO) -> str:
    """Encode the value. Control characters, also those that JSON permits, are escapes of JSON."""
    utf_8 = (stream.encoding or "utf-8").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not utf_8)
    return _HIDDEN_IN_JSON.sub(lambda found: _json_escape(found[0]) if is_hidden(found[0]) else found[0], text)


def _json_escape(char: str) -> str:
    return json.dumps(char, ensure_ascii=True)[1:-1] if char != "\x7f" else "\\u007f"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return str(value)


def print_table(title: str | Sequence[str | Styled], columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print rows to standard output. Numbers are aligned to the right."""
    rows = [list(row) for row in rows]
    heading = _styled([title] if isinstance(title, str) else title)
    numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    if not sys.stdout.isatty():
        lines = _aligned(
            [list(map(printable, columns)), *([_words(cell).text for cell in row] for row in rows)], numeric
        )
        _emit(sys.stdout, "".join(f"{line}\n" for line in ("".join(part.text for part in heading), *lines)))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text.assemble(*heading), title_justify="left", title_style="bold", header_style="dim")
    for column, right in zip(columns, numeric, strict=True):
        table.add_column(Text(printable(column)), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(words.text, words.style) for words in map(_words, row)))
    _show(sys.stdout, table)


def _aligned(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> Iterable[str]:
    """Pad every cell to its column's widest one. Nothing is cut, and nothing wraps."""
    widths = [max(map(cell_len, column), default=0) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = []
        for cell, width, right in zip(row, widths, numeric, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if right else cell + space)
        yield _COLUMN_GAP.join(padded).rstrip()


def _words(cell: Cell) -> Styled:
    """Put a cell into words that are safe to print."""
    match cell:
        case Styled(text, style):
            return Styled(printable(text), style)
        case None:
            words = "–"
        case bool():
            words = "yes" if cell else "no"
        case int():
            words = f"{cell:,}"
        case datetime():
            words = f"{cell:%Y-%m-%d %H:%M:%S} UTC"
        case _:
            words = printable(str(cell))
    return Styled(words, "")


def confirm(question: str) -> None:
    """Ask on standard error, and raise `typer.Abort` unless the answer is yes."""
    typer.confirm(printable(question), abort=True, err=True)


MAX_SECRET_CHARACTERS = 10_000


def ask_secret(question: str, *, again: str) -> str:
    """Ask for a new secret twice on the terminal, or read it as the first line of standard input elsewhere.

    Args:
        question: What to enter.
        again: The second question.

    Returns:
        The secret.

    Raises:
        UsageError: There is no input, or the two entries differ.
    """
    if not sys.stdin.isatty():
        secret = ""
        with suppress(OSError, ValueError):  # It may be closed, or not be UTF-8 text.
            secret = sys.stdin.readline(MAX_SECRET_CHARACTERS).rstrip("\r\n")
        if not secret:
            raise UsageError("standard input has no password", remedy="Pipe it in, or run the command on a terminal.")
        return secret
    secret = typer.prompt(question, hide_input=True, err=True)
    if typer.prompt(again, hide_input=True, err=True) != secret:
        raise UsageError("the two entries differ", remedy="Run the command again.")
    return str(secret)


def progress_bar(*, quiet: bool = False) -> Progress:
    """Return a bar for long work, on standard error. It shows on a terminal only. Its descriptions are printable."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn(_DESCRIPTION, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=_console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    )


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Show bars while the block runs, one for each description that its ``report(description, done, total)`` names."""
    with progress_bar(quiet=quiet) as bars:
        tasks: dict[str, TaskID] = {}

        def report(description: str, done: int, total: int) -> None:
            if description not in tasks:
                tasks[description] = bars.add_task(printable(description), total=total)
            bars.update(tasks[description], completed=done, total=total)

        yield report


@contextmanager
def working(what: str, *, quiet: bool = False, every_s: float = 5.0) -> Iterator[None]:
    """Show on standard error that work is under way, and for how long, while the block runs.

    A terminal shows a spinner with the elapsed time. Elsewhere a line appears every few seconds.
    """
    if quiet:
        yield
    elif sys.stderr.isatty():
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn(_DESCRIPTION, markup=False), TimeElapsedColumn())
        with Progress(*columns, console=_console(stderr=True), transient=True) as spinner:
            spinner.add_task(printable(what), total=None)
            yield
    else:
        ended = threading.Event()
        telling = threading.Thread(target=_tell_until, args=(ended, what, every_s), daemon=True)
        telling.start()
        try:
            yield
        finally:
            ended.set()
            telling.join()


def _tell_until(ended: threading.Event, what: str, every_s: float) -> None:
    began = time.monotonic()
    while not ended.wait(every_s):
        print_note(f"{what} … {time.monotonic() - began:.0f} s")


class DataStream:
    """Standard output for a file format of its own, such as CSV: unchanged in a pipe or a file, safe on a terminal."""

    def write(self, text: str) -> int:
        safe = printable(text.replace("\r\n", "\n"), keep="\n\t") if sys.stdout.isatty() else text
        _emit(sys.stdout, safe)
        return len(text)


def _styled(parts: Iterable[str | Styled], *, keep: str = "") -> list[Styled]:
    """Return parts that are safe to print. ``keep``: control characters that they may contain."""
    both = (Styled(part, "") if isinstance(part, str) else part for part in parts)
    return [Styled(printable(part.text, keep=keep), part.style) for part in both]


def _console(**options: Any) -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)


def _write(stream: TextIO, parts: Iterable[str | Styled], *, keep: str = "") -> None:
    styled = _styled(parts, keep=keep)
    if stream.isatty():
        from rich.text import Text

        _show(stream, Text.assemble(*styled), soft_wrap=True)
    else:
        _emit(stream, "".join(part.text for part in styled) + "\n")


def _show(stream: TextIO, content: RenderableType, *, soft_wrap: bool = False) -> None:
    """Write to a terminal."""
    console = _console(file=stream)
    with console.capture() as capture:
        console.print(content, soft_wrap=soft_wrap)
    _emit(stream, capture.get())


def _emit(stream: TextIO, text: str) -> None:
    """Write text at once. Raises SystemExit where its reader went away, which is no error of anybody."""
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        # Python would try to write the rest again when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise SystemExit(EXIT_BROKEN_PIPE) from None
