"""Mails in files: alone, in a mailbox, in a Maildir."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.bounce.mbox import mails_in
from postroad.errors import DataError

FROM = b"From MAILER-DAEMON Mon May  4 08:30:00 2026\n"


def _mails(path: Path) -> list[tuple[str, bytes]]:
    return [(file.name, mail) for file, mail in mails_in(path)]


def test_a_file_is_one_mail(tmp_path: Path) -> None:
    file = tmp_path / "a.eml"
    file.write_bytes(b"Subject: a\n\nFrom the beginning\nFrom x Mon May  4 08:30:00 2026\n")
    assert _mails(file) == [("a.eml", file.read_bytes())]


def test_a_mailbox_holds_several(tmp_path: Path) -> None:
    file = tmp_path / "box"
    file.write_bytes(FROM + b"Subject: a\n\nFrom here on\n\n" + FROM + b"Subject: b\n\nb\n" + FROM + b"Subject: c\n\n")
    assert [mail.splitlines()[1] for _, mail in mails_in(file)] == [b"Subject: a", b"Subject: b", b"Subject: c"]


def test_of_a_maildir_what_is_delivered(tmp_path: Path) -> None:
    for name in ("cur", "new", "tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"1.{name}").write_bytes(b"Subject: x\n\n")
    assert [name for name, _ in _mails(tmp_path)] == ["1.cur", "1.new"]


def test_a_folder_holds_any_of_them_and_hidden_files_are_no_mail(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.eml").write_bytes(b"Subject: b\n\n")
    (tmp_path / "a.eml").write_bytes(b"Subject: a\n\n")
    (tmp_path / ".hidden").write_bytes(b"Subject: c\n\n")
    (tmp_path / "empty").write_bytes(b"")
    assert [name for name, _ in _mails(tmp_path)] == ["a.eml", "b.eml"]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        list(mails_in(tmp_path / "x"))
    assert caught.value.where == str(tmp_path / "x")
