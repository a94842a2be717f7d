"""The tree: rooms are small enough to look over."""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 15


def test_no_folder_of_the_product_is_full() -> None:
    rooms = ("scoreserve", "cli", "service", "worker", "models")
    paths = (path for room in rooms for path in (ROOT / room).rglob("*"))
    files = Counter(path.parent.relative_to(ROOT) for path in paths if path.is_file() and path.suffix != ".pyc")
    assert {str(folder): count for folder, count in files.items() if count > MOST} == {}
