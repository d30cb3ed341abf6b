"""Loads the DKIM keys of senders from the files and variables that the settings name."""

from __future__ import annotations

from collections.abc import Mapping

from postroad.errors import ConfigError, DataError
from postroad.mail.address import ascii_domain
from postroad.mail.dkim import DkimKey, DkimSigner, parse_key
from postroad.settings import DkimSettings, SenderSettings, Settings


def load_signers(settings: Settings, environ: Mapping[str, str]) -> dict[str, DkimSigner]:
    """Return the signer of each sender with keys, by the sender's name. Raises ConfigError for an invalid key."""
    return {
        name: DkimSigner(load_keys(name, sender, environ)) for name, sender in settings.senders.items() if sender.dkim
    }


def load_keys(name: str, sender: SenderSettings, environ: Mapping[str, str]) -> list[DkimKey]:
    """Load the keys of one sender.

    Args:
        name: The sender's name in the settings.
        sender: The sender's settings.
        environ: Environment variables, which may hold keys.

    Returns:
        The keys, in the order of the settings.

    Raises:
        ConfigError: A key is missing or invalid. The error names the setting and shows no part of a key.
    """
    keys: dict[tuple[str, object], DkimKey] = {}
    for number, settings in enumerate(sender.dkim):
        where = f"senders.{name}.dkim.{number}"
        try:
            domain = ascii_domain(sender.domain)
        except DataError as error:
            raise ConfigError(error.message, where=f"senders.{name}.address") from None
        key = DkimKey(
            domain=domain,
            selector=settings.selector,
            private_key=parse_key(
                _pem(settings, environ, where), where=f"{where}, {settings.key_file or settings.key_env}"
            ),
            active_from=settings.since,
        )
        if (key.algorithm, key.active_from) in keys:
            raise ConfigError(
                f"two keys of {key.algorithm} become active at the same time",
                where=where,
                remedy="Set since of the newer key to the date from which it signs, or remove one key.",
            )
        keys[key.algorithm, key.active_from] = key
    return list(keys.values())


def _pem(settings: DkimSettings, environ: Mapping[str, str], where: str) -> bytes:
    if settings.key_env is not None:
        if settings.key_env not in environ:
            raise ConfigError(f"the variable {settings.key_env} is not set", where=f"{where}.key_env")
        return environ[settings.key_env].encode(errors="replace")
    assert settings.key_file is not None  # noqa: S101  (the settings require one of the two)
    try:
        return settings.key_file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{settings.key_file} cannot be read: {error.strerror}",
            where=f"{where}.key_file",
            remedy="Paths are relative to postroad.toml; `postroad dkim keygen` makes a key.",
        ) from None
