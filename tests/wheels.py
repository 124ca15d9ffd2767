"""Check that every version in constraints.txt has a wheel for each system: make wheels

Asks the package index for each system and Python; nothing is downloaded or installed. A wheel that
exists is no proof that it works: docs/tested_on says where the project ran.
"""

import subprocess
import sys

PYTHONS = ("3.11", "3.12", "3.13")
# pip takes every platform tag that a system supports; the newest first.
GLIBC = [f"manylinux_2_{minor}_" for minor in range(28, 16, -1)]
SYSTEMS = {
    "Linux x86-64": [f"{tag}x86_64" for tag in [*GLIBC, "manylinux2014_"]],
    "Linux arm64": [f"{tag}aarch64" for tag in [*GLIBC, "manylinux2014_"]],
    "Windows": ["win_amd64"],
    "macOS arm64": ["macosx_14_0_arm64", "macosx_11_0_arm64"],
}


def missing(python: str, tags: list[str]) -> str:
    """Return pip's reason why a version has no wheel, or an empty string."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"),
        *("--disable-pip-version-check", "--ignore-installed", "--only-binary=:all:"),
        *("--python-version", python, "--target", "unused", "-r", "constraints.txt"),
        *(word for tag in tags for word in ("--platform", tag)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: No matching")]
    return errors[0] if errors else done.stderr.strip().splitlines()[-1]


def main() -> int:
    """Print a line for each system and Python; return 1 if a wheel is missing."""
    failed = 0
    for system, tags in SYSTEMS.items():
        for python in PYTHONS:
            reason = missing(python, tags)
            failed += bool(reason)
            print(
                f"{system:13s} Python {python}  {reason or 'a wheel for every version'}", flush=True
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
