"""Reports from strangers, attached to mails."""

from __future__ import annotations

import gzip

import sqlalchemy as sa

from postroad.store.engine import read
from tests.bounce.conftest import *  # noqa: F403 - its fixtures
from tests.dns.reports import RECORD, XML
from tests.dns.reports import mail as mail_with

OURS = ("acme.dev",)


def dmarc(rows: int, report_id: str = "r-1", domain: str = "acme.dev") -> bytes:
    records = "".join(
        RECORD.replace("198.51.100.7", f"198.51.{n >> 8 & 255}.{n & 255}").replace("<count>12<", f"<count>{n + 1}<")
        for n in range(rows)
    )
    return XML.replace(RECORD, records).replace("r-1", report_id).replace("acme.dev", domain).encode()


def attached(data: bytes) -> bytes:
    return mail_with(("application/gzip", "r.xml.gz", gzip.compress(data)))


def count(engine: sa.Engine, table: str) -> int:
    with read(engine) as connection:
        return int(connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())
