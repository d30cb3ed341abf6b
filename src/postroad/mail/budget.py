"""The budget of one rendering: how many steps it may take, and how large a value may be.

Python code that runs on an event loop cannot be interrupted, so no timer bounds a template. Arithmetic does: every
operation of a template is charged for the characters that it reads and makes, and every value has a largest size.
The cost of a step is a microsecond at most, so a rendering ends after about 0.2 s of processor time.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, KeysView, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any, Final, cast

from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.utils import Namespace
from markupsafe import Markup

MAX_STEPS: Final = 200_000
"""Steps of one rendering. Each turn of a loop, call, operator and filter takes one, and one more for 10 characters."""
MAX_LENGTH: Final = 1_000_000
"""Characters of a value, a template or what a template makes. An element of a list counts as eight."""
MAX_BITS: Final = 64
"""Bits of a whole number. Python's hash of one is its remainder by 2**61 - 1: of larger ones, many share a hash, and a
set or a dict of those takes the square of their count."""
CHARACTERS_PER_STEP: Final = 10
_ELEMENT: Final = 8  # characters that an element of a container counts as, beside its own


class TemplateLimitError(OverflowError):
    """A template does or makes more than a template may."""


def size_of(value: Any) -> int:
    """Return the size of a value in characters, with all that is in it.

    Raises:
        SecurityError: A method or function is in it, whose text would be an address in memory.
        TemplateLimitError: The value is larger than `MAX_LENGTH`, or a whole number than `MAX_BITS`. The count ends
            there, so a list that holds itself many times over costs no more than any other.
    """
    kind = type(value)
    if kind is str or kind is Markup:
        size = len(value)
    elif kind is int:
        size = _size_of_number(value)
    elif isinstance(value, _CONTAINERS):
        size = _size_of_container(value)
    else:
        _require_no_function(value)
        size = _ELEMENT
    if size > MAX_LENGTH:
        raise TemplateLimitError(f"a value is larger than {MAX_LENGTH:,} characters")
    return size


_CONTAINERS = (list, tuple, dict, AbstractSet, KeysView, ValuesView, Namespace, range)


def _size_of_number(number: int) -> int:
    bits = number.bit_length()
    if bits > MAX_BITS:
        raise TemplateLimitError(f"a whole number has more than {MAX_BITS} bits")
    return bits // 3 + 1


def _size_of_container(root: Any) -> int:
    total, waiting = 0, [root]
    while waiting and total <= MAX_LENGTH:
        value = waiting.pop()
        kind = type(value)
        if kind is Namespace:
            value = object.__getattribute__(value, "_Namespace__attrs")
        if kind is str or kind is Markup:
            total += len(value)
        elif kind is int:
            total += _size_of_number(value)
        elif kind is range:
            total += _ELEMENT * len(value)
        elif isinstance(value, dict):
            total += 2 * _ELEMENT * len(value)
            require_keys(value)
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, _CONTAINERS):
            total += _ELEMENT * len(value)
            if total <= MAX_LENGTH:
                waiting += value
        else:
            _require_no_function(value)
    return total


def require_keys(keys: Iterable[Any]) -> None:
    """Refuse keys of a mapping whose hashes a template could choose: a mapping takes the square of their count.

    Python's hash of a text has a secret key, and few numbers share one. That of a tuple or range has no key.

    Raises:
        TemplateLimitError: A key is a tuple or a range.
    """
    if any(isinstance(key, _KEYLESS) for key in keys):
        raise TemplateLimitError("a key of a mapping is a list: keys are texts and numbers")


_KEYLESS = (tuple, range)


def _require_no_function(value: Any) -> None:
    """Its text would be an address in memory."""
    if isinstance(value, _FUNCTIONS):
        raise SecurityError("a method or function is used as a value: () is missing after its name")


_FUNCTIONS = (types.MethodType, types.BuiltinMethodType, types.FunctionType, type)


class LimitedContext(Context):
    """The state of one rendering, and how many steps it has left."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = [MAX_STEPS]

    def derived(self, locals: dict[str, Any] | None = None) -> Context:  # noqa: A002  (Jinja's name)
        context = super().derived(locals)
        cast(LimitedContext, context)._left = self._left
        return context

    def charge(self, steps: int) -> None:
        """Take steps from the budget. Raises TemplateLimitError when none is left."""
        self._left[0] -= steps
        if self._left[0] < 0:
            raise TemplateLimitError(f"the template takes more than {MAX_STEPS:,} steps")

    def read(self, *values: Any, extra: int = 0) -> None:
        """Charge an operation that reads values. ``extra``: characters that it reads or makes beside those."""
        for value in values:
            extra += size_of(value)
        self.charge(1 + extra // CHARACTERS_PER_STEP)

    def made(self, value: Any) -> Any:
        """Charge a value that an operation made, and return it. An iterator is read, and becomes a list."""
        if isinstance(value, Iterator) and not isinstance(value, LoopContext):
            value = list(self.counted(value))
        self.read(value)
        return value

    def counted(self, items: Iterable[Any], steps: int = 1) -> Iterator[Any]:
        """Return the items, each charged."""
        for item in items:
            self.charge(steps)
            yield item
