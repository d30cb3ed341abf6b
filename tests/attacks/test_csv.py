"""A CSV is read in bounded memory, whatever is in it, and its error names the line."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from postroad.campaign.csv_check import check_csv
from postroad.errors import DataError
from tests.attacks.limits import cost_ratio, run_limited

HEAD = b"email,name\na@example.com,Ada\n"
ROW = b"b@example.com,Bob\n"
ATTACKS: dict[str, tuple[bytes, int, str]] = {
    "a quote that is never closed": (HEAD + b'"b@example.com,Bob\n' + ROW * 900_000, 3, "not CSV|a row of more than"),
    "a row of fields with line ends": (HEAD + b'"\n",' * 4_000_000, 3, "a row of more than"),
    "a row of fields that are quoted": (HEAD + b'b,"' + b'x\n",y,"' * 2_500_000, 3, "a row of more than"),
    "quotes and nothing else": (HEAD + b'"' * 900_000 + b"\n", 3, "not CSV"),
    "a line without end": (HEAD + b"x" * 20_000_000, 3, "a line of more than"),
    "commas in a line": (HEAD + b"," * 1_000_000 + b"\n", 3, "1000001 fields"),
    "columns": (b"," * 1_000_000 + b"\n", 1, "no columns"),
    "named columns": (b"email" + b",a" * 500_000 + b"\n", 1, "500001 columns"),
    "a header without end": (b"email," * 4_000_000, 1, "a line of more than"),
    "a quoted header": (b'"email,name\n' + ROW * 100_000, 1, "not CSV|columns|column"),
    "NUL": (HEAD + b"\0" * 900_000, 3, "a NUL byte"),
}


def check_all(paths: dict[str, str]) -> dict[str, tuple[str, str, float]]:
    found = {}
    for name, path in paths.items():
        begun = time.process_time()
        error: Exception | None = None
        try:
            check_csv(Path(path))
        except Exception as raised:
            error = raised
        found[name] = (type(error).__name__, str(error)[:300], time.process_time() - begun)
    return found


def test_a_hostile_csv_is_an_error_that_costs_little(tmp_path: Path) -> None:
    paths = {}
    for number, (name, (content, _, _)) in enumerate(ATTACKS.items()):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(content)
        paths[name] = str(path)
    outcome = run_limited("tests.attacks.test_csv:check_all", paths, cpu_s=30, memory_mib=150)
    assert outcome.error is None, outcome.message
    for name, (error, said, cpu_s) in outcome.value.items():
        _, line, says = ATTACKS[name]
        assert error == "DataError", (name, said)
        assert said.startswith(f"{paths[name]}, line {line}: "), (name, said)
        assert any(part in said for part in says.split("|")), (name, said)
        assert cpu_s < 5, (name, cpu_s)


def test_rows_of_several_lines_are_read_however_many_there_are(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(HEAD + (b'c@example.com,"' + b"x\n" * 20_000 + b'"\n') * 200)
    assert check_csv(path).rows == 201


def test_a_file_of_its_first_line_alone_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b"email,name\n")
    assert check_csv(path).rows == 0


@pytest.mark.parametrize("row", [b'"\n",', b'"""",', b"\n", b'"a\n"\n', b"b@example.com,B\n"])
def test_reading_grows_no_faster_than_the_file(tmp_path: Path, row: bytes) -> None:
    def check(size: int) -> None:
        path = tmp_path / f"{size}.csv"
        path.write_bytes(HEAD + row * (size // len(row)))
        with suppress(DataError):
            check_csv(path)

    assert cost_ratio(check, 60_000, 600_000) < 30
