"""One function over many items, in threads: the first error stops the rest."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")


def for_each(function: Callable[[Item], object], items: Iterable[Item], num_threads: int) -> None:
    """Call a function for every item, from `num_threads` threads; what is under way when one fails is finished.

    Raises:
        BaseException: The first that the function raised.
    """
    pool = ThreadPoolExecutor(num_threads)
    try:
        futures = [pool.submit(function, item) for item in items]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
