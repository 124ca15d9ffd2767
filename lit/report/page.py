"""A page of sections: the same in a terminal, in Markdown and in HTML."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data.text import clean, escape_markdown
from lit import messages
from lora.storage.files import write_text

GENERATOR = b'<meta name="generator" content="lit-lora">'
"""In the head of each HTML page."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: The heading.
        text: A paragraph below the heading.
        headers: The column names of a table.
        rows: The rows of the table, as texts.
        pictures: File names of .png pictures.
        spans: Pieces of an example: (text, whether its tokens have labels). The two kinds get
            different colors.
        wide: Whether the table's cells hold long texts.
        tone: The color of the text; only the first section of a page shows it.
    """

    title: str
    text: str
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[str] = ()
    spans: Sequence[tuple[str, bool]] = ()
    wide: bool = False
    tone: Literal["good", "warn", "bad"] = "good"


def write_page(path: Path, title: str, sections: Sequence[Section], pictures: Path) -> None:
    """Write sections as an HTML page or a Markdown file.

    HTML contains its pictures and needs no other file; Markdown links to them.

    Args:
        path: A .html or .md file, replaced atomically.
        title: The heading of the page.
        sections: The sections, in order.
        pictures: The folder of the sections' pictures.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=path.suffix == ".html",
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if isinstance(value, str) else value,
    )
    environment.filters["escape_markdown"] = escape_markdown
    environment.globals["picture"] = lambda picture: _inline(pictures / picture)
    template = environment.get_template(f"page{path.suffix}.j2")
    text = template.render(sections=sections, title=title, language=messages.language())
    write_text(path, text)


def is_our_page(path: Path) -> bool:
    """Return whether a file is an HTML page that ``write_page`` wrote."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return GENERATOR in file.read(200)


def show_page(sections: Iterable[Section]) -> None:
    """Print sections to the terminal, without pictures."""
    console = Console()
    for section in sections:
        console.print(Text(clean(section.title), style="bold"))
        if section.text:
            console.print(Text(clean(section.text)))
        if section.rows:
            table = Table()
            for name in section.headers:
                table.add_column(Text(clean(name)), overflow="fold")
            for row in section.rows:
                table.add_row(*(Text(clean(text)) for text in row))
            console.print(table)
        if section.spans:
            styles = {True: "bold green", False: "dim"}
            pieces = ((clean(text), styles[labeled]) for text, labeled in section.spans)
            console.print(Text.assemble(*pieces))
        console.print()


def _inline(picture: Path) -> str:
    """Return a picture as a data URL."""
    data = base64.b64encode(picture.read_bytes()).decode()
    return f"data:image/png;base64,{data}"
