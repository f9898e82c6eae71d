"""Work shared out to devices, one item at a time."""

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from psanet_tf.progress import track

_Labeler = TypeVar("_Labeler")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def on_all_devices(
    labelers: Sequence[_Labeler], items: Sequence[_Item], work: Callable[[_Labeler, _Item], _Result], description: str
) -> Iterator[tuple[_Item, _Result]]:
    """Runs `work` on every item, as many at a time as there are labelers, with a progress bar.

    Args:
        labelers: one object per device.
        items: list.
        work: called in a thread of its own with (labeler, item); no two calls have the same labeler at the same time.
        description: for the progress bar.

    Yields:
        (item, result of `work`), as they are finished. An error of `work` is raised here, and what has not begun by
        then is given up.
    """
    free = queue.SimpleQueue()
    for labeler in labelers:
        free.put(labeler)

    def run(item):
        labeler = free.get()
        try:
            return work(labeler, item)
        finally:
            free.put(labeler)

    with ThreadPoolExecutor(len(labelers)) as pool:
        futures = {pool.submit(run, item): item for item in items}
        try:
            for future in track(as_completed(futures), description, total=len(items)):
                # Forgotten here: results may be large, and it is up to the caller what is kept.
                yield futures.pop(future), future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
