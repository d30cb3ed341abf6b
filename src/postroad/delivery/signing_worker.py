"""A process that signs with RSA and does nothing else: ``python -m postroad.delivery.signing_worker``.

It reads requests from standard input and writes an answer to each, until the input ends, as it does with the process
that started it, however that ends. Each is four octets of length and as much of MessagePack.
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
    """``keys``: those that it has not had yet, by number, in DER (PKCS #8). ``work``: of each, its key and its octets.

    The answer is a list of signatures, in the order of ``work``.
    """

    keys: dict[int, bytes]
    work: list[tuple[int, bytes]]


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(list[bytes]).decode


def framed(octets: bytes) -> bytes:
    return len(octets).to_bytes(LENGTH) + octets


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Sign what is asked for."""
    # Both are sent to a whole group of processes. Whoever started this one finishes what is under way first.
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
