"""The whole way on a real pretrained model: a few steps, then every other tool that reads it."""

import json
import warnings
from pathlib import Path

import peft
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.planning.batch import collate
from data.template import encode, prompt_ids
from data.types import Example, Message
from lit.answering import batch
from lit.answering.generation import stream
from lit.answering.sampling import Sampling
from lit.fit import main as fit
from lit.merge import main as merge
from lit.model.base import load_base
from lit.model.tuned import load
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import pack
from lora.injection import adapters_disabled, count_parameters

QUESTION = [Message("user", "Why does PLA stick badly to a cold bed?")]
CORPUS = Path("data/corpora/printing3d.en.jsonl")


@pytest.fixture(scope="module")
def run(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six optimizer steps on short rows of the quickstart's corpus."""
    folder = tmp_path_factory.mktemp("real")
    lines = sorted(CORPUS.read_text("utf-8").splitlines(), key=len)[:32]
    (folder / "short.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    command = [
        *("--config", "configs/quickstart.yaml", "--model.base", str(embedded)),
        *("--data.path", str(folder / "short.jsonl"), "--output_dir", str(folder / "run")),
        *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--model.lr", "1e-3"),
    ]
    assert fit(command) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def ids(embedded: Path) -> torch.Tensor:
    """A prompt in tokens, (1, tokens)."""
    return torch.tensor([prompt_ids(QUESTION, AutoTokenizer.from_pretrained(embedded))])


def test_a_few_steps_lower_the_loss_on_held_out_rows(run: Path) -> None:
    table = (run / "metrics.csv").read_text().splitlines()
    column = table[0].split(",").index("val/loss")
    losses = [float(line.split(",")[column]) for line in table[1:] if line.split(",")[column]]
    assert losses[-1] < losses[0]
    with safe_open(run / "adapter" / "adapter_model.safetensors", "pt") as file:
        sizes = [file.get_tensor(key).numel() for key in file.keys()]  # noqa: SIM118
    assert sum(sizes) == 2_442_240
    folder = sum(path.stat().st_size for path in (run / "adapter").iterdir())
    assert folder < 15e6


def test_peft_computes_the_same_from_the_adapter(
    run: Path, embedded: Path, ids: torch.Tensor
) -> None:
    ours, _ = load(run / "adapter")
    assert count_parameters(ours).trainable == 2_442_240
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs = peft.PeftModel.from_pretrained(load_base(str(embedded)), run / "adapter")
    # PEFT only warns of missing or unexpected keys.
    assert not [w for w in caught if not issubclass(w.category, FutureWarning)]
    with torch.inference_mode():
        wanted = theirs(ids).logits
        assert (ours(ids).logits - wanted).abs().max() <= 1e-5
        with adapters_disabled(ours), theirs.disable_adapter():
            assert (ours(ids).logits - theirs(ids).logits).abs().max() <= 1e-6
        assert (ours(ids).logits - wanted).abs().max() <= 1e-5


def test_packed_rows_equal_rows_alone(run: Path, embedded: Path) -> None:
    model, tokenizer = load(run / "adapter")
    rows = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()[:4]]
    examples: list[Example] = [
        encode([Message("user", row["prompt"]), Message("assistant", row["response"])], tokenizer)
        for row in rows
    ]
    batch = collate(examples)
    assert pack(model, batch) is None
    with torch.inference_mode():
        packed = model.get_output_embeddings()(hidden_states(model, batch))[0]
        model.set_attn_implementation("sdpa")
        for example, part in zip(
            examples, packed.split([len(e.ids) for e in examples]), strict=True
        ):
            alone = model(torch.tensor([example.ids])).logits[0]
            assert (part - alone).abs().max() <= 1e-4 * alone.abs().max()


def test_the_merged_folder_gives_the_tuned_answer_token_for_token(
    run: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    model, tokenizer = load(run / "adapter")
    sampling = Sampling(max_new_tokens=24)
    tuned = stream(model, tokenizer, ids[0].tolist(), sampling, lambda text: None)
    again = stream(model, tokenizer, ids[0].tolist(), sampling, lambda text: None)
    assert tuned == again
    folder = tmp_path / "merged"
    assert merge(["--adapter", str(run / "adapter"), "--output_dir", str(folder)]) == 0
    plain = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": QUESTION[0].content}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
    made = plain.generate(**asked, max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.strip() == tuned.text
    with torch.inference_mode():
        wanted = model(ids).logits
        assert (plain(ids).logits - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_logits_of_a_batch_differ_from_those_of_a_row_alone_by_far_less_than_the_bound(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load(None, str(embedded))
    questions = ["Why?", "Name three colors.", "Почему деталь отклеилась от холодного стола? " * 3]
    prompts = [prompt_ids([Message("user", text)], tokenizer) for text in questions]
    seen: list[list[torch.Tensor]] = []
    original = batch.choose

    def recorded(logits: torch.Tensor, *others: object) -> tuple[int, bool]:
        seen[-1].append(logits)
        return original(logits, *others)

    monkeypatch.setattr(batch, "choose", recorded)
    sampling = Sampling(max_new_tokens=3)
    for together in ([0, 1, 2], [0], [1], [2]):
        seen.append([])
        rows = [prompts[row] for row in together]
        batch.generate_rows(model, rows, [sampling] * len(rows), 0, lambda row, token: True)
    mixed, *alone = seen
    errors = [
        (mixed[3 * step + row] - logits).abs().max()
        for row in range(3)
        for step, logits in enumerate(alone[row])
    ]
    assert len(errors) == 9
    assert 0 < max(errors) < batch.ROUNDING / 3
