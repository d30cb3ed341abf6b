"""Tokens of webhooks are taken once, for as long as they are remembered."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from postroad.store.engine import write
from postroad.store.webhook import forget_tokens, use_token
from tests.store.rows import NOW


def test_a_token_is_taken_once_until_it_is_forgotten(engine: sa.Engine) -> None:
    later = NOW + timedelta(hours=1)
    with write(engine) as connection:
        assert use_token(connection, "one", NOW)
        assert use_token(connection, "two", later)
        assert not use_token(connection, "one", later)
        assert forget_tokens(connection, later) == 1
        assert use_token(connection, "one", later)
        assert not use_token(connection, "two", later)
