"""The socket that is listened at."""

from __future__ import annotations

import socket

import pytest

from postroad.errors import ConfigError
from postroad.web.serve import bind_listener


def test_no_answer_waits_to_be_sent_together_with_the_next() -> None:
    with bind_listener("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_port_that_is_taken_is_named() -> None:
    with bind_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match="cannot listen there") as caught:
            bind_listener("127.0.0.1", port)
    assert caught.value.where == f"127.0.0.1:{port}"
