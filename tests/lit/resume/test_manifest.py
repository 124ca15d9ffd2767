"""The manifest has the digest of every complete file, whenever a run is killed."""

import os
from pathlib import Path

import pytest

from lit.resume.manifest import MANIFEST, Manifest
from lora.config import ConfigError


def put(manifest: Manifest, name: str, content: bytes) -> Path:
    path = manifest.folder / name
    with manifest.replacing(path) as new:
        new.write_bytes(content)
    return path


def kill_before_rename(path: Path, content: bytes, patch: pytest.MonkeyPatch) -> None:
    rename = os.replace

    def interrupt(old: Path, new: Path) -> None:
        if new == path:
            raise KeyboardInterrupt
        rename(old, new)

    with patch.context() as patched:
        patched.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            put(Manifest(path.parent), path.name, content)


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
        kill_before_rename(path, content, monkeypatch)
        Manifest(tmp_path).check(path)
    manifest = Manifest(tmp_path)
    for content in (b"five", b"six"):
        manifest.check(put(manifest, "a", content))
    path.write_bytes(b"one")
    with pytest.raises(ConfigError):
        manifest.check(path)


def test_the_old_file_passes_after_a_failed_rename_in_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, rename = Manifest(tmp_path), os.replace
    path = put(manifest, "a", b"one")

    def fail(old: Path, new: Path) -> None:
        if new == path:
            raise OSError("full")
        rename(old, new)

    monkeypatch.setattr(os, "replace", fail)
    for content in (b"two", b"three"):
        with pytest.raises(OSError, match="full"):
            put(manifest, "a", content)
        Manifest(tmp_path).check(path)


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
