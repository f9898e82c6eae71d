"""Work shared out to devices, one item at a time."""

import queue
import threading
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


def steps_on_all_devices(
    labelers: Sequence[_Labeler], items: Sequence[_Item], work: Callable[[_Labeler, _Item], Iterator[_Result]]
) -> Iterator[_Result]:
    """As `on_all_devices`, of work that goes on step by step.

    Args:
        labelers: one object per device.
        items: list.
        work: gives the steps of (labeler, item); it is called, and its steps are made, in a thread for each labeler.

    Yields:
        The steps, as they are done. An error of `work` is raised here, and the others stop before their next step.
    """
    if len(labelers) == 1:
        for item in items:
            yield from work(labelers[0], item)
        return
    waiting, steps, stopping = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
    for item in items:
        waiting.put(item)

    def run(labeler):
        error = None
        try:
            while not stopping.is_set():
                for step in work(labeler, waiting.get_nowait()):
                    steps.put((step, False, None))
                    if stopping.is_set():
                        break
        except queue.Empty:
            pass
        except BaseException as raised:
            error = raised
        steps.put((None, True, error))

    with ThreadPoolExecutor(len(labelers)) as pool:
        for labeler in labelers:
            pool.submit(run, labeler)
        running = len(labelers)
        try:
            while running:
                step, is_end, error = steps.get()
                if error is not None:
                    raise error
                running -= is_end
                if not is_end:
                    yield step
        finally:
            stopping.set()
