"""The tables of RESULTS.md, between two marks, made from results.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import growth
from benchmarks.peers.contenders import TITLES
from benchmarks.peers.medians import ceiling, comparable, ratio, spread, summarize, turns_of
from benchmarks.peers.workloads import WORKLOADS
from lora.storage.files import write_text

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
"""The least that each start needs."""
Cells = dict[str, Any]


def write(cells: Cells, folder: Path) -> None:
    """Replace the tables in a folder's RESULTS.md; the text around them stays."""
    path = folder / "RESULTS.md"
    text = path.read_text() if path.exists() else "# Results\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2].strip()
    after = f"\n{after}\n" if after else ""
    body = "\n".join(lines(cells)).rstrip()
    write_text(path, f"{before.rstrip()}\n\n{BEGIN}\n\n{body}\n\n{END}\n{after}")


def lines(cells: Cells) -> Iterator[str]:
    """Yield the lines of every section that has measurements."""
    for section in (_head, _summary, _speed, _parity, _growth, _startup):
        yield from section(cells)
    for name, cell in cells.items():
        if "error" in cell:
            yield f"- {name} was not measured: {cell['error']}"


def _head(cells: Cells) -> Iterator[str]:
    runs: dict[str, list[str]] = {}
    for name, cell in cells.items():
        runs.setdefault(_describe_run(**cell["made"]), []).append(name)
    yield "## Compared with PEFT, TRL and LitGPT"
    yield ""
    if len(runs) == 1:
        yield from runs
    else:
        yield "Measured in several runs; a ratio is always of one run:"
        yield ""
        yield from (f"- {run}: {', '.join(names)}" for run, names in sorted(runs.items()))
    yield ""
    yield (
        "SmolLM2-135M-Instruct in float32, LoRA r 8, alpha 32, dropout 0.1 on all seven "
        "projections, AdamW, no checkpointing. Each contender is a process of its own with its own "
        "trainer, and gets the same rows in each step. The contenders take turns, one step each; "
        "where steps of all need too much memory, each takes turns with ours alone. The first step "
        "is not timed. A step is a whole cycle, from one request for rows to the "
        "next."
    )
    yield ""


def _describe_run(command: str, date: str, machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"`{command}`, {date}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['memory_gb']} GB, Python {machine['python']}, {versions}"
    )


def _summary(cells: Cells) -> Iterator[str]:
    """Yield one line a workload: the ratios."""
    known = comparable(cells)
    if not known:
        return
    others = [name for name in TITLES if name != "ours"]
    titles = " | ".join(f"{TITLES[name]}: seconds / ours" for name in others)
    yield f"| workload | step | {titles} | our peak / PEFT's | ceiling, GFLOP/s |"
    yield f"|---|---|{'---|' * len(others)}---|---|"
    for (key, mode), cell in known.items():
        measured = _measured(cell)
        ratios = [str(summarize(cell, name).ratio) if name in measured else "" for name in others]
        peaks = [measured[name]["peak_mb"] for name in ("ours", "peft") if name in measured]
        peak = f"{peaks[0] / peaks[1]:.2f}" if len(peaks) == 2 else ""
        yield f"| ({key}) | {mode} | {' | '.join(ratios)} | {peak} | {ceiling(cell):.0f} |"
    yield ""


def _speed(cells: Cells) -> Iterator[str]:
    known = {k: v for k, v in cells.items() if k.startswith("speed/") and "error" not in v}
    if not known:
        return
    yield (
        "Tokens/s count no padding. A ratio, above and below, is the seconds of a contender's step "
        "over the seconds of ours on the same rows: median and quartiles of the timed steps. "
        "The peak is the memory of the whole process; the weights, which the next column leaves "
        f"out, are {WEIGHTS_MB} MB. The ceiling is a product of 2048³ in float32, timed in the "
        "same rounds."
    )
    yield ""
    yield (
        "| workload | step | contender | tokens/s | s/step | seconds / ours | peak, GB "
        "| peak without weights, GB | peak / ours | GFLOP/token | share of the ceiling |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for name, cell in known.items():
        _, key, mode = name.split("/")
        row = f"({key}) {WORKLOADS[key].title} | {mode}"
        measured = _measured(cell)
        own = measured.get("ours", {}).get("peak_mb")
        for contender, title in TITLES.items():
            if contender in measured:
                summary, peak = summarize(cell, contender), measured[contender]["peak_mb"]
                yield (
                    f"| {row} | {title} | {summary.tokens_per_s:.0f} | {summary.seconds:.2f} "
                    f"| {summary.ratio if own and contender != 'ours' else ''} | {peak / 1e3:.2f} "
                    f"| {(peak - WEIGHTS_MB) / 1e3:.2f} | {f'{peak / own:.2f}' if own else ''} "
                    f"| {_optional(summary.gflop_per_token)} | {_optional(summary.share)} |"
                )
            elif reason := turns_of(cell, contender)["failed"].get(contender):
                yield f"| {row} | {title} | failed: {reason} | | | | | | | |"
    yield ""


def _measured(cell: dict[str, Any]) -> dict[str, Any]:
    """Return the contenders of a cell that made all steps."""
    found = {}
    for name in TITLES:
        turns = turns_of(cell, name)
        if name in turns["contenders"] and name not in turns["failed"]:
            found[name] = turns["contenders"][name]
    return found


def _parity(cells: Cells) -> Iterator[str]:
    same, dropout = cells.get("parity/same", {}), cells.get("parity/dropout", {})
    if "most_apart" in same:
        yield (
            f"Trained from one adapter without dropout, the loss of each of {same['steps']} steps "
            f"differs from PEFT's by at most {same['most_apart']:.1e} of it."
        )
        yield ""
    if "apart" in dropout:
        val = dropout["val_loss"]
        yield (
            f"With dropout 0.1, after {dropout['steps']} steps, the held-out loss is "
            f"{val['ours']:.4f} for ours and {val['peft']:.4f} for PEFT: a difference of "
            f"{100 * dropout['apart']:.2f} %."
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
        tokens, seconds, peaks = map(list, zip(*steps, strict=True))
        yield (
            f"By least squares a token costs {1e3 * growth.fit_line(tokens, seconds):.2f} ms and "
            f"{growth.fit_line(tokens, peaks):.2f} MB; time grows with tokens to the power "
            f"{growth.fit_power(tokens, seconds):.2f}."
        )
        yield ""
    data = growth.rows_of(cells)
    if data:
        yield (
            "Reading, tokenizing and storing a file of made-up rows with one process. Own memory "
            "is the process's without pages of mapped files; about 220 MB of it are imports."
        )
        yield ""
        yield "| rows prepared | s | own memory, MB | second start, s |"
        yield "|---|---|---|---|"
        yield from (f"| {n:,} | {s:.2f} | {m:.0f} | {again:.2f} |" for n, s, m, again in data)
        yield ""


def _startup(cells: Cells) -> Iterator[str]:
    startup = cells.get("startup", {})
    if "medians" not in startup:
        return
    yield "| start, warm cache | s, median (minimum … maximum) |"
    yield "|---|---|"
    for title, seconds in sorted(startup["seconds"].items()):
        yield f"| {title} | {spread(seconds)} |"
    yield from (f"| {title} | failed: {reason} |" for title, reason in startup["failed"].items())
    yield ""
    for title, bare in BARE.items():
        if {title, bare} <= startup["seconds"].keys():
            over = ratio(startup["seconds"][title], startup["seconds"][bare])
            yield f"- {title}, over {bare.rpartition(': ')[2]}: {over}"
    yield ""


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
