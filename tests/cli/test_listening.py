"""`shopfloor sparkplug listen` shows a broker's Sparkplug traffic and names what each faulty message breaks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor import listening
from shopfloor.protocols.mqtt import Message as Publication
from shopfloor.protocols.mqtt_session import Session, open_session
from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.model import DataType
from shopfloor.protocols.sparkplug.rules import Message
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import Mosquitto, free_port

NOW = 1_790_000_000_000
BIRTH = "spBv1.0/Bremen/NBIRTH/Line1"
DATA = "spBv1.0/Bremen/NDATA/Line1"


def birth() -> bytes:
    made = wire.Payload(timestamp=NOW, seq=0)
    made.metrics.add(name="bdSeq", timestamp=NOW, datatype=4, long_value=0)
    made.metrics.add(name="Node Control/Rebirth", timestamp=NOW, datatype=11, boolean_value=False)
    made.metrics.add(name="Offset", alias=5, timestamp=NOW, datatype=1, int_value=0)
    data: bytes = made.SerializeToString()
    return data


def data(seq: int = 1) -> bytes:
    made = wire.Payload(timestamp=NOW, seq=seq)
    made.metrics.add(alias=5, timestamp=NOW, int_value=0xFFFFFFFD)
    encoded: bytes = made.SerializeToString()
    return encoded


def shown(*messages: tuple[str, bytes], how: Callable[[listening.Heard], str] = listening.as_text) -> str:
    """What is printed for the last of the messages."""
    listener = listening.Listener()
    *_, last = [how(listener.hear(Message(topic, payload, 0, None, NOW))) for topic, payload in messages]
    return last


def test_a_birth_is_shown_with_names_aliases_types_and_values() -> None:
    assert shown((BIRTH, birth())).splitlines() == [
        "2026-09-21T14:13:20.000Z  NBIRTH  Bremen/Line1  seq 0  3 metrics",
        "    bdSeq                             Int64       0",
        "    Node Control/Rebirth              Boolean     false",
        "    Offset (5)                        Int8        0",
    ]


def test_a_value_by_alias_is_shown_as_its_birth_named_and_typed_it() -> None:
    assert (
        shown((BIRTH, birth()), (DATA, data())).splitlines()[1]
        == "    Offset (5)                        Int8        -3"
    )


def test_a_finding_stands_below_its_message_with_its_assertions() -> None:
    lines = shown((BIRTH, birth()), (DATA, data(seq=9))).splitlines()
    assert lines[2] == "  ! seq is 9, 1 was to come: a message is missing or doubled"
    assert "tck-id-payloads-ndata-seq-inc" in lines[3]


def test_json_has_one_line_a_message_with_everything() -> None:
    said = json.loads(shown((BIRTH, birth()), (DATA, data(seq=9)), how=listening.as_line))
    assert said["topic"] == DATA
    assert said["received"] == "2026-09-21T14:13:20.000Z"
    assert (said["payload"]["metrics"][0]["name"], said["payload"]["metrics"][0]["type"]) == ("Offset", "Int8")
    assert said["payload"]["metrics"][0]["value"] == -3
    assert "tck-id-topics-ndata-seq-num" in said["findings"][0]["assertions"]
    assert said["findings"][0]["advice"] is False


@pytest.mark.parametrize("how", [listening.as_text, listening.as_line])
@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (BIRTH, b"\x0a\xffgarbage"),
        (BIRTH, b""),
        ("spBv1.0/STATE/scada", b"\xff\xfe"),
        ("spBv1.0/STATE/scada", b""),
        ("spBv1.0/a\x1b[2Jb/NDATA/Line1", data()),
        ("spBv1.0", b"\x1b[2J"),
        (BIRTH, b"\x12\x04\x0a\x02\x1b["),
    ],
)  # fmt: skip
def test_garbage_is_shown_and_never_commands_the_terminal(
    topic: str, payload: bytes, how: Callable[[listening.Heard], str]
) -> None:
    text = shown((topic, payload), how=how)
    assert "\x1b" not in text
    assert text


def test_a_long_birth_is_cut_for_people_and_whole_in_json() -> None:
    made = wire.Payload(timestamp=NOW, seq=0)
    for number in range(1000):
        made.metrics.add(name=f"m{number}", timestamp=NOW, datatype=10, double_value=float("nan"))
    message = (BIRTH, made.SerializeToString())
    text = shown(message)
    assert "    … and 960 more" in text
    assert "nan" in text
    assert len(json.loads(shown(message, how=listening.as_line))["payload"]["metrics"]) == 1000


def test_types_have_the_specification_s_names() -> None:
    names = [listening.type_name(each) for each in DataType]
    assert {"UInt64", "DateTime", "UUID", "DataSet", "PropertySetList", "UInt16Array", "DateTimeArray"} < set(names)


@pytest.mark.parametrize("broker", ["nonsense", "http://127.0.0.1:1883", "mqtt://user:pass@127.0.0.1"])
def test_a_wrong_address_is_refused_with_what_to_write(broker: str) -> None:
    with pytest.raises(Misconfigured, match=r"mqtt://|username"):
        listening.connection(broker, None, None, None)


async def never() -> None:
    await asyncio.Event().wait()


async def test_no_broker_is_said_plainly() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await listening.listen(
            listening.connection(f"mqtt://127.0.0.1:{free_port()}", None, None, None), never(), as_json=False
        )


@asynccontextmanager
async def publisher(broker: Mosquitto) -> AsyncIterator[Session]:
    session = await open_session(address(broker), "edge")
    try:
        yield session
    finally:
        await session.close()


def address(broker: Mosquitto) -> Any:
    return listening.connection(f"mqtt://127.0.0.1:{broker.port}", None, None, None)


class Output:
    """What was printed so far."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.out = self.err = ""

    async def until(self, text: str) -> None:
        await until(lambda: self.has(text), f"{text!r} is printed")

    def has(self, text: str) -> bool:
        new = self._capture.readouterr()
        self.out += new.out
        self.err += new.err
        return text in self.out + self.err


async def test_a_broker_s_traffic_is_heard_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Retained before and live, in both namespaces and with both flags; the exit code says that something broke."""
    output, stop = Output(capsys), asyncio.Event()
    async with Mosquitto(tmp_path) as broker, publisher(broker) as edge:
        await edge.publish([Publication(b"spBv1.0/STATE/scada", b"OFFLINE", retain=True)], 1)
        listened = asyncio.create_task(listening.listen(address(broker), set_by(stop), as_json=False))
        await output.until("STATE is JSON")
        await edge.publish([Publication(BIRTH.encode(), birth(), retain=True)], 1)
        await output.until("tck-id-payloads-nbirth-qos")
        await edge.publish([Publication(b"STATE/scada", b"ONLINE", retain=False)], 0)
        await output.until("is of Sparkplug 2.2")
        stop.set()
        assert await listened == 1
    assert output.has("3 messages, 3 of them break the specification")


async def test_good_traffic_ends_with_zero_and_a_lost_broker_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, stop = Output(capsys), asyncio.Event()
    state = Publication(b"spBv1.0/STATE/scada", b'{"online":true,"timestamp":1790000000000}', retain=True)
    async with Mosquitto(tmp_path) as broker, publisher(broker) as host:
        for judged in (0, None):
            listened = asyncio.create_task(listening.listen(address(broker), set_by(stop), as_json=True))
            await output.until("listening at")
            await host.publish([state], 1)
            await output.until('"topic":"spBv1.0/STATE/scada"')
            if judged is None:
                broker.stop()
                with pytest.raises(Unavailable):
                    await listened
            else:
                stop.set()
                assert await listened == judged
            output, stop = Output(capsys), asyncio.Event()


async def set_by(stop: asyncio.Event) -> None:
    await stop.wait()
