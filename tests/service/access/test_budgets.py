"""Budgets: in all and of each, given back once; and whose they are."""

import pytest
from starlette.requests import Request

from service.access.budgets import Budget, payer
from service.answering.problems import Problem


def test_there_is_so_much_of_each_and_in_all() -> None:
    budget = Budget("things", 5, 3)
    first = budget.claim("a", 2)
    first.more(1)
    with pytest.raises(Problem, match="of yours there are 3 things, and this is 1 more: at most 3 at once") as refused:
        first.more(1)
    assert refused.value.code == "quota-exceeded"
    assert first.amount == 3
    with budget.claim("b", 2), pytest.raises(Problem, match=r"there are 5 things, .*: at most 5 at once") as full:
        budget.claim("c")
    assert full.value.code == "busy"
    assert {problem.value.headers["Retry-After"] for problem in (refused, full)} == {"5"}
    budget.claim("c").release()
    first.release()
    first.release()
    assert budget.taken == 0
    assert not budget._of, "nothing is remembered of clients who have nothing"


def test_what_a_client_without_a_key_calls_itself_makes_it_no_other() -> None:
    request = Request({"type": "http", "client": ("10.0.0.7", 1), "headers": [(b"client-id", b"alice")]})
    assert payer(request) == "address/10.0.0.7"
