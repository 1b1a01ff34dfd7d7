"""An MQTT broker of one's own, for the demo and for small plants: a Mosquitto child process, or amqtt within.

Mosquitto speaks MQTT 3.1, 3.1.1 and 5 and takes ten thousands of messages a second; it is used when it is
on the machine. amqtt needs no installation, speaks 3.1.1 only and takes some thousands. Both listen on
loopback unless told otherwise, let anybody in, and keep nothing on disk.
"""

import asyncio
import logging
import os
import shutil
import socket
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from shopfloor.samples import Misconfigured, Unavailable

Kind = Literal["mosquitto", "amqtt"]

_ADMIN_PATHS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where Debian puts servers; an ordinary user's PATH leaves them out."""
_READY_WITHIN: Final = 10.0
_STOP_WITHIN: Final = 5.0
_MOST_SAID: Final = 4096
"""Bytes of what Mosquitto said that are told when it does not start."""
_LOUD: Final = ("amqtt", "transitions")
"""Loggers that report a client's leaving with a traceback."""


def mosquitto() -> Path | None:
    """Where Mosquitto is installed, or None."""
    found = shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_ADMIN_PATHS)))
    return None if found is None else Path(found)


class Broker:
    """A broker that runs from entering to leaving; ``port`` and ``kind`` say what was started."""

    def __init__(self, port: int = 0, *, host: str = "127.0.0.1", kind: Kind | None = None) -> None:
        """``port`` 0 takes a free one, ``kind`` None takes Mosquitto where it is installed."""
        self.host = host
        self.port = port
        self.kind: Kind = kind or ("mosquitto" if mosquitto() is not None else "amqtt")
        self._stack = AsyncExitStack()

    @property
    def address(self) -> str:
        """``mqtt://host:port``, as a plant file writes it."""
        return f"mqtt://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        """Start it; returns when it answers. Raises Misconfigured when the port is taken or Mosquitto missing."""
        self.port = _free(self.host, self.port)
        running = _Mosquitto(self.host, self.port) if self.kind == "mosquitto" else _Amqtt(self.host, self.port)
        try:
            self._stack.push_async_callback(running.stop)
            await running.start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._stack.aclose()


class _Mosquitto:
    """Mosquitto as a child process that ends with this one, however this one ends.

    Its configuration and what it says are files without a name: nobody needs to delete them.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._configuration = tempfile.TemporaryFile()  # noqa: SIM115  # `stop` closes it
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # and this one
        self._child: Process | None = None

    async def start(self) -> None:
        program = mosquitto()
        if program is None:
            raise Misconfigured("Mosquitto is not installed; install it with: apt-get install mosquitto")
        self._configuration.write("\n".join((*_configuration(self._host, self._port), "")).encode())
        self._configuration.seek(0)
        file = self._configuration.fileno()
        self._child = await asyncio.create_subprocess_exec(
            *_with_us(), str(program), "-c", f"/dev/fd/{file}", pass_fds=(file,),
            stdin=DEVNULL, stdout=DEVNULL, stderr=self._said,
            start_new_session=True,  # Ctrl-C is for us, who still have something to publish
        )  # fmt: skip
        try:
            async with asyncio.timeout(_READY_WITHIN):
                while not await _answers(self._host, self._port):
                    if self._child.returncode is not None:
                        said = os.pread(self._said.fileno(), _MOST_SAID, 0).decode(errors="replace")
                        raise Misconfigured(f"Mosquitto ended by itself; it said: {said}")
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise Unavailable(f"Mosquitto does not answer within {_READY_WITHIN:g} s") from error

    async def stop(self) -> None:
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            try:
                await asyncio.wait_for(child.wait(), _STOP_WITHIN)
            except TimeoutError:
                child.kill()
                await child.wait()
        self._configuration.close()
        self._said.close()


class _Amqtt:
    """amqtt in this process and event loop."""

    def __init__(self, host: str, port: int) -> None:
        from amqtt.broker import Broker as AmqttBroker  # noqa: PLC0415  # takes 0.3 s, and is needed only here

        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._broker = AmqttBroker({"listeners": {"default": {"type": "tcp", "bind": where}}, "plugins": anonymous})
        self._serve = self._broker.stream_connected
        self._broker.stream_connected = self._connected
        self._clients: set[asyncio.StreamWriter] = set()
        self._started = False

    async def start(self) -> None:
        await self._broker.start()
        self._started = True

    async def stop(self) -> None:
        if self._started:
            self._started = False
            await self._broker.shutdown()
        for client in tuple(self._clients):  # amqtt forgets a client that went while it was greeted
            client.transport.abort()
            with suppress(OSError):
                await client.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str) -> None:
        self._clients.add(writer)
        try:
            await self._serve(reader, writer, listener_name)
        finally:
            writer.close()
            self._clients.discard(writer)


def _configuration(host: str, port: int) -> Sequence[str]:
    return [
        *(["user root"] if os.geteuid() == 0 else []),  # else it becomes a user who may not exist in a container
        "log_dest stderr",
        "log_type error",
        "persistence false",
        # By default Mosquitto drops messages of fast publishers once 20 are in flight and 1000 queued.
        "max_inflight_messages 0",
        "max_queued_messages 0",
        "set_tcp_nodelay true",  # else a second message waits for the acknowledgement of the first, up to 40 ms
        f"listener {port} {host}",
        "allow_anonymous true",
    ]


def _with_us() -> Sequence[str]:
    """Words before a command that end it when this process is killed, where util-linux offers them."""
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "TERM", "--")


def _free(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises Misconfigured when it is taken or the host is not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Misconfigured(
                f"the broker cannot listen at {host}:{port}: {error.strerror or error}; choose another port"
            ) from error
        found: int = probe.getsockname()[1]
    return found


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
