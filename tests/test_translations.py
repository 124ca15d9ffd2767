"""Every text for people is in a catalog, in English and in Russian."""

import ast
import gettext
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter

import pytest
import torch

import data.messages
import lora.messages
from data.formats.rows import to_messages
from data.planning.plan import plan_epoch
from data.readers.source import Source
from data.types import Row, check_choice
from lora import AdapterError, LoRAConfig, inject, load_adapter
from lora.base import check_quantization
from tests.catalogs import (
    BRACES,
    CALLS,
    NotLiteralError,
    catalog_path,
    compiled,
    english,
    fields,
    main,
    make_catalog,
    read_catalog,
)
from tests.not_for_people import NOT_FOR_PEOPLE

PACKAGES = ("lora", "data", "lit")
LETTERS = re.compile(r"[A-Za-z]{2}")
CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)
NAMES = re.compile(r"`[^`]*`")
PROGRAMMING = {"AssertionError", "AttributeError", "NotImplementedError"}
"""Errors of a program, whose messages no command shows."""


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield strings of a file with their lines, except for docstrings, annotations and texts.

    Texts are arguments of the functions in CALLS; fields of f-strings are written ``{}``.
    """
    tree = ast.parse(path.read_text("utf-8"))
    passed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.add(node.value)
        elif isinstance(node, ast.Call) and _name(node.func) in CALLS:
            passed.update(node.args[: CALLS[_name(node.func)]])
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            passed.update(ast.walk(node) if _name(node.exc.func) in PROGRAMMING else ())
        elif isinstance(node, ast.AnnAssign | ast.arg) and node.annotation:
            passed.update(ast.walk(node.annotation))
        elif isinstance(node, ast.FunctionDef) and node.returns:
            passed.update(ast.walk(node.returns))
        elif isinstance(node, ast.keyword) and node.arg == "prog":
            passed.add(node.value)  # the command as it is typed
        elif isinstance(node, ast.JoinedStr):
            passed.update(part for part in node.values if isinstance(part, ast.Constant))
    for node in ast.walk(tree):
        if node in passed:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (x.value if isinstance(x, ast.Constant) else "{}" for x in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def is_prose(text: str) -> bool:
    """Return whether a string may be a text: it has a word, and another word or a field."""
    words = [word for word in text.split() if LETTERS.search(word) or "{}" in word]
    return len(words) > 1 and any(LETTERS.search(word) for word in words)


def plain(text: str) -> str:
    """Return a text without its fields."""
    return re.sub(r"\{[^{}]*\}", "", text)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_text_goes_through_tr(package: str) -> None:
    found = []
    for path in sorted(Path(package).rglob("*.py")):
        known = NOT_FOR_PEOPLE.get(path.as_posix(), {})
        found += [
            f"{path}:{line}: {text!r}"
            for line, text in literals(path)
            if is_prose(text) and not text.startswith(tuple(known))
        ]
    assert not found


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exception_is_still_in_the_code(package: str) -> None:
    unused = []
    for name, beginnings in NOT_FOR_PEOPLE.items():
        if name.startswith(f"{package}/"):
            there = [text for _, text in literals(Path(name)) if is_prose(text)]
            absent = (x for x in beginnings if not any(text.startswith(x) for text in there))
            unused += [f"{name}: {beginning}" for beginning in absent]
    assert not unused


@pytest.mark.parametrize("package", PACKAGES)
def test_no_text_is_translated_while_a_module_is_imported(package: str) -> None:
    """The language is known only after ``--lang`` is read."""
    early = []
    for path in sorted(Path(package).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        later: set[ast.AST] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                later.update(inner for line in node.body for inner in ast.walk(line))
            elif isinstance(node, ast.Lambda):
                later.update(ast.walk(node.body))
        early += [
            f"{path}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and _name(node.func) in ("tr", "tr_n", "tr_later")
            if node not in later
        ]
    assert not early


@pytest.mark.parametrize("package", PACKAGES)
def test_the_catalog_has_the_texts_of_the_code_and_no_others(package: str) -> None:
    assert catalog_path(package).read_text("utf-8") == str(make_catalog(package)), "make texts"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_text_has_a_russian_translation(package: str) -> None:
    for entry in read_catalog(package):
        assert entry.translated(), entry.msgid
        assert not entry.fuzzy
        assert not entry.obsolete
        for russian in entry.msgstr_plural.values() if entry.msgid_plural else [entry.msgstr]:
            same = not LETTERS.search(plain(russian))
            assert same or CYRILLIC.search(plain(russian)), entry.msgid


@pytest.mark.parametrize("package", PACKAGES)
def test_a_translation_has_the_fields_names_and_edges_of_its_text(package: str) -> None:
    for entry in read_catalog(package):
        english_forms = [entry.msgid, entry.msgid_plural] if entry.msgid_plural else [entry.msgid]
        forms = entry.msgstr_plural.values() if entry.msgid_plural else [entry.msgstr]
        for form in forms:
            if BRACES in entry.flags:
                assert fields(form) == fields(entry.msgid), entry.msgid
            assert sorted(NAMES.findall(form)) == sorted(NAMES.findall(entry.msgid)), entry.msgid
            assert form.count("\n") == entry.msgid.count("\n"), entry.msgid
            for edge in (r"^\s*", r"\s*$"):
                ends = {re.search(edge, text)[0] for text in (form, *english_forms)}  # type: ignore[index]
                assert len(ends) == 1, entry.msgid


@pytest.mark.parametrize("package", PACKAGES)
def test_both_languages_show_the_same_values(package: str) -> None:
    for entry in read_catalog(package):
        if BRACES not in entry.flags:
            continue
        parts = [part for part in Formatter().parse(entry.msgid) if part[1]]
        numbers = {name for _, name, spec, _ in parts if spec}
        values = {x: 41 if x in numbers else f"<{x}>" for _, x, _, _ in parts if x}
        for form in (entry.msgid, entry.msgstr, entry.msgid_plural, *entry.msgstr_plural.values()):
            shown = form.format("<0>", **values) if form else ""
            wanted = [value for value in values.values() if isinstance(value, str) and form]
            assert all(value in shown for value in wanted), form


@pytest.mark.parametrize("package", PACKAGES)
def test_the_compiled_catalogs_are_those_of_the_sources(package: str) -> None:
    assert catalog_path(package).with_suffix(".mo").read_bytes() == compiled(read_catalog(package))
    assert catalog_path(package, "en").with_suffix(".mo").read_bytes() == english()


@pytest.mark.parametrize("package", PACKAGES)
def test_russian_has_three_plural_forms(package: str) -> None:
    with catalog_path(package).with_suffix(".mo").open("rb") as file:
        plural = gettext.GNUTranslations(file).plural
    forms = {
        0: (1, 21, 101, 1001),
        1: (2, 3, 4, 22, 104),
        2: (0, 5, 11, 12, 14, 20, 111, 112, 1000),
    }
    for form, numbers in forms.items():
        assert {plural(n) for n in numbers} == {form}
    for entry in read_catalog(package):
        if entry.msgid_plural:
            assert sorted(entry.msgstr_plural) == [0, 1, 2]


def _empty_model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.ReLU())


ERRORS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a choice": (
        lambda _: check_choice("truncation", "all", ("middle", "drop", "error")),
        "`truncation` is 'all': choose middle, drop or error",
        "`truncation` равно 'all': выберите middle, drop или error",
    ),
    "a number": (
        lambda _: plan_epoch([3], [1], batch_size=0, max_tokens=None, accumulate=1, seed=0),
        "`batch_size` is 0; it must be 1 or more",
        "`batch_size` равно 0; нужно 1 или больше",
    ),
    "a missing file": (
        lambda folder: Source(folder / "no" / "f.csv").found(),
        "f.csv does not exist, nor does ",
        "f.csv не существует, и ",
    ),
    "no files": (
        lambda folder: Source(folder).found(),
        "is a folder without .jsonl,",
        "— папка без файлов .jsonl,",
    ),
    "a PDF": (
        lambda folder: _written(folder / "f.csv", b"%PDF-1.4"),
        "f.csv is a PDF: copy its text into a table of questions and answers",
        "f.csv — PDF: скопируйте его текст в таблицу вопросов и ответов",
    ),
    "an empty file": (
        lambda folder: _written(folder / "f.jsonl", b""),
        "f.jsonl holds no rows: add questions with their answers",
        "f.jsonl нет строк: добавьте вопросы с ответами",
    ),
    "half a pair": (
        lambda _: to_messages(Row({"question": "Why?"}, "f", 1)),
        "question: there is no answer in this row: add response, answer, completion or output",
        "question: в этой строке нет ответа: добавьте response, answer, completion или output",
    ),
    "a kind of value": (
        lambda _: to_messages(Row({"question": "Why?", "answer": []}, "f", 1)),
        "answer: not text but a list",
        "answer: не текст, а список",
    ),
    "calls of tools": (
        lambda _: to_messages(Row({"question": "?", "answer": "!", "tools": ["a"]}, "f", 1)),
        "tools: calls of tools cannot be learned",
        "tools: вызовы инструментов выучить нельзя",
    ),
    "a rank": (
        lambda _: LoRAConfig(r=0),
        "`r` is 0; it must be 1 or more (8 and 16 are usual)",
        "`r` равно 0; нужно 1 или больше (обычно 8 или 16)",
    ),
    "a variant": (
        lambda _: inject(_empty_model(), LoRAConfig(variant="lira")),
        "`variant` is 'lira'; choose lora, dora, pissa",
        "`variant` равно 'lira'; выберите одно из: lora, dora, pissa",
    ),
    "no linear layer": (
        lambda _: inject(_empty_model(), LoRAConfig()),
        "Sequential has no linear layer that an adapter can go on: choose another model",
        "в Sequential нет линейного слоя, на который можно поставить адаптер: выберите другую",
    ),
    "a quantization": (
        lambda _: check_quantization("int3", [], torch.device("cpu")),
        "`quantize` is 'int3'; choose nf4, fp4, int8",
        "`quantize` равно 'int3'; выберите одно из: nf4, fp4, int8",
    ),
    "no adapter": (
        lambda folder: load_adapter(_empty_model(), folder),
        "has no adapter_config.json: it is not an adapter folder",
        "нет adapter_config.json: это не папка адаптера",
    ),
}
"""What goes wrong, and what is said of it in English and in Russian."""


def _written(path: Path, content: bytes) -> object:
    path.write_bytes(content)
    return list(Source(path).read(str(path)))


LANGUAGES = {
    "no language": ({}, 0),
    "LANGUAGE=en": ({"LANGUAGE": "en"}, 0),
    "LANGUAGE=en:ru": ({"LANGUAGE": "en:ru"}, 0),
    "LANG=C": ({"LANG": "C.UTF-8"}, 0),
    "LANG=en_US": ({"LANG": "en_US.UTF-8"}, 0),
    "another language": ({"LANG": "fr_FR.UTF-8"}, 0),
    "LANGUAGE=ru": ({"LANGUAGE": "ru", "LANG": "en_US.UTF-8"}, 1),
    "LANG=ru_RU": ({"LANG": "ru_RU.UTF-8"}, 1),
    "LC_ALL=ru_RU": ({"LC_ALL": "ru_RU.UTF-8", "LANG": "en_US.UTF-8"}, 1),
}


def speak(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Set the language of this process as its environment does."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("case", ERRORS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_error_is_in_the_language_of_the_environment(
    language: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, index = LANGUAGES[language]
    speak(monkeypatch, variables)
    cause, *texts = ERRORS[case]
    with pytest.raises((ValueError, AdapterError), match=re.escape(texts[index])):
        cause(tmp_path)


def test_the_language_is_that_of_the_catalog_that_gettext_chooses(monkeypatch) -> None:
    for variables, index in LANGUAGES.values():
        speak(monkeypatch, variables)
        assert data.messages.language() == ("en", "ru")[index]


def test_a_number_chooses_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ("  … and in {n} more files",) * 2
    speak(monkeypatch, {"LANGUAGE": "ru"})
    shown = {n: data.messages.tr_n(*text, n).split()[-1] for n in (1, 2, 5, 11, 21)}
    assert shown == {1: "файле", 2: "файлах", 5: "файлах", 11: "файлах", 21: "файле"}
    assert lora.messages.tr("an unknown text") == "an unknown text"


def test_make_texts_keeps_translations_and_drops_texts_that_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path("package", "a.py")
    source.parent.mkdir()
    source.write_text('tr("old")\ntr("kept {n}", n=1)\ntr_n("{n} a", "{n} b", 2)\n')
    assert main(["package"]) == 1
    catalog = read_catalog("package")
    for entry in catalog:
        entry.msgstr = "" if entry.msgid_plural else f"ru {entry.msgid}"
        entry.msgstr_plural = dict.fromkeys(range(3), "ru {n}") if entry.msgid_plural else {}
    catalog.save(str(catalog_path("package")))
    assert main(["package"]) == 0
    source.write_text('tr_mark("new")\ntr("kept {n}", n=1)\ntr_n("{n} a", "{n} b", 2)\n')
    assert main(["package"]) == 1
    written = catalog_path("package").read_bytes()
    assert main(["package"]) == 1
    assert catalog_path("package").read_bytes() == written
    shown = {entry.msgid: entry.msgstr or entry.msgstr_plural for entry in read_catalog("package")}
    plurals = dict.fromkeys(range(3), "ru {n}")
    assert shown == {"new": {}, "kept {n}": "ru kept {n}", "{n} a": plurals}


@pytest.mark.parametrize(
    "call", ['tr(f"a {b}")', 'tr("a " + b)', "tr_mark(b)", 'tr_n("a", b, 2)', 'tr("a" % b)']
)
def test_a_text_that_is_put_together_is_refused(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("package").mkdir()
    Path("package", "a.py").write_text(call)
    with pytest.raises(NotLiteralError, match=r"package/a\.py:1"):
        make_catalog("package")
