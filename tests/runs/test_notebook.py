"""notebooks/first_adapter.ipynb runs from its first cell to its last, shortened by its settings."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "first_adapter.ipynb"
SETTINGS = {
    'MODEL = "models/SmolLM2-135M-Instruct"': "MODEL = {model!r}",
    'DATA = "data/corpora/printing3d.en.jsonl"': "DATA = {data!r}",
    'RUN = "runs/notebook"': "RUN = {run!r}",
    "STEPS = None": "STEPS = 2",
}
"""Lines of the cell of settings, and what they are here."""


def test_the_notebook_trains_compares_chats_and_exports(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    rows = [{"question": f"Question {i}?", "answer": "Sixty degrees."} for i in range(20)]
    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    (cell,) = [cell for cell in notebook.cells if "STEPS = None" in cell.source]
    for line, new in SETTINGS.items():
        assert cell.source.count(line) == 1
        given = new.format(model=str(tiny_folder), data=str(data), run=str(run))
        cell.source = cell.source.replace(line, given)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "2 optimizer steps" in printed
    assert "adapter_model.safetensors" in printed
    assert (run / "comparison" / "report.html").is_file()
    assert (run / "adapter-peft" / "adapter_config.json").is_file()
    images = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in images)


def test_no_output_of_the_notebook_is_committed() -> None:
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert not [cell for cell in code if cell.outputs or cell.execution_count is not None]


def test_the_notebook_says_how_to_take_a_hub_model_and_where_it_was_not_run() -> None:
    text = NOTEBOOK.read_text("utf-8")
    assert "on a T4" in text
    assert "Nobody has run it on Colab" in text
    assert "](notebooks/first_adapter.ipynb)" in (ROOT / "README.md").read_text("utf-8")
