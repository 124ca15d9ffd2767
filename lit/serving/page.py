"""The page of the server: one file, whose only script is ours."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path

from lit.answering.sampling import Sampling

PARTS = Path(__file__).parent


def page(models: Sequence[str], sampling: Sampling) -> tuple[str, str]:
    """Return the page, and its Content-Security-Policy.

    The policy names the script and the style by their hashes. So no other script runs, whatever a
    model writes, and the page reaches no other server.

    Args:
        models: The names of the models, base first.
        sampling: What the page's settings start with.
    """
    style, script = (_part(name) for name in ("page.css", "page.js"))
    settings = {
        "models": list(models),
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_new_tokens,
        "seed": sampling.seed,
    }
    text = (
        _part("page.html")
        .replace("{settings}", html.escape(json.dumps(settings)))
        .replace("/*style*/", style)
        .replace("/*script*/", script)
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    return text, policy


def _part(name: str) -> str:
    return (PARTS / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
