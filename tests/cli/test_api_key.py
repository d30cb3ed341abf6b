"""Keys of the HTTP API: shown once, stored as hashes, bounded in time, revoked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.app.api_keys import authenticate, create_key
from postroad.errors import StateError, UsageError
from postroad.settings import AccessRole
from postroad.store.api_key import USE_RECORDED_EVERY, api_keys, revoke_key
from postroad.store.engine import read, write
from tests.cli.site import Site, a_site
from tests.store.rows import NOW


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("site")) as site:
        yield site


def test_a_key_is_printed_once_and_listed_without_its_secret(site: Site) -> None:
    made = json.loads(site.run("api-key", "create", "shop", "--scope", "send", "--expires", "90d", "--json").stdout)
    assert made["scope"] == "send"
    assert datetime.fromisoformat(made["expires_at"]) > datetime.now(UTC) + timedelta(days=89)
    [listed] = json.loads(site.run("api-key", "list", "--json").stdout)
    assert (listed["name"], listed["scope"], listed["last_used_at"]) == ("shop", "send", None)
    secret = made["key"].split("_", 2)[2]  # It may contain "_" itself.
    assert secret not in site.run("api-key", "list").stdout
    files = [path for path in (site.folder / ".postroad").rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()], "only its hash is stored"
    plain = site.run("api-key", "create", "other", "--scope", "view").stdout
    assert plain.startswith("pr_")
    assert len(plain.splitlines()) == 1


def test_a_name_is_given_once_also_after_its_revocation(site: Site) -> None:
    assert site.run("api-key", "create", "ledger", "--scope", "view").returncode == 0
    assert json.loads(site.run("api-key", "revoke", "ledger", "--json").stdout)["name"] == "ledger"
    done = site.run("api-key", "create", "ledger", "--scope", "view")
    assert done.returncode == StateError.exit_code
    assert "another name" in done.stderr


@pytest.mark.parametrize("expires", ["yesterday", "2020-01-01", "0s", "99999999999d"])
def test_an_expiry_that_is_not_a_time_to_come_is_refused(site: Site, expires: str) -> None:
    done = site.run("api-key", "create", "late", "--scope", "view", "--expires", expires)
    assert done.returncode == UsageError.exit_code
    assert done.stderr.startswith("error ")


def made(engine: sa.Engine, name: str = "shop", expires_at: datetime | None = None) -> str:
    with write(engine) as connection:
        return create_key(connection, name, AccessRole.SEND, expires_at=expires_at, now=NOW).secret


def test_only_the_whole_key_is_valid(engine: sa.Engine) -> None:
    secret = made(engine)
    found = authenticate(engine, secret, NOW)
    assert found is not None
    assert (found.name, found.scope) == ("shop", AccessRole.SEND)
    other = made(engine, "other")
    prefix, other_secret = secret[:15], other[16:]
    for wrong in ("", "pr_", secret[:-1], secret + "x", secret.upper(), f"{prefix}_{other_secret}", "x" * 10_000):
        assert authenticate(engine, wrong, NOW) is None, wrong
    assert secret not in repr(found)
    with write(engine) as connection:
        assert secret not in repr(create_key(connection, "third", AccessRole.VIEW, expires_at=None, now=NOW))


def test_a_key_ends_at_its_expiry_or_when_it_is_revoked(engine: sa.Engine) -> None:
    secret = made(engine, expires_at=NOW + timedelta(days=1))
    assert authenticate(engine, secret, NOW + timedelta(days=1) - timedelta(microseconds=1)) is not None
    assert authenticate(engine, secret, NOW + timedelta(days=1)) is None
    with write(engine) as connection:
        revoked = revoke_key(connection, "shop", NOW)
    assert authenticate(engine, secret, NOW) is None
    with write(engine) as connection:
        assert revoke_key(connection, "shop", NOW + timedelta(days=1)).revoked_at == revoked.revoked_at


def test_the_last_use_is_recorded_at_most_once_a_minute(engine: sa.Engine) -> None:
    secret = made(engine)
    recorded = []
    for seconds in (0, 59, 60, 61, 121):
        authenticate(engine, secret, NOW + timedelta(seconds=seconds))
        with read(engine) as connection:
            recorded.append(api_keys(connection)[0].last_used_at)
    assert timedelta(minutes=1) == USE_RECORDED_EVERY
    assert recorded == [
        NOW,
        NOW,
        NOW + timedelta(seconds=60),
        NOW + timedelta(seconds=60),
        NOW + timedelta(seconds=121),
    ]
