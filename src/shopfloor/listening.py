"""Shows a broker's Sparkplug traffic as it comes: decoded, with the assertion that each faulty message breaks."""

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec
from pydantic import SecretStr, ValidationError

from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt_session import Arrival, Session, Subscription, open_session
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.payload import Malformed, decode
from shopfloor.protocols.sparkplug.rules import Finding, Message, Validator
from shopfloor.protocols.sparkplug.topics import EdgeTopic, NotSparkplug, parse
from shopfloor.samples import Misconfigured

SPARKPLUG: Final = "spBv1.0/#"
OTHERS: Final = ("STATE/+", "spAv1.0/#", "spbv1.0/#", "SPBV1.0/#")
"""Where Sparkplug's messages are found that should be elsewhere; a broker may forbid them."""
_SHOWN: Final = 40
"""Metrics of a message that a person sees; JSON has all."""
_MOST_BIRTHS: Final = 10_000
_WIDE: Final = 32
_LONGEST_VALUE: Final = 200


class Heard(NamedTuple):
    """A message with what it says and what it breaks."""

    message: Message
    topic: EdgeTopic | None
    """None where it is no message of a node or a device."""
    payload: Payload | None
    """None where it is no Sparkplug payload."""
    findings: Sequence[Finding]


class Listener:
    """Decodes and checks the messages of one broker, in their order."""

    def __init__(self) -> None:
        self._validator = Validator()
        self._births: OrderedDict[tuple[str, str, str | None], dict[int | str, Metric]] = OrderedDict()

    def hear(self, message: Message) -> Heard:
        """What the message says and breaks; never raises because of what it holds."""
        findings = self._validator.check(message)
        try:
            topic = parse(message.topic)
        except NotSparkplug:
            return Heard(message, None, None, findings)
        if not isinstance(topic, EdgeTopic):
            return Heard(message, None, None, findings)
        subject = (topic.group, topic.node, topic.device)
        born = self._births.get(subject, {})
        types = {key: metric.type for key, metric in born.items() if metric.type is not None}
        try:
            payload = decode(message.payload, types)
        except Malformed:
            return Heard(message, topic, None, findings)
        if topic.type.endswith("BIRTH"):
            self._learn(subject, payload.metrics)
        else:
            payload = msgspec.structs.replace(payload, metrics=[_declared(metric, born) for metric in payload.metrics])
        return Heard(message, topic, payload, findings)

    def _learn(self, subject: tuple[str, str, str | None], metrics: Sequence[Metric]) -> None:
        born: dict[int | str, Metric] = {}
        for metric in metrics:
            known = Metric(name=metric.name, type=metric.type)  # not its value, which may be large
            born.update({key: known for key in (metric.name, metric.alias) if key is not None})
        self._births[subject] = born
        self._births.move_to_end(subject)
        if len(self._births) > _MOST_BIRTHS:
            self._births.popitem(last=False)


def _declared(metric: Metric, born: dict[int | str, Metric]) -> Metric:
    """The metric with the name and type that the birth gave it."""
    key = metric.name if metric.alias is None else metric.alias
    known = None if key is None else born.get(key)
    if known is None:
        return metric
    return msgspec.structs.replace(metric, name=metric.name or known.name, type=metric.type or known.type)


# ---- the command line's part ----------------------------------------------------------------------------


def connection(broker: str, username: str | None, password: str | None, ca_file: Path | None) -> MqttConnection:
    """How to reach the broker; raises Misconfigured."""
    given = {"username": username, "password": password and SecretStr(password), "ca_file": ca_file}
    try:
        return MqttConnection.model_validate(
            {"servers": [broker], **{key: value for key, value in given.items() if value is not None}}
        )
    except ValidationError as error:
        raise Misconfigured("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from error


async def listen(settings: MqttConnection, stop: Awaitable[None], *, as_json: bool) -> int:
    """Print what comes until ``stop`` is done; 1 when a message broke what the specification demands, else 0.

    Raises Unavailable when the broker cannot be reached or is lost, Misconfigured when it does not let us in.
    """
    stopping = asyncio.ensure_future(stop)
    tally = _Tally()
    try:
        session = await open_session(settings, f"shopfloor-listen-{uuid.uuid4().hex[:12]}")
        try:
            await _subscribe(session)
            click.echo(f"listening at {settings.servers[0]}; Ctrl-C ends it", err=True)
            hearing = asyncio.create_task(_hear(session, as_line if as_json else as_text, tally))
            await asyncio.wait({hearing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            hearing.cancel()
            with suppress(asyncio.CancelledError):
                await hearing
        finally:
            await session.close()
            click.echo(f"{tally.messages} messages, {tally.faulty} of them break the specification", err=True)
    finally:
        stopping.cancel()
    return 1 if tally.faulty else 0


class _Tally:
    def __init__(self) -> None:
        self.messages = 0
        self.faulty = 0


async def _subscribe(session: Session) -> None:
    await session.subscribe([Subscription(SPARKPLUG)])
    for topic in OTHERS:
        try:
            await session.subscribe([Subscription(topic)])
        except Misconfigured:
            click.echo(f"the broker does not let us see {topic}: what is misplaced there stays unseen", err=True)


async def _hear(session: Session, show: Callable[[Heard], str], tally: _Tally) -> None:
    listener = Listener()
    async for arrivals in session.arrivals():
        for arrival in arrivals:
            heard = listener.hear(_message(arrival))
            tally.messages += 1
            tally.faulty += any(not finding.advice for finding in heard.findings)
            click.echo(show(heard))
        session.acknowledge(arrivals)


def _message(arrival: Arrival) -> Message:
    # A broker clears the flag of what it passes on at once, so only a set one says how it was published.
    return Message(
        arrival.topic,
        arrival.payload,
        qos=1 if arrival.packet_id else 0,
        retain=True if arrival.retained else None,
        received=time.time_ns() // 1_000_000,
    )


# ---- as JSON ----------------------------------------------------------------------------------------------


def as_line(heard: Heard) -> str:
    """A JSON object on one line; bytes are base64."""
    message = heard.message
    said: dict[str, Any] = {
        "received": _moment(message.received),
        "topic": message.topic,
        "qos": message.qos,
        "retained": bool(message.retain),
        "payload": _readable(heard),
        "findings": [
            {"assertions": one.assertions, "advice": one.advice, "text": one.text} for one in heard.findings
        ],
    }  # fmt: skip
    return msgspec.json.encode(said).decode()


def _readable(heard: Heard) -> Any:
    if heard.payload is not None:
        built = msgspec.to_builtins(heard.payload)
        for metric in built["metrics"]:
            metric["type"] = None if metric["type"] is None else type_name(DataType(metric["type"]))
        return built
    try:
        return json.loads(heard.message.payload)
    except (ValueError, RecursionError):
        return heard.message.payload


# ---- for people ---------------------------------------------------------------------------------------------


def as_text(heard: Heard) -> str:
    """A line for the message, one for each metric, one for each finding."""
    return "\n".join(_lines(heard))


def _lines(heard: Heard) -> Iterator[str]:
    message, topic, payload, findings = heard
    moment = _moment(message.received)
    retained = "  retained" if message.retain else ""
    if topic is None:
        yield f"{moment}  {_printable(message.topic)}{retained}  {_plain(message.payload)}"
    else:
        subject = "/".join(filter(None, (topic.group, topic.node, topic.device)))
        head = f"{moment}  {topic.type:<6}  {_printable(subject)}{retained}"
        if payload is None:
            yield f"{head}  {_plain(message.payload)}"
        else:
            seq = "" if payload.seq is None else f"  seq {payload.seq}"
            yield f"{head}{seq}  {len(payload.metrics)} metric{'' if len(payload.metrics) == 1 else 's'}"
            yield from map(_metric_line, payload.metrics[:_SHOWN])
            if len(payload.metrics) > _SHOWN:
                yield f"    … and {len(payload.metrics) - _SHOWN} more"
            yield from (f"    {_printable(one.name)}: cannot be read: {_printable(one.reason)}"
                        for one in payload.faults[:_SHOWN])  # fmt: skip
    for finding in findings:
        yield f"  {'?' if finding.advice else '!'} {_printable(finding.text)}"
        yield f"      {', '.join(finding.assertions) or 'the specification has no identifier for it'}"


def _metric_line(metric: Metric) -> str:
    name = _printable(metric.name or "")
    if metric.alias is not None:
        name = f"{name} ({metric.alias})".lstrip()
    kind = "" if metric.type is None else type_name(metric.type)
    # JSON has no word for NaN and infinity.
    value = repr(metric.value) if isinstance(metric.value, float) else msgspec.json.encode(metric.value).decode()
    old = "  historical" if metric.is_historical else ""
    return f"    {name:<{_WIDE}}  {kind:<10}  {_brief(value)}{old}"


def type_name(data_type: DataType) -> str:
    """The specification's word for a type: ``UInt64``, ``DateTimeArray``."""
    words = "".join(word.capitalize() for word in data_type.name.split("_"))
    return "UUID" if words == "Uuid" else words.replace("Uint", "UInt")


def _moment(milliseconds: int | None) -> str:
    moment = datetime.fromtimestamp((milliseconds or 0) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(payload: bytes) -> str:
    return _brief(_printable(payload.decode("utf-8", "replace"))) if payload else "(empty)"


def _brief(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… ({len(text)} characters)"


def _printable(text: str) -> str:
    """The text without characters that would command a terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
