"""Data is printed as data; a pipe gets all of it, one row a line; a terminal gets no control character."""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO
from pathlib import Path
from typing import cast

import pytest

from postroad.cli import output
from postroad.cli.output import DataStream, Styled
from postroad.errors import StateError
from postroad.printable import PrintableFormatter, printable
from tests.cli.conftest import Run
from tests.cli.hostile import hidden_in, without_styles
from tests.commands import Screen

HOSTILE = (
    "[/policy] [/red]x :apple: [bad-rep] \x1b]0;title\x07 \x1b[2J \r\n\t \u202e \x9b31m \u2028 \x7f \udc9b \U000e0041"
)
SHOWN = (
    r"[/policy] [/red]x :apple: [bad-rep] \x1b]0;title\x07 \x1b[2J \r\n\t \u202e \x9b31m \u2028 \x7f \udc9b \U000e0041"
)
ROOT = Path(__file__).parents[2]


def test_printable_shows_every_control_character_and_keeps_the_rest() -> None:
    assert printable(HOSTILE) == SHOWN
    text = "Grüße, \u0646\u0627\u0645\u0647\u200c\u0627\u06cc \u00a0 👩\u200d🚀"
    assert printable(text) == text
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"
    assert not hidden_in(printable("".join(map(chr, range(0x11_0000)))))


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_tables_and_errors_show_data_literally(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "argv", ["postroad"])
    out, err = Screen(terminal=terminal), Screen(terminal=terminal)
    with redirect_stdout(out), redirect_stderr(err):
        output.print_line(HOSTILE, Styled(HOSTILE, "bold"))
        output.print_table(HOSTILE, [HOSTILE], [[HOSTILE], [Styled(HOSTILE, "red")]])
        output.print_text(HOSTILE)
        output.print_error(StateError(HOSTILE, where=HOSTILE, remedy=HOSTILE))
    seen = without_styles(out.text() + err.text())
    assert hidden_in(seen) <= {"\t"}  # of the text of several lines
    assert seen.count("[/policy] [/red]x :apple: [bad-rep]") == 10
    assert seen.count(SHOWN) == 8  # the text of several lines keeps its line breaks, and so does
    assert seen.count(SHOWN.replace(r"\n", "\n      ")) == 1  # the remedy, each of whose lines is indented


def test_a_bar_shows_its_description_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    err = Screen(terminal=True)
    with redirect_stderr(err), output.progress_bars() as report:
        report(HOSTILE, 1, 1)
    assert SHOWN in without_styles(err.text())
    assert "\x1b]" not in err.text()


def test_a_pipe_gets_every_row_complete_and_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    out, err = Screen(terminal=False), Screen(terminal=False)
    rows = [["a" * 300, 1_000, None, "last"], ["日本", 2, True, "x" * 500]]
    with redirect_stdout(out), redirect_stderr(err):
        output.print_table("title", ["name", "n", "is", "end"], rows)
        with output.progress_bars() as report:
            report("checking", 1, 2)
    assert out.text().splitlines() == [
        "title",
        f"{'name':<300}      n  is   end",
        f"{'a' * 300}  1,000  –    last",
        f"日本{' ' * 296}      2  yes  {'x' * 500}",
    ]
    assert err.text() == ""


def test_no_color_is_obeyed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for variable, coloured in (("NO_COLOR", False), ("POSTROAD_NOTHING", True)):
        monkeypatch.setenv(variable, "1")
        out = Screen(terminal=True)
        with redirect_stdout(out):
            output.print_line(Styled("fail", "red"))
        assert ("\x1b[31m" in out.text()) is coloured
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_whole_and_holds_no_control_character(encoding: str) -> None:
    value = {"reply": HOSTILE + "é 日本 \u200d"}
    out = Screen(terminal=False, encoding=encoding)
    with redirect_stdout(out):
        output.print_json(value)
    line = out.text()
    assert line.count("\n") == 1
    assert not hidden_in(line)
    assert json.loads(line) == value


def test_an_encoding_that_lacks_a_character_shows_an_escape() -> None:
    out = Screen(terminal=False, encoding="ascii")
    with redirect_stdout(out):
        output.print_line("café –")
    assert out.text() == "caf\\xe9 \\u2013\n"


def test_errors_are_json_where_json_is_asked_for(run: Run) -> None:
    for words, code in ((("campaign", "status", "spring"), 7), (("campaign", "status", "--no-such-option"), 2)):
        done = run(*words, "--json")
        assert done.returncode == code
        assert done.stdout == ""
        error = json.loads(done.stderr)["error"]
        assert set(error) == {"code", "message", "where", "remedy"}
        assert error["code"] == code


def test_csv_on_a_terminal_is_safe_and_in_a_pipe_unchanged() -> None:
    for terminal, expected in ((True, "a\\x1b[2J\nb\n"), (False, "a\x1b[2J\r\nb\n")):
        out = Screen(terminal=terminal)
        with redirect_stdout(out):
            DataStream().write("a\x1b[2J\r\nb\n")
        out.seek(0)
        assert out.buffer.getvalue().decode() == expected  # type: ignore[attr-defined]


def test_a_log_record_is_one_line_and_a_traceback_keeps_its_lines() -> None:
    formatter = PrintableFormatter("%(levelname)s %(message)s")
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int(HOSTILE)
    trace = (caught.type, caught.value, caught.tb)
    record = logging.LogRecord("x", logging.INFO, "", 0, "reply %s", (HOSTILE,), trace)
    lines = formatter.format(record).splitlines()
    assert lines[0] == f"INFO reply {SHOWN}"
    assert lines[1].startswith("Traceback")
    assert not hidden_in("\n".join(lines))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sandbox", "--replies"), output.EXIT_BROKEN_PIPE),
        (("sandbox", "--replies", "--json"), output.EXIT_BROKEN_PIPE),
        (("--help",), 1),  # Typer prints it
    ],
)
def test_a_reader_that_goes_away_ends_a_command_quietly(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "postroad", *words], stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, check=False
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == code


def _printing_calls(path: Path) -> list[str]:
    """Names that print, by any name that a module gives them."""
    banned = {"print", "rich", "sys.stdout", "sys.stderr", "typer.echo", "typer.secho", "typer.confirm", "typer.prompt"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            used |= {node.module.partition(".")[0], *(f"{node.module}.{alias.name}" for alias in node.names)}
    return sorted(used & banned)


def test_one_module_prints() -> None:
    """A file that speaks a protocol over its standard output, to the process that started it, prints nothing."""
    others = {"cli/output.py", "delivery/signing_worker.py"}
    package = ROOT / "src/postroad"
    found = {
        str(path.relative_to(package)): calls
        for path in package.rglob("*.py")
        if (calls := _printing_calls(path)) and str(path.relative_to(package)) not in others
    }
    assert not found


def test_long_work_says_every_few_seconds_that_it_goes_on() -> None:
    err = Screen(terminal=False)
    with redirect_stderr(err), output.working("starting Prefect", every_s=0.01):
        while _shown(err).count("\n") < 3:
            pass
    lines = _shown(err).splitlines()
    assert set(lines) == {"starting Prefect … 0 s"}
    with redirect_stderr(err), output.working("starting Prefect", every_s=0.0, quiet=True):
        pass
    assert _shown(err).splitlines() == lines


def test_long_work_shows_a_spinner_with_its_time_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    err = Screen(terminal=True)
    with redirect_stderr(err), output.working("starting Prefect"):
        output.print_note("a line beside it")
    assert "starting Prefect" in _shown(err)
    assert "0:00:00" in _shown(err)
    assert "a line beside it" in _shown(err)


def _shown(screen: Screen) -> str:
    return cast(BytesIO, screen.buffer).getvalue().decode()
