"""Who takes part in the delivery benchmark: ours and its peers, unsigned and signed."""

from __future__ import annotations

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from benchmarks import campaign_folder, same_message
from benchmarks.contestants import ENVS, ROOT, Contestant, DidNotRun
from benchmarks.ours_delivery import FOLDER
from benchmarks.sink import Sink
from postroad.mail.dkim import Algorithm, generate_key

OURS = "postroad"
NODEMAILER = "BullMQ + Nodemailer"


class Signing(StrEnum):
    """How messages are signed by DKIM."""

    NONE = "unsigned"
    RSA = "DKIM rsa-2048"
    ED25519 = "DKIM ed25519"
    BOTH = "DKIM rsa-2048 and ed25519"


class Entry(NamedTuple):
    """Who sends, how it signs, and with how many processes."""

    name: str
    signing: Signing = Signing.NONE
    processes: int = 1

    @property
    def label(self) -> str:
        signed = "" if self.signing is Signing.NONE else f", {self.signing}"
        return f"{self.name}{signed}{', two processes' if self.processes == 2 else ''}"


OUR_ENTRIES = tuple(Entry(OURS, signing, processes) for signing in Signing for processes in (1, 2))


class Peer(Struct, frozen=True, kw_only=True):
    """``folder``: of its program and of its environment. ``concurrency``: it is measured at the fastest of these.

    ``fewest``: messages that are enough to tell its pace by, some two seconds of the slowest.
    """

    name: str
    folder: str
    concurrency: tuple[int, ...]
    fewest: int = 200


PEERS = (
    Peer(name=NODEMAILER, folder="nodemailer", concurrency=(10, 20, 50), fewest=500),
    # One: its solo pool; more: its pool of threads.
    Peer(name="Celery + smtplib", folder="celery_smtplib", concurrency=(1, 4, 10, 20)),
    Peer(name="arq + aiosmtplib", folder="arq_aiosmtplib", concurrency=(10, 20, 50)),
)
PEER_SIGNING = (Signing.NONE, Signing.RSA)


class Place:
    """The sink that all send to, and a folder with a key for each algorithm."""

    def __init__(self, sink: Sink, folder: Path) -> None:
        self.sink = sink
        self.folder = folder
        self.rsa_key, self.ed25519_key = (_written(folder / f"{algorithm}.pem", algorithm) for algorithm in Algorithm)

    def ours(self, signing: Signing) -> Contestant:
        folder = self.folder / signing.name
        folder.mkdir(exist_ok=True)
        campaign_folder.build(folder, campaign_folder.FolderOptions(port=self.sink.port, keys=self._keys(signing)))
        return Contestant(OURS, (sys.executable, "-m", "benchmarks.ours_delivery"), {FOLDER: str(folder)})

    def peer(self, peer: Peer, signing: Signing, concurrency: int) -> Contestant:
        """`DidNotRun`: it is not installed."""
        environment = {
            "SMTP_PORT": str(self.sink.port),
            "CONCURRENCY": str(concurrency),
            "MAIL": str(same_message.MAIL),
        }
        for key in self._keys(signing):
            domain = same_message.SENDER.partition("@")[2]
            environment |= {"DKIM_KEY": str(key), "DKIM_DOMAIN": domain, "DKIM_SELECTOR": same_message.SELECTOR}
        if not (ENVS / peer.folder).is_dir():
            raise DidNotRun("not installed; `make bench-peers` does it")
        if peer.name == NODEMAILER:
            return self._on_node(peer, environment)
        command = (str(ENVS / peer.folder / "bin/python"), "-m", f"benchmarks.peers.{peer.folder}.peer")
        return Contestant(peer.name, command, environment)

    @staticmethod
    def _on_node(peer: Peer, environment: dict[str, str]) -> Contestant:
        node = shutil.which("node")
        if node is None:
            raise DidNotRun("node is not on the PATH")
        command = (node, str(ROOT / "benchmarks/peers" / peer.folder / "peer.cjs"))
        return Contestant(peer.name, command, {**environment, "NODE_PATH": str(ENVS / peer.folder / "node_modules")})

    def _keys(self, signing: Signing) -> tuple[Path, ...]:
        match signing:
            case Signing.NONE:
                return ()
            case Signing.RSA:
                return (self.rsa_key,)
            case Signing.ED25519:
                return (self.ed25519_key,)
            case Signing.BOTH:
                return (self.rsa_key, self.ed25519_key)


def _written(path: Path, algorithm: Algorithm) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(generate_key(algorithm))
    return path
