"""A key is replaced: what was signed or hashed with the old one counts, as long as that is in the ring."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.app.context import known_secret_keys, secret_keys
from postroad.bounce.classify import BounceClass
from postroad.mail.address_hash import AddressHashes
from postroad.mail.token import TokenSigner
from postroad.settings import Settings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, rekey, suppress
from tests.bounce import mails
from tests.bounce.ledger import LedgerFixture
from tests.store.rows import NOW

OLD, NEW = SecretStr("the old key"), SecretStr("the new key")


@pytest.fixture
def before(engine: sa.Engine) -> LedgerFixture:
    return LedgerFixture(engine, TokenSigner(OLD))


@pytest.fixture
def after(engine: sa.Engine) -> LedgerFixture:
    return LedgerFixture(engine, TokenSigner(NEW, OLD))


def test_a_bounce_of_what_the_old_key_signed_counts(before: LedgerFixture, after: LedgerFixture) -> None:
    touch = before.touch(before.recipient())
    assert after.process(before.dsn_of(touch)).verdict is BounceClass.HARD
    assert after.state(touch) is TouchState.BOUNCED


def test_a_mail_to_an_unsubscribe_address_of_the_old_key_unsubscribes(
    before: LedgerFixture, after: LedgerFixture
) -> None:
    touch = before.touch(before.recipient())
    raw = f"From: ada@example.org\nTo: {before.unsubscribe(touch)}\nSubject: no more\n\nplease\n".encode()
    assert after.process(raw).verdict is BounceClass.UNSUBSCRIBE
    assert list(after.suppressed().values()) == ["unsubscribe"]


def test_without_the_old_key_its_tokens_are_forged(before: LedgerFixture, engine: sa.Engine) -> None:
    touch = before.touch(before.recipient())
    LedgerFixture(engine, TokenSigner(NEW)).process(mails.dsn(to=before.return_path(touch)))
    assert before.state(touch) is TouchState.ACCEPTED


def test_a_hash_of_the_old_key_becomes_one_of_the_new(engine: sa.Engine) -> None:
    ring = AddressHashes(NEW, OLD)
    [old] = ring.older("ada@example.net")
    assert old == AddressHashes(OLD)("ada@example.net")
    new = ring("ada@example.net")
    with write(engine) as connection:
        suppress(connection, [old], SuppressionReason.COMPLAINT, "a person", NOW)
        suppress(connection, [old], SuppressionReason.MANUAL, "a list", NOW, 7)
        assert rekey(connection, {old: new, "#other": "#another"}) == 2
        assert rekey(connection, {old: new}) == 0
    with read(engine) as connection:
        rows = connection.execute(
            sa.text("SELECT address, audience_id, reason, source FROM suppression ORDER BY audience_id")
        ).all()
    assert [tuple(row) for row in rows] == [(new, 0, "complaint", "a person"), (new, 7, "manual", "a list")]


def test_the_ring_of_the_settings() -> None:
    assert secret_keys(Settings(secret_keys=(NEW, OLD))) == (NEW, OLD)
    assert secret_keys(Settings(secret_key=OLD)) == (OLD,)
    assert secret_keys(Settings(secret_keys=(NEW,), secret_key=OLD)) == (NEW, OLD)
    shown = repr(Settings(secret_keys=(NEW, OLD)))
    assert "the new key" not in shown
    assert "the old key" not in shown


def test_the_key_of_the_state_folder_is_a_ring_of_one(tmp_path: object) -> None:
    settings = Settings.model_validate({"state_dir": str(tmp_path)})
    assert known_secret_keys(settings) == ()
    made = secret_keys(settings)
    assert len(made) == 1
    assert secret_keys(settings) == known_secret_keys(settings) == made
