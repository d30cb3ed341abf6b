"""The message that every contestant of delivery sends, and how a Python peer makes it: EmailMessage and dkimpy.

Standard library only, for it runs in each peer's own environment; dkimpy is there where a peer signs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

MAIL = Path(__file__).parent / "mail"
SUBJECT = "{{ first_name }}, what is new in {{ product }}"
SENDER = "news@sender.example"
SENDER_NAME = "News of Postroad"
BOUNCE_DOMAIN = "bounce.sender.example"
POSTAL_ADDRESS = "Postroad, 1 Old Post Road, 12345 Milestone"
PUBLIC_URL = "https://mail.sender.example"
SELECTOR = "bench"

DOMAINS = ("gmail.com", "outlook.com", "yahoo.com", "icloud.com", "gmx.de", "firm.example")
FIELDS = ("first_name", "last_name", "company", "city", "plan", "product")

Signature = Callable[[bytes], bytes]
"""From a message to the header that signs it."""


class Job(NamedTuple):
    """What a peer queues for one recipient."""

    touch: int
    address: str
    fields: dict[str, str]


class Outgoing(NamedTuple):
    """What goes over SMTP."""

    return_path: str
    recipient: str
    content: bytes


def address_of(n: int) -> str:
    return f"reader.{n}@{DOMAINS[n % len(DOMAINS)]}"


def fields_of(n: int) -> dict[str, str]:
    """Merge fields of the n-th recipient."""
    return {
        "first_name": f"Ada{n % 1000}",
        "last_name": f"Müller-{n % 7919}",
        "company": f"Example & Sons {n % 311}",
        "city": f"Springfield {n % 97}",
        "plan": ("free", "team", "business")[n % 3],
        "product": "Planner",
    }


def job_of(payload: str) -> Job:
    n = int(payload)
    return Job(n, address_of(n), fields_of(n))


class Writer:
    """Makes the messages of a peer. Templates are joined from ready pieces, which is quicker than any engine."""

    def __init__(self, sign: Signature | None) -> None:
        self._sign = sign
        self._subject = _compiled(SUBJECT, str)
        self._text = _compiled((MAIL / "text.txt").read_text("utf-8"), str)
        self._html = _compiled((MAIL / "html.html").read_text("utf-8"), escape)

    @classmethod
    def of_environment(cls) -> Writer:
        """One that signs if DKIM_KEY names an RSA key in PEM."""
        key = os.environ.get("DKIM_KEY")
        return cls(_dkimpy(Path(key).read_bytes()) if key else None)

    def write(self, job: Job) -> Outgoing:
        unsubscribe = f"{PUBLIC_URL}/u/{job.touch}"
        fields = {**job.fields, "unsubscribe_url": unsubscribe, "postal_address": POSTAL_ADDRESS}
        message = EmailMessage(policy=SMTP)
        message["From"] = f"{SENDER_NAME} <{SENDER}>"
        message["To"] = job.address
        message["Subject"] = self._subject(fields)
        message["Date"] = datetime.now(UTC)
        message["Message-ID"] = f"<{job.touch}@sender.example>"
        message["List-Unsubscribe"] = f"<{unsubscribe}>, <mailto:unsubscribe+{job.touch}@{BOUNCE_DOMAIN}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(self._text(fields), cte="quoted-printable")
        message.add_alternative(self._html(fields), subtype="html", cte="quoted-printable")
        content = message.as_bytes()
        if self._sign is not None:
            content = self._sign(content) + content
        return Outgoing(f"bounce+{job.touch}@{BOUNCE_DOMAIN}", job.address, content)


def signed_words() -> str:
    """Return the suffix of a peer's settings."""
    return ", DKIM rsa-2048 by dkimpy" if os.environ.get("DKIM_KEY") else ""


def _compiled(source: str, escaped: Callable[[str], str]) -> Callable[[Mapping[str, str]], str]:
    pieces = re.split(r"\{\{ (\w+) \}\}", source)

    def merge(fields: Mapping[str, str]) -> str:
        return "".join(escaped(fields[piece]) if n % 2 else piece for n, piece in enumerate(pieces))

    return merge


def _dkimpy(key: bytes) -> Signature:
    import dkim  # noqa: PLC0415 - an environment without it can send unsigned

    domain, relaxed = SENDER.partition("@")[2].encode(), (b"relaxed", b"relaxed")

    def sign(content: bytes) -> bytes:
        signature: Any = dkim.sign(content, SELECTOR.encode(), domain, key, canonicalize=relaxed)
        return bytes(signature)

    return sign
