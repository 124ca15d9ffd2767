"""The tables of docs/scale.md, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks.scale.bases import BASES, empty
from benchmarks.scale.footprint import KINDS, TOKENS, R, of_known, shard
from benchmarks.scale.imbalance import Imbalance
from benchmarks.scale.speed import MACHINES, Setting, Work, step
from benchmarks.scale.traffic import ddp, fsdp, fsdp_in_full, sizes
from lora.inject import count_parameters

SEVERAL = (2, 4, 8)
SOME_TOKENS = (1024, 4096, 16384)
PARTS = {
    "padded": "padded, in turn",
    "in_turn": "padding-free, in turn",
    "dealt": "padding-free, by the plan",
    "dealt_by_turn": "the same, waiting in every micro-batch",
}
"""What the parts of an imbalance are called."""
SETTINGS = (
    Setting("Qwen2.5 1.5B", "T4, PCIe 3, 25 Gbit/s", False, True),
    Setting("Qwen2.5 7B", "A100, NVLink, 8 x 200 Gbit/s", False, False),
    Setting("Qwen2.5 7B", "A100, NVLink, 8 x 200 Gbit/s", True, False),
    Setting("Qwen2.5 7B", "H100, NVLink, 100 Gbit/s", False, False),
    Setting("Qwen2.5 7B", "H100, NVLink, 100 Gbit/s", True, False),
    Setting("Llama 3.1 70B", "H100, NVLink, 8 x 400 Gbit/s", True, True),
    Setting("Llama 3.1 70B", "H100, NVLink, 100 Gbit/s", True, True),
)
UP_TO = (1, 2, 4, 8, 16, 32, 64)


def parameters() -> str:
    """Parameters of bases and adapters, and the memory of what trains."""
    lines = []
    for name, base in BASES.items():
        here = count_parameters(empty(base)).total
        trained = [sizes(base, r).adapter // 4 for r in (8, R)]
        adapters = [f"{n / 1e6:.1f} ({n / here:.2%})" for n in trained]
        # In float32: A and B, their gradients, and AdamW's two means.
        held = [_gb(4 * 4 * n) for n in trained]
        lines.append([name, f"{here:,}", f"{base.published:g}", *adapters, *held])
    headers = ["base", "parameters", "model card, 10⁹"]
    ranks = ["adapter r 8, 10⁶", f"r {R}, 10⁶", "what trains r 8, GB", f"r {R}, GB"]
    return table([*headers, *ranks], lines)


def weights() -> str:
    """Weights by kind, and bf16 over several devices with what is gathered."""
    lines = []
    for name, base in BASES.items():
        by_kind = [of_known(name, kind, False).weights for kind in KINDS]
        whole = of_known(name, "bf16", False)
        shares = [shard(whole, base, "bf16", devices) for devices in SEVERAL]
        held = [f"{_gb(share.weights)} + {_gb(share.gathered)}" for share in shares]
        lines.append([name, *map(_gb, by_kind), *held])
    return table(["base", *KINDS, *(f"bf16 over {n}" for n in SEVERAL)], lines)


def activations() -> str:
    """Activations in bf16 by tokens, of which they are a multiple, and what passes."""
    lines = []
    for name in BASES:
        both = [of_known(name, "bf16", again) for again in (False, True)]
        kept = [found.activations / TOKENS for found in both]
        by_tokens = [_both(n * tokens for n in kept) for tokens in SOME_TOKENS]
        a_token = " / ".join(f"{n / 1e6:.2f}" for n in kept)
        lines.append([name, a_token, *by_tokens, _both(found.passing for found in both)])
    headers = ["base", "MB a token", *(f"{n:,} tokens" for n in SOME_TOKENS)]
    return table([*headers, f"passing, {TOKENS:,} tokens"], lines)


def totals() -> str:
    """Peaks of a micro-batch of TOKENS."""
    lines = []
    for name, base in BASES.items():
        peaks = [
            _both(of_known(name, kind, again).total for again in (False, True)) for kind in KINDS
        ]
        whole = [of_known(name, "bf16", again) for again in (False, True)]
        shares = [
            _both(shard(found, base, "bf16", devices).total for found in whole)
            for devices in SEVERAL
        ]
        lines.append([name, *peaks, *shares])
    return table(["base", *KINDS, *(f"bf16 over {n}" for n in SEVERAL)], lines)


def traffic() -> str:
    """Megabytes that a process of two, and of many, sends in an optimizer step."""
    lines = []
    for name, base in BASES.items():
        size = sizes(base, R)
        sent = [
            (ddp(size.adapter, n), ddp(size.base, n), fsdp(size, n), fsdp_in_full(size, n))
            for n in (2, 8, 64)
        ]
        lines.append(
            [name, *(" / ".join(_mb(n) for n in column) for column in zip(*sent, strict=True))]
        )
    headers = ["base", "DDP, adapter", "DDP, all weights", "FSDP2, adapter", "FSDP2, all weights"]
    return table(headers, lines)


def imbalance(found: Mapping[str, Mapping[int, Imbalance]]) -> str:
    """Median and 95 % of steps, by setting and ranks."""
    lines = []
    for name, curve in found.items():
        for part, shown in PARTS.items():
            steps = [getattr(curve[ranks], part) for ranks in sorted(curve)]
            lines.append(
                [name, shown] + [f"{np.median(s):.2f} ({np.quantile(s, 0.95):.2f})" for s in steps]
            )
    ranks = sorted(next(iter(found.values())))
    return table(["micro-batches", "", *(f"{n:,} ranks" for n in ranks)], lines)


def speeds(work: Work) -> str:
    """Steps of an hour by devices, and the share of time that is spent sending."""
    lines = []
    for setting in SETTINGS:
        cells = []
        for devices in UP_TO:
            times = step(setting, devices, work)
            if times is None:
                cells.append("—")
                continue
            cells.append(f"{3600 / sum(times):,.0f} ({times[1] / sum(times):.0%})")
        how = "FSDP2" if setting.sharded else "DDP"
        again = ", checkpointing" if setting.gradient_checkpointing else ""
        lines.append([f"{setting.base}{again}", setting.machine, how, *cells])
    return table(["base", "device and network", "", *map(str, UP_TO)], lines)


def machines() -> str:
    """What is assumed of devices and networks."""
    lines = [
        [
            *(name, f"{m.peak / 1e12:.0f} × {m.used:.0%}", f"{m.memory / 1e9:.0f}"),
            *(str(m.of_node), f"{m.within / 1e9:g}", f"{m.between / 1e9:g}"),
            f"{m.latency * 1e6:.0f}",
        ]
        for name, m in MACHINES.items()
    ]
    return table(
        ["", "TFLOP/s", "GB", "in a machine", "GB/s within", "GB/s between", "latency, µs"], lines
    )


def table(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Rows of texts as Markdown."""
    rows = [headers, ["---"] * len(headers), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _both(amounts: Iterable[float]) -> str:
    return " / ".join(map(_gb, amounts))


def _gb(amount: float) -> str:
    return f"{amount / 1e9:.2f}" if amount < 99.5e7 else f"{amount / 1e9:.1f}"


def _mb(amount: float) -> str:
    return f"{amount / 1e6:,.0f}"
