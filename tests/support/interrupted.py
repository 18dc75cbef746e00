"""An exception from outside, at each moment at which a signal's handler could raise one."""

import inspect
import sys
from collections.abc import Callable, Iterator
from types import FrameType


def at_each_moment(call: Callable[[int], object], error: type[Exception]) -> Iterator[int]:
    """Interrupt *call* at its first moment, its second, and so on, until it has no more.

    The interpreter looks for signals when a function begins and when one of C's returns; a handler
    then runs as if that place had called it with its frame. So does a profile function. After each
    interruption the number of the moment is given, for a look at what was left behind.

    :param call: takes the number of the moment.
    :raises AssertionError: the exception did not come out of *call*.
    """
    for moment in range(1, 5_000):
        left = [moment]

        def strike(frame: FrameType, event: str, _: object, left: list[int] = left) -> None:
            if not str(frame.f_globals.get("__name__")).startswith("adroll_flask"):
                return
            # A generator that is dropped is "called" once more, where no signal is looked for.
            begins = event == "call" and not frame.f_code.co_flags & inspect.CO_GENERATOR
            if begins or event == "c_return":
                left[0] -= 1
                if not left[0]:
                    raise error

        struck = False
        sys.setprofile(strike)
        try:
            call(moment)
        except error:
            struck = True
        finally:
            sys.setprofile(None)
        if left[0] > 0:
            return
        assert struck, f"what came from outside at moment {moment} was swallowed"
        yield moment
    raise AssertionError("there was no end of moments")
