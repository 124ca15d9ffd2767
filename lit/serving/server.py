"""The process: its socket, its threads, and its end."""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass

import uvicorn

from lit.messages import tr
from lit.serving.app import Service, create_app
from lit.serving.engine.job import JobQueue
from lit.serving.engine.metrics import Metrics
from lit.serving.engine.models import ServedModels
from lit.serving.engine.request import Defaults
from lit.serving.engine.worker import Worker
from lora.config import ConfigError

LAST_WORDS = 3
"""Seconds for the last errors to reach their clients after the grace time."""


@dataclass(frozen=True)
class Limits:
    """What bounds the work of a server.

    Args:
        batch_size: The most requests that are answered at once.
        queue: The most requests that wait.
        request_seconds: How long a request may take.
        grace_seconds: How long accepted requests may go on after SIGTERM or Ctrl-C.

    Raises:
        ConfigError: A value is out of range.
    """

    batch_size: int = 8
    queue: int = 256
    request_seconds: float = 600.0
    grace_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("batch_size", self.batch_size, 1),
            ("queue", self.queue, 1),
            ("request_seconds", self.request_seconds, 1),
            ("grace_seconds", self.grace_seconds, 0),
        ):
            if not least <= value < 10**9:
                raise ConfigError(
                    tr(
                        "`{name}` is {value}; it must be {least} or more",
                        name=name,
                        value=value,
                        least=least,
                    )
                )


def check_host(host: str, api_key: str | None) -> None:
    """Check that a server that others can reach has a key.

    Raises:
        ConfigError: It has none.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
        raise ConfigError(tr("`api_key` must have visible ASCII characters only, and at least one"))
    if api_key is None and not _is_loopback(host):
        raise ConfigError(
            tr(
                "`host` is {host}, where other machines can use this server: add `api_key` with "
                "a secret of your choice, or leave `host` out",
                host=host,
            )
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, before the model is loaded.

    Raises:
        ConfigError: The address does not exist, or is in use.
    """
    if not 0 <= port < 2**16:
        raise ConfigError(
            tr("`port` is {port}; it must be from 0 (any that is free) to 65535", port=port)
        )
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            tr("`host` is {host!r}, which is not an address: {error}", host=host[:80], error=error)
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigError(
            tr(
                "{host} port {port} cannot be used ({strerror}): choose another `port`",
                host=host,
                port=port,
                strerror=error.strerror,
            )
        ) from None
    return listener


def url(host: str, listener: socket.socket) -> str:
    """Return the address that a person opens."""
    port = listener.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """Answers requests until SIGTERM or Ctrl-C.

    Args:
        models: The models.
        host: The host that the person gave.
        api_key: The key that requests must have, or None.
        defaults: How answers are chosen where a request does not say it.
        limits: What bounds the work.
    """

    def __init__(
        self,
        models: ServedModels,
        host: str,
        api_key: str | None,
        defaults: Defaults,
        limits: Limits,
    ) -> None:
        queue, metrics = JobQueue(limits.queue), Metrics()
        self.worker = Worker(models, queue, metrics, limits.batch_size)
        self.grace_seconds = limits.grace_seconds
        service = Service(models, queue, self.worker, metrics, defaults, limits.request_seconds)
        config = uvicorn.Config(
            create_app(service, host, api_key),
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=int(limits.grace_seconds) + LAST_WORDS,
        )
        super().__init__(config)

    def answer_on(self, listener: socket.socket) -> None:
        """Answer requests that come to a socket; a signal is raised again at the end."""
        self.worker.start()
        try:
            self.run(sockets=[listener])
        finally:
            self.worker.stop()
            self.worker.join(LAST_WORDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the requests that were accepted; after the grace time they get an error."""
        timer = asyncio.get_running_loop().call_later(self.grace_seconds, self.worker.stop)
        await super().shutdown(sockets)
        timer.cancel()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
