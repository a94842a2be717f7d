import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from worker.beside.writers import Writers, Writing
from worker.queue.stores import Stores


def test_what_is_made_anew_is_written_though_what_was_forgotten_of_the_shard_still_is(
    monkeypatch: Any, until: Callable[..., None]
) -> None:
    """Its lease was lost while the store took long, and the same worker has made it again by then."""
    gates: SimpleQueue[threading.Event] = SimpleQueue()

    def put(*_: object) -> bytes:
        gates.put(gate := threading.Event())
        assert gate.wait(60)
        return b"kept"

    monkeypatch.setattr(Stores, "put", put)
    woken: SimpleQueue[None] = SimpleQueue()
    writers = Writers(Stores(), lambda: woken.put(None))
    lost, anew = (Writing("job-0", "file:///", "job", 0, (b"images",)) for _ in range(2))
    writers.begin(lost)
    first = gates.get(timeout=60)
    writers.forget("job-0")
    assert writers.backlog == 0
    writers.begin(anew)
    second = gates.get(timeout=60)
    first.set()
    until(lambda: lost.kept != [])
    assert writers.backlog == len(b"images"), "what is forgotten takes nothing else with it"
    second.set()
    woken.get(timeout=60)
    assert list(writers.written) == [anew]
    assert writers.backlog == 0
    writers.stop()
