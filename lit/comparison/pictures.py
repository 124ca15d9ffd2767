"""The pictures of a comparison."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from data.types import IGNORE, Example
from lit.comparison.questions import evenly_spread
from lit.comparison.result import AnswerPair
from lit.messages import tr
from lit.report.pictures import answers_picture, example_picture, loss_picture
from lit.run.folder import RunFolder
from lit.run.metrics_file import read_losses

PICTURED_ANSWERS = 6


def draw_pictures(
    folder: Path,
    run: RunFolder,
    pairs: Sequence[AnswerPair],
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
) -> list[str]:
    """Draw a comparison's pictures.

    Args:
        folder: The folder to draw into.
        run: The run that trained the adapter; its loss is drawn if it is there.
        pairs: The answers.
        examples: The measured rows; the first one is drawn.
        tokenizer: The tokenizer of the rows.

    Returns:
        The file names of the pictures that the report shows.
    """
    names = []
    if run.metrics.is_file():
        loss_picture(*read_losses(run.metrics), folder / "training_loss.png")
        names.append("training_loss.png")
    rows = [
        (
            pairs[i].question,
            pairs[i].reference or tr("none"),
            _with_loss(pairs[i].base_answer, pairs[i].base_loss),
            _with_loss(pairs[i].tuned_answer, pairs[i].tuned_loss),
        )
        for i in evenly_spread(len(pairs), PICTURED_ANSWERS)
    ]
    # The report has these answers as text; the picture is for other documents.
    if rows:
        answers_picture(
            rows,
            folder / "comparison_table.png",
            tr(
                "{shown} of {questions} questions, answered by the base and the tuned model",
                shown=len(rows),
                questions=len(pairs),
            ),
        )
    if examples:
        tokens = zip(examples[0].ids, examples[0].labels, strict=True)
        spans = [
            (str(tokenizer.decode([i for i, _ in group])), labeled)
            for labeled, group in groupby(tokens, key=lambda token: token[1] != IGNORE)
        ]
        title = tr("The first measured row: the model learns the labeled text")
        example_picture(spans, folder / "dataset_example.png", title)
        names.append("dataset_example.png")
    return names


def _with_loss(answer: str, loss: float | None) -> str:
    """Return an answer below the loss of its reference, which a cut answer would hide."""
    return (
        answer
        if loss is None
        else tr("[loss of the reference {loss:.2f}]\n{answer}", loss=loss, answer=answer)
    )
