"""Windows and macOS for the project's own code, in a Linux process.

Libraries here are their Linux builds and may need what is missing elsewhere, so names are missing
only for modules of the project. What Windows forbids to do with files holds for every caller.
What is not simulated: paths with a drive, the Windows console, and the libraries' own builds.
"""

import builtins
import errno
import importlib
import io
import multiprocessing
import os
import re
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / name) + os.sep for name in ("lit", "lora", "data"))
POSIX_MODULES = {
    *("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "curses"),
    *("posix", "spwd", "crypt", "nis"),
}
POSIX_SIGNALS = {
    *("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGQUIT", "SIGSTOP"),
    *("SIGCONT", "SIGPIPE", "SIGTSTP", "pthread_kill", "pthread_sigmask", "alarm", "setitimer"),
}
POSIX_CALLS = {
    *("fork", "forkpty", "register_at_fork", "posix_fallocate", "posix_fadvise", "sysconf"),
    *("sched_getaffinity", "getuid", "geteuid", "getgid", "getpgid", "setpgid", "killpg", "setsid"),
    *("uname", "mkfifo", "statvfs", "fstatvfs", "fchmod", "chown", "getloadavg", "nice", "sync"),
    *("wait", "WNOHANG", "WIFEXITED", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW"),
    *("pread", "pwrite", "sendfile", "memfd_create", "mknod", "lchown", "chroot", "ttyname"),
}
MAC_LACKS = {
    *("posix_fallocate", "posix_fadvise", "sched_getaffinity", "memfd_create"),
    *("O_TMPFILE", "pipe2"),
}
FORBIDDEN_NAME = re.compile(
    r'[<>:"|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$', re.I
)
"""Names that Windows gives no file."""
FREE = ("filelock", "tempfile.py", "torch_shm_manager")
"""Callers whose Linux build removes open files, where their Windows build does not."""


class Proxy(types.ModuleType):
    """A module without some names, and with others replaced; the rest is the real one's."""

    def __init__(self, module: types.ModuleType, gone: set[str], **own: object) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _gone=gone, **own)

    def __getattr__(self, name: str) -> Any:
        if name in self._gone:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._module, name, value)


def simulate(system: str, *folders: Path) -> None:
    """Make this process look like another system to the project; there is no way back.

    Args:
        system: ``windows`` or ``macos``.
        folders: Further folders whose modules are treated as the project's.
    """
    ours = (*PACKAGES, *(str(folder) + os.sep for folder in folders))
    multiprocessing.set_start_method("spawn", force=True)
    if system == "macos":
        proxies = {"os": Proxy(os, MAC_LACKS), "sys": Proxy(sys, set(), platform="darwin")}
        _hide(ours, set(), proxies)
        return
    proxies = {
        "os": Proxy(os, POSIX_CALLS | MAC_LACKS, name="nt", open=_open_file_only),
        "signal": Proxy(signal, POSIX_SIGNALS),
        "sys": Proxy(sys, set(), platform="win32"),
        "multiprocessing": Proxy(multiprocessing, set(), get_context=_spawn_only),
    }
    _hide(ours, POSIX_MODULES, proxies)
    _forbid_changes_of_open_files()
    _create_files_as_windows_does(ours)
    _simulate_libraries()


def _hide(ours: tuple[str, ...], modules: set[str], proxies: dict[str, Proxy]) -> None:
    """Let imports of the project's modules fail, or give them proxies."""
    original = builtins.__import__

    def importing(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> types.ModuleType:
        mine = str((globals or {}).get("__file__", "")).startswith(ours)
        if mine and level == 0 and name.split(".")[0] in modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = original(name, globals, locals, fromlist, level)
        top = name if fromlist else name.split(".")[0]
        return proxies.get(top, module) if mine and level == 0 else module

    builtins.__import__ = importing
    if any(name.split(".")[0] in ("lit", "lora", "data") for name in sys.modules):
        raise RuntimeError("simulate before the project is imported")


def _open_file_only(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return os.open(path, flags, mode, **options)


def _spawn_only(method: str | None = None) -> Any:
    if method not in (None, "spawn"):
        raise ValueError(f"cannot find context for {method!r}")
    return multiprocessing.get_context("spawn")


def _forbid_changes_of_open_files() -> None:
    """Let no open or mapped file be moved, replaced or removed, nor a folder that holds one."""
    real_unlink = os.unlink

    def check(path: Any, dir_fd: int | None = None) -> None:
        frame: Any = sys._getframe(2)
        while frame:
            if any(name in frame.f_code.co_filename for name in FREE):
                return
            frame = frame.f_back
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for used in _files_in_use():
            if used == path or used.startswith(path + os.sep):
                text = "The process cannot access the file: it is being used by another process"
                raise PermissionError(errno.EACCES, text, path)

    def moving(original: Callable) -> Callable:
        def move(source: Any, target: Any, **options: Any) -> None:
            check(source, options.get("src_dir_fd"))
            check(target, options.get("dst_dir_fd"))
            _check_name(target)
            if original is rename and os.path.exists(target):
                raise FileExistsError(errno.EEXIST, "File exists", str(source), None, str(target))
            original(source, target, **options)

        return move

    def removing(original: Callable) -> Callable:
        def remove(path: Any, **options: Any) -> None:
            check(path, options.get("dir_fd"))
            original(path, **options)

        return remove

    rename, fsync = os.rename, os.fsync
    os.replace, os.rename = moving(os.replace), moving(rename)  # type: ignore[assignment]
    os.unlink, os.remove = removing(real_unlink), removing(os.remove)  # type: ignore[assignment]
    os.rmdir = removing(os.rmdir)  # type: ignore[assignment]

    def flush(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        fcntl = importlib.import_module("fcntl")
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(number)

    os.fsync = flush


def _files_in_use() -> set[str]:
    """Return the files that this process has open or mapped."""
    used = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if not os.path.isdir(target):
            used.add(target)
    for line in Path("/proc/self/maps").read_bytes().decode("utf-8", "replace").splitlines():
        parts = line.split(None, 5)
        if len(parts) == 6:
            used.add(parts[5])
    return used


def _check_name(path: Any) -> None:
    name = os.path.basename(os.fspath(path))
    if isinstance(name, str) and FORBIDDEN_NAME.search(name):
        raise OSError(errno.EINVAL, "Invalid argument", str(path))


def _create_files_as_windows_does(ours: tuple[str, ...]) -> None:
    """Check the names of new files.

    The project's text files end lines with CR LF, and are in cp1252, where it says nothing else.
    """
    original, make_folder, open_file = io.open, os.mkdir, os.open

    def opening(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        writes = set(mode) & set("wax+")
        if writes and not isinstance(file, int):
            _check_name(file)
        frame: Any = sys._getframe(1)
        while frame and os.path.basename(frame.f_code.co_filename) in ("pathlib.py", "__init__.py"):
            frame = frame.f_back
        if frame and frame.f_code.co_filename.startswith(ours) and "b" not in mode:
            names = ("buffering", "encoding", "errors", "newline", "closefd", "opener")
            options |= dict(zip(names, arguments, strict=False))
            arguments = ()
            # pathlib writes "locale" for None.
            if options.get("encoding") in (None, "locale"):
                options["encoding"] = "cp1252"
            if writes and options.get("newline") is None:
                options["newline"] = "\r\n"
        return original(file, mode, *arguments, **options)

    def making(path: Any, *arguments: Any, **options: Any) -> None:
        _check_name(path)
        make_folder(path, *arguments, **options)

    def creating(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            _check_name(path)
        return open_file(path, flags, *arguments, **options)

    builtins.open = io.open = opening  # type: ignore[assignment]
    os.mkdir, os.open = making, creating


def _simulate_libraries() -> None:
    """Let psutil and filelock do what their Windows builds do and the project relies on."""
    import filelock
    import psutil

    release, memory = filelock.FileLock._release, psutil.Process.memory_info

    def releasing(lock: Any) -> None:
        release(lock)
        Path(lock.lock_file).unlink(missing_ok=True)

    def memory_info(process: Any) -> Any:
        info = memory(process)
        return types.SimpleNamespace(rss=info.rss, peak_wset=info.rss, private=info.rss)

    filelock.FileLock._release = releasing  # type: ignore[method-assign]
    psutil.Process.memory_info = memory_info  # type: ignore[method-assign]
