"""Budgets: how much of a thing there may be at once in this process, of all clients together and of each."""

from collections import Counter
from contextlib import AbstractContextManager
from types import TracebackType

from fastapi import Request

from service.access.auth import Caller
from service.answering.problems import Problem

RETRY_SECONDS = 5  # when to come again: what is bounded here is over soon, or not at all


def payer(request: Request) -> str:
    """Whose budgets a request is of: its key's, or its address's, since whatever else it says costs nothing."""
    caller: Caller | None = request.scope.get("caller")
    if caller is not None and caller.key is not None:
        return caller.client
    return f"address/{request.client.host if request.client else 'unknown'}"


class Budget:
    """A bound on what there is at once.

    Args:
        what: it is of, in words, as in `there are 8 {what}`.
        total: of all clients.
        each: of one of them.
    """

    def __init__(self, what: str, total: int, each: int) -> None:
        self.what, self.total, self.each = what, total, each
        self.taken = 0
        self._of: Counter[str] = Counter()

    def claim(self, client: str, amount: int = 1) -> "Claim":
        """So much of it for a client, until it is released.

        Raises:
            Problem: there is no more, for the client or for anybody.
        """
        claim = Claim(self, client)
        claim.more(amount)
        return claim

    def change(self, client: str, amount: int) -> None:
        """Gives a client more, or takes it back. Who has a claim changes that.

        Raises:
            Problem: there is no more.
        """
        there = self._of[client]
        retry = {"Retry-After": str(RETRY_SECONDS)}
        if amount > 0 and there + amount > self.each:
            what = f"of yours there are {there:,} {self.what}, and this is {amount:,} more"
            raise Problem("quota-exceeded", f"{what}: at most {self.each:,} at once are allowed", headers=retry)
        if amount > 0 and self.taken + amount > self.total:
            what = f"there are {self.taken:,} {self.what}, and this is {amount:,} more"
            raise Problem("busy", f"{what}: at most {self.total:,} at once are allowed here", headers=retry)
        self.taken += amount
        self._of[client] += amount
        if not self._of[client]:
            del self._of[client]


class Claim(AbstractContextManager["Claim"]):
    """What a client has of a budget."""

    def __init__(self, budget: Budget, client: str) -> None:
        self.budget, self.client, self.amount = budget, client, 0

    def more(self, amount: int) -> None:
        """Claims more.

        Raises:
            Problem: there is none; what was claimed before stays.
        """
        self.budget.change(self.client, amount)
        self.amount += amount

    def release(self) -> None:
        """Gives all of it back; what is given back is not given twice."""
        amount, self.amount = self.amount, 0
        if amount:
            self.budget.change(self.client, -amount)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
