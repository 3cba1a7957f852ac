"""A queue that is fair to those who send: none of them can take all the turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RoundRobin(Generic[Item]):
    """Gives one item of each sender in turn; those of one sender in their order.

    Examples
    --------
    >>> from sklearn_dialpref.serving.round_robin import RoundRobin
    >>> queue = RoundRobin()
    >>> for sender, item in [("a", 1), ("a", 2), ("a", 3), ("b", 4)]:
    ...     queue.append(sender, item)
    >>> [queue.popleft() for _ in range(len(queue))]
    [1, 4, 2, 3]
    """

    def __init__(self) -> None:
        self._items: OrderedDict[Hashable, deque[Item]] = OrderedDict()  # never an empty one
        self._n_items = 0

    def __len__(self) -> int:
        return self._n_items

    def append(self, sender: Hashable, item: Item) -> None:
        """Put an item behind those of its sender."""
        self._items.setdefault(sender, deque()).append(item)
        self._n_items += 1

    def popleft(self) -> Item:
        """Take the first item of the sender whose turn it is; an IndexError if there is none."""
        if not self._items:
            raise IndexError("the queue is empty")
        sender, items = self._items.popitem(last=False)
        item = items.popleft()
        if items:
            self._items[sender] = items  # its next turn is after all others
        self._n_items -= 1
        return item
