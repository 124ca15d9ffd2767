"""What a command found, as sections: the same in the terminal, in Markdown and in HTML."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lora.files import write_text


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: Its heading.
        text: What it says.
        headers, rows: A table.
        pictures: Names of .png files.
        parts: A text in two colors: pieces, each with whether it is learned.
        wide: Whether the table's cells hold long texts.
        tone: The color of the first section's text.
    """

    title: str
    text: str
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[str] = ()
    parts: Sequence[tuple[str, bool]] = ()
    wide: bool = False
    tone: Literal["good", "warn", "bad"] = "good"


def write_page(path: Path, title: str, sections: Sequence[Section], pictures: Path) -> None:
    """Write a page that needs no other file, if it is HTML; Markdown names its pictures.

    Args:
        path: A .html or .md file; it appears whole or not at all.
        title: The page's heading.
        sections: In order.
        pictures: The folder of the sections' pictures.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=path.suffix == ".html",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    environment.globals["picture"] = lambda picture: _inline(pictures / picture)
    template = environment.get_template(f"page{path.suffix}.j2")
    write_text(path, template.render(sections=sections, title=title))


def show_page(sections: Iterable[Section]) -> None:
    """Print sections; a terminal shows no pictures."""
    console = Console()
    for section in sections:
        console.print(f"[bold]{section.title}[/bold]")
        if section.text:
            console.print(escape(_printable(section.text)))
        if section.rows:
            table = Table()
            for name in section.headers:
                table.add_column(name, overflow="fold")
            for row in section.rows:
                table.add_row(*(escape(_printable(text)) for text in row))
            console.print(table)
        if section.parts:
            styles = {True: "bold green", False: "dim"}
            pieces = ((_printable(text), styles[learned]) for text, learned in section.parts)
            console.print(Text.assemble(*pieces))
        console.print()


def _printable(text: str) -> str:
    """A text without the control characters that a terminal would obey."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")


def _cell(text: str) -> str:
    """A text that stays in one cell of a Markdown table and starts no markup there."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return "<br>".join(text.splitlines())


def _inline(picture: Path) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    return f"data:image/png;base64,{data}"
