"""Checks the settings, and the keys and files that they name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from postroad.app.context import secret_keys
from postroad.doctor.check import Check, failed
from postroad.errors import PostroadError, did_you_mean, near_names
from postroad.mail.dkim_keys import load_keys
from postroad.printable import counted
from postroad.queue import Health
from postroad.settings import CONFIG_VARIABLE, DEFAULT_QUEUES, Settings
from postroad.settings.origin import unknown_variables
from postroad.shaping.config import read_shaping, shaped_senders
from postroad.state_folder import open_entries


def check_settings(settings: Settings) -> Check:
    """Check that there is a sender and a public URL."""
    where = str(settings.config_path or "no postroad.toml")
    if not settings.senders:
        remedy = "Add [senders.NAME] and [routes.NAME] to postroad.toml: docs/reference/settings.md."
        return Check(part="settings", health=Health.WARN, seen=f"{where}: no sender yet", remedy=remedy)
    if settings.public_url.endswith(".invalid"):
        remedy = "Set public_url to the URL at which recipients reach you; no campaign can be launched without it."
        return Check(part="settings", health=Health.WARN, seen=f"{where}: public_url is not set", remedy=remedy)
    seen = f"{where}: {counted(len(settings.senders), 'sender')}, {counted(len(settings.routes), 'route')}"
    return Check(part="settings", health=Health.OK, seen=seen)


def check_names(settings: Settings) -> Iterator[Check]:
    """Check that every variable with our prefix, and every section of a queue, has a known name."""
    for variable, hint in unknown_variables(Settings, [CONFIG_VARIABLE]):
        remedy = hint or "Remove it: docs/reference/settings.md lists every setting."
        seen = f"no setting reads the variable {variable}"
        yield Check(part="environment", health=Health.WARN, seen=seen, remedy=remedy)
    for name in settings.queues:
        if name not in DEFAULT_QUEUES:
            hint = did_you_mean(near_names(name, DEFAULT_QUEUES)) or f"Postroad uses {', '.join(DEFAULT_QUEUES)}."
            remedy = f"{hint} A queue that only your own workers use may have any name."
            seen = f"no part of Postroad uses the queue {name!r} of the settings"
            yield Check(part="queue names", health=Health.WARN, seen=seen, remedy=remedy)


def check_dkim(settings: Settings) -> Iterator[Check]:
    """Check that each sender has a key, and that only its owner can read it."""
    for name, sender in settings.senders.items():
        part = f"dkim {name}"
        try:
            keys = load_keys(name, sender, os.environ)
        except PostroadError as error:
            yield failed(part, error)
            continue
        shared = [key.key_file for key in sender.dkim if key.key_file and key.key_file.stat().st_mode & 0o077]
        if shared:
            remedy = f"chmod 600 {shared[0]}"
            yield Check(part=part, health=Health.WARN, seen=f"{shared[0]} can be read by others", remedy=remedy)
        elif keys:
            seen = ", ".join(f"{key.selector} ({key.algorithm})" for key in keys)
            yield Check(part=part, health=Health.OK, seen=seen)
        else:
            remedy = "`postroad dkim keygen` creates a key. If the relay signs, no key is needed."
            yield Check(part=part, health=Health.WARN, seen="no key: its mail is not signed", remedy=remedy)


def check_shaping(settings: Settings) -> Check:
    """Check that the shaping file is valid. Raise ConfigError if it is not."""
    read_shaping(settings.delivery.shaping)
    where = str(settings.delivery.shaping or "built-in")
    shaped = len(shaped_senders(settings))
    return Check(
        part="shaping",
        health=Health.OK,
        seen=f"{where}: applies to {shaped} of {counted(len(settings.senders), 'sender')}",
    )


def check_state_folder(settings: Settings) -> Check:
    """Check that only the owner can access the state folder, which contains addresses, mail and keys."""
    folder = settings.state_dir
    opened = open_entries(folder, 3) if folder.exists() else []
    if opened:
        seen = f"other users can access {', '.join(map(str, opened))}"
        remedy = f"chmod -R go-rwx {folder}"
        return Check(part="state folder", health=Health.FAIL, seen=seen, remedy=remedy)
    return Check(part="state folder", health=Health.OK, seen=str(folder))


def check_secret_key(settings: Settings) -> Check:
    """Check that only the owner can read the key that signs tokens. The key is created if it does not exist."""
    ring = secret_keys(settings)
    if settings.secret_keys or settings.secret_key is not None:
        seen = f"from the settings{f', {len(ring)} keys' if len(ring) > 1 else ''}"
        return Check(part="secret key", health=Health.OK, seen=seen)
    path = settings.state_dir / "secret.key"
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        remedy = f"chmod 600 {path}"
        return Check(part="secret key", health=Health.FAIL, seen=f"{path} can be read by others", remedy=remedy)
    return Check(part="secret key", health=Health.OK, seen=str(path))
