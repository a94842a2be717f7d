"""What has to happen in Redis at once or not at all, as Lua: a file a script. Torch-free.

Each names its keys, then its arguments. Where Redis is full, one that begins with #!lua is refused as a whole, and
never stops in its middle. Keys of a job are made from its id in Lua, so the scripts need one server, not a cluster; so
does RQ.

A script may use the functions of `lua/parts`, each of which says in its last line what it gives. What a script or a
part uses of others it declares as luacheck wants to hear it: `-- luacheck: read_globals key over`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

LUA = Path(__file__).parent / "lua"
SHARDS = LUA / "shards"  # scripts that are about these; the others are about jobs


def load(file: Path) -> str:
    """A script after the parts that it needs, without comments, since all of it is sent with every call.

    Raises:
        LookupError: it declares a function that no part gives.
    """
    text = file.read_text()
    try:
        parts = dict.fromkeys(_needed(text))  # each once
    except KeyError as error:
        raise LookupError(f"{file} uses {error.args[0]}(), which no file of {LUA / 'parts'} gives") from error
    first = [line for line in text.splitlines(keepends=True)[:1] if line.startswith("#!")]
    code = [line for part in (*parts, text) for line in part.splitlines(keepends=True) if not _silent(line)]
    return "".join(first + code)


def _silent(line: str) -> bool:
    return not line.strip() or line.startswith(("--", "#!"))


def _needed(text: str) -> Iterator[str]:
    """The parts whose functions a text declares, each after those that it needs itself."""
    for names in re.findall(r"^-- luacheck: read_globals (.+)", text, re.M):
        for name in names.split():
            yield from _needed(_PARTS[name])
            yield _PARTS[name]


def _parts() -> dict[str, str]:
    """By each function that they give: the text of all parts, but for what they give."""
    found = {}
    for file in (LUA / "parts").glob("*.lua"):
        text, _, names = file.read_text().rpartition("return ")
        found.update(dict.fromkeys(names.strip().split(", "), text))
    return found


_PARTS = _parts()

ACCEPT = load(LUA / "accept.lua")
AGAIN = load(SHARDS / "again.lua")
DISCARD = load(LUA / "discard.lua")
END = load(LUA / "end.lua")
LOOK = load(LUA / "look.lua")
MAKE_WAY = load(SHARDS / "make_way.lua")
OVERDUE = load(LUA / "overdue.lua")
MEND = load(LUA / "mend.lua")
PROGRESS = load(SHARDS / "progress.lua")
RECLAIM = load(SHARDS / "reclaim.lua")
REPAIR = load(LUA / "repair.lua")
SHOW = load(LUA / "show.lua")
START = load(SHARDS / "start.lua")
STORE = load(SHARDS / "store.lua")
TAKE = load(SHARDS / "take.lua")
UNQUEUE = load(SHARDS / "unqueue.lua")
