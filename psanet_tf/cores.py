"""How many of the machine's processor cores this process may use."""

import os


def usable_cores() -> int:
    """Processor cores that this process may run on, at least 1.

    Schedulers such as Slurm's, and container engines with a set of CPUs, give a process some of the machine's cores;
    threads for all of them would stand in each other's way.
    """
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
