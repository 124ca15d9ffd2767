"""A process of lit.serve, asked as its clients ask it."""

import re
import subprocess
import sys
from pathlib import Path

import httpx2

MAX_SECONDS = 200
"""The longest that a request may take."""


class Server:
    """A server process."""

    def __init__(self, adapter: Path) -> None:
        command = [sys.executable, "-m", "lit.serve", "--adapter", str(adapter), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(3)]
        self.address = re.findall(r"http://127\.0\.0\.1:\d+", lines[1])[0]

    def ask(self, body: dict) -> tuple[str, int]:
        """Return an answer's text and its tokens."""
        url = f"{self.address}/v1/chat/completions"
        response = httpx2.post(url, json=body, timeout=MAX_SECONDS)
        answer = response.raise_for_status().json()
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

    def memory(self) -> int:
        """Return its resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]

    def counts(self, name: str) -> dict[str, float]:
        """Return a metric by its labels."""
        text = httpx2.get(f"{self.address}/metrics").text
        return {
            labels: float(value)
            for labels, value in re.findall(rf"^lit_serve_{name}(\S*) (\S+)$", text, re.M)
        }
