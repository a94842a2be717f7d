"""Jobs that are asked for and cancelled without end, beside a victim of the same API process."""

from tests.system.attacks.frame import Target

PROCESSES = 1


def test_a_victim_is_served(target: Target) -> None:
    target.attacked("wire", "largest_jobs")
