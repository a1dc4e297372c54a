"""Functions with some arguments given, as static records hold them."""

from functools import partial
from typing import Any


class Bound(partial):
    """`functools.partial` that equals another of the same function and arguments, and can be pickled as it can.

    Compiled programs and caches are kept by records, and records are equal where their functions are: a closure, or a
    plain `partial`, equals itself alone. Arguments are static: hashable, no arrays.

    >>> Bound(max, 3, key=abs) == Bound(max, 3, key=abs), partial(max, 3) == partial(max, 3)
    (True, False)
    """

    def _parts(self) -> tuple[Any, ...]:
        return self.func, self.args, tuple(sorted(self.keywords.items()))

    def __eq__(self, other: object) -> bool:
        """Same function, same arguments."""
        return isinstance(other, Bound) and self._parts() == other._parts()

    def __hash__(self) -> int:
        """Of function and arguments."""
        return hash(self._parts())
