"""A command that was understood and has not run.

Fire alone calls a command before it rejects a mistyped flag, and turns a run called 2e967232 into infinity; here
commands receive text and return an invocation, which runs once all arguments were consumed.
"""

from collections.abc import Callable
from functools import partial, wraps

from fire.decorators import SetParseFn


class Invocation:
    """A command that was understood and has not run. Fire finds nothing on it to go on with."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call


def command(function: Callable[..., None]) -> Callable[..., Invocation]:
    """Let Fire read a command's arguments as text, without running it."""

    @wraps(function)
    def understood(*args: str, **flags: str) -> Invocation:
        return Invocation(partial(function, *args, **flags))

    text_alone: Callable[..., Invocation] = SetParseFn(str)(understood)
    return text_alone
