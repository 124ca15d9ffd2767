"""Compare an adapter's GGUF in llama.cpp with its merged weights in transformers.

    python benchmarks/llama_cpp.py --adapter runs/quickstart/adapter

The adapter must be one for the embedded model (python -m lit.embedded). The first run makes an
environment in build/llama_cpp and compiles llama.cpp there: about 12 minutes on two cores. Then
llama.cpp answers questions greedily, with the adapter's GGUF and without it, from the GGUF file
that models/SmolLM2-135M-Instruct was made from: as it is (Q4_1; llama.cpp rounds the inputs of such
weights to 8 bits), and unpacked to float32, where only the order of sums can differ. transformers
answers with the base and with the folder of ``--format merged``. Exits with 1 if an answer in
float32 differs, or if the adapter changes no answer.
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
| llama.cpp with | compared with transformers with | same first token | same answer \
| tokens before the first that differs | first token's logits differ by |
|---|---|---|---|---|---|"""


class Answers(NamedTuple):
    """A model's answer to each prompt."""

    tokens: list[list[int]]
    logits: list[Any]
    """Of the first token of each answer."""


def answer_in_llama_cpp() -> None:
    """Answer the prompts on stdin; runs in the environment of llama.cpp."""
    from llama_cpp import GGML_TYPE_F32, Llama

    job = json.load(sys.stdin)
    llama = Llama(
        model_path=job["base"],
        lora_path=job["lora"],
        n_ctx=512,
        n_threads=job["threads"],
        n_threads_batch=job["threads"],
        logits_all=True,
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        verbose=False,
    )
    answers = Answers([], [])
    for prompt in job["prompts"]:
        tokens: list[int] = []
        for token in llama.generate(prompt, temp=0.0):
            tokens.append(token)
            if token in job["stops"] or len(tokens) == job["max_new_tokens"]:
                break
        answers.tokens.append(tokens)
        answers.logits.append(llama.scores[len(prompt) - 1].tolist())
    json.dump(answers._asdict(), sys.stdout)


def answers_of_llama_cpp(python: Path, job: dict[str, Any]) -> Answers:
    """Return the answers of a GGUF file."""
    # Isolated, because this file would hide llama.cpp's package of the same name.
    command = [python, "-I", __file__, "--answer"]
    done = subprocess.run(command, input=json.dumps(job), stdout=subprocess.PIPE, text=True)
    done.check_returncode()
    return Answers(**json.loads(done.stdout))


def answers_of_transformers(folder: str, job: dict[str, Any]) -> Answers:
    """Return the answers of a model folder."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    stops, limit = job["stops"], job["max_new_tokens"]
    config = GenerationConfig(max_new_tokens=limit, eos_token_id=stops, pad_token_id=stops[0])
    answers = Answers([], [])
    with torch.inference_mode():
        for prompt in job["prompts"]:
            ids = torch.tensor([prompt])
            output = model.generate(ids, generation_config=config)
            answers.tokens.append(output[0, len(prompt) :].tolist())
            answers.logits.append(model(input_ids=ids).logits[0, -1].numpy())
    return answers


def make_environment(folder: Path) -> Path:
    """Return the Python of an environment with llama.cpp; make the environment if there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    command = [python, "-I", "-c", "import llama_cpp"]
    if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        print(f"compiling {PACKAGE} (about 12 minutes on two cores) …", flush=True)
        subprocess.run([python, "-m", "pip", "install", PACKAGE], check=True)
    return python


def unpack(packed: Path, file: Path) -> None:
    """Copy a GGUF file with all its weights in float32."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, Keys, LlamaFileType
    from gguf.quants import dequantize

    reader = GGUFReader(packed)
    replaced = (Keys.General.ARCHITECTURE, Keys.General.FILE_TYPE)
    writer = GGUFWriter(file, reader.fields[replaced[0]].contents())
    writer.add_file_type(LlamaFileType.ALL_F32)
    for name, field in reader.fields.items():
        if name not in replaced and not name.startswith("GGUF."):
            kind = field.types[0]
            inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def table_row(name: str, given: Answers, expected: Answers) -> str:
    """Return a row of the table: how far two models' answers agree."""
    import numpy as np

    pairs = list(zip(given.tokens, expected.tokens, strict=True))
    agreeing = [
        len(list(takewhile(lambda tokens: tokens[0] == tokens[1], zip(*pair, strict=False))))
        for pair in pairs
    ]
    difference = max(
        np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)
        for a, b in zip(given.logits, expected.logits, strict=True)
    )
    counts = ", ".join(f"{n} of {len(b)}" for n, (_, b) in zip(agreeing, pairs, strict=True))
    first, equal = sum(n > 0 for n in agreeing), sum(a == b for a, b in pairs)
    total = len(pairs)
    return f"| {name} | {first} of {total} | {equal} of {total} | {counts} | {difference:.1e} |"


def main(args: list[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--adapter", type=Path, default=Path("runs/quickstart/adapter"))
    parser.add_argument("--count", type=int, default=6, help="questions to ask")
    parser.add_argument("--max_new_tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--environment", type=Path, default=ROOT / "build" / "llama_cpp")
    options = parser.parse_args(args)

    sys.path.insert(0, str(ROOT))
    from data.template import prompt_ids
    from data.types import Message
    from lit.answering.generation import stop_tokens
    from lit.embedded import download
    from lit.export import main as export
    from lit.model.base import quiet
    from lit.model.tuned import base_of, load_tuned

    python = make_environment(options.environment)
    quiet()
    model, tokenizer = load_tuned(options.adapter)
    job = {
        "prompts": [
            prompt_ids([Message("user", question)], tokenizer)
            for question in QUESTIONS.read_text("utf-8").splitlines()[: options.count]
        ],
        "stops": stop_tokens(model, tokenizer),
        "max_new_tokens": options.max_new_tokens,
        "threads": options.threads,
    }
    del model
    answers: dict[str, Answers] = {}
    with tempfile.TemporaryDirectory() as name:
        merged, lora = Path(name) / "merged", Path(name) / "lora.gguf"
        for kind, output in (("gguf", lora), ("merged", merged)):
            command = ["--adapter", str(options.adapter), "--format", kind]
            if code := export([*command, "--output", str(output)]):
                return code
        files = {"Q4_1": download(Path(name)), "F32": Path(name) / "base-f32.gguf"}
        unpack(files["Q4_1"], files["F32"])
        answers["the base"] = answers_of_transformers(base_of(options.adapter, None)[0], job)
        answers["merged weights"] = answers_of_transformers(str(merged), job)
        for dtype, file in files.items():
            base = job | {"base": str(file), "lora": None}
            answers[dtype] = answers_of_llama_cpp(python, base)
            answers[f"{dtype} + LoRA"] = answers_of_llama_cpp(python, base | {"lora": str(lora)})
    for index, ids in enumerate(job["prompts"]):
        print(f"\n{tokenizer.decode(ids)!r}")
        for which, given in answers.items():
            print(f"  {which}: {tokenizer.decode(given.tokens[index])!r}")
    print(f"\n{date.today()}, {PACKAGE}, {platform.machine()}, {os.cpu_count()} cores\n\n{HEAD}")
    for dtype in files:
        for given, expected in ((dtype, "the base"), (f"{dtype} + LoRA", "merged weights")):
            print(table_row(f"{given} | {expected}", answers[given], answers[expected]))
    equal = answers["F32 + LoRA"].tokens == answers["merged weights"].tokens
    return 0 if equal and answers["F32"].tokens != answers["F32 + LoRA"].tokens else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--answer"]:
        answer_in_llama_cpp()
    else:
        sys.exit(main())
