"""What the Kafka connectors share: the client's settings, its thread, and what its errors mean.

The client library (librdkafka) is loaded when one is made, not before: it costs 14 MB.
"""

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

from pydantic import SecretStr

from shopfloor.samples import Misconfigured, Unavailable

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_MS: Final = 10**6
_SLICE: Final = 0.5
"""Seconds that a call blocks at most, so that whoever leaves need not wait for longer."""

_quiet: Final = logging.getLogger("shopfloor.kafka.client")
_quiet.propagate = False
_quiet.addHandler(logging.NullHandler())  # the library repeats each failed attempt; the pipeline says it once

_AUTHENTICATION: Final = frozenset(("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"))
_BROKEN_OFF: Final = (
    "mechanism handshake failed: Local:",
    "SaslAuthenticateRequest failed: Local:",
    "SSL transport error",
)
"""What the library says when the broker goes, or is too slow, while it asks for our user or greets by TLS."""
ABSENT: Final = "is not there"
_MAKE: Final = "`shopfloor kafka-topics PLANT` creates what the plant file names"
_FORBIDDEN: Final = frozenset((
    "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
))  # fmt: skip
UNKNOWN: Final = frozenset(("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"))
"""What is said of a topic that is not there."""


class Cluster(Protocol):
    """The fields of a config model that say how to reach a cluster."""

    @property
    def servers(self) -> Sequence[str]: ...  # noqa: D102  # the models' fields document each
    @property
    def client_id(self) -> str: ...  # noqa: D102
    @property
    def tls(self) -> bool: ...  # noqa: D102
    @property
    def ca_file(self) -> Path | None: ...  # noqa: D102
    @property
    def certificate_file(self) -> Path | None: ...  # noqa: D102
    @property
    def key_file(self) -> Path | None: ...  # noqa: D102
    @property
    def key_password(self) -> SecretStr | None: ...  # noqa: D102
    @property
    def username(self) -> str | None: ...  # noqa: D102
    @property
    def password(self) -> SecretStr | None: ...  # noqa: D102
    @property
    def mechanism(self) -> str: ...  # noqa: D102
    @property
    def timeout(self) -> int: ...  # noqa: D102


class Client(Protocol):
    """What producers, consumers and administrators have in common."""

    def list_topics(self, topic: str = ..., timeout: float = ...) -> Any: ...  # noqa: D102


class Heard:
    """What the library says of its connections beside what is asked; called in the client's thread."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.down: str | None = None
        """Why no broker can be reached, since that is so."""
        self.wrong: str | None = None
        """What a person must change."""
        self._last = ""

    def error(self, error: "KafkaError") -> None:
        """The library's callback."""
        name, text = error.name(), error.str()
        if _broken_off(text):
            self._last = text
        elif name in _AUTHENTICATION:
            self.wrong = f"the broker does not let us in: {text}; correct `username`, `password` or `mechanism`"
        elif name == "_SSL":
            self.wrong = f"{text}; correct `ca_file`, `certificate_file` or the name in `servers`"
        elif name == "_ALL_BROKERS_DOWN":
            self.down = self._last or text
        else:
            self._last = text

    def check(self) -> None:
        """Raise Misconfigured when it was said that a person must act."""
        if self.wrong is not None:
            raise Misconfigured(self.wrong)


def _broken_off(text: str) -> bool:
    """Whether the connection ended while it was made, which the library calls an error of logging in or of TLS."""
    return any(said in text for said in _BROKEN_OFF)


def settings(config: Cluster, heard: Heard) -> dict[str, Any]:
    """The library's settings for this connection."""
    timeout = config.timeout // _MS
    protocol = ("SASL_" if config.username else "") + ("SSL" if config.tls else "PLAINTEXT")
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(config.servers),
        "client.id": config.client_id,
        "security.protocol": protocol,
        "socket.timeout.ms": min(max(timeout, 10), 300_000),
        "socket.connection.setup.timeout.ms": max(timeout, 1000),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2000,
        "allow.auto.create.topics": False,  # else who asks for a topic makes it, with the cluster's own settings
        "error_cb": heard.error,
        "logger": _quiet,
        "log_level": 0,
    }
    if config.tls:
        found["ssl.ca.location"] = "probe" if config.ca_file is None else str(config.ca_file)
    if config.certificate_file is not None:
        found |= {"ssl.certificate.location": str(config.certificate_file), "ssl.key.location": str(config.key_file)}
    if config.key_password is not None:
        found["ssl.key.password"] = config.key_password.get_secret_value()
    if config.username is not None and config.password is not None:
        found |= {
            "sasl.mechanism": config.mechanism,
            "sasl.username": config.username,
            "sasl.password": config.password.get_secret_value(),
        }
    return found


def wrong_settings(error: Exception) -> Misconfigured:
    """What a client that cannot be made says: files that cannot be used, and the like."""
    said = error.args[0]
    return Misconfigured(f"the settings cannot be used: {said.str() if hasattr(said, 'str') else said}")


class ClientThread:
    """A thread of its own for one client, whose calls block."""

    def __init__(self, name: str) -> None:
        """It begins with the first call."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._left = threading.Event()

    @property
    def left(self) -> bool:
        """Whether whoever waits for a call has gone: a long one should end."""
        return self._left.is_set()

    async def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What the call gives. When cancelled it waits until the call has ended, which ``left`` asks for."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, lambda: _tidy(call, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._left.set()
            await asyncio.wait({future})
            raise

    async def end(self, close: Callable[[], object]) -> None:
        """Close the client in its thread, and end that."""
        self._left.set()
        try:
            await self.run(close)
        finally:
            self._executor.shutdown(wait=False)


def _tidy(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What the call gives; an error that it raises keeps nothing alive that the call had in hand.

    Else a client that was given up would go on connecting until that error is forgotten, which may be long after.
    """
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


def reach(client: Client, heard: Heard, thread: ClientThread, seconds: float, poll: Callable[[], object]) -> Any:
    """The cluster's metadata; in the client's thread. Raises Unavailable, Misconfigured.

    ``poll`` lets the library say what it heard of its connections.
    """
    from confluent_kafka import KafkaException  # noqa: PLC0415  # loaded where it is needed

    deadline = time.monotonic() + seconds
    heard.down = heard.wrong = None
    while True:
        try:
            found = client.list_topics(timeout=max(0.1, min(_SLICE, deadline - time.monotonic())))
        except KafkaException as error:
            poll()
            heard.check()
            if heard.down is not None:
                raise Unavailable(f"no broker can be reached: {heard.down}") from error
            if time.monotonic() >= deadline or thread.left:
                raise Unavailable(f"no broker answers: {error.args[0].str()}") from error
        else:
            heard.down = None
            return found


def missing_topics(client: Client, metadata: Any, names: Iterable[str], seconds: float) -> dict[str, str]:
    """The topics that cannot be used, and why; in the client's thread. Raises Unavailable."""
    from confluent_kafka import KafkaException  # noqa: PLC0415  # loaded where it is needed

    found: dict[str, str] = {}
    for name in names:
        if name in metadata.topics and metadata.topics[name].error is None:
            continue
        try:  # the list leaves out what we may not see; asked by name the broker says which it is
            said = client.list_topics(topic=name, timeout=seconds).topics[name].error
        except KafkaException as error:
            raise Unavailable(f"the broker does not answer: {error.args[0].str()}") from error
        if said is not None and said.name() in UNKNOWN:
            found[name] = ABSENT
        elif said is not None and said.name() in _FORBIDDEN:
            found[name] = "is not allowed to us"
        elif said is not None and not said.retriable():
            found[name] = f"cannot be used: {said.str()}"
    return found


def refuse_missing(missing: Mapping[str, str]) -> None:
    """Raise Misconfigured when there are topics that cannot be used."""
    if not missing:
        return
    said = "; ".join(f"topic {name} {why}" for name, why in missing.items())
    remedies = {
        ABSENT: _MAKE,
        "is not allowed to us": "allow it in the cluster's access list or use another `username`",
    }
    raise Misconfigured(
        f"{said}; {'; '.join(dict.fromkeys(remedies.get(w, 'see the log of Kafka') for w in missing.values()))}"
    )


def meaning(error: "KafkaError", topic: str) -> Exception:
    """Unavailable or Misconfigured, by what the cluster says of a topic."""
    name = error.name()
    if name in _FORBIDDEN:
        return Misconfigured(
            f"the cluster does not let us use topic {topic}: {error.str()}; allow it in its access list or use another "
            "`username`"
        )
    if name in UNKNOWN:
        return Misconfigured(
            f"topic {topic} is not there; {_MAKE}; for a machine that only messages name add "
            "`--machine NAME`, or `create_topics: true` to the sink"
        )
    if name in _AUTHENTICATION and not _broken_off(error.str()):
        return Misconfigured(f"the broker does not let us in: {error.str()}; correct `username` or `password`")
    return Unavailable(f"the cluster does not take part: {error.str()}")
