"""Reads HTML bodies in a child process with limits: a parser may take quadratic time for unclosed elements."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import msgspec

from postroad.confined import Confined, ProcessLimits, RequestRefusedError
from postroad.errors import DataError
from postroad.mail.html_content import HtmlContent

LIMITS = ProcessLimits(cpu_s=5.0, wall_s=60.0, memory_mib=512)
"""Limits for one body. A body of one million characters takes about a second."""


class HtmlRequest(msgspec.Struct, frozen=True, array_like=True):
    """A body to read. ``template``: whether it is a template."""

    source: str
    template: bool


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HtmlContent).decode


class HtmlBodyReader:
    """Owns the child process, which is started for the first body. Use it as a context manager."""

    def __init__(self, module: str = "postroad.mail.html_worker", limits: ProcessLimits = LIMITS) -> None:
        self._confined = Confined(module, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._confined.close()

    def read(self, source: str, *, template: bool = False) -> HtmlContent:
        """Read a body. Blocking.

        Args:
            source: The HTML.
            template: Whether it is a template.

        Returns:
            Its content.

        Raises:
            DataError: It cannot be read within the limits.
            UnavailableError: The child cannot be started.
        """
        try:
            return _decode(self._confined.ask(_encode(HtmlRequest(source, template))))
        except RequestRefusedError as error:
            raise DataError(error.message) from None
        except msgspec.DecodeError:
            raise DataError("the answer of its parser cannot be read") from None
