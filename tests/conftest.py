"""Small models and a small tokenizer, made on the spot."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Threads of two torch processes spin against each other, and make test runs two. Not setdefault:
# a worker inherits the 2 that the process that started it has set here.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
# Texts are compared in English, here and in child processes, whatever the locale of the machine.
os.environ["LANGUAGE"] = "en"

import datasets
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from tests.families.table import IDS, SMALL

LONG = (
    *("runs/test_ddp.py", "simulated/test_systems.py", "lit/distributed/test_sharding.py"),
    *("runs/test_real_model.py", "runs/test_faults.py", "runs/test_fit.py", "runs/test_chat.py"),
    *("simulated/test_cuda_step.py", "simulated/test_mps_step.py", "adversary/test_environment.py"),
)
"""Files that take longest. They start first: one that starts last leaves the other core idle."""
BRIEF = 4
"""Tokens of an answer sampled during a run."""
EMBEDDED = Path("models/SmolLM2-135M-Instruct")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = [
    "How warm must the bed be for PLA? Sixty degrees is enough.",
    "Почему деталь отклеилась от стола? Стол был холодным, а сопло стояло высоко.",
    "A longer answer has several sentences. Each of them says one thing. None of them is long.",
]

GPT2 = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4}
WINDOW = {"sliding_window": 5}
FAMILIES: dict[str, dict] = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "olmo2", "smollm3", "granite", "cohere"), SMALL),
    **dict.fromkeys(
        ("mistral", "phi3", "gemma2", "gemma3_text", "starcoder2", "cohere2"), SMALL | WINDOW
    ),
    "gpt2": GPT2 | IDS,
    "gpt_neox": SMALL,
    "opt": {
        "vocab_size": 320,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        **IDS,
    },
}
"""Model families with rows of 5 tokens and more beyond the window, where there is one."""


class Kind(NamedTuple):
    """A kind of adapter: our settings, PEFT's for the same, and what the model must be."""

    ours: dict[str, Any]
    theirs: dict[str, Any]
    model: dict[str, Any] | None = None
    dropout: float = 0.5
    """A dropout that the kind takes."""


BLOCKS = {"layers_to_transform": [1]}
PATTERNS = {"rank_pattern": {"mlp.up_proj": 6, "q_proj": 2}, "alpha_pattern": {"up_proj": 3}}
EXPERTS = {"target_modules": ["attention", "experts"]}
EXPERT_PATTERNS = {
    "rank_pattern": {"experts.down_proj": 6, "q_proj": 2},
    "alpha_pattern": {"gate_up_proj": 3},
}
ON_EXPERTS = {
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
}
MIXTURE = {
    "family": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
HEAD, EMBEDDING = {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}
ADAPTERS: dict[str, Kind] = {
    "lora": Kind({}, {}),
    "rslora": Kind({"use_rslora": True}, {"use_rslora": True}),
    "dora": Kind({"variant": "dora"}, {"use_dora": True}),
    "dora, biases": Kind({"variant": "dora"}, {"use_dora": True}, {"attention_bias": True}),
    "pissa": Kind({"variant": "pissa"}, {"init_lora_weights": "pissa"}),
    "patterns": Kind(PATTERNS, PATTERNS),
    "patterns, rslora": Kind({**PATTERNS, "use_rslora": True}, {**PATTERNS, "use_rslora": True}),
    "one block": Kind(BLOCKS, BLOCKS),
    "whole head": Kind(HEAD, HEAD),
    "whole embedding": Kind(EMBEDDING, EMBEDDING),
    "tied embedding": Kind(
        EMBEDDING, EMBEDDING | {"ensure_weight_tying": True}, {"tie_word_embeddings": True}
    ),
    "experts": Kind(EXPERTS, ON_EXPERTS, MIXTURE, dropout=0.0),
    "experts, patterns": Kind(
        EXPERTS | EXPERT_PATTERNS, ON_EXPERTS | EXPERT_PATTERNS, MIXTURE, dropout=0.0
    ),
    **{
        name: Kind(
            {"modules_to_save": layers, "ensure_weight_tying": False},
            {"modules_to_save": layers},
            {"tie_word_embeddings": True},
        )
        for name, layers in {
            "embedding without its head": ["embed_tokens"],
            "head without its embedding": ["lm_head"],
            "embedding and head apart": ["embed_tokens", "lm_head"],
        }.items()
    },
}
"""Every kind of adapter; what holds for adapters is tested over this table."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first; make test keeps the order."""
    order = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(LONG)))


def make_model(family: str = "llama", **changes: object) -> PreTrainedModel:
    """A two-layer random model of a family, in eval mode, the same at each call."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(FAMILIES.get(family, SMALL) | changes))
    # gemma2 caps its scores, and gpt_oss has sinks.
    attention = "eager" if family in ("gemma2", "gpt_oss") else "sdpa"
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@torch.no_grad()
def moved(model: torch.nn.Module, size: float = 0.05) -> torch.nn.Module:
    """Add noise to what trains, so that the adapter is not a new one; return the model."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=size)
    return model.eval()


@pytest.fixture
def tiny_model() -> PreTrainedModel:
    """A two-layer random llama."""
    return make_model()


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level tokenizer of 320 tokens and a ChatML template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    core.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(tokenizer_file: Path) -> PreTrainedTokenizerFast:
    """The small tokenizer; a test may change its own."""
    return PreTrainedTokenizerFast.from_pretrained(tokenizer_file)


@pytest.fixture(scope="session")
def tiny_folder(
    brief: None, tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder as a user has one: a two-layer llama with the small tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tokenizer_file).save_pretrained(folder)
    return folder


def make_trainer(**settings: Any) -> Any:
    """Lightning's Trainer on the CPU, without files and output."""
    import lightning as L

    quiet = {
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False),
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return L.Trainer(**(quiet | settings))


PLANNED = {"use_distributed_sampler": False, "reload_dataloaders_every_n_epochs": 1}
"""What QADataModule needs of a Trainer: the plan assigns rows to ranks, anew each epoch."""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """lit.fit in processes that can be killed."""
    from command import Command

    with Command(tmp_path_factory.mktemp("command")) as command:
        yield command


@pytest.fixture(scope="session")
def brief() -> None:
    """Few sampled tokens: at each validation of each run they would be half of a test's time."""
    from lit.train.sample_answers import SampleAnswers

    SampleAnswers.__init__.__defaults__ = (3, BRIEF)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenized rows of a test stay in its own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="session", autouse=True)
def own_times(tmp_path_factory: pytest.TempPathFactory) -> None:
    """How fast the CPU was beside other tests is no measure for the runs of a person."""
    from lit.fast_layers import kept_times

    kept_times.FOLDER = tmp_path_factory.mktemp("products")


@pytest.fixture(scope="session")
def embedded(brief: None) -> Path:
    """The real model's folder."""
    if not (EMBEDDED / "config.json").is_file():
        pytest.fail("the embedded model is not there: run `python -m lit.embedded`")
    return EMBEDDED
