"""The training step: exact under accumulation, in position, and strict."""

import copy
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import PLANNED, make_trainer
from torch.overrides import _get_current_function_mode_stack as modes
from torch.utils.data import DataLoader

from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.model.preparation import ModelSpec
from lit.train import model_setup
from lit.train.datamodule import QADataModule
from lit.train.module import LoRAModule
from lit.train.step_guard import TrainingError
from lora.config import ConfigError, LoRAConfig
from lora.injection import lora_layers, trainable_parameters

ROWS = [(f"Question {i}?", " ".join(["word"] * (1 + 7 * (i % 4)))) for i in range(11)]


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """Eleven rows whose answers differ much in length."""
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\n" + "".join(f"{q},{a}\n" for q, a in ROWS), "utf-8")
    return path


def train(
    folder: Path,
    data_file: Path,
    batch_size: int,
    accumulate: int,
    callbacks: list | None = None,
    share: bool = True,
    **module: object,
) -> LoRAModule:
    """Train on the file, without validation, and give the module back."""
    torch.manual_seed(1)
    settings = {"lr": 1e-2, "scheduler": "constant", "warmup": 0, "optimizer": "sgd"} | module
    lora = settings.pop("lora", LoRAConfig(r=4))
    model = LoRAModule(str(folder), lora=lora, **settings)  # type: ignore[arg-type]
    data = QADataModule(
        str(data_file),
        base=str(folder),
        val_fraction=0,
        batch_size=batch_size,
        share_prefixes=share,
    )
    trainer = make_trainer(
        max_epochs=2, accumulate_grad_batches=accumulate, callbacks=callbacks, **PLANNED
    )
    trainer.fit(model, data)
    return model


def test_a_model_is_checked_outside_the_modes_in_which_a_trainer_makes_it(
    tiny_folder: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[int]] = {}
    for owner, name in (
        (ModelSpec, "make"),
        (model_setup, "check_model"),
        (model_setup, "share"),
        (LoRAModule, "training_step"),
    ):
        call = getattr(owner, name)

        def watched(*args, _call=call, _name=name, **given):
            seen.setdefault(_name, []).append(len(modes()))
            return _call(*args, **given)

        monkeypatch.setattr(owner, name, watched)
    train(tiny_folder, data_file, batch_size=4, accumulate=1)
    made, *others = (max(seen[name]) for name in ("make", "check_model", "share", "training_step"))
    assert made > 0  # otherwise there is nothing to leave
    assert others == [0, 0, 0]
    assert not modes()


def test_accumulation_gives_the_update_of_one_big_batch(tiny_folder: Path, data_file: Path) -> None:
    big = train(tiny_folder, data_file, batch_size=4, accumulate=1)
    small = train(tiny_folder, data_file, batch_size=1, accumulate=4)
    for (name, a), b in zip(
        trainable_parameters(big.adapted_model).items(),
        trainable_parameters(small.adapted_model).values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=name)


def test_micro_batches_that_share_beginnings_give_the_update_of_one_batch_of_separate_rows(
    tiny_folder: Path, tmp_path: Path
) -> None:
    path, text = tmp_path / "documents.csv", "A printer stands under the window and prints PLA."
    questions = [f"{text} Where is part {i}?,{'so ' * (1 + 3 * (i % 4))}" for i in range(12)]
    path.write_text("\n".join(["question,answer", *questions]), "utf-8")
    separate, shared, in_parts = (
        train(tiny_folder, path, batch_size, accumulate, share=share)
        for batch_size, accumulate, share in ((4, 1, False), (4, 1, True), (2, 2, True))
    )
    tokens = [
        int(model.trainer.datamodule.plans.epoch(0).tokens.sum())
        for model in (separate, in_parts, shared)
    ]
    assert tokens[0] > 1.2 * tokens[1] > 1.4 * tokens[2]
    expected = trainable_parameters(separate.adapted_model)
    for model in (shared, in_parts):
        for name, parameter in trainable_parameters(model.adapted_model).items():
            torch.testing.assert_close(parameter, expected[name], rtol=0, atol=1e-6, msg=name)


def test_only_the_adapter_changes_in_training(tiny_folder: Path, data_file: Path) -> None:
    from lit.model.base import load_base

    before = load_base(str(tiny_folder)).state_dict()
    model = train(tiny_folder, data_file, batch_size=4, accumulate=1).adapted_model
    for path, layer in lora_layers(model):
        assert layer.lora_B.any(), f"{path} learned nothing"
        assert torch.equal(layer.base.weight, before[f"{path}.weight"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == set(trainable_parameters(model))


def test_a_layer_without_gradient_stops_the_first_step_and_is_named(
    tiny_folder: Path, data_file: Path
) -> None:
    class Cut(L.Callback):
        def on_after_backward(self, trainer: L.Trainer, pl_module: LoRAModule) -> None:
            layer = dict(lora_layers(pl_module.adapted_model))["model.layers.1.mlp.up_proj"]
            layer.lora_B.grad = None

    with pytest.raises(TrainingError, match=r"layers\.1\.mlp\.up_proj"):
        train(tiny_folder, data_file, batch_size=4, accumulate=1, callbacks=[Cut()])


def test_a_loss_that_is_not_finite_stops_before_the_update(
    tiny_folder: Path, data_file: Path
) -> None:
    kept = {}

    class Poison(L.Callback):
        def on_after_backward(self, trainer: L.Trainer, pl_module: LoRAModule) -> None:
            if trainer.global_step == 1:
                parameters = trainable_parameters(pl_module.adapted_model)
                kept.update(copy.deepcopy(parameters))
                kept["model"] = pl_module.adapted_model
                next(iter(parameters.values())).grad.fill_(torch.nan)

    with pytest.raises(TrainingError, match=r"step 2.*lr"):
        train(tiny_folder, data_file, batch_size=4, accumulate=1, callbacks=[Poison()])
    for name, parameter in trainable_parameters(kept.pop("model")).items():
        assert torch.equal(parameter, kept[name])


def test_checkpointing_changes_no_gradient(tiny_folder: Path, data_file: Path) -> None:
    models = [
        train(tiny_folder, data_file, 4, 1, gradient_checkpointing=on) for on in (False, True)
    ]
    plain, checkpointed = (trainable_parameters(model.adapted_model) for model in models)
    for name, parameter in plain.items():
        torch.testing.assert_close(parameter, checkpointed[name], rtol=0, atol=1e-6, msg=name)


def test_dropout_is_on_in_training(tiny_folder: Path, data_file: Path) -> None:
    lora = LoRAConfig(r=4, lora_dropout=0.5)
    with_dropout = train(tiny_folder, data_file, 4, 1, lora=lora)
    without = train(tiny_folder, data_file, 4, 1)
    assert with_dropout.adapted_model.training
    a, b = (
        next(iter(trainable_parameters(m.adapted_model).values())) for m in (with_dropout, without)
    )
    assert not torch.equal(a, b)


def test_a_checkpoint_holds_the_adapter_alone_and_takes_no_other(
    tiny_folder: Path, data_file: Path
) -> None:
    model = train(tiny_folder, data_file, 4, 1)
    state = model.state_dict()
    assert all(name.rpartition(".")[2] in ("lora_A", "lora_B") for name in state)
    narrow = {name: tensor[:2] for name, tensor in state.items()}
    with pytest.raises(ConfigError, match="does not match these settings"):
        model.load_state_dict(narrow)
    state.popitem()
    with pytest.raises(ConfigError, match="missing"):
        model.load_state_dict(state)


KINDS = {
    "dora": {"variant": "dora"},
    "pissa": {"variant": "pissa"},
    "patterns": {"rank_pattern": {"q_proj": 2}, "loraplus_lr_ratio": 4.0},
    "whole": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "noise": {"neftune_alpha": 5.0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_trains_the_same_twice_and_comes_back_from_its_checkpoint(
    tiny_folder: Path, data_file: Path, kind: str
) -> None:
    lora = LoRAConfig(r=4, lora_dropout=0.1, **KINDS[kind])
    one, two = (train(tiny_folder, data_file, 4, 1, lora=lora, lr=1e-3) for _ in range(2))
    start = train(tiny_folder, data_file, 4, 1, lora=lora, lr=1e-9)
    state = one.state_dict()
    for name, value in state.items():
        assert torch.equal(value, two.state_dict()[name]), name
        if not name.endswith("lora_A"):
            assert not torch.equal(value, start.state_dict()[name]), name
    start.load_state_dict(state)
    assert all(torch.equal(value, start.state_dict()[name]) for name, value in state.items())


def test_noise_changes_training_and_knows_the_rows_of_a_batch(
    tiny_folder: Path, data_file: Path
) -> None:
    noisy, clean = (
        train(tiny_folder, data_file, 4, 1, lora=LoRAConfig(r=4, neftune_alpha=alpha))
        for alpha in (5.0, 0.0)
    )
    a, b = (next(iter(trainable_parameters(m.adapted_model).values())) for m in (noisy, clean))
    assert not torch.equal(a, b)
    assert noisy.noise.batch is not None
    assert len(noisy.noise.batch.lengths) > 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": 0.0}, "model.lr"),
        ({"lr": float("nan")}, "model.lr"),
        ({"lr": -1e-4}, "model.lr"),
        ({"warmup": -1}, "model.warmup"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LoRAModule("anything", lora=LoRAConfig(), **settings)


class TenLineData(L.LightningDataModule):
    """What somebody else's data module may look like: it yields batches, and nothing more."""

    def __init__(self, step_labels: tuple[int, ...] = (0, 0, 0, 0)) -> None:
        super().__init__()
        self.rows = [list(range(3, 3 + length)) for length in (9, 5, 12, 7)]
        self.step_labels = step_labels

    def train_dataloader(self) -> DataLoader:
        examples = [Example(ids, [IGNORE, *ids[1:]]) for ids in self.rows]
        batches = [collate([x], n) for x, n in zip(examples, self.step_labels, strict=True)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def test_lightning_does_not_move_the_base_off_its_device_at_the_end_of_a_validation(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[object] = []
    model = LoRAModule(str(tiny_folder), lora=LoRAConfig(r=4))
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda self: moves.append(self))
    asked: list[None] = []
    cpu = type(model).cpu
    monkeypatch.setattr(type(model), "cpu", lambda self: asked.append(None) or cpu(self))
    make_trainer().validate(model, TenLineData(), verbose=False)
    assert asked, "Lightning no longer asks: then the override can go"
    assert not moves


def test_a_plain_trainer_and_any_data_module_of_batches_train(tiny_folder: Path) -> None:
    model = LoRAModule(str(tiny_folder), lora=LoRAConfig(r=4), lr=1e-2)
    trainer = make_trainer(max_epochs=3)
    trainer.validate(model, TenLineData(), verbose=False)
    before = trainer.callback_metrics["val/loss"]
    trainer.fit(model, TenLineData())
    assert trainer.global_step == 12
    assert trainer.callback_metrics["val/loss"] < before
    assert {"train/loss", "train/lr", "train/grad_norm"} <= trainer.logged_metrics.keys()


def test_a_batch_that_does_not_know_its_step_is_refused_under_accumulation(
    tiny_folder: Path,
) -> None:
    model = LoRAModule(str(tiny_folder), lora=LoRAConfig(r=4))
    with pytest.raises(ConfigError, match="step_labels"):
        make_trainer(max_epochs=3, accumulate_grad_batches=2).fit(model, TenLineData())
    make_trainer(max_epochs=3, accumulate_grad_batches=2).fit(model, TenLineData((12, 12, 17, 17)))


def test_a_step_with_other_labels_than_its_batches_say_is_refused(tiny_folder: Path) -> None:
    model = LoRAModule(str(tiny_folder), lora=LoRAConfig(r=4))
    with pytest.raises(TrainingError, match="step 2: its micro-batches have 17 labels"):
        make_trainer(max_epochs=3, accumulate_grad_batches=2).fit(model, TenLineData((12,) * 4))
