"""Topics there and back, and what is said of those that are none."""

import pytest
from hypothesis import given, strategies as st

from shopfloor.protocols.sparkplug.topics import (
    EdgeTopic,
    MessageType,
    NotSparkplug,
    StateTopic,
    check_id,
    id_problem,
    parse,
)

IDS = st.text(st.characters(codec="utf-8", exclude_characters="+/#\0"), min_size=1, max_size=20)


@st.composite
def topics(draw: st.DrawFn) -> EdgeTopic | StateTopic:
    kind = draw(st.sampled_from(MessageType))
    if kind is MessageType.STATE:
        return StateTopic(draw(IDS))
    return EdgeTopic(draw(IDS), kind, draw(IDS), draw(IDS) if kind.of_device else None)


@pytest.mark.sparkplug(
    "tck-id-topic-structure",
    "tck-id-topic-structure-namespace-valid-group-id",
    "tck-id-topic-structure-namespace-valid-edge-node-id",
    "tck-id-topic-structure-namespace-valid-device-id",
    "tck-id-intro-group-id-string",
    "tck-id-intro-edge-node-id-string",
    "tck-id-intro-device-id-string",
)
@given(topics())
def test_a_topic_that_is_written_is_read_the_same(topic: EdgeTopic | StateTopic) -> None:
    assert parse(str(topic)) == topic


@pytest.mark.sparkplug(
    "tck-id-topic-structure-namespace-a",
    "tck-id-host-topic-phid-birth-topic",
    "tck-id-host-topic-phid-death-topic",
    "tck-id-topics-nbirth-topic",
    "tck-id-topics-ndata-topic",
    "tck-id-topics-ndeath-topic",
    "tck-id-topics-ncmd-topic",
    "tck-id-topics-dbirth-topic",
    "tck-id-topics-ddata-topic",
    "tck-id-topics-ddeath-topic",
    "tck-id-topics-dcmd-topic",
)
@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("spBv1.0/g/NBIRTH/n", EdgeTopic("g", MessageType.NBIRTH, "n")),
        ("spBv1.0/g/NDATA/n", EdgeTopic("g", MessageType.NDATA, "n")),
        ("spBv1.0/g/NDEATH/n", EdgeTopic("g", MessageType.NDEATH, "n")),
        ("spBv1.0/g/NCMD/n", EdgeTopic("g", MessageType.NCMD, "n")),
        ("spBv1.0/g/DBIRTH/n/d", EdgeTopic("g", MessageType.DBIRTH, "n", "d")),
        ("spBv1.0/g/DDATA/n/d", EdgeTopic("g", MessageType.DDATA, "n", "d")),
        ("spBv1.0/g/DDEATH/n/d", EdgeTopic("g", MessageType.DDEATH, "n", "d")),
        ("spBv1.0/g/DCMD/n/d", EdgeTopic("g", MessageType.DCMD, "n", "d")),
        ("spBv1.0/STATE/h", StateTopic("h")),
        ("spBv1.0/STATE/NBIRTH/n", EdgeTopic("STATE", MessageType.NBIRTH, "n")),
    ],
)
def test_each_message_has_the_topic_of_the_specification(text: str, topic: EdgeTopic | StateTopic) -> None:
    assert str(topic) == text
    assert parse(text) == topic


@pytest.mark.sparkplug(
    "tck-id-topic-structure-namespace-device-id-associated-message-types",
    "tck-id-topic-structure-namespace-device-id-non-associated-message-types",
)
@pytest.mark.parametrize("kind", [kind for kind in MessageType if kind is not MessageType.STATE])
def test_messages_of_devices_name_one_and_others_do_not(kind: MessageType) -> None:
    wrong = None if kind.of_device else "d"
    with pytest.raises(NotSparkplug, match=r"device|ends before"):
        EdgeTopic("g", kind, "n", wrong)
    with pytest.raises(NotSparkplug):
        parse(f"spBv1.0/g/{kind}/n" if kind.of_device else f"spBv1.0/g/{kind}/n/d")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not start with spBv1.0/"),
        ("spAv1.0/g/NBIRTH/n", "does not start with spBv1.0/"),
        ("spbv1.0/g/NBIRTH/n", "does not start with spBv1.0/"),
        ("STATE/h", "does not start with spBv1.0/"),
        ("spBv1.0", "has 1 levels; Sparkplug's are spBv1.0/group/TYPE/node,"),
        ("spBv1.0/g/NBIRTH", "has 3 levels"),
        ("spBv1.0/g/DDATA/n/d/e", "has 6 levels"),
        ("spBv1.0/STATE/h/x", "'h' where a message type is: NBIRTH, NDEATH, NDATA, NCMD, DBIRTH"),
        ("spBv1.0/g/nbirth/n", "'nbirth' where a message type is"),
        ("spBv1.0/g/STATE/n", "STATE is the message of a host"),
        ("spBv1.0//NBIRTH/n", "'' cannot be the group id: it is empty"),
        ("spBv1.0/g/NBIRTH/", "'' cannot be the edge node id"),
        ("spBv1.0/g/DDATA/n/", "'' cannot be the device id"),
        ("spBv1.0/STATE/", "'' cannot be the host id"),
        ("spBv1.0/+/NBIRTH/n", "'+' cannot be the group id: it has '+', which MQTT topics reserve"),
    ],
)
def test_what_is_no_topic_of_sparkplug_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(NotSparkplug) as caught:
        parse(text)
    assert reason in str(caught.value)


def test_the_state_of_older_versions_is_taken_only_when_asked() -> None:
    assert parse("STATE/h", legacy_state=True) == StateTopic("h", legacy=True)
    assert str(StateTopic("h", legacy=True)) == "STATE/h"
    assert parse("spBv1.0/STATE/h", legacy_state=True) == StateTopic("h")


@pytest.mark.sparkplug("tck-id-intro-group-id-chars", "tck-id-intro-edge-node-id-chars", "tck-id-intro-device-id-chars")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("a+b", "it has '+'"),
        ("a/b", "it has '/'"),
        ("a#", "it has '#'"),
        ("a\0", "NUL"),
        ("\ud800", "surrogate"),
        ("é" * 40_000, "80000 bytes"),
    ],
)
def test_an_id_that_no_topic_can_have_is_refused_with_what_to_do(text: str, reason: str) -> None:
    problem = id_problem(text)
    assert problem is not None
    assert reason in problem
    with pytest.raises(NotSparkplug, match="cannot be the group id"):
        check_id(text, "group")
    with pytest.raises(NotSparkplug):
        EdgeTopic(text, MessageType.NBIRTH, "n")
    with pytest.raises(NotSparkplug):
        StateTopic(text)


def test_a_topic_that_mqtt_cannot_carry_is_refused() -> None:
    with pytest.raises(NotSparkplug, match="make the ids shorter"):
        EdgeTopic("g" * 40_000, MessageType.NBIRTH, "n" * 40_000)


@given(st.text(max_size=40) | st.lists(st.sampled_from(["spBv1.0", "STATE", "NBIRTH", "g", "", "+"])).map("/".join))
def test_any_text_is_a_topic_or_refused(text: str) -> None:
    try:
        topic = parse(text)
    except NotSparkplug:
        return
    assert str(topic) == text
