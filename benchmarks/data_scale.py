"""Reading and tokenizing many rows: this project beside ``datasets.load_dataset`` and ``map``.

    python benchmarks/data_scale.py --rows 10000 100000 1000000

Both read the same JSONL file of generated rows, write each with the same chat template, check that
the prompt's tokens begin the whole's, mask them, and store the result in Arrow. Every measurement
is a process of its own, and the two take turns. Writes a JSON file and prints a Markdown table.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.made_rows import generate, make_tokenizer  # noqa: E402

MAX_LENGTH = 512
TOOLS = ("ours", "datasets")


class Peak(threading.Thread):
    """The most memory that this process and its children had of their own, sampled."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = 0.0

    def run(self) -> None:
        """Look twenty times a second."""
        while True:
            tree = [os.getpid(), *_children(os.getpid())]
            self.own = max(self.own, sum(_anonymous(process) for process in tree))
            time.sleep(0.05)


def _children(process: int) -> list[int]:
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in found]


def _anonymous(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) / 1024 for x in status.splitlines() if "RssAnon" in x), 0.0)


def measure(tool: str, file: Path, tokenizer_path: Path, processes: int) -> dict[str, Any]:
    """One measurement in this process; imports are done before the clock starts."""
    import datasets
    from transformers import PreTrainedTokenizerFast

    from data.plan import plan
    from data.store import build

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_path)
    base = _anonymous(os.getpid())
    peak = Peak()
    peak.start()
    work = sum(os.times()[:4])
    result: dict[str, Any] = {"tool": tool, "imports_mb": base}
    with tempfile.TemporaryDirectory(dir=file.parent) as cache:
        start = time.perf_counter()
        if tool == "ours":
            store = build(
                file, tokenizer, max_length=MAX_LENGTH, processes=processes, cache=Path(cache)
            )
            result["seconds"] = time.perf_counter() - start
            result["cpu_s"] = sum(os.times()[:4]) - work
            result["rows"], result["tokens"] = len(store), int(store.lengths.sum())
            start = time.perf_counter()
            store = build(file, tokenizer, max_length=MAX_LENGTH, cache=Path(cache))
            result["second_start_s"] = time.perf_counter() - start
            result |= memory(peak)
            start = time.perf_counter()
            for epoch in range(3):
                plan(
                    store.lengths, store.targets, batch_size=8, max_tokens=2048, seed=0, epoch=epoch
                )
            result["plan_s"] = (time.perf_counter() - start) / 3
        else:
            table = with_datasets(file, tokenizer, processes, cache)
            result["seconds"] = time.perf_counter() - start
            result["cpu_s"] = sum(os.times()[:4]) - work
            result["rows"] = len(table)
            result["tokens"] = sum(table.data.column("length").to_pylist())
            result |= memory(peak)
    result["with_plan_own_mb"] = peak.own
    return result


def memory(peak: Peak) -> dict[str, float]:
    """The most so far: of their own, and with the pages of mapped files, which can be let go."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    resident = sum(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
    return {"peak_own_mb": peak.own, "peak_rss_mb": resident}


def with_datasets(file: Path, tokenizer: Any, processes: int, cache: str) -> Any:
    """The same work in the usual way, a batch of rows at a time."""
    import datasets

    def encode(rows: dict[str, list[str]]) -> dict[str, list]:
        asked = [[{"role": "user", "content": text}] for text in rows["prompt"]]
        answered = [
            [*turns, {"role": "assistant", "content": text}]
            for turns, text in zip(asked, rows["response"], strict=True)
        ]
        whole = tokenizer.apply_chat_template(answered, return_dict=False)
        before = tokenizer.apply_chat_template(asked, return_dict=False, add_generation_prompt=True)
        found: dict[str, list] = {"input_ids": [], "labels": [], "length": []}
        for ids, prompt in zip(whole, before, strict=True):
            assert ids[: len(prompt)] == prompt
            if len(ids) > MAX_LENGTH:
                continue
            found["input_ids"].append(ids)
            found["labels"].append([-100] * len(prompt) + ids[len(prompt) :])
            found["length"].append(len(ids))
        return found

    several = processes if processes > 1 else None
    table = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
    return table.map(encode, batched=True, remove_columns=table.column_names, num_proc=several)


def run(
    rows: list[int], repeats: int, processes: int, folder: Path, tools: tuple[str, ...] = TOOLS
) -> list[dict[str, Any]]:
    """Every measurement, each in a process of its own, the tools in turn."""
    results = []
    # One thread in each process, so that processes are what is counted.
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    environment |= {"HF_DATASETS_CACHE": str(folder / "hf"), "TOKENIZERS_PARALLELISM": "false"}
    for count in rows:
        file = folder / f"{count}.jsonl"
        generate(file, count)
        tokenizer = folder / "tokenizer"
        if not tokenizer.exists():
            make_tokenizer(tokenizer, file)
        for repeat in range(repeats):
            for tool in tools:
                command = [sys.executable, __file__, "--measure", tool, "--file", str(file)]
                command += ["--tokenizer", str(tokenizer), "--processes", str(processes)]
                said = subprocess.run(
                    command, env=environment, check=True, stdout=subprocess.PIPE, text=True
                ).stdout
                result = json.loads(said.splitlines()[-1]) | {"repeat": repeat, "file_rows": count}
                print(json.dumps(result), file=sys.stderr)
                results.append(result)
        file.unlink()
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Medians over the repeats, as Markdown."""
    lines = [
        "| rows | | seconds | CPU, s | rows/s | own memory, MB | RSS, MB | again, s | plan, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for count in sorted({result["file_rows"] for result in results}):
        for tool in TOOLS:
            found = [r for r in results if (r["file_rows"], r["tool"]) == (count, tool)]

            def median(name: str, found: list[dict[str, Any]] = found) -> float:
                return statistics.median(result.get(name, 0.0) for result in found)

            seconds = median("seconds")
            more = [f"{median(name):.2f}" for name in ("second_start_s", "plan_s")]
            memory = [f"{median(name):.0f}" for name in ("peak_own_mb", "peak_rss_mb")]
            lines.append(
                f"| {count:,} | {tool} | {seconds:.1f} | {median('cpu_s'):.1f} "
                f"| {count / seconds:,.0f} | {' | '.join(memory)} "
                f"| {' | '.join(more if tool == 'ours' else ['', ''])} |"
            )
    return "\n".join(lines)


def main(args: list[str] | None = None) -> int:
    """Run the benchmark, or one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1, help="that tokenize, of both tools")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "data_scale.json")
    parser.add_argument("--measure", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tokenizer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(args)
    if given.measure:
        result = measure(given.measure, given.file, given.tokenizer, given.processes)
        print(json.dumps(result))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results = run(given.rows, given.repeats, given.processes, Path(folder))
    report = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores, "
        f"Python {platform.python_version()}",
        "command": f"python benchmarks/data_scale.py --rows {' '.join(map(str, given.rows))} "
        f"--repeats {given.repeats} --processes {given.processes}",
        "results": results,
    }
    given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{report['date']}, {report['machine']}\n\n    {report['command']}\n\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
