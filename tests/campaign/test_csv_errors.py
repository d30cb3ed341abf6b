"""Files that are not a CSV of recipients: the error names the position, and nothing is imported."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign.audience import import_file
from postroad.campaign.csv_check import check_csv
from postroad.campaign.csv_file import MAX_LINE_BYTES, open_csv, read_rows
from postroad.errors import DataError
from tests.campaign.tables import row_counts

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Wrong:
    content: bytes
    line: int
    says: str


GOOD = b"email,name\na@example.com,Ada\n"
UTF_16 = "the file is UTF-16"
TWO_ADDRESSES = "columns 1 and 2 have the same name: each may contain the e-mail addresses"
WRONG = {
    "empty": Wrong(content=b"", line=1, says="the first line names no columns"),
    "only a byte order mark": Wrong(content=b"\xef\xbb\xbf", line=1, says="the first line names no columns"),
    "blank first line": Wrong(content=b"\n" + GOOD, line=1, says="the first line names no columns"),
    "latin-1": Wrong(content=GOOD + "b@example.com,Jos\xe9\n".encode("latin-1"), line=3, says="not UTF-8 at column 18"),
    "latin-1 where the same bytes stand behind a letter": Wrong(
        content=GOOD + "b@example.com,é\n".encode() + b"\xa9\n", line=4, says="not UTF-8 at column 1"
    ),
    "latin-1 in the second block": Wrong(
        content=GOOD + b"b@example.com,Bob\n" * 10_000 + b"c@example.com,\xe9\n",
        line=10_003,
        says="not UTF-8 at column 15",
    ),
    "NUL in the second block": Wrong(
        content=GOOD + b"b@example.com,Bob\n" * 10_000 + b"c@example.com,\0\n",
        line=10_003,
        says="a NUL byte at column 15",
    ),
    "latin-1 after a byte order mark": Wrong(
        content=b"\xef\xbb\xbfemail,n\xe4me\n", line=1, says="not UTF-8 at column 8"
    ),
    "UTF-16 little end first": Wrong(
        content=GOOD.decode().encode("utf-16-le"), line=1, says="a NUL byte at column 2: the file is UTF-16"
    ),
    "UTF-16 with its mark": Wrong(
        content=GOOD.decode().encode("utf-16"), line=1, says="a NUL byte at column 4: the file is UTF-16"
    ),
    "UTF-16 big end first": Wrong(
        content=GOOD.decode().encode("utf-16-be"), line=1, says="a NUL byte at column 1: the file is UTF-16"
    ),
    "UTF-16 without a NUL": Wrong(content="名前".encode("utf-16"), line=1, says=UTF_16),
    "NUL": Wrong(content=GOOD + b"b@example.com,B\0b\n", line=3, says="a NUL byte at column 16"),
    "too few fields": Wrong(content=GOOD + b"b@example.com\n", line=3, says="1 fields where .* names 2 columns"),
    "too many fields": Wrong(content=GOOD + b"b@example.com,Bob,x\n", line=3, says="3 fields where .* names 2 columns"),
    "ragged after a field of several lines": Wrong(
        content=GOOD + b'b@example.com,"B\nob"\nc@example.com\n', line=5, says="1 fields where"
    ),
    "no address": Wrong(content=b"name,city\nAda,London\n", line=1, says="no column `address` .* among the 2 of"),
    "two of a name": Wrong(
        content=b"email,Name,name\na@example.com,A,B\n",
        line=1,
        says="columns 2 and 3 have the same name, because letter case",
    ),
    "two of a title": Wrong(content=b"email;tag;tag\n", line=1, says="columns 2 and 3 have the same name\n"),
    "two of addresses": Wrong(
        content=b"email,E-Mail\na@example.com,b\n",
        line=1,
        says=TWO_ADDRESSES,
    ),
    "two of addresses in less common names": Wrong(
        content=b"Subscriber,Primary Email\na@example.com,b\n",
        line=1,
        says=TWO_ADDRESSES,
    ),
    "a street and no e-mail": Wrong(content=b"Street Address,name\n", line=1, says="no column `address`"),
    "two of time zones": Wrong(
        content=b"email,tz,Time zone\na@example.com,,\n",
        line=1,
        says="have the same name: each may contain the time zones",
    ),
    "a column without a name": Wrong(content=b"email,,x\n", line=1, says="column 2 has no name"),
    "a column that starts with a digit": Wrong(content=b"email,1st\n", line=1, says="column 2 has no name"),
    "an unnamed column that holds something": Wrong(
        content=b"email,name,,\na@example.com,Ada,,\nb@example.com,Bob,,x\n", line=3, says="4 fields where .* 2 columns"
    ),
    "too few fields beside empty columns": Wrong(
        content=b"email,name,,\na@example.com\n", line=2, says="1 fields where .* 2 columns"
    ),
    "more empty fields than any file has": Wrong(
        content=GOOD + b"b@example.com,Bob" + b"," * 300 + b"\n", line=3, says="302 fields where"
    ),
    "a header with a quote that is never closed": Wrong(
        content=b'email,"name\na@example.com,Ada\n', line=1, says="not CSV: unexpected end of data"
    ),
    "what is wrong after a header of two lines": Wrong(
        content=b'email,"First\nname"\na@example.com,Ada\nb@example.com\n', line=4, says="1 fields where"
    ),
    "what is wrong after a line that names the delimiter": Wrong(
        content=b"sep=;\nname;city\n", line=2, says="no column `address` .* among the 2 of"
    ),
    "a column of signs": Wrong(content=b"email,???\n", line=1, says="column 2 has no name"),
    "too many columns": Wrong(
        content=b"email," + b",".join(b"c%d" % n for n in range(200)) + b"\n",
        line=1,
        says="201 columns are more",
    ),
    "a quote that is never closed": Wrong(
        content=GOOD + b'"b@example.com,Bob\nc@example.com,C\n', line=3, says="not CSV"
    ),
    "a quote that is never closed, and a long file": Wrong(
        content=GOOD + b'"b@example.com,Bob\n' + b"c@example.com,C\n" * 20_000, line=3, says="not CSV"
    ),
    "a quote within a field": Wrong(content=GOOD + b'b@example.com,"B"ob\n', line=3, says="not CSV"),
    "a long line": Wrong(
        content=GOOD + b"x" * (MAX_LINE_BYTES + 1), line=3, says="a line of more than 1,048,576 bytes"
    ),
    "a long first line": Wrong(content=b"x" * (MAX_LINE_BYTES + 1), line=1, says="a line of more than 1,048,576 bytes"),
    "a first line with a long field": Wrong(content=b"email," + b"x" * 200_000 + b"\n", line=1, says="not CSV"),
    "lines that end as on an old Macintosh": Wrong(content=GOOD.replace(b"\n", b"\r"), line=1, says="not CSV"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_csv_fault_names_file_and_line_and_stores_nothing(engine: sa.Engine, tmp_path: Path, wrong: Wrong) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(wrong.content)
    before = row_counts(engine)
    with pytest.raises(DataError, match=wrong.says) as caught:
        import_file(engine, "people", path, NOW)
    assert caught.value.where == f"{path}, line {wrong.line}"
    assert row_counts(engine) == before


def test_a_missing_file_or_a_folder_is_an_error(engine: sa.Engine, tmp_path: Path) -> None:
    before = row_counts(engine)
    for path, says in ((tmp_path / "none.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError, match=says) as caught:
            import_file(engine, "people", path, NOW)
        assert caught.value.where == str(path)
    assert row_counts(engine) == before


COLUMNS = {
    b"email,name": ("address", "name"),
    b"\xef\xbb\xbfemail,name": ("address", "name"),
    b"E-Mail;First Name": ("address", "first_name"),
    b"Email Address\tTime Zone": ("address", "time_zone"),
    b'"ADDRESS","City, Country"': ("address", "city_country"),
    b"mail,__name__": ("address", "name"),
    "mail,Größe".encode(): ("address", "größe"),
    "mail,Gro\u0308ße".encode(): ("address", "größe"),  # decomposed, as macOS writes it
    "mail,имя,名前".encode(): ("address", "имя", "名前"),
    "mail,नाम".encode(): ("address", "नाम"),  # its vowel sign is a mark, not a letter
    b"mail, if ": ("address", "if"),
    b"email": ("address",),
    b"email,": ("address",),
    b"email,name,,": ("address", "name"),
    b"name;email;;": ("name", "address"),
    # Delimiters and line breaks in quoted titles, and the other delimiters in plain ones.
    b'"Name, first";email': ("name_first", "address"),
    b'"Name; first","a;b;c",email': ("name_first", "a_b_c", "address"),
    b'email,"Name; first; last; second"': ("address", "name_first_last_second"),
    b'email\t"a,b,c,d"': ("address", "a_b_c_d"),
    b"Name, first;email": ("name_first", "address"),
    b"a,b,c,d\temail": ("a_b_c_d", "address"),
    b'email,"First\nname"': ("address", "first_name"),
    b'email,"First\r\nname"\r': ("address", "first_name"),
    b'"E-mail\n\nAddress";"Town ""or"" city"': ("address", "town_or_city"),
    b'\xef\xbb\xbf"email";"a\nb"': ("address", "a_b"),
    b"sep=;\nname;email": ("name", "address"),
    b"\xef\xbb\xbfsep=|\r\na,b|email": ("a_b", "address"),
    # Names of the address column in exports of other products.
    b"First Name,E-mail Address,E-mail Type,E-mail 2 Address": (  # Outlook
        *("first_name", "address", "e_mail_type", "e_mail_2_address"),
    ),
    b"Vorname;E-Mail-Adresse": ("vorname", "address"),
    "Prénom;Adresse de messagerie".encode(): ("prénom", "address"),
    b"First Name,E-mail 1 - Label,E-mail 1 - Value,E-mail 2 - Value": (  # Google Contacts
        *("first_name", "e_mail_1_label", "address", "e_mail_2_value"),
    ),
    b"Email Address [Required],Recovery Email": ("address", "recovery_email"),  # Google Workspace
    b"Email Address,First Name,Address,TIMEZONE,TAGS": (  # Mailchimp
        *("address", "first_name", "street_address", "time_zone", "tags"),
    ),
    b"CONTACT ID;EMAIL;FIRSTNAME": ("contact_id", "address", "firstname"),  # Brevo
    b"Record ID,Email,Work email,Email Domain": ("record_id", "address", "work_email", "email_domain"),  # HubSpot
    b'"Mailing Street","Email","Email Opt Out"': ("mailing_street", "address", "email_opt_out"),  # Salesforce
    b"Id,PersonEmail": ("id", "address"),
    b"Subscriber,Fields": ("address", "fields"),  # MailerLite
    b"email,subscriber": ("address", "subscriber"),
    b"Address,name": ("address", "name"),
}


@pytest.mark.parametrize(("head", "columns"), COLUMNS.items(), ids=repr)
def test_a_column_is_named_as_a_merge_field(tmp_path: Path, head: bytes, columns: tuple[str, ...]) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(head + b"\r\n")
    facts = check_csv(path)
    assert facts.columns == columns
    assert facts.rows == 0


ROWS = {
    "unix": (b"email,name\na@example.com,Ada\nb@example.com,Bob\n", [2, 3]),
    "no end of line at the end": (b"email,name\na@example.com,Ada\nb@example.com,Bob", [2, 3]),
    "windows": (b"email,name\r\na@example.com,Ada\r\nb@example.com,Bob\r\n", [2, 3]),
    "blank lines": (b"email,name\n\na@example.com,Ada\n\n\nb@example.com,Bob\n\n", [3, 6]),
    "semicolons": (b"email;name\na@example.com;Ada\nb@example.com;Bob\n", [2, 3]),
    "tabs": (b"email\tname\na@example.com\tAda\nb@example.com\tBob\n", [2, 3]),
    "quotes": (b'"email","name"\n"a@example.com","Ada"\n"b@example.com","Bob"\n', [2, 3]),
    "header of two lines": (b'email,"na\nme"\na@example.com,Ada\nb@example.com,Bob\n', [3, 4]),
    "comma in a quoted title": (b'email;"Name, first"\na@example.com;Ada\nb@example.com;Bob\n', [2, 3]),
    "empty columns at the end": (b"email,name,,\na@example.com,Ada,,\nb@example.com,Bob, ,\n", [2, 3]),
    "empty columns in the first line alone": (b"email,name,\na@example.com,Ada\nb@example.com,Bob\n", [2, 3]),
    "delimiters at the end of rows": (b"email,name\na@example.com,Ada,\nb@example.com,Bob,,,\n", [2, 3]),
    "line that names the delimiter": (b"sep=;\r\nemail;name\r\na@example.com;Ada\r\nb@example.com;Bob\r\n", [3, 4]),
    "mark": (b"\xef\xbb\xbfemail,name\na@example.com,Ada\nb@example.com,Bob\n", [2, 3]),
}


@pytest.mark.parametrize(("content", "lines"), ROWS.values(), ids=ROWS)
def test_rows_are_read_with_their_lines(tmp_path: Path, content: bytes, lines: list[int]) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    _, rows = read_rows(path)
    found = list(rows)
    assert [row.fields for row in found] == [["a@example.com", "Ada"], ["b@example.com", "Bob"]]
    assert [row.line for row in found] == lines


def test_a_field_may_contain_lines_quotes_and_delimiters(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b'email,name\na@example.com,"A ""da"",\r\nLove\nlace"\nb@example.com,Bob\n')
    _, rows = read_rows(path)
    found = list(rows)
    assert found[0].fields == ["a@example.com", 'A "da",\r\nLove\nlace']
    assert [row.line for row in found] == [2, 5]


@pytest.mark.parametrize(
    ("head", "lines"),
    [("email;größe\n", 0), ("\ufeffemail;größe\n", 0), ('email;"grö\nße";\n', 1), ("sep=;\nemail;größe\n", 1)],
)
def test_reading_resumes_at_the_end_of_any_row(tmp_path: Path, head: str, lines: int) -> None:
    path = tmp_path / "people.csv"
    name = "größe" if "größe" in head else "grö_ße"
    text = head + '\na@example.com;"1\n2"\nb@example.com;é\n\nc@example.com;3'
    path.write_bytes(text.encode())
    with open_csv(path) as file:
        places, found = [file.position], []
        for row in file:
            found.append(row)
            places.append(file.position)
    assert [line - lines for line, _ in found] == [3, 5, 7]
    assert places[-1].cursor == path.stat().st_size
    for number, position in enumerate(places):
        with open_csv(path, start=position) as again:
            assert again.columns == ("address", name)
            assert list(again) == found[number:]


def test_rows_across_block_boundaries_are_read(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    notes = ["x" * n for n in (1, 70_000, 3, 65_536, 100_000, 2)] * 5
    rows = [f'r{n}@example.com,"é\n{note}"\n' for n, note in enumerate(notes)]
    path.write_bytes(("email,note\n" + "".join(rows)).encode())
    with open_csv(path) as file:
        for number, (line, fields) in enumerate(file):
            assert (line, fields) == (2 + 2 * number, [f"r{number}@example.com", f"é\n{notes[number]}"])
            assert file.position == (len(("email,note\n" + "".join(rows[: number + 1])).encode()), line + 2)


def test_all_bytes_are_passed_on_once(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    content = b'\xef\xbb\xbfsep=,\n"email","na\nme",\n' + b"a@example.com,\n" * 20_000
    path.write_bytes(content)
    seen: list[bytes] = []
    with open_csv(path, on_read=seen.append) as file:
        assert sum(1 for _ in file) == 20_000
    assert b"".join(seen) == content


def test_a_line_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    fields = [b"x" * 104_000] * 10
    line = b"a@example.com," + b",".join(fields)
    line += b"y" * (MAX_LINE_BYTES - 1 - len(line)) + b"\n"
    path.write_bytes(b"email," + b",".join(b"c%d" % n for n in range(10)) + b"\n" + line)
    assert len(line) == MAX_LINE_BYTES
    assert check_csv(path).rows == 1


def test_progress_is_reported_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b"email\n" + b"a@example.com\n" * 25_000)
    progress: list[int] = []
    facts = check_csv(path, progress.append)
    assert progress == [6 + 14 * 10_000, 6 + 14 * 20_000]
    assert (facts.rows, facts.size_bytes) == (25_000, path.stat().st_size)
