"""Processes for work that may take too long or too much memory: each can be ended, and costs nobody else then."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from service.apart.child import LENGTH, frames

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0  # that a process without work is kept
PATIENCE = 12.0  # times the seconds of a processor is what work may take by the clock, on a machine that is busy
LONGEST_LINE, MOST_BYTES = 2**20, 2**28  # of an answer, which is not trusted
# One thread and one arena a process, and whatever is large given back at once.
THRIFT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "HOME")  # of the environment, in which there are secrets


class Overrun(Exception):
    """Work was ended: what it took too much of, in words."""


class Died(Overrun):
    """It ended by itself, or another ended it: perhaps what it was asked for broke it, perhaps the machine did."""


class Crew:
    """Processes that do one kind of work, started when there is some; who asks sees to how many work at once.

    Args:
        module: that has `work`, as service.apart.child runs it.
        seconds: of a processor, for each piece of work.
        megabytes: of memory, for each.
    """

    def __init__(self, module: str, seconds: int, megabytes: int) -> None:
        self.module, self.seconds, self.megabytes = module, seconds, megabytes
        self._idle: list[_Hand] = []
        self._busy: set[_Hand] = set()
        self._leaving: dict[_Hand, asyncio.Task[int]] = {}  # those that end by themselves, and who sees to it

    async def do(
        self, asked: dict[str, Any], pieces: AsyncIterator[bytes] | Iterable[bytes] = ()
    ) -> tuple[dict[str, Any], bytes]:
        """The answer of a process to what is asked; to cancel this ends the process.

        Raises:
            Overrun: the work took too much, and was ended.
            Died: it ended otherwise.
        """
        hand = self._rested() or await _Hand.start(self.module, self.seconds, self.megabytes)
        self._busy.add(hand)
        done = False
        try:
            async with asyncio.timeout(PATIENCE * self.seconds):
                answer, data = await hand.do(asked, pieces)
            done = True
        except TimeoutError as error:
            raise Overrun(f"{PATIENCE * self.seconds:g} s") from error
        except (EOFError, ConnectionError, ValueError) as error:
            raise self._overrun(await hand.end()) from error
        finally:
            self._busy.discard(hand)
            if not done:
                await asyncio.shield(hand.end())
        if answer.get("overrun") == "memory":
            await hand.end()
            raise Overrun(f"{self.megabytes} MB of memory")
        self._rest(hand)
        return answer, data

    async def aclose(self) -> None:
        """Ends every process."""
        hands = [*self._idle, *self._busy, *self._leaving]
        self._idle.clear()
        await asyncio.gather(*(hand.end() for hand in hands))

    def _rested(self) -> "_Hand | None":
        """One that has nothing to do, if one has not died meanwhile."""
        while self._idle:
            hand = self._idle.pop()
            if hand.lives:
                return hand
            self._let_go(hand)
        return None

    def _rest(self, hand: "_Hand") -> None:
        self._idle.append(hand)
        hand.timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._dismiss, hand)

    def _dismiss(self, hand: "_Hand") -> None:
        if hand in self._idle:
            self._idle.remove(hand)
            self._let_go(hand)

    def _let_go(self, hand: "_Hand") -> None:
        hand.dismiss()
        self._leaving[hand] = asyncio.create_task(hand.process.wait())
        self._leaving[hand].add_done_callback(lambda _: self._leaving.pop(hand))

    def _overrun(self, status: int) -> Overrun:
        """Why a process ended that had work."""
        if status == -signal.SIGXCPU:
            return Overrun(f"{self.seconds} s of a processor")
        log.warning("%s: a process ended with status %d", self.module, status)
        return Died(f"{self.megabytes} MB of memory, or broke what reads it")


class _Hand:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.timer: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, module: str, seconds: int, megabytes: int) -> "_Hand":
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        where = os.pathsep.join(filter(None, sys.path))
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "service.apart.child", module, str(seconds), str(megabytes)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LONGEST_LINE,
                env={**kept, **THRIFT, "PYTHONPATH": where},
                start_new_session=True,  # see child: or Linux, which shares among sessions, would not let ours go first
            )
        )

    async def do(
        self, asked: dict[str, Any], pieces: AsyncIterator[bytes] | Iterable[bytes]
    ) -> tuple[dict[str, Any], bytes]:
        """Raises EOFError or ConnectionError if the process ends meanwhile, and ValueError if it answers nonsense."""
        to, answers = self.process.stdin, self.process.stdout
        assert to is not None
        assert answers is not None
        if self.timer is not None:
            self.timer.cancel()
        to.write(frames(asked)[: -LENGTH.size])
        if isinstance(pieces, AsyncIterator):
            async for piece in pieces:
                await _send(to, piece)
        else:
            for piece in pieces:
                await _send(to, piece)
        to.write(LENGTH.pack(0))
        await to.drain()
        line = await answers.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        parts, size = [], 0
        while length := LENGTH.unpack(await answers.readexactly(LENGTH.size))[0]:
            size += length
            if size > MOST_BYTES:
                raise ValueError("an answer of no end")
            parts.append(await answers.readexactly(length))
        answer: dict[str, Any] = json.loads(line)
        return answer, b"".join(parts)

    @property
    def lives(self) -> bool:
        """Whether it may be asked; what has closed its output ends by itself, with a status that tells why."""
        return self.process.returncode is None and self.process.stdout is not None and not self.process.stdout.at_eof()

    def dismiss(self) -> None:
        """Lets it end by itself."""
        if self.timer is not None:
            self.timer.cancel()
        if self.process.stdin is not None:
            self.process.stdin.close()

    async def end(self) -> int:
        """Ends it; returns its status."""
        self.dismiss()
        if self.lives:
            self._kill()
        with suppress(TimeoutError):
            return await asyncio.wait_for(self.process.wait(), 1)
        self._kill()
        return await self.process.wait()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()


async def _send(to: asyncio.StreamWriter, piece: bytes) -> None:
    if piece:
        to.write(LENGTH.pack(len(piece)))
        to.write(piece)
        await to.drain()
