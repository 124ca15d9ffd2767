"""Compile and load the C++ that lets a CPU build of torch believe in another device."""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.cpp")


def torch_folder() -> Path:
    """Return the folder of torch, without importing it."""
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def compiler() -> str | None:
    """Return the path of a C++ compiler, if this machine has one."""
    return shutil.which(os.environ.get("CXX", "g++"))


def compile_shim(device: str, cache: Path) -> Path:
    """Compile the shim, once for each source and torch.

    Args:
        device: ``cuda`` or ``mps``.
        cache: A folder that is kept between runs.

    Returns:
        The shared library.

    Raises:
        CalledProcessError: It does not compile; the error has the compiler's words.
    """
    torch = torch_folder()
    version = (torch / "version.py").read_bytes()
    key = hashlib.sha256(SOURCE.read_bytes() + version).hexdigest()[:16]
    library = cache / f"{device}_shim_{key}.so"
    if not library.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        # Two test processes may compile at once; each renames a whole file.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = Path(folder) / "shim.so"
            include = ["-I", str(torch / "include")]
            define = f"-DSIMULATED_{device.upper()}"
            options = ["-std=c++20", "-O0", "-shared", "-fPIC", define, *include, "-o", str(made)]
            command = [compiler() or "g++", *options, str(SOURCE)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            made.replace(library)
    return library


def load_shim(library: Path) -> None:
    """Load the shim into this process; call it before torch is imported.

    torch asks for the hooks when its Python part is imported, so they must be registered before.
    """
    assert "torch" not in sys.modules, "torch was imported before the shim"
    libraries = torch_folder() / "lib"
    for pattern in ("libgomp*.so*", "libc10.so", "libtorch_cpu.so"):
        for path in libraries.glob(pattern):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
