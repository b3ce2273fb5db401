"""One function over many items, in threads: the first error stops the rest."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def for_each(function: Callable[[Item], object], items: Iterable[Item], num_threads: int) -> None:
    """Call a function once for every item, from `num_threads` threads; what is under way when one fails is finished.

    Raises:
        BaseException: What the function raised, first come first.
    """
    left, lock, errors = iter(items), threading.Lock(), list[BaseException]()

    def work() -> None:
        while not errors:
            try:
                with lock:
                    item = next(left)
            except StopIteration:
                return
            try:
                function(item)
            except BaseException as error:  # noqa: BLE001 -- raised below, in the thread that waits
                errors.append(error)

    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for worker in [pool.submit(work) for _ in range(num_threads)]:
                worker.result()
        except BaseException as error:
            errors.append(error)
            raise
    if errors:
        raise errors[0]
