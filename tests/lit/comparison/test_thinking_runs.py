"""A run with a template that rewrites earlier answers, from its rows to chat and comparison."""

import contextlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import pytest

from data.encoder import Encoder
from data.formats.rows import to_messages
from data.readers.source import read
from data.template import prompt_ids
from data.templates.variables import read_values
from data.types import Message, Row, RowError
from lit.answering.sampling import Sampling
from lit.chat import main as chat
from lit.comparison.answers import written
from lit.comparison.comparison import compare
from lit.comparison.result import AnswerPair, Comparison
from lit.exporting.modelfile import modelfile
from lit.fit import main as fit
from lit.measures.written import chrf
from lit.model.tuned import load
from lit.run.metrics_file import read_losses

TEMPLATE = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.last %}{{ '<think>\\n' + (m.reasoning_content or '') }}
{{- '\\n</think>\\n\\n' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}{% endif %}"""
EMPTY_THOUGHT = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
CONVERSATIONS, ANSWERS = 16, 3


class Run(NamedTuple):
    folder: Path
    rows: Path
    command: list[str]
    said: str


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("thinking")
    template, path = folder / "thinking.jinja", folder / "rows.jsonl"
    template.write_text(TEMPLATE, encoding="utf-8")
    rows = []
    for i in range(CONVERSATIONS):
        turns = []
        for k in range(ANSWERS):
            turns.append({"role": "user", "content": f"Q{i} {k}?"})
            turns.append({"role": "assistant", "content": f"A{i * k}."})
        rows.append({"messages": turns})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [
        *("--model.base", str(tiny_folder), "--data.path", str(path), "--data.val_fraction", "0.3"),
        *("--data.template", str(template), "--model.lr", "1e-2", "--trainer.max_epochs", "1"),
        *("--trainer.accelerator", "cpu", "--output_dir", str(folder / "run")),
    ]
    kwargs = ["--data.template_kwargs", "{enable_thinking: false, verbose: 1}"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert fit([*command, *kwargs]) == 0
    return Run(folder / "run", path, command, out.getvalue())


def measure(run: Run, **changes: object) -> Comparison:
    (run.folder / "comparison").mkdir(exist_ok=True)
    arguments: dict = {
        "adapter": run.folder / "adapter",
        **dict.fromkeys(("base", "data", "questions_file", "template_kwargs"), None),
        **dict.fromkeys(("quantize", "precision"), None),
        "folder": run.folder / "comparison",
        "max_answers": 0,
        "budget": 60.0,
        "metrics": [],
        "template": "auto",
        "batch_size": 4,
        "device": "cpu",
        "sampling": Sampling(max_new_tokens=4),
    }
    return compare(**arguments | changes)


def test_the_run_says_how_many_examples_its_conversations_became(run: Run) -> None:
    assert f"{CONVERSATIONS} rows read, {CONVERSATIONS} used as 48 examples" in run.said
    assert f"{CONVERSATIONS} conversations are one example per answer" in run.said
    assert "36 examples train, 12 validate; template" in run.said
    assert "with {enable_thinking: false, verbose: 1}" in run.said
    assert "data.template_kwargs: the template does not read verbose" in run.said
    assert "it reads enable_thinking\n" in run.said
    card = (run.folder / "adapter" / "README.md").read_text("utf-8")
    assert "Prompts follow `chat_template.jinja` with {enable_thinking: false, verbose: 1}." in card


def test_examples_of_a_conversation_stay_on_one_side_and_none_is_a_duplicate(run: Run) -> None:
    held_out = (run.folder / "validation.jsonl").read_text("utf-8").splitlines()
    sources = [json.loads(line)["source"] for line in held_out]
    assert len(sources) == 12
    assert all(sources.count(source) == ANSWERS for source in sources)
    assert "duplicates" not in run.said


def test_compare_measures_the_losses_of_training(run: Run) -> None:
    _, measured = read_losses(run.folder / "metrics.csv")
    by_fit = [measured[0][1], min(loss for step, loss in measured if step)]
    result = measure(run)
    assert result.loss is not None
    assert [result.loss.base, result.loss.tuned] == pytest.approx(by_fit, abs=1e-4)
    assert not any("template_kwargs" in note for note in result.notes)
    # The answers of a conversation were held out together, and are one row of the interval.
    assert result.loss.rows == 12 // ANSWERS
    told = "The 12 held-out examples are of 4 conversations, which count as 4 rows in the interval."
    assert told in result.notes

    # A file of whole conversations: each is a row, and its answers are examples as in training.
    whole = run.folder / "whole.jsonl"
    held_out = (run.folder / "validation.jsonl").read_text("utf-8").splitlines()
    sources = list(dict.fromkeys(json.loads(line)["source"] for line in held_out))
    rows = run.rows.read_text("utf-8").splitlines()
    whole.write_text("\n".join(rows[int(s.rpartition(":")[2]) - 1] for s in sources), "utf-8")
    again = measure(run, data=whole)
    assert again.loss is not None
    assert (again.loss.rows, again.loss.tokens) == (len(sources), result.loss.tokens)
    assert [again.loss.base, again.loss.tuned] == pytest.approx(by_fit, abs=1e-4)
    assert again.loss.ci_low == pytest.approx(result.loss.ci_low, abs=1e-6)
    assert again.loss.ci_high == pytest.approx(result.loss.ci_high, abs=1e-6)


def test_chat_gives_the_prompts_of_training_unless_it_is_told_otherwise(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    model, tokenizer = load(run.folder / "adapter")
    (row, *_) = [row for row in read(run.rows) if isinstance(row, Row)]
    messages = to_messages(row)
    (examples,) = Encoder(tokenizer).encode_all([messages])
    assert not isinstance(examples, RowError)
    for turn, example in zip((1, 3, 5), examples, strict=True):
        asked = prompt_ids(messages[:turn], tokenizer)
        assert example.ids[: len(asked)] == asked
        assert str(tokenizer.decode(asked)).endswith(EMPTY_THOUGHT)
    assert EMPTY_THOUGHT in modelfile(model, tokenizer)

    asked_for: list[list[int]] = []
    monkeypatch.setattr(
        "lit.answering.conversation.stream",
        lambda model, tokenizer, ids, *_: asked_for.append(ids),
    )
    command = ["--adapter", str(run.folder / "adapter"), "--prompt", "Why?", "--device", "cpu"]
    assert chat(command) == 0
    assert chat([*command, "--template_kwargs", "{enable_thinking: true}"]) == 0
    ends = [str(tokenizer.decode(ids)).rpartition("assistant\n")[2] for ids in asked_for]
    assert ends == ["<think>\n\n</think>\n\n", ""]
    assert chat([*command, "--template_kwargs", "{enable_thinkng: true}"]) == 0
    assert "the template does not read verbose, enable_thinkng" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        chat([*command, "--template_kwargs", "false"])
    assert "write it as {name: value}" in capsys.readouterr().err


def test_a_comparison_in_another_template_says_so(run: Run) -> None:
    result = measure(run, template_kwargs={"enable_thinking": True})
    note = (
        "The run trained with template_kwargs {enable_thinking: false, verbose: 1}; this "
        "comparison uses {enable_thinking: true, verbose: 1}."
    )
    assert note in result.notes
    assert not any("The run measured" in other for other in result.notes)


def test_a_resumed_run_keeps_its_values(run: Run, capsys: pytest.CaptureFixture) -> None:
    kwargs = ["--data.template_kwargs", "{enable_thinking: true, verbose: 1}"]
    assert fit([*run.command, *kwargs, "--ckpt_path", "last"]) == 2
    assert "data.template_kwargs" in capsys.readouterr().err


def test_a_template_of_ones_own_keeps_the_values_of_the_adapter(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.jinja"
    other.write_text(TEMPLATE.replace("<think>", "<think> "), encoding="utf-8")
    _, tokenizer = load(run.folder / "adapter", template=str(other))
    assert read_values(tokenizer) == {"enable_thinking": False, "verbose": 1}
    text = tokenizer.decode(prompt_ids([Message("user", "Why?")], tokenizer))
    assert str(text).endswith(EMPTY_THOUGHT.replace("<think>", "<think> "))
    _, tokenizer = load(run.folder / "adapter", template="plain")
    assert read_values(tokenizer) == {}


def test_what_a_model_thinks_is_no_part_of_the_similarity_to_the_reference() -> None:
    def score(base: str, tuned: str, reference: str) -> list[list[float]]:
        pairs = [AnswerPair("Why?", base, tuned, 1, 1, True, True, reference)]
        return [
            [chrf(answer, item.references) for answer in (item.base, item.tuned)]
            for item in written(pairs)
        ]

    plain = score("It is warm.", "It sticks.", "It sticks well.")
    thought = "<think>\nIt sticks well, I think.\n</think>\n\n"
    assert score(f"{thought}It is warm.", "It sticks.", f"{thought}It sticks well.") == plain
    # A prompt that opens the thought leaves its first tag out of the answer.
    assert score("Hm.\n</think>\n\nIt is warm.", "It sticks.", "It sticks well.") == plain
