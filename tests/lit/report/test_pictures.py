"""The pictures of a comparison, with words that do not break by themselves."""

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.table import Table

from lit.report import pictures

CELLS = {
    "Russian": "Подошва отлипает от стола, потому что стол холодный. " * 8,
    "an address": "https://example.invalid/" + "очень_длинное_имя_без_пробелов" * 12,
    "wide letters": "ШЩЖЮМW" * 60,
}


@pytest.mark.parametrize("kind", CELLS)
def test_no_text_leaves_its_cell(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(pictures, "save_picture", lambda figure, path: drawn.append(figure))
    text = CELLS[kind]
    pictures.answers_picture([(text, text, text, "yes")], tmp_path / "table.png", "Answers")
    canvas = FigureCanvasAgg(drawn[0])
    canvas.draw()
    axes = drawn[0].axes[0]
    assert axes.get_title("left") == "Answers"
    table = next(child for child in axes.get_children() if isinstance(child, Table))
    for cell in table.get_celld().values():
        box = cell.get_window_extent(canvas.get_renderer())
        inside = cell.get_text().get_window_extent(canvas.get_renderer())
        assert box.x0 <= inside.x0
        assert inside.x1 <= box.x1
        assert box.y0 <= inside.y0
        assert inside.y1 <= box.y1
