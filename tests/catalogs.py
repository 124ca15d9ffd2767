"""The translations of each package: `make texts` writes new texts into them and compiles them.

A catalog has the texts of the calls of tr, tr_n and tr_mark. New ones are left empty, obsolete
ones are removed, translations stay. The same source gives the same bytes.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import NamedTuple

import polib

PACKAGES = ("lora", "data", "lit")
CALLS = {"tr": 1, "tr_n": 2, "tr_mark": 1, "tr_later": 1}
"""The functions whose first arguments are texts, and how many of them."""
HEADER = "The terms are in CONTRIBUTING.md, Texts and translations."
METADATA = {
    "Content-Type": "text/plain; charset=UTF-8",
    "Content-Transfer-Encoding": "8bit",
    "MIME-Version": "1.0",
}
PLURALS = (
    "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : "
    "n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);"
)
BRACES = "python-brace-format"
FIELD = re.compile(r"\{\w*(![rsa])?(:[^{}\s]+)?\}")
"""A field in a constant of a table; ``tr`` gets its values elsewhere."""


class Text(NamedTuple):
    """A text of the source."""

    one: str
    many: str
    """Of tr_n; else empty."""
    file: str
    line: int
    formatted: bool
    """Whether its braces are fields: a text without values may have braces of its own."""


class NotLiteralError(Exception):
    """A text is put together where it must be a literal."""


def texts(package: str) -> Iterator[Text]:
    """Yield the texts of a package in the order of its files.

    Raises:
        NotLiteralError: An argument is an f-string or an expression of strings.
    """
    for path in sorted(Path(package).rglob("*.py")):
        if path == Path(package, "messages.py"):
            continue
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in CALLS
        ]
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            name = call.func.id  # type: ignore[attr-defined]
            arguments = call.args[: CALLS[name]]
            found = [_literal(argument, path) for argument in arguments]
            if None not in found:
                one, many = (*found, "")[:2]
                marked = name == "tr_mark" and FIELD.search(one)
                formatted = name == "tr_n" or bool(call.keywords or marked)
                yield Text(one, many, path.as_posix(), call.lineno, formatted)
            elif name not in ("tr", "tr_later") or any(found):
                raise NotLiteralError(f"{path}:{call.lineno}: {name} needs a literal")


def _literal(node: ast.expr, path: Path) -> str | None:
    """Return a literal text; None for a constant of a table, which tr_mark has marked there."""
    if isinstance(node, ast.JoinedStr | ast.BinOp):
        raise NotLiteralError(f"{path}:{node.lineno}: a text is put together; use named fields")
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def fields(text: str) -> set[str]:
    """Return the names of a text's {fields}, with their formats."""
    return {
        f"{name}!{conversion}:{spec}"
        for _, name, spec, conversion in Formatter().parse(text)
        if name is not None
    }


def catalog_path(package: str, language: str = "ru") -> Path:
    """Return where a package's translations are."""
    return Path(package, "locale", language, "LC_MESSAGES", f"lit_lora_{package}.po")


def read_catalog(package: str) -> polib.POFile:
    """Return a package's translations; empty if there is no file."""
    path = catalog_path(package)
    return polib.pofile(str(path)) if path.exists() else polib.POFile()


def make_catalog(package: str) -> polib.POFile:
    """Return a package's texts with the translations that there are."""
    old = {(entry.msgid, entry.msgid_plural): entry for entry in read_catalog(package)}
    entries: dict[str, polib.POEntry] = {}
    for text in texts(package):
        entry = entries.setdefault(text.one, polib.POEntry(msgid=text.one))
        if text.many and entry.msgid_plural not in ("", text.many):
            raise ValueError(f"{text.file}:{text.line}: {text.one!r} has two plurals")
        entry.msgid_plural = text.many or entry.msgid_plural
        if (text.file, "") not in entry.occurrences:
            entry.occurrences.append((text.file, ""))
        if text.formatted and fields(text.one) and BRACES not in entry.flags:
            entry.flags.append(BRACES)
    for entry in entries.values():
        known = old.get((entry.msgid, entry.msgid_plural or ""))
        if entry.msgid_plural:
            entry.msgstr_plural = known.msgstr_plural if known else dict.fromkeys(range(3), "")
        elif known:
            entry.msgstr = known.msgstr
        if known:
            entry.tcomment = known.tcomment
            entry.flags += [flag for flag in known.flags if flag == "fuzzy"]
    catalog = polib.POFile(wrapwidth=98)
    catalog.header = HEADER
    catalog.metadata = {"Language": "ru", "Plural-Forms": PLURALS, **METADATA}
    catalog.extend(entries.values())
    return catalog


def compiled(catalog: polib.POFile) -> bytes:
    """Return a catalog as gettext reads it."""
    return catalog.to_binary()


def english() -> bytes:
    """Return a catalog without texts, by which LANGUAGE=en:ru is English."""
    catalog = polib.POFile()
    catalog.metadata = {"Language": "en", **METADATA}
    return compiled(catalog)


def main(packages: list[str]) -> int:
    """Write the catalogs of packages, and say what has no translation yet."""
    untranslated = 0
    for package in packages or PACKAGES:
        known = {entry.msgid for entry in read_catalog(package)}
        catalog = make_catalog(package)
        path = catalog_path(package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{catalog}", encoding="utf-8", newline="\n")
        path.with_suffix(".mo").write_bytes(compiled(catalog))
        other = catalog_path(package, "en").with_suffix(".mo")
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(english())
        empty = [entry.msgid for entry in catalog if not entry.translated()]
        untranslated += len(empty)
        print(f"{path}: {len(catalog)} texts, {len(empty)} without translation")
        for text in sorted(known - {entry.msgid for entry in catalog}):
            print(f"  removed: {text!r}")
        for text in empty:
            print(f"  not translated: {text!r}")
    return 1 if untranslated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
