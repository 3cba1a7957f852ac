"""One progress bar for each call of a user, however many fits there are within it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm.auto import tqdm

from ._compat import in_worker, within_search

__all__ = ["CallBar", "bar_options", "calling_bar", "one_bar"]


class CallBar:
    """A bar that counts the fits of a call; it is shown once one of them is verbose.

    Parameters
    ----------
    name : str
        What is being done.
    n_fits : int
        How many fits there will be.
    """

    def __init__(self, name: str, n_fits: int) -> None:
        self.name, self.n_fits = name, n_fits
        self.n_done = 0
        self._bar: Any = None

    def show(self) -> None:
        """Show the bar, if it is not yet there."""
        if self._bar is None:
            options = bar_options(verbose=True)
            self._bar = tqdm(desc=self.name, total=self.n_fits, unit="fit", **options)
            self._bar.update(self.n_done)

    def count(self) -> None:
        """Count a fit that is done."""
        self.n_done += 1
        if self._bar is not None:
            self._bar.update(1)

    def finish(self) -> None:
        """Fill the bar: there can have been fewer fits."""
        if self._bar is not None:
            self._bar.reset(total=self.n_done)  # a notebook's bar takes the total only here
            self._bar.update(self.n_done)

    def close(self) -> None:
        """End its line."""
        if self._bar is not None:
            self._bar.close()


_CALLING: ContextVar[CallBar | None] = ContextVar("calling_bar", default=None)


def calling_bar() -> CallBar | None:
    """The bar of the call that this one is within, if there is any."""
    return _CALLING.get()


@contextmanager
def one_bar(name: str, n_fits: int) -> Iterator[None]:
    """Show the fits in the block by one bar, unless the block is itself within such a one.

    Parameters
    ----------
    name : str
        What is being done.
    n_fits : int
        How many fits there will be in the block.
    """
    if _CALLING.get() is not None:
        yield
        return
    bar = CallBar(name, n_fits)
    token = _CALLING.set(bar)
    try:
        yield
        bar.finish()
    finally:
        _CALLING.reset(token)
        bar.close()


def bar_options(*, verbose: bool) -> dict[str, bool]:
    """Whether a bar is disabled, and whether it stays when it is done.

    Within a search or cross-validation of scikit-learn, which has no bar of its own, the bars of
    the fits follow each other in one line; workers, whose lines would mix, show none.
    """
    if not verbose:
        return {"disable": True}
    return {"disable": in_worker(), "leave": not within_search()}
