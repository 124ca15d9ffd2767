"""Tiny base models that are made for a benchmark, with a tokenizer of their own words."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
STEPS, BATCH, LR = 300, 64, 3e-3


def make_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer that has the texts' words as tokens, and bytes for everything else."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )


def train_base(
    tokenizer: PreTrainedTokenizerFast,
    draw: Callable[[], tuple[str, str]],
    folder: Path,
    seed: int,
    steps: int = STEPS,
    taught: int | None = None,
) -> None:
    """Train a base model, and save it with its tokenizer.

    Args:
        tokenizer: Of ``make_tokenizer``.
        draw: Returns a question and its answer, others each time.
        folder: Where to save.
        seed: Decides the model's first weights.
        steps: Optimizer steps.
        taught: Tokens at the end of each conversation that have labels; None for all.
    """
    torch.manual_seed(seed)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **SHAPE)
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, (step + 1) / 50, (steps - step) / (steps / 4))
        conversations = [
            [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            for asked, answer in (draw() for _ in range(BATCH))
        ]
        texts = tokenizer.apply_chat_template(conversations, tokenize=False)
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        ends = batch["attention_mask"].sum(1, keepdim=True)
        places = torch.arange(batch["input_ids"].shape[1])
        labeled = (places < ends) & (places >= ends - (taught or len(places)))
        labels = batch["input_ids"].masked_fill(~labeled, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
