"""Everything that docs/scale.md shows on paper and by simulation.

    OMP_NUM_THREADS=1 python -m benchmarks.scale [TABLE ...]

Renews the tables between their marks in docs/scale.md, and docs/imbalance.png (``imbalance``).
Sizes come from the meta device and plans from row lengths: no weight is loaded, no GPU needed.
"""

import re
import sys
from collections.abc import Callable

from benchmarks.scale import tables
from benchmarks.scale.footprint import TOKENS
from benchmarks.scale.imbalance import Batching, simulate
from benchmarks.scale.imbalance_picture import draw
from benchmarks.scale.lengths import ROOT, corpora, heavy_tailed
from benchmarks.scale.speed import work

DOCUMENT = ROOT / "docs" / "scale.md"
PICTURE = ROOT / "docs" / "imbalance.png"
RANKS = tuple(2**power for power in range(11))
TABLED, TABLED_GROUPED = (2, 8, 64, 1024), (2, 8, 64)
BATCHINGS = {
    "4 rows, 1 a step": Batching(4),
    "4 rows, 4 a step": Batching(4, accumulate=4),
    "4,096 tokens, 1 a step": Batching(TOKENS, TOKENS),
    "4,096 tokens, 4 a step": Batching(TOKENS, TOKENS, 4),
}
DRAWN = {
    "4 rows, 4 a step": "micro-batches of 4 rows",
    "4,096 tokens, 4 a step": "micro-batches of 4,096 tokens",
}
GROUPED = {
    "4 rows, 4 a step, grouped": Batching(4, None, 4, True),
    "4,096 tokens, 4 a step, grouped": Batching(TOKENS, TOKENS, 4, True),
}


def renew(text: str, made: dict[str, str]) -> str:
    """Put tables between their marks.

    Args:
        text: Has a pair of marks for each table: ``<!-- table: NAME -->`` and ``<!-- end -->``.
        made: Tables by name.

    Raises:
        ValueError: A table has no marks.
    """
    for name, lines in made.items():
        mark = f"<!-- table: {name} -->"
        between = re.compile(rf"{re.escape(mark)}\n.*?<!-- end -->", re.DOTALL)
        if not between.search(text):
            raise ValueError(f"there is no {mark} … <!-- end --> in the text: add it")
        text = between.sub(lambda _, new=f"{mark}\n{lines}\n<!-- end -->": new, text, count=1)
    return text


def imbalance() -> dict[str, str]:
    """The picture, and tables of both sources of lengths."""
    made, panels = {}, []
    for source, lengths in (("corpora", corpora()), ("heavy tail", heavy_tailed())):
        curves = {
            name: {ranks: simulate(lengths, batching, ranks) for ranks in RANKS}
            for name, batching in BATCHINGS.items()
        }
        grouped = {
            name: {ranks: simulate(lengths, batching, ranks) for ranks in TABLED_GROUPED}
            for name, batching in GROUPED.items()
        }
        shown = {name: {ranks: curve[ranks] for ranks in TABLED} for name, curve in curves.items()}
        made[f"imbalance, {source}"] = tables.imbalance(shown)
        made[f"grouped, {source}"] = tables.imbalance(grouped)
        panels.append([(f"{source}: {title}", curves[name]) for name, title in DRAWN.items()])
    draw(panels, PICTURE)
    return made


TABLES: dict[str, Callable[[], str]] = {
    "parameters": tables.parameters,
    "weights": tables.weights,
    "activations": tables.activations,
    "totals": tables.totals,
    "traffic": tables.traffic,
    "machines": tables.machines,
    "speeds": lambda: tables.speeds(work(corpora(), tables.UP_TO)),
}


def main(args: list[str] | None = None) -> int:
    """Make the picture and the tables, or those that are named."""
    named = sys.argv[1:] if args is None else args
    made = {name: make() for name, make in TABLES.items() if name in named or not named}
    if "imbalance" in named or not named:
        made |= imbalance()
    DOCUMENT.write_text(renew(DOCUMENT.read_text("utf-8"), made), "utf-8")
    print(f"renewed in {DOCUMENT.name}: {', '.join(made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
