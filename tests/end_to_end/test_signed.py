"""What leaves signed arrives so that another implementation verifies it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email import policy
from email.parser import BytesParser

import dkim
import pytest

from postroad.mail.dkim import Algorithm, generate_key
from postroad.mail.dkim_keys import load_signers
from postroad.settings import Settings
from postroad.store.ledger import TouchState
from tests.end_to_end.site import CAMPAIGN, Site

pytestmark = pytest.mark.timeout(120)

KEYS = """
[[senders.ada.dkim]]
selector = "rsa"
key_env = "ADA_KEY"
[[senders.ada.dkim]]
selector = "ed"
key_file = "ed.pem"
"""
FILES = "    html: hello.html\n    attachments: [terms.pdf]\n"


async def test_a_campaign_arrives_signed_twice_with_its_files(site: Site) -> None:
    secret = generate_key(Algorithm.RSA).decode()
    (site.folder / "ed.pem").write_bytes(generate_key(Algorithm.ED25519))
    (site.folder / "terms.pdf").write_bytes(b"%PDF" + bytes(range(256)))
    (site.folder / "hello.html").write_text(
        "<style>p { color: red }</style><p>Dear  {{ first_name }}</p>\n{{ unsubscribe_url }}{{ postal_address }}\n"
    )
    with (site.folder / "postroad.toml").open("a") as file:
        file.write(KEYS)
    site.settings = Settings.load(site.folder / "postroad.toml")
    site.variables["ADA_KEY"] = secret
    keys = load_signers(site.settings, {"ADA_KEY": secret})["ada"].keys_at(datetime.now(UTC))
    records = {f"{key.record_name}.".encode(): key.record.encode() for key in keys}

    await site.launch(60, CAMPAIGN + FILES)
    site.start("recorder")
    site.start("worker")
    assert await site.until_settled() == {TouchState.ACCEPTED: 60}

    messages = [path.read_bytes() for path in site.sandbox.maildir_path.glob("*/*")]
    assert len(messages) == 60
    for content in messages:
        for index in range(2):
            assert dkim.DKIM(content).verify(idx=index, dnsfunc=lambda name, timeout=5: records.get(name))
        found = BytesParser(policy=policy.default).parsebytes(content)
        assert [part.get_filename() for part in found.iter_attachments()] == ["terms.pdf"]
    assert "PRIVATE" not in site.log("worker")


async def test_a_worker_whose_key_cannot_be_read_does_not_begin(site: Site) -> None:
    with (site.folder / "postroad.toml").open("a") as file:
        file.write(KEYS)
    worker = site.start("worker")
    assert await asyncio.to_thread(worker.wait, 60) == 3
    assert "the variable ADA_KEY is not set" in site.log("worker")
