"""Answers in batches, as compare makes them, beside a plain loop over the same prompts."""

import time
from typing import Any

import torch

from benchmarks.peers.workloads import CORPORA, MODEL
from lit.model.base import load_base, load_tokenizer
from lit.model.generation import Sampling, answers, stop_tokens

PROMPTS = 8
TOKENS = 32
QUESTIONS = CORPORA / "printing3d.en.questions.txt"


def measure() -> dict[str, Any]:
    """Tokens a second of both, each after a short warm-up."""
    tokenizer = load_tokenizer(MODEL, None)
    model = load_base(MODEL, None, torch.float32, None, torch.device("cpu")).eval()
    questions = QUESTIONS.read_text().splitlines()[:PROMPTS]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in questions
    ]

    def batched(tokens: int) -> int:
        made = answers(model, tokenizer, prompts, Sampling(max_new_tokens=tokens))
        return sum(answer.tokens for _, answer in made)

    def plain(tokens: int) -> int:
        written = 0
        for prompt in prompts:
            output = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=stop_tokens(model, tokenizer),
                pad_token_id=tokenizer.pad_token_id,
            )
            written += output.shape[1] - len(prompt)
        return written

    rates = {}
    for name, way in (("plain", plain), ("batched", batched)):
        way(2)
        start = time.perf_counter()
        with torch.inference_mode():
            written = way(TOKENS)
        rates[name] = written / (time.perf_counter() - start)
    return {"prompts": len(prompts), "max_new_tokens": TOKENS, "tokens_per_s": rates}
