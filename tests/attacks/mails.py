"""Mails as an attacker would send them, each of about the size that is asked for."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

BOUNCE = b"From: MAILER-DAEMON@example.org\nSubject: Undelivered mail\n"


def _bounce(words: bytes, header: bytes = b"") -> bytes:
    return BOUNCE + header + b"\n" + words


def _fill(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece))


def _numbered(piece: bytes, size: int) -> bytes:
    return b"".join(piece % number for number in range(size // (len(piece) + 2)))


def _html(size: int, piece: bytes) -> bytes:
    return BOUNCE + b"Content-Type: text/html\n\n" + _fill(piece, size)


def _dsn(fields: bytes) -> bytes:
    return (
        BOUNCE
        + b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
        + b"--b\n\nIt failed.\n--b\nContent-Type: message/delivery-status\n\n"
        + fields
        + b"\n--b--\n"
    )


def _nested(size: int, kind: bytes) -> bytes:
    level = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n"
    if kind == b"message/rfc822":
        return BOUNCE + _fill(b"Content-Type: message/rfc822\n\n", size)
    return BOUNCE + b"".join(level % (n, n) for n in range(size // (len(level) + 4)))


def _prefixed_boundaries(size: int) -> bytes:
    header = BOUNCE + b'Content-Type: multipart/mixed; boundary="b"\n\n'
    return header + _fill(b"--bb\n--bbb\n--b-\n--b --\n--b\t\n", size)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    # header
    "failed recipients": lambda n: _bounce(b"x\n", b"X-Failed-Recipients: " + _numbered(b"a%d@example.net, ", n)),
    "failed recipients that the words name": lambda n: _bounce(
        _numbered(b"<a%d@example.net>: 550 5.1.1 no\n", n),
        b"X-Failed-Recipients: " + _numbered(b"a%d@example.net, ", n)
    ),
    "failed recipients, a field for each": lambda n: _bounce(b"x\n", _numbered(b"X-Failed-Recipients: a%d@b.c\n", n)),
    "folds before the first field": lambda n: _fill(b" fold\n", n) + BOUNCE + b"\nx\n",
    "folds of one letter": lambda n: BOUNCE + b"X:\n" + _fill(b" a\n", n) + b"\nx\n",
    "folds that name fields": lambda n: _fill(b" a:b\n", n) + b"\nx\n",
    "one long name without a colon": lambda n: _fill(b"a", n) + b"\n\nx\n",
    "blanks before a colon": lambda n: b"Subject" + _fill(b" ", n) + b"\n\nx\n",
    "many Received": lambda n: _fill(b"Received: from a by b; Mon, 1 Jan 2024 99:99:99 +9999\n", n) + BOUNCE + b"\nx\n",
    "References": lambda n: _bounce(b"x\n", b"References: " + _numbered(b"<%d@example.net> ", n)),
    "words without an end": lambda n: _bounce(b"x\n", b"Subject: " + _fill(b"=?utf-8?q?", n)),
    "a word without an end": lambda n: _bounce(b"x\n", b"Subject: =?utf-8?b?" + _fill(b"A", n)),
    "words and blanks": lambda n: _bounce(b"x\n", b"Subject: " + _fill(b"=?a?q?b?=    ", n)),
    "parameters": lambda n: _bounce(b"x\n", b"Content-Type: multipart/mixed" + _fill(b"; a =", n)),
    "a parameter in quotes": lambda n: _bounce(b"x\n", b'Content-Type: text/plain; a="' + _fill(b"\\", n)),
    "blanks in parameters": lambda n: _bounce(b"x\n", b"Content-Type: text/plain;" + _fill(b" ", n) + b";" + b"a" * 99),
    "a local part": lambda n: _bounce(b"x\n", b"To: " + _fill(b"a", n) + b"@example.net"),
    "a domain": lambda n: _bounce(b"x\n", b"To: a@" + _fill(b"b.", n)),
    "at-signs": lambda n: _bounce(b"x\n", b"To: " + _fill(b"@", n)),
    "marks of a local part": lambda n: _bounce(b"x\n", b"To: " + _fill(b"!", n)),
    "comments in an address": lambda n: _bounce(b"x\n", b"From: " + _fill(b"(", n) + b" <a@b.c>"),
    "quotes in an address": lambda n: _bounce(b"x\n", b'From: "@' + _fill(b'"\\', n)),
    "a date": lambda n: _bounce(b"x\n", b"Date: " + _fill(b"9", n)),
    "charsets without a name": lambda n: _bounce(b"x\n", b"Subject: " + _numbered(b"=?x-%d?q?a?= ", n)),
    # parts
    "nested parts": lambda n: _nested(n, b"multipart"),
    "nested messages": lambda n: _nested(n, b"message/rfc822"),
    "tiny parts": lambda n: BOUNCE + b"Content-Type: multipart/mixed; boundary=b\n\n" + _fill(b"--b\n\n", n),
    "boundaries that begin alike": _prefixed_boundaries,
    "a long boundary": lambda n: BOUNCE + b"Content-Type: multipart/mixed; boundary=" + _fill(b"b", n) + b"\n\n--b\n",
    "a guessed boundary": lambda n: BOUNCE + b"Content-Type: multipart/mixed\n\n--x" + _fill(b" ", n) + b"y\n",
    "guessed boundaries": lambda n: BOUNCE + b"Content-Type: multipart/mixed\n\n" + _fill(b"--x \ncontent_\n", n),
    "base64 without an end": lambda n: BOUNCE + b"Content-Transfer-Encoding: base64\n\n" + _fill(b"QUFB\n=", n),
    "quoted-printable": lambda n: BOUNCE + b"Content-Transfer-Encoding: quoted-printable\n\n" + _fill(b"=\n=0", n),
    "punycode": lambda n: BOUNCE + b"Content-Type: text/plain; charset=punycode\n\n" + _fill(b"abc-9a", n),
    "idna": lambda n: BOUNCE + b"Content-Type: text/plain; charset=idna\n\n" + _fill(b"xn--9a.", n),
    "utf-7": lambda n: BOUNCE + b"Content-Type: text/plain; charset=utf-7\n\n" + _fill(b"+2AA-", n),
    "tags": lambda n: _html(n, b"<p <br <"),
    "a tag without an end": lambda n: BOUNCE + b"Content-Type: text/html\n\n<" + _fill(b"a", n),
    "entities": lambda n: _html(n, b"&amp;amp;"),
    # words
    "addresses in brackets": lambda n: _bounce(_fill(b"550 <@@@@@@@@", n)),
    "at-signs in brackets": lambda n: _bounce(b"550 <a" + _fill(b"@", n)),
    "blanks on a line": lambda n: _bounce(_fill(b" ", n) + b"x"),
    "an address and blanks": lambda n: _bounce(b"a@b.c" + _fill(b" ", n) + b"x"),
    "an address, and a colon among blanks": lambda n: _bounce(b"a@b.c" + _fill(b" ", n) + b":" + _fill(b" ", n) + b"x"),
    "lines of an address": lambda n: _bounce(_numbered(b"a%d@b.c\n", n)),
    "one line of addresses": lambda n: _bounce(_numbered(b"a%d@b.c ", n) + b"\n" + _fill(b"550 \n", n)),
    "hyphens": lambda n: _bounce(_fill(b"-", n)),
    "stars and blanks": lambda n: _bounce(_fill(b"* \t", n) + b"a@b.c"),
    "aliases": lambda n: _bounce(b"a@b.c (expanded from" + _fill(b" ", n)),
    "a transcript": lambda n: _bounce(_numbered(b"550 5.1.1 <a%d@b.c>... User unknown\n", n)),
    "codes": lambda n: _bounce(b"a@b.c\n" + _fill(b"550 5.1.1 4.", n)),
    "named in a sentence": lambda n: _bounce(_fill(b"for ", n)),
    "returned fields": lambda n: _bounce(b"x\n----- original message\nFrom: a\n" + _fill(b" ", n) + b":"),
    "lines of nothing": lambda n: _bounce(_fill(b"\n", n)),
    "a server's lines": lambda n: _bounce(_fill(b">>> a <a@\n", n)),
    # DSN, reports, notifications
    "recipients of a DSN": lambda n: _dsn(_numbered(b"Final-Recipient: rfc822; a%d@b.c\nAction: failed\n\n", n)),
    "recipients of a DSN, their words elsewhere": lambda n: _dsn(
        _numbered(b"Final-Recipient: rfc822; a%d@b.c\n", n)
    ).replace(b"It failed.", _numbered(b"a%d@b.c failed\n", n)),
    "fields of a DSN": lambda n: _dsn(b"Final-Recipient: rfc822; a@b.c\nAction: failed\n" + _numbered(b"X-%d: 1\n", n)),
    "folds of a DSN": lambda n: _dsn(b"Final-Recipient: rfc822; a@b.c\nAction:" + _fill(b"\n\t", n)),
    "blanks of a DSN": lambda n: _dsn(_fill(b" ", n) + b"final-recipient" + _fill(b" ", n)),
    "empty lines of a DSN": lambda n: _dsn(_fill(b"\n   ", n)),
    "a diagnostic": lambda n: _dsn(
        b"Final-Recipient: rfc822; a@b.c\nAction: failed\nDiagnostic-Code: smtp; " + _fill(b"550 <a@", n)
    ),
    "xtext": lambda n: _dsn(b"Original-Envelope-Id: " + _fill(b"+41", n)),
    "utf-8 addresses": lambda n: _dsn(b"Final-Recipient: utf-8; " + _fill(b"\\x{D800}", n) + b"@b.c\nAction: failed"),
    "fields of a feedback report": lambda n: (
        b"Content-Type: message/feedback-report\n\n" + _fill(b"Original-Rcpt-To: <a@b.c>\n", n)
    ),
    "a notification of SES": lambda n: (
        b'From: no-reply@sns.amazonaws.com\n\n{"notificationType": ' + _fill(b"[", n)
    ),
    "numbers in a notification": lambda n: (
        b'From: no-reply@sns.amazonaws.com\n\n{"notificationType": ' + _fill(b"9", n)
    ),
    "base64 in a report": lambda n: (
        b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\n"
        + b64encode(_fill(b"Status: ", n))
    ),
}  # fmt: skip
"""Each takes a number of octets."""
