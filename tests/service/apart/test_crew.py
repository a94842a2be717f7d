"""Processes for work that may go wrong: it costs nobody but who asked for it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from service.apart import crew
from service.apart.crew import Crew, Overrun

LABOUR = "tests.service.apart.labour"
Test = Callable[[Crew], Awaitable[None]]


def run(test: Test, seconds: int = 2, megabytes: int = 200) -> None:
    async def main() -> None:
        hands = Crew(LABOUR, seconds, megabytes)
        try:
            await test(hands)
        finally:
            await hands.aclose()

    asyncio.run(main())


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def pid_of(hands: Crew) -> int:
    answer, _ = await hands.do({"how": "answer"})
    return int(answer["pid"])


def test_work_is_done_by_one_process_after_another_and_none_is_left() -> None:
    pids: list[int] = []

    async def test(hands: Crew) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"abc"
            yield b""
            yield b"def"

        answer, data = await hands.do({"how": "answer"}, pieces())
        assert data == b"fedcba"
        assert answer["nice"] >= 10, "those who answer go first"
        assert answer["session"] == answer["pid"], "nor does Linux give ours more for being of our session"
        assert "group" not in answer or answer["group"].endswith("nice 10\n")
        ours = sorted(os.sched_getaffinity(0))
        assert answer["processors"] == (ours[1:] or ours), "one processor is theirs alone"
        pids.extend([answer["pid"], await pid_of(hands)])
        assert pids[0] == pids[1]
        both = await asyncio.gather(pid_of(hands), pid_of(hands))
        assert len(set(both)) == 2
        pids.extend(both)

    run(test)
    assert not any(map(alive, pids))


@pytest.mark.parametrize(
    ("how", "said"), [("spin", "1 s of a processor"), ("fill", "200 MB of memory"), ("die", "broke what reads it")]
)
def test_what_takes_too_much_is_ended_and_the_next_is_not(how: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "PATIENCE", 600)  # a second of a processor may take long on a machine that is busy

    async def test(hands: Crew) -> None:
        before = await pid_of(hands)
        with pytest.raises(Overrun, match=said):
            await hands.do({"how": how})
        assert await pid_of(hands) != before
        assert (await hands.do({"how": "answer"}, [b"ab"]))[1] == b"ba"

    run(test, seconds=1)


def test_what_only_sleeps_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "PATIENCE", 0.5)

    async def test(hands: Crew) -> None:
        with pytest.raises(Overrun, match="1 s"):
            await hands.do({"how": "sleep"})

    run(test)


def test_work_that_nobody_waits_for_is_ended() -> None:
    async def test(hands: Crew) -> None:
        pid = await pid_of(hands)
        task = asyncio.create_task(hands.do({"how": "sleep"}))
        await asyncio.sleep(0.1)
        assert alive(pid)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(pid)

    run(test, seconds=100)


def test_a_process_that_died_while_it_had_nothing_to_do_is_nobodys_loss() -> None:
    async def test(hands: Crew) -> None:
        pid = await pid_of(hands)
        os.kill(pid, 9)
        while hands._idle[0].lives:
            await asyncio.sleep(0.01)
        assert await pid_of(hands) != pid

    run(test)


def test_who_has_nothing_to_do_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "IDLE_SECONDS", 0.05)

    async def test(hands: Crew) -> None:
        pid = await pid_of(hands)
        while alive(pid):
            await asyncio.sleep(0.01)
        assert await pid_of(hands) != pid

    run(test)


def test_one_that_was_let_go_and_has_not_gone_is_ended_with_the_others() -> None:
    pids: list[int] = []

    async def test(hands: Crew) -> None:
        pids.append(await pid_of(hands))
        os.kill(pids[0], signal.SIGSTOP)
        hands._dismiss(hands._idle[0])
        await asyncio.sleep(0)
        assert list(hands._leaving)

    try:
        run(test)
        assert not alive(pids[0])
    finally:
        with suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGKILL)


def test_it_is_told_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORESERVE_WEBHOOK_SECRET", "whsec_x")

    async def test(hands: Crew) -> None:
        answer, _ = await hands.do({"how": "secrets"})
        assert not [name for name in answer["environment"] if name.startswith("SCORESERVE")]

    run(test)
