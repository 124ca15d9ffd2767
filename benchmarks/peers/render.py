"""The tables of RESULTS.md, between two marks, from results.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import growth, pictures
from benchmarks.peers.contenders import TITLES
from benchmarks.peers.medians import comparable, ratio, spread, summarise
from benchmarks.peers.workloads import WORKLOADS
from lora.files import write_text

BEGIN = "<!-- bench: written by python -m benchmarks.peers -->"
END = "<!-- end of bench -->"
WEIGHTS_MB = 538
"""134.5 million parameters in float32."""
BARE = {
    "lit.fit --help": "lit.fit --help: bare imports",
    "lit.chat --help": "lit.chat --help: bare imports",
    "first step, ours": "first step, ours: bare imports and weights",
    "first step, peft": "first step, peft: bare imports and weights",
}
"""What a start cannot do without."""
Cells = dict[str, Any]


def write(cells: Cells, folder: Path) -> None:
    """Put the tables and pictures into the folder; what others wrote there stays."""
    path = folder / "RESULTS.md"
    text = path.read_text() if path.exists() else "# Results\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2].strip()
    after = f"\n{after}\n" if after else ""
    names = pictures.draw(cells, folder)
    body = "\n".join(lines(cells, names))
    write_text(path, f"{before.rstrip()}\n\n{BEGIN}\n\n{body}\n\n{END}\n{after}")


def lines(cells: Cells, names: list[str]) -> Iterator[str]:
    """Every section whose numbers there are."""
    for section in (_head, _summary, _speed, _parity, _growth, _startup, _generation):
        yield from section(cells)
    yield from (f"![{name}]({name})" for name in names)
    for name, cell in cells.items():
        if "error" in cell:
            yield f"- {name} was not measured: {cell['error']}"


def _head(cells: Cells) -> Iterator[str]:
    machine = cells["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield "## Beside PEFT, TRL and LitGPT"
    yield ""
    made = {tuple(cell["made"].values()) for cell in cells.values() if "made" in cell}
    said = " and ".join(f"`{command}`, {date}" for command, date in sorted(made))
    yield (
        f"{said}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_gb']} GB, Python {machine['python']}, {versions}."
    )
    yield (
        "SmolLM2-135M-Instruct in float32, LoRA r 8, alpha 32, dropout 0.1 on all seven "
        "projections, AdamW, no checkpointing. Each contender is its own process and trainer and "
        "gets the same rows in each step; one step of each in turn, the first left out. A step is "
        "a whole cycle, from one request for rows to the next."
    )
    yield ""


def _speed(cells: Cells) -> Iterator[str]:
    known = {k: v for k, v in cells.items() if k.startswith("speed/") and "error" not in v}
    if not known:
        return
    yield (
        "Useful tokens/s count no padding. Ratios, here and above, are seconds of a contender's "
        "step over those of ours on the same rows: median (least … most) of the timed steps. Peaks "
        "are the process's; "
        f"above the weights is less {WEIGHTS_MB} MB. Share is of a product of 2048³ in float32, "
        "timed in the same turns."
    )
    yield ""
    yield (
        "| workload | step | contender | tokens/s | s/step | seconds / ours' | peak, GB "
        "| above the weights, GB | peak / ours' | GFLOP/token | share of the ceiling |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for name, cell in known.items():
        _, key, mode = name.split("/")
        place = f"({key}) {WORKLOADS[key].title} | {mode}"
        own = cell["contenders"].get("ours", {}).get("peak_mb")
        for contender, title in TITLES.items():
            if contender in cell["contenders"]:
                found, peak = summarise(cell, contender), cell["contenders"][contender]["peak_mb"]
                yield (
                    f"| {place} | {title} | {found.tokens_per_s:.0f} | {found.seconds:.2f} "
                    f"| {found.ratio if own and contender != 'ours' else ''} | {peak / 1e3:.2f} "
                    f"| {(peak - WEIGHTS_MB) / 1e3:.2f} | {f'{peak / own:.2f}' if own else ''} "
                    f"| {_optional(found.gflop_per_token)} | {_optional(found.share)} |"
                )
            elif contender in cell["failed"]:
                yield f"| {place} | {title} | failed: {cell['failed'][contender]} | | | | | | | |"
    yield ""


def _summary(cells: Cells) -> Iterator[str]:
    """Of each workload what the targets speak of."""
    known = comparable(cells)
    if not known:
        return
    others = [name for name in TITLES if name != "ours"]
    titles = " | ".join(f"{TITLES[name]}: seconds / ours'" for name in others)
    yield f"| workload | step | {titles} | our peak / PEFT's | ceiling, GFLOP/s |"
    yield f"|---|---|{'---|' * len(others)}---|---|"
    for (key, mode), cell in known.items():
        found = cell["contenders"]
        ratios = [str(summarise(cell, name).ratio) if name in found else "" for name in others]
        peaks = [found[name]["peak_mb"] for name in ("ours", "peft") if name in found]
        peak = f"{peaks[0] / peaks[1]:.2f}" if len(peaks) == 2 else ""
        products = found["ceiling"]["seconds"][cell["warm"] :]
        ceiling = cell["gflop_of_product"] / float(np.median(products))
        yield f"| ({key}) | {mode} | {' | '.join(ratios)} | {peak} | {ceiling:.0f} |"
    yield ""


def _parity(cells: Cells) -> Iterator[str]:
    same, dropout = cells.get("parity/same", {}), cells.get("parity/dropout", {})
    if "most_apart" in same:
        yield (
            f"From one adapter, without dropout, the losses of {same['steps']} steps differ from "
            f"PEFT's by {same['most_apart']:.1e} of it at most."
        )
        yield ""
    if "apart" in dropout:
        val = dropout["val_loss"]
        yield (
            f"With dropout 0.1, after {dropout['steps']} steps, held-out loss is {val['ours']:.4f} "
            f"with ours and {val['peft']:.4f} with PEFT: {100 * dropout['apart']:.2f} % apart."
        )
        yield ""


def _growth(cells: Cells) -> Iterator[str]:
    steps = growth.steps_of(cells)
    if steps:
        yield "| tokens in a batch | s/step | peak, GB |"
        yield "|---|---|---|"
        for tokens, seconds, peak in steps:
            yield f"| {tokens:,.0f} | {seconds:.2f} | {peak / 1e3:.2f} |"
        yield ""
    if len(steps) > 1:
        tokens, seconds, peaks = zip(*steps, strict=True)
        yield (
            f"By least squares {1e3 * growth.slope(tokens, seconds)[0]:.2f} ms and "
            f"{growth.slope(tokens, peaks)[0]:.2f} MB a token; time grows with tokens to the power "
            f"{growth.exponent(tokens, seconds):.2f}."
        )
        yield ""
    data = growth.rows_of(cells)
    if data:
        yield "| rows prepared | s | own memory, MB |"
        yield "|---|---|---|"
        yield from (f"| {n:,} | {s:.2f} | {m:.0f} |" for n, s, m in data)
        yield ""


def _startup(cells: Cells) -> Iterator[str]:
    startup = cells.get("startup", {})
    if "medians" not in startup:
        return
    yield "| start, warm cache | s |"
    yield "|---|---|"
    for title, seconds in sorted(startup["seconds"].items()):
        yield f"| {title} | {spread(seconds)} |"
    yield from (f"| {title} | failed: {why} |" for title, why in startup["failed"].items())
    yield ""
    for title, bare in BARE.items():
        if {title, bare} <= startup["seconds"].keys():
            took = ratio(startup["seconds"][title], startup["seconds"][bare])
            yield f"- {title}, over {bare.rpartition(': ')[2]}: {took}"
    yield ""


def _generation(cells: Cells) -> Iterator[str]:
    found = cells.get("generation", {})
    if "tokens_per_s" in found:
        rates = found["tokens_per_s"]
        yield (
            f"Answers to {found['prompts']} prompts, {found['max_new_tokens']} tokens at most: "
            f"{rates['batched']:.1f} tokens/s in compare's batches, {rates['plain']:.1f} in a "
            f"plain loop, {rates['batched'] / rates['plain']:.2f} times as many."
        )
        yield ""


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
