"""Made-up rows in any number, and a tokenizer for them."""

import json
import random
from pathlib import Path

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def generate(path: Path, rows: int) -> None:
    """Rows of made-up words: questions of 10 to 30 of them, answers of 20 to 100."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlucmfw", k=draw.randint(2, 9))) for _ in range(3000)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            prompt = " ".join(draw.choices(words, k=draw.randint(10, 30)))
            response = " ".join(draw.choices(words, k=draw.randint(20, 100)))
            file.write(json.dumps({"prompt": prompt, "response": response}) + "\n")


def make_tokenizer(path: Path, sample: Path) -> None:
    """A byte-level tokenizer of 8,000 tokens, trained on the first rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with sample.open(encoding="utf-8") as file:
        core.train_from_iterator(
            (line for line, _ in zip(file, range(5000), strict=False)), trainer
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(path)
