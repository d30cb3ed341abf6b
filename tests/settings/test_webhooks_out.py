"""Endpoints of webhooks: valid and invalid settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.errors import ConfigError
from postroad.event_types import EventType
from postroad.events_out.signature import load_ring, make_secret
from postroad.settings.webhooks_out import check_secret
from tests.settings.conftest import Load

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SHOP = '[webhooks_out.shop]\nurl = "https://shop.example.com/hooks?x=1"\n'


def test_an_endpoint_needs_an_address_and_a_secret(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_WEBHOOKS_OUT__SHOP__SECRET", SECRET)
    settings = load(SHOP)
    shop = settings.webhooks_out["shop"]
    assert load_ring("shop", shop) == [SECRET]
    assert EventType.DEFERRED not in shop.events
    assert SECRET not in repr(settings)


def test_a_ring_is_in_the_settings_or_in_a_file(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = make_secret(), make_secret()
    assert check_secret(new) == new
    ring = load(f'{SHOP}secrets = ["{new}", "{old}"]').webhooks_out["shop"]
    assert load_ring("shop", ring) == [new, old]
    monkeypatch.setenv("POSTROAD_WEBHOOKS_OUT__SHOP__SECRETS", f'["{old}"]')
    assert load_ring("shop", load(SHOP).webhooks_out["shop"]) == [old]
    monkeypatch.delenv("POSTROAD_WEBHOOKS_OUT__SHOP__SECRETS")
    (tmp_path / "shop.secret").write_text(f"{new}\n\n{old}\n")
    in_file = load(f'{SHOP}secret_file = "{tmp_path / "shop.secret"}"').webhooks_out["shop"]
    assert load_ring("shop", in_file) == [new, old]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        (f"{SECRET}\nopen sesame\n", "line 2"),
        ("whsec_é\n", "not ASCII"),
    ],
)
def test_a_bad_file_of_secrets_is_named(load: Load, tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "shop.secret"
    if content is not None:
        path.write_text(content)
    shop = load(f'{SHOP}secret_file = "{path}"').webhooks_out["shop"]
    with pytest.raises(ConfigError) as caught:
        load_ring("shop", shop)
    assert problem in str(caught.value)
    assert "webhooks_out.shop.secret_file" in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SHOP, "exactly one of secret, secrets and secret_file"),
        (f'{SHOP}secret = "{SECRET}"\nsecrets = ["{SECRET}"]', "exactly one of"),
        (f'{SHOP}secret = "open sesame, please, it is long enough"', "webhook secret"),
        (f'{SHOP}secret = "whsec_c2hvcnQ="', "24 to 64 bytes"),
        (f'{SHOP}secret = "{SECRET}"\nevents = []', "events"),
        (f'{SHOP}secret = "{SECRET}"\nevents = ["bounced"]', "message.bounced"),
        (f'{SHOP}secret = "{SECRET}"\nallow_networks = ["10.0.0.1/8"]', "network"),
        (f'{SHOP}secret = "{SECRET}"\ntimeout_ms = "10m"', "timeout_ms"),
        (f'[webhooks_out."The Shop"]\nurl = "https://example.com"\nsecret = "{SECRET}"', "The Shop"),
        (f'[webhooks_out.shop]\nurl = "http://example.com"\nsecret = "{SECRET}"', "allow_networks"),
        (f'[webhooks_out.shop]\nurl = "ftp://example.com"\nsecret = "{SECRET}"', "is not a URL"),
        (f'[webhooks_out.shop]\nurl = "https://"\nsecret = "{SECRET}"', "is not a URL"),
        (f'[webhooks_out.shop]\nurl = "https://a:b@example.com"\nsecret = "{SECRET}"', "no user"),
        (f'[webhooks_out.shop]\nurl = "https://example.com/#x"\nsecret = "{SECRET}"', "fragment"),
        (f'[webhooks_out.shop]\nurl = "https://example.com:99999"\nsecret = "{SECRET}"', "is not a URL"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(load: Load, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert said in str(caught.value)
    assert "webhooks_out" in str(caught.value)
    assert "postroad.toml" in str(caught.value)
    assert "sesame" not in str(caught.value)
