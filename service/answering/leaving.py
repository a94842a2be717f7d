"""Work for a client who may go before it is done."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

Result = TypeVar("Result")

LOOK_SECONDS = 0.25  # between two looks whether the client is still there


async def while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work returns; it is cancelled when the client has gone.

    Raises:
        ClientDisconnect: the client has gone.
    """
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
