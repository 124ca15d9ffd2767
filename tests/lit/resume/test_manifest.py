"""The manifest knows every file that may lie in its folder, at whatever moment a run is killed."""

from pathlib import Path

import pytest

from lit.resume.manifest import MANIFEST, Manifest
from lora.config import ConfigError


def put(manifest: Manifest, name: str, content: bytes) -> Path:
    new = manifest.folder / "new"
    new.write_bytes(content)
    manifest.place(new, manifest.folder / name)
    return manifest.folder / name


def killed_before_renaming(folder: Path, name: str, content: bytes, patch: pytest.MonkeyPatch):
    with patch.context() as patched:
        patched.setattr(Path, "replace", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            put(Manifest(folder), name, content)


def test_an_unchanged_file_passes_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path = put(Manifest(tmp_path), "a", b"content")
    Manifest(tmp_path).check(path)
    path.write_bytes(b"contenu")
    with pytest.raises(ConfigError, match="has changed since it was written"):
        Manifest(tmp_path).check(path)


def test_the_old_file_passes_after_kills_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(Manifest(tmp_path), "a", b"one")
    for content in (b"two", b"three", b"four"):
        killed_before_renaming(tmp_path, "a", content, monkeypatch)
        Manifest(tmp_path).check(path)
    manifest = Manifest(tmp_path)
    for content in (b"five", b"six"):
        manifest.check(put(manifest, "a", content))
    path.write_bytes(b"one")
    with pytest.raises(ConfigError):
        manifest.check(path)


def test_a_removed_file_is_forgotten(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    put(manifest, "a", b"one").unlink()
    put(manifest, "b", b"two")
    assert '"a"' not in (tmp_path / MANIFEST).read_text()


def test_a_damaged_manifest_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = put(Manifest(tmp_path), "a", b"one")
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ConfigError, match=r"manifest.json is not valid JSON. Remove it"):
        Manifest(tmp_path).check(path)
