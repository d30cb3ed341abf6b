"""Makes RSA signatures in a process of its own: ``python -m postroad.delivery.signing_worker``.

It reads requests from standard input and writes a reply to each, until the input ends, which happens when its parent
process ends. A request and a reply are four bytes of length (big-endian), then MessagePack.
"""

from __future__ import annotations

import signal
import sys
from typing import IO, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from postroad.mail.dkim import rsa_signature

LENGTH = 4


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A batch of signatures to make.

    ``keys``: new keys, by number, in DER (PKCS #8). ``work``: for each signature, the number of its key and its bytes.
    The reply is a list of signatures, in the order of ``work``.
    """

    keys: dict[int, bytes]
    work: list[tuple[int, bytes]]


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(list[bytes]).decode


def framed(octets: bytes) -> bytes:
    """Return bytes with their length before them."""
    return len(octets).to_bytes(LENGTH) + octets


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Reply to requests until the input ends."""
    # Both signals go to the whole process group. The parent finishes its work in progress first, and needs signatures.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keys: dict[int, RSAPrivateKey] = {}
    while len(head := requests.read(LENGTH)) == LENGTH:
        request = decode_request(requests.read(int.from_bytes(head)))
        keys |= {number: cast(RSAPrivateKey, load_der_private_key(der, None)) for number, der in request.keys.items()}
        signatures = [rsa_signature(keys[number], octets) for number, octets in request.work]
        answers.write(framed(encode(signatures)))
        answers.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
