"""Where processes of a benchmark run."""

import os

from benchmarks import system


def test_the_cores_are_shared_out_once_and_not_again_from_what_is_left() -> None:
    before = os.sched_getaffinity(0)
    try:
        first, others = system.apart()
        os.sched_setaffinity(0, others)
        assert system.apart() == (first, others)
    finally:
        os.sched_setaffinity(0, before)
