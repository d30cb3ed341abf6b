"""The keys of senders, read from where the settings say."""

from __future__ import annotations

from collections.abc import Mapping

from postroad.errors import ConfigError, DataError
from postroad.mail.address import ascii_domain
from postroad.mail.dkim import DkimKey, DkimSigner, read_key
from postroad.settings import DkimSettings, SenderSettings, Settings


def signers_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, DkimSigner]:
    """Return what signs for each sender that has keys, by the sender's name. Raises ConfigError for what is no key."""
    return {
        name: DkimSigner(keys_of(name, sender, environ)) for name, sender in settings.senders.items() if sender.dkim
    }


def keys_of(name: str, sender: SenderSettings, environ: Mapping[str, str]) -> list[DkimKey]:
    """Read the keys of one sender. Raises ConfigError, which names the setting and shows nothing of a key."""
    keys: dict[tuple[str, object], DkimKey] = {}
    for number, wanted in enumerate(sender.dkim):
        where = f"senders.{name}.dkim.{number}"
        try:
            domain = ascii_domain(sender.domain)
        except DataError as error:
            raise ConfigError(error.message, where=f"senders.{name}.address") from None
        key = DkimKey(
            domain=domain,
            selector=wanted.selector,
            private_key=read_key(_pem(wanted, environ, where), where=f"{where}, {wanted.key_file or wanted.key_env}"),
            since=wanted.since,
        )
        if (key.algorithm, key.since) in keys:
            raise ConfigError(
                f"two keys of {key.algorithm} begin at the same time",
                where=where,
                remedy="Give the newer one since, the date from which it signs; or remove one.",
            )
        keys[key.algorithm, key.since] = key
    return list(keys.values())


def _pem(wanted: DkimSettings, environ: Mapping[str, str], where: str) -> bytes:
    if wanted.key_env is not None:
        if wanted.key_env not in environ:
            raise ConfigError(f"the variable {wanted.key_env} is not set", where=f"{where}.key_env")
        return environ[wanted.key_env].encode(errors="replace")
    assert wanted.key_file is not None  # noqa: S101  (one of the two is)
    try:
        return wanted.key_file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{wanted.key_file} cannot be read: {error.strerror}",
            where=f"{where}.key_file",
            remedy="Paths are relative to postroad.toml; `postroad dkim keygen` makes a key.",
        ) from None
