"""Webhooks and reply addresses: valid and invalid settings."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postroad.errors import ConfigError
from tests.settings.conftest import Load


def key_of(curve: ec.EllipticCurve) -> str:
    key = ec.generate_private_key(curve).public_key()
    return b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


SENDER = """
[routes.relay]
host = "smtp.example.com"
[senders.news]
address = "news@example.com"
postal_address = "1 High Street, Springfield"
route = "relay"
"""


def test_secrets_come_from_the_environment_and_are_not_shown(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROAD_WEB__WEBHOOKS__POSTMARK__SECRET", "open sesame, please")
    monkeypatch.setenv("POSTROAD_WEB__WEBHOOKS__MAILGUN__SIGNING_KEY", "key-of-mailgun-1234")
    settings = load('[web.webhooks.ses]\ntopics = ["arn:aws:sns:eu-west-1:123456789012:bounces"]')
    webhooks = settings.web.webhooks
    assert webhooks.postmark is not None
    assert webhooks.postmark.secret.get_secret_value() == "open sesame, please"
    assert webhooks.mailgun is not None
    assert webhooks.sendgrid is None
    assert "sesame" not in repr(settings)
    assert "key-of-mailgun" not in repr(settings)


def test_sendgrids_key_is_parsed_as_sendgrid_shows_it(load: Load) -> None:
    assert load(f'[web.webhooks.sendgrid]\npublic_key = "{key_of(ec.SECP256R1())}"').web.webhooks.sendgrid is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[web.webhooks.ses]\ntopics = []", "topics"),
        ('[web.webhooks.ses]\ntopics = ["bounces"]', "not an SNS topic"),
        ('[web.webhooks.ses]\ntopics = ["arn:aws:sns:evil.example/:123456789012:x"]', "not an SNS topic"),
        ('[web.webhooks.sendgrid]\npublic_key = "MFkw"', "not a verification key"),
        (f'[web.webhooks.sendgrid]\npublic_key = "{key_of(ec.SECP384R1())}"', "not a verification key"),
        ('[web.webhooks.postmark]\nsecret = "short"', "16 characters"),
        ('[web.webhooks.postmark]\nusername = "a:b"\nsecret = "long enough, surely"', "username"),
        ("[web.webhooks.mailgun]", "signing_key"),
        ('[routes.mx]\nkind = "direct"\nservice = "ses"', "no mail service"),
        (SENDER + 'reply_to = "{token}@example.com"', "must follow a name"),
        (SENDER + 'reply_to = "hello{token}@example.com"', "must follow a name"),
        (SENDER + 'reply_to = "a+{token}+b@example.com"', "must follow a name"),
        (SENDER + 'reply_to = "hello+{touch}@example.com"', "in braces"),
        (SENDER + 'reply_to = "hello@{token}.example.com"', "in braces"),
        (SENDER + f'reply_to = "{"a" * 32}+{{token}}@example.com"', "at most 31"),
    ],
)
def test_an_invalid_webhook_is_an_error(load: Load, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(text)


def test_services_are_found_by_route(load: Load) -> None:
    settings = load(
        '[routes.relay]\nhost = "smtp.example.com"\nservice = "postmark"\n[routes.other]\nhost = "b.example"'
    )
    assert settings.services == {"relay": "postmark"}
