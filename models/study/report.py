"""What a study leaves: its figures as JSON, its pictures, and its tables in a page of Markdown.

The page is for people to write. What a command writes is what lies between its marks; so no number in the page is
copied by hand, and no sentence is lost when the study is done again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import files


@dataclass(frozen=True)
class Table:
    """Numbers as text, under their names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        return "\n".join(map(_row, [self.columns, ["---"] * len(self.columns), *self.rows]))


@dataclass(frozen=True)
class Section:
    """A picture, the command that makes it, and its numbers.

    Args:
        name: of the section's marks and of the picture's file.
        caption: what the picture shows.
        picture: a PNG file.
        tables: the numbers.
    """

    name: str
    caption: str
    picture: bytes
    tables: Sequence[Table]

    def markdown(self, pictures: str, command: str) -> str:
        """The section between its marks, with pictures in the directory `pictures` beside the page."""
        parts = [f"![{self.caption}]({pictures}/{self.name}.png)", f"```sh\n{command}\n```"]
        parts += [table.markdown() for table in self.tables]
        return "\n\n".join([begin(self.name), *parts, end(self.name)])


def write(out: Path, name: str, figures: dict[str, Any], sections: Sequence[Section], command: str) -> list[Path]:
    """Writes OUT/name.json, a picture for each section, and the sections into the page OUT.md; returns all paths.

    Raises:
        OSError: something cannot be written.
    """
    page = page_of(out)
    paths = [out / f"{name}.json", *(out / f"{section.name}.png" for section in sections), page]
    files.write_json(paths[0], figures)
    text = page.read_text() if page.exists() else ""
    for section, path in zip(sections, paths[1:], strict=False):
        files.write(path, section.picture)
        text = replaced(text, section.name, section.markdown(out.resolve().name, command))
    files.write(page, text.encode())
    return paths


def page_of(out: Path) -> Path:
    """The page that belongs to a directory: docs/study.md to docs/study."""
    out = out.resolve()
    return out.with_name(f"{out.name}.md")


def replaced(page: str, name: str, section: str) -> str:
    """The page with the section in the place of what stands between its marks, or at the end if there are none."""
    pattern = re.compile(re.escape(begin(name)) + ".*?" + re.escape(end(name)), re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: section, page)
    return f"{page}\n{section}\n" if page else f"{section}\n"


def begin(name: str) -> str:
    return f"<!-- {name}: written by the command, do not edit -->"


def end(name: str) -> str:
    return f"<!-- end of {name} -->"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
