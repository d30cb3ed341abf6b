"""Signs requests by Standard Webhooks (https://www.standardwebhooks.com), with every key of an endpoint's ring."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks.webhooks import Webhook

from postroad.errors import ConfigError
from postroad.settings.webhooks_out import SECRET_PREFIX, WebhookEndpointSettings, check_secret

SECRET_BYTES = 32


def make_secret() -> str:
    """Return a new signing secret."""
    return SECRET_PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def load_ring(name: str, settings: WebhookEndpointSettings) -> list[str]:
    """Return the signing secrets of an endpoint, the first of which signs first.

    Args:
        name: Name of the endpoint.
        settings: Settings of the endpoint.

    Returns:
        At least one secret.

    Raises:
        ConfigError: The file of the secrets cannot be read, or a line of it is not a secret.
    """
    if settings.secret_file is None:
        ring = (settings.secret, *settings.secrets)
        return [secret.get_secret_value() for secret in ring if secret is not None]
    where = f"webhooks_out.{name}.secret_file, {settings.secret_file}"
    remedy = "`postroad webhook secret` makes a secret."
    try:
        lines = settings.secret_file.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=where, remedy=remedy) from None
    except UnicodeDecodeError:
        raise ConfigError("the file is not ASCII text", where=where, remedy=remedy) from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, line in numbered:
        try:
            check_secret(line)
        except ValueError as error:
            raise ConfigError(str(error), where=f"{where}, line {number}", remedy=remedy) from None
    if not numbered:
        raise ConfigError("the file is empty", where=where, remedy=remedy)
    return [line for _, line in numbered]


class WebhookSigner:
    """Signs the requests to one endpoint."""

    def __init__(self, ring: Sequence[str]) -> None:
        self._keys = [Webhook(secret) for secret in ring]

    def headers(self, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
        """Return the headers of a request: id, time, and one signature for each key.

        A receiver that has any key of the ring accepts the request, so keys are replaced without an interruption.

        Args:
            message_id: Id of the event. It is the same in each attempt.
            at: Time of the attempt, in UTC. Receivers refuse one that is more than five minutes off.
            body: The body, in UTF-8.

        Returns:
            The headers by name.
        """
        text = body.decode()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(key.sign(message_id, at, text) for key in self._keys),
        }
