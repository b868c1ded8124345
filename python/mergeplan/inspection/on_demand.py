"""Rows of which a large model has a hundred thousand, and of which most are never looked at."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

Row = TypeVar("Row")
Key = TypeVar("Key")


class OnDemand(Sequence[Row], Generic[Key, Row]):
    """A sequence whose rows are made when they are looked at.

    Args:
        keys: What each row is made from, in order.
        make: Makes a row; the same key gives an equal one.
    """

    def __init__(self, keys: Sequence[Key], make: Callable[[Key], Row]) -> None:
        self._keys = keys
        self._make = make

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        if isinstance(place, slice):
            return tuple(map(self._make, self._keys[place]))
        return self._make(self._keys[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __deepcopy__(self, memo: object) -> "OnDemand[Key, Row]":
        return self  # nothing in it changes
