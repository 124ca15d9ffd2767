"""Every shipped config parses, and makes the objects it describes."""

from pathlib import Path

import pytest

from lit.fit import main
from lit.settings.arguments import parse

CONFIGS = sorted(Path("configs").glob("*.yaml"))


def test_there_are_configs() -> None:
    assert Path("configs/quickstart.yaml") in CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_parses_and_builds(config: Path, tmp_path: Path) -> None:
    arguments = parse(["--config", str(config), "--trainer.accelerator", "cpu"])
    assert arguments.config.output_dir == f"runs/{config.stem}"
    arguments.instantiate()
    arguments.make_trainer(callbacks=[], logger=False)
    assert Path(arguments.datamodule.source.path).is_file()
    assert arguments.datamodule.base == arguments.model.base


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_begins_with_its_command(config: Path) -> None:
    header = [line for line in config.read_text("utf-8").splitlines() if line.startswith("#")]
    assert any(f"python -m lit.fit --config {config}" in line for line in header)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_trains_on_a_small_model(config: Path, tiny_folder: Path, tmp_path: Path) -> None:
    command = [
        *("--config", str(config), "--model.base", str(tiny_folder), "--trainer.accelerator"),
        *("cpu", "--trainer.max_steps", "3"),
        *("--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1"),
        *("--output_dir", str(tmp_path / "run")),
        *("--data.max_length", "4096"),
    ]
    assert main(command) == 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
