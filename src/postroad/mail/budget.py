"""The budget of one rendering: a maximum number of steps, and a maximum size of each value.

Python code on an event loop cannot be interrupted, so a timer cannot bound a template. Instead, every operation of a
template is charged for the characters that it reads and makes, and the size of every value is limited. A step costs
at most a microsecond, so a rendering ends after about 0.2 s of processor time.
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
"""Steps of one rendering. A loop iteration, call, operator or filter costs one step, plus one per 10 characters."""
MAX_LENGTH: Final = 1_000_000
"""Characters of a value, a template or the output of a template. An element of a list counts as eight."""
MAX_BITS: Final = 64
"""Bits of an integer. Python's hash of an integer is its remainder modulo 2**61 - 1. Larger integers can be chosen to
collide, which makes a set or dict of them quadratic."""
CHARACTERS_PER_STEP: Final = 10
_ELEMENT: Final = 8  # characters that an element of a container counts as, in addition to its own


class TemplateLimitError(OverflowError):
    """A template exceeds its budget."""


def size_of(value: Any) -> int:
    """Return the size of a value in characters, including its elements.

    Args:
        value: Any value of a template.

    Returns:
        The size in characters. The count stops at the limit, so a list that contains itself has a bounded cost.

    Raises:
        SecurityError: The value contains a method or function, whose text would be a memory address.
        TemplateLimitError: The value is larger than `MAX_LENGTH`, or an integer has more than `MAX_BITS`.
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
    """Reject keys whose hashes a template could make collide, which makes a mapping quadratic.

    Python's hash of a string has a secret key, and few integers collide. The hash of a tuple or range has no key.

    Args:
        keys: Keys of a mapping.

    Raises:
        TemplateLimitError: A key is a tuple or a range.
    """
    if any(isinstance(key, _KEYLESS) for key in keys):
        raise TemplateLimitError("a key of a mapping is a list: keys are texts and numbers")


_KEYLESS = (tuple, range)


def _require_no_function(value: Any) -> None:
    """Reject a function: its text would be a memory address. Raises SecurityError."""
    if isinstance(value, _FUNCTIONS):
        raise SecurityError("a method or function is used as a value: () is missing after its name")


_FUNCTIONS = (types.MethodType, types.BuiltinMethodType, types.FunctionType, type)


class LimitedContext(Context):
    """The state of one rendering, with its remaining steps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps_left = [MAX_STEPS]  # a list, because derived contexts share it

    def derived(self, locals: dict[str, Any] | None = None) -> Context:  # noqa: A002  (Jinja's name)
        context = super().derived(locals)
        cast(LimitedContext, context)._steps_left = self._steps_left
        return context

    def charge(self, steps: int) -> None:
        """Take steps from the budget. Raises TemplateLimitError if it is used up."""
        self._steps_left[0] -= steps
        if self._steps_left[0] < 0:
            raise TemplateLimitError(f"the template takes more than {MAX_STEPS:,} steps")

    def read(self, *values: Any, extra: int = 0) -> None:
        """Charge for an operation that reads values, and ``extra`` more characters."""
        for value in values:
            extra += size_of(value)
        self.charge(1 + extra // CHARACTERS_PER_STEP)

    def made(self, value: Any) -> Any:
        """Charge for the result of an operation, and return it. An iterator is consumed and returned as a list."""
        if isinstance(value, Iterator) and not isinstance(value, LoopContext):
            value = list(self.counted(value))
        self.read(value)
        return value

    def counted(self, items: Iterable[Any], steps: int = 1) -> Iterator[Any]:
        """Yield the items, and charge for each."""
        for item in items:
            self.charge(steps)
            yield item
