"""The validator names the assertion that a message breaks, and finds nothing in messages that break none."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.rules import ASSERTIONS, RULES, Finding, Message, Validator
from tools import sparkplug

NOW = 1_790_000_000_000
TYPES = {"int_value": 3, "long_value": 4, "float_value": 9, "double_value": 10, "boolean_value": 11,
         "string_value": 12, "bytes_value": 17}  # fmt: skip
NODE = "spBv1.0/Bremen/{}/Line1"
DEVICE = "spBv1.0/Bremen/{}/Line1/Press"


def payload(seq: int | None = None, *, time: int | None = NOW) -> Any:
    made = wire.Payload()
    if seq is not None:
        made.seq = seq
    if time is not None:
        made.timestamp = time
    return made


def add(made: Any, name: str | None = None, **fields: Any) -> Any:
    """Add a metric with its time and the type that belongs to its value; a field that is None is left out."""
    metric = made.metrics.add()
    kind = next((TYPES[field] for field in fields if field in TYPES), None)
    for field, value in ({"timestamp": NOW, "datatype": kind, "name": name} | fields).items():
        if value is not None:
            setattr(metric, field, value)
    return metric


def node_birth() -> Any:
    made = payload(0)
    add(made, "bdSeq", long_value=7)
    add(made, "Node Control/Rebirth", boolean_value=False)
    add(made, "Temperature", double_value=20.5, alias=1)
    add(made, "Order", string_value="A-1")
    made.metrics.append(definition())
    return made


def device_birth() -> Any:
    made = payload(1)
    add(made, "Pressure", double_value=3.5, alias=2)
    add(made, "Start", boolean_value=False)
    instance = add(made, "Left", datatype=19).template_value
    instance.is_definition, instance.template_ref = False, "Motor"
    add(instance, "rpm", int_value=0)
    parts = instance.parameters.add()
    parts.name, parts.type, parts.int_value = "poles", 3, 2
    return made


def definition() -> Any:
    made = payload()
    template = add(made, "Motor", datatype=19).template_value
    template.is_definition = True
    add(template, "rpm", int_value=0)
    parameter = template.parameters.add()
    parameter.name, parameter.type, parameter.int_value = "poles", 3, 4
    return made.metrics[0]


def node_data(seq: int = 2) -> Any:
    made = payload(seq)
    add(made, alias=1, double_value=21.0, datatype=None)
    return made


def device_data(seq: int = 2) -> Any:
    made = payload(seq)
    add(made, alias=2, double_value=3.6, datatype=None)
    return made


def node_death(bd_seq: int = 7) -> Any:
    made = payload(time=None)
    add(made, "bdSeq", long_value=bd_seq)
    return made


def device_death() -> Any:
    return payload(2)


def node_command() -> Any:
    made = payload()
    add(made, "Order", string_value="A-2", datatype=None)
    return made


def device_command() -> Any:
    made = payload()
    add(made, "Start", boolean_value=True, datatype=None)
    return made


MAKERS: dict[str, Callable[[], Any]] = {
    "NBIRTH": node_birth, "DBIRTH": device_birth, "NDATA": node_data, "DDATA": device_data, "NDEATH": node_death,
    "DDEATH": device_death, "NCMD": node_command, "DCMD": device_command,
}  # fmt: skip


def topic(verb: str) -> str:
    return (NODE if verb.startswith("N") else DEVICE).format(verb)


def message(verb: str, made: Any, *, to: str | None = None, qos: int | None = 0, retain: bool = False) -> Message:
    data = made if isinstance(made, bytes) else made.SerializeToString()
    return Message(to or topic(verb), data, qos, retain, NOW)


def state(said: Any, *, qos: int = 1, retain: bool = True, to: str = "spBv1.0/STATE/scada") -> Message:
    return Message(to, said if isinstance(said, bytes) else json.dumps(said).encode(), qos, retain, NOW)


def last(*messages: Message, complete: bool = True) -> list[Finding]:
    """What the last of the messages breaks; those before it must break nothing."""
    validator = Validator(complete=complete)
    for one in messages[:-1]:
        assert not validator.check(one)
    return validator.check(messages[-1])


def before(verb: str) -> list[Message]:
    """What must have been sent for a message of that type to be right."""
    births = [message("NBIRTH", node_birth()), message("DBIRTH", device_birth())]
    return {"NBIRTH": [], "DBIRTH": births[:1]}.get(verb, births)


def changed(verb: str, change: Callable[[Any], object]) -> list[Finding]:
    """What a message of that type breaks after ``change`` has been at its payload."""
    made = MAKERS[verb]()
    change(made)
    return last(*before(verb), message(verb, made))


def rules(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("verb", MAKERS)
def test_a_right_message_breaks_nothing(verb: str) -> None:
    assert not last(*before(verb), message(verb, MAKERS[verb]()))


def test_a_whole_session_breaks_nothing() -> None:
    """Births, more data than the sequence has numbers, a command, a rebirth, a death, the next session."""
    stream = before("NDATA")
    stream += [message("NDATA", node_data(number % 256)) for number in range(2, 600)]
    rebirth = payload()
    add(rebirth, "Node Control/Rebirth", boolean_value=True, datatype=None)
    stream += [message("NCMD", rebirth), *before("NDATA"), message("NDEATH", node_death(), qos=1)]
    following = node_birth()
    following.metrics[0].long_value = 8
    assert not last(*stream, message("NBIRTH", following))


PUBLISHED = [verb for verb in MAKERS if verb != "NDEATH"]


@pytest.mark.parametrize("verb", PUBLISHED)
def test_qos_is_zero(verb: str) -> None:
    assert rules(last(*before(verb), message(verb, MAKERS[verb](), qos=1))) == {f"{verb} qos"}


@pytest.mark.parametrize("verb", MAKERS)
def test_nothing_but_state_is_retained(verb: str) -> None:
    assert rules(last(*before(verb), message(verb, MAKERS[verb](), retain=True))) == {f"{verb} retain"}


def test_flags_that_say_nothing_break_nothing() -> None:
    known = message("NBIRTH", node_birth())
    assert not Validator().check(known._replace(qos=None, retain=None))
    assert not Validator().check(state({"online": True, "timestamp": NOW})._replace(qos=None, retain=None))


@pytest.mark.parametrize("verb", MAKERS)
def test_what_is_no_protobuf_is_named(verb: str) -> None:
    rule = f"{verb} payload" if verb in ("NBIRTH", "DBIRTH", "NDEATH") else "payload"
    assert rules(last(*before(verb), message(verb, b"\x0a\xff{not protobuf"))) == {rule}


@pytest.mark.parametrize("verb", PUBLISHED)
def test_every_payload_says_when_it_was_sent(verb: str) -> None:
    assert rules(changed(verb, lambda made: made.ClearField("timestamp"))) == {f"{verb} timestamp"}


@pytest.mark.parametrize("verb", ["NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH"])
def test_what_a_node_publishes_is_counted(verb: str) -> None:
    assert rules(changed(verb, lambda made: made.ClearField("seq"))) == {f"{verb} seq missing"}
    assert rules(changed(verb, lambda made: setattr(made, "seq", 9))) == {f"{verb} seq"}


@pytest.mark.parametrize("verb", ["NDEATH", "NCMD", "DCMD"])
def test_deaths_of_nodes_and_commands_are_not_counted(verb: str) -> None:
    assert rules(changed(verb, lambda made: setattr(made, "seq", 0))) == {f"{verb} seq"}


def metric(index: int, **fields: Any) -> Callable[[Any], object]:
    """Change a metric's fields; None takes one away."""

    def change(made: Any) -> None:
        for field, value in fields.items():
            if value is None:
                made.metrics[index].ClearField(field)
            else:
                setattr(made.metrics[index], field, value)

    return change


def extra(name: str | None = None, **fields: Any) -> Callable[[Any], object]:
    return lambda made: add(made, name, **fields)


def with_property(*, key: str = "unit", kind: int | None = 12, sizes: bool = True, **value: Any) -> Any:
    def change(made: Any) -> None:
        properties = made.metrics[0].properties
        properties.keys.append(key)
        if not sizes:
            properties.keys.append("another")
        one = properties.values.add()
        if kind is not None:
            one.type = kind
        for field, content in (value or {"string_value": "bar"}).items():
            setattr(one, field, content)

    return change


def with_table(change: Callable[[Any], object]) -> Callable[[Any], object]:
    def put(made: Any) -> None:
        table = add(made, "Table", datatype=16).dataset_value
        table.num_of_columns = 2
        table.columns.extend(["a", "b"])
        table.types.extend([3, 12])
        row = table.rows.add()
        row.elements.add().int_value = 1
        row.elements.add().string_value = "x"
        change(table)

    return put


def with_template(change: Callable[[Any], object], index: int) -> Callable[[Any], object]:
    return lambda made: change(made.metrics[index].template_value)


def foreign_cell(table: Any) -> None:
    table.rows[0].elements[0].ParseFromString(b"\x3a\x00")  # field 7: an extension


def foreign_parameter(template: Any) -> None:
    template.parameters[0].ParseFromString(b"\x0a\x05poles\x10\x03\x4a\x00")  # name, type, field 9: an extension


ORDER, START, INSTANCE, DEFINITION = 3, 1, 2, 4  # places in the births above

BROKEN: list[tuple[str, str, Callable[[Any], object]]] = [
    ("NBIRTH", "NBIRTH seq range", lambda made: setattr(made, "seq", 256)),
    ("NBIRTH", "payload time", lambda made: setattr(made, "timestamp", NOW - 3_600_000)),
    ("NDATA", "payload time", lambda made: setattr(made, "timestamp", NOW // 1000)),
    ("NDATA", "metric time", metric(0, timestamp=NOW + 86_400_000)),
    ("NDATA", "metric timestamp missing", metric(0, timestamp=None)),
    ("DBIRTH", "metric timestamp missing", metric(0, timestamp=None)),
    ("NBIRTH", "bdSeq missing", lambda made: made.metrics.pop(0)),
    ("NBIRTH", "bdSeq type", metric(0, datatype=8)),
    ("NBIRTH", "rebirth missing", lambda made: made.metrics.pop(1)),
    ("NBIRTH", "rebirth type", metric(1, datatype=3)),
    ("NBIRTH", "rebirth value", metric(1, boolean_value=True)),
    ("NBIRTH", "rebirth alias", metric(1, alias=99)),
    ("NBIRTH", "NBIRTH name missing", metric(2, name=None)),
    ("DBIRTH", "DBIRTH name missing", metric(0, name=None)),
    ("NBIRTH", "NBIRTH type missing", metric(2, datatype=None)),
    ("DBIRTH", "DBIRTH type missing", metric(0, datatype=None)),
    ("NBIRTH", "NBIRTH value missing", metric(2, double_value=None)),
    ("DBIRTH", "DBIRTH value missing", metric(0, double_value=None)),
    ("NBIRTH", "NBIRTH null with value", metric(2, is_null=True)),
    ("DBIRTH", "DBIRTH null with value", metric(0, is_null=True)),
    ("NBIRTH", "datatype", metric(2, datatype=35)),
    ("NDATA", "datatype repeated", metric(0, datatype=10)),
    ("DDATA", "value of another type", metric(0, string_value="3.6")),
    ("NBIRTH", "value of another type", metric(2, datatype=9)),
    ("NBIRTH", "alias twice", metric(ORDER, alias=1)),
    ("DBIRTH", "alias twice", metric(START, alias=1)),
    ("NDATA", "alias with name", metric(0, name="Temperature")),
    ("NDATA", "alias with name", metric(0, name="Temperature", alias=None)),
    ("NDATA", "name missing", metric(0, alias=None)),
    ("DBIRTH", "names differ by case", extra("PRESSURE", double_value=0.0)),
    ("NDATA", "NDATA unknown metric", metric(0, alias=55)),
    ("NDATA", "NDATA unknown metric", metric(0, alias=2)),
    ("DDATA", "DDATA unknown metric", extra("Speed", double_value=1.0, datatype=None)),
    ("NDATA", "node order", metric(0, timestamp=NOW - 1)),
    ("DDATA", "device order", metric(0, timestamp=NOW - 1)),
    ("NDEATH", "NDEATH metrics", extra("Temperature", double_value=0.0)),
    ("NDEATH", "NDEATH metrics", lambda made: made.ClearField("metrics")),
    ("NDEATH", "NDEATH bdSeq type", metric(0, datatype=8)),
    ("NDEATH", "NDEATH bdSeq", metric(0, long_value=8)),
    ("NCMD", "NCMD empty", lambda made: made.ClearField("metrics")),
    ("DCMD", "DCMD empty", lambda made: made.ClearField("metrics")),
    ("NCMD", "NCMD unknown metric", metric(0, name="Batch")),
    ("DCMD", "DCMD unknown metric", metric(0, name="Stop")),
    ("NCMD", "NCMD value", metric(0, int_value=2)),
    ("DCMD", "DCMD value", metric(0, int_value=1)),
    ("DCMD", "rebirth verb", metric(0, name="Node Control/Rebirth")),
    ("NCMD", "rebirth request", metric(0, name="Node Control/Rebirth", boolean_value=False)),
    ("DBIRTH", "property set sizes", with_property(sizes=False)),
    ("DBIRTH", "property type", with_property(kind=17)),
    ("DBIRTH", "property type missing", with_property(kind=None)),
    ("DBIRTH", "quality type", with_property(key="Quality", kind=4, int_value=192)),
    ("DBIRTH", "quality value", with_property(key="Quality", kind=3, int_value=193)),
    ("DBIRTH", "dataset column count", with_table(lambda table: setattr(table, "num_of_columns", 3))),
    ("DBIRTH", "dataset types missing", with_table(lambda table: table.ClearField("types"))),
    ("DBIRTH", "dataset types count", with_table(lambda table: table.types.append(3))),
    ("DBIRTH", "dataset type", with_table(lambda table: table.types.__setitem__(0, 16))),
    ("DBIRTH", "dataset row", with_table(lambda table: table.rows[0].elements.add())),
    ("DBIRTH", "dataset cell", with_table(foreign_cell)),
    ("DBIRTH", "definition outside NBIRTH", lambda made: made.metrics.append(definition())),
    ("DBIRTH", "definition missing", with_template(lambda one: setattr(one, "template_ref", "Pump"), INSTANCE)),
    ("NBIRTH", "definition with ref", with_template(lambda one: setattr(one, "template_ref", "Motor"), DEFINITION)),
    ("DBIRTH", "is_definition missing", with_template(lambda one: one.ClearField("is_definition"), INSTANCE)),
    ("DBIRTH", "instance without ref", with_template(lambda one: one.ClearField("template_ref"), INSTANCE)),
    ("DBIRTH", "instance member unknown", with_template(lambda one: add(one, "load", int_value=1), INSTANCE)),
    ("DBIRTH", "instance member missing", with_template(lambda one: one.ClearField("metrics"), INSTANCE)),
    ("DBIRTH", "instance parameter unknown",
     with_template(lambda one: setattr(one.parameters[0], "name", "teeth"), INSTANCE)),
    ("NBIRTH", "parameter name", with_template(lambda one: one.parameters[0].ClearField("name"), DEFINITION)),
    ("NBIRTH", "parameter type", with_template(lambda one: setattr(one.parameters[0], "type", 16), DEFINITION)),
    ("NBIRTH", "parameter type missing", with_template(lambda one: one.parameters[0].ClearField("type"), DEFINITION)),
    ("NBIRTH", "parameter value", with_template(foreign_parameter, DEFINITION)),
]  # fmt: skip
ALSO = {
    "NBIRTH seq range": {"NBIRTH seq"},
    "rebirth type": {"value of another type"},
}
"""What the same change breaks besides."""


@pytest.mark.parametrize(("verb", "rule", "change"), BROKEN, ids=lambda part: part if isinstance(part, str) else "")
def test_a_broken_payload_is_named_and_nothing_else(verb: str, rule: str, change: Callable[[Any], object]) -> None:
    assert rules(changed(verb, change)) == {rule} | ALSO.get(rule, set())


TOPICS_BROKEN: list[tuple[str, str]] = [
    ("spBv1.0", "topic"),
    ("spBv1.0/Bremen/NBIRTH", "topic"),
    ("spBv1.0/Bremen/NBURST/Line1", "topic"),
    ("spBv1.0/Bremen/DDATA/Line1/Press/Left", "topic"),
    ("spBv1.0/Bremen/DDATA/Line1", "device level missing"),
    ("spBv1.0/Bremen/NDATA/Line1/Press", "device level"),
    ("spBv1.0/STATE/scada/Press", "device level"),
    ("spbv1.0/Bremen/NBIRTH/Line1", "namespace"),
    ("spAv1.0/Bremen/NBIRTH/Line1", "namespace"),
    ("spBv1.0//NBIRTH/Line1", "group id"),
    ("spBv1.0/Bremen/NBIRTH/Line+1", "edge node id"),
    ("spBv1.0/STATE", "STATE topic"),
    ("STATE/scada", "STATE topic"),
]


@pytest.mark.parametrize(("to", "rule"), TOPICS_BROKEN)
def test_a_wrong_topic_is_named(to: str, rule: str) -> None:
    assert rules(Validator().check(message("NBIRTH", node_birth(), to=to))) == {rule}


def test_a_device_id_has_no_reserved_characters() -> None:
    wrong = message("DBIRTH", device_birth(), to="spBv1.0/Bremen/DBIRTH/Line1/Pre#ss")
    assert rules(last(message("NBIRTH", node_birth()), wrong)) == {"device id"}


def test_other_topics_are_no_business_of_sparkplug() -> None:
    for to in ("", "/", "press-1/PV", "STATE/scada/more", "$SYS/broker/version"):
        assert not Validator(complete=True).check(Message(to, b"20.5"))


def test_ids_that_differ_by_case_only_are_pointed_out_as_advice() -> None:
    found = last(message("NBIRTH", node_birth()), message("NBIRTH", node_birth(), to="spBv1.0/Bremen/NBIRTH/LINE1"))
    assert [(one.rule, one.advice) for one in found] == [("ids differ by case", True)]


ORDER_BROKEN: list[tuple[str, list[Message]]] = [
    ("DBIRTH before NBIRTH", [message("DBIRTH", device_birth())]),
    ("NDATA before NBIRTH", [message("NDATA", node_data())]),
    ("DDATA before DBIRTH", [message("NBIRTH", node_birth()), message("DDATA", device_data(1))]),
    ("DDATA before DBIRTH", [message("DDATA", device_data())]),
    ("DDATA before DBIRTH", [*before("DDATA"), message("DDEATH", device_death()), message("DDATA", device_data(3))]),
    ("NDATA before NBIRTH", [*before("NDATA"), message("NDEATH", node_death()), message("NDATA", node_data())]),
    ("bdSeq same", [*before("NDATA"), message("NDEATH", node_death()), message("NBIRTH", node_birth())]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "messages"), ORDER_BROKEN)
def test_births_come_first_and_sessions_count_on(rule: str, messages: list[Message]) -> None:
    assert rules(last(*messages)) == {rule}


def test_a_rebirth_keeps_the_session_s_bd_seq() -> None:
    request = payload()
    add(request, "Node Control/Rebirth", boolean_value=True, datatype=None)
    again = node_birth()
    again.metrics[0].long_value = 8
    found = last(*before("NDATA"), message("NCMD", request), message("NBIRTH", again))
    assert rules(found) == {"bdSeq changed by rebirth"}


@pytest.mark.parametrize("verb", MAKERS)
def test_who_began_to_listen_later_does_not_miss_a_birth(verb: str) -> None:
    assert not last(message(verb, MAKERS[verb]()), complete=False) or verb == "DBIRTH"
    assert not last(message("NDATA", node_data(77)), message(verb, node_data(78)), complete=False) or verb != "NDATA"


def test_the_late_will_of_an_earlier_session_is_nobody_s_fault_and_ends_nothing() -> None:
    following = node_birth()
    following.metrics[0].long_value = 8
    stream = [message("NBIRTH", node_birth()), message("NBIRTH", following), message("NDEATH", node_death(7))]
    assert not last(*stream, message("NDATA", node_data(1)))


def test_a_historical_value_may_be_old() -> None:
    assert not changed("NDATA", metric(0, timestamp=NOW - 86_400_000, is_historical=True))


def test_the_first_value_may_be_older_than_the_birth_that_had_none() -> None:
    birth = node_birth()
    metric(2, double_value=None, is_null=True)(birth)
    data = node_data(1)
    metric(0, timestamp=NOW - 10)(data)
    assert not last(message("NBIRTH", birth), message("NDATA", data))


GOOD_STATE = {"online": True, "timestamp": NOW}


@pytest.mark.parametrize("online", [True, False])
def test_a_right_state_breaks_nothing(online: bool) -> None:  # noqa: FBT001  # pytest gives it by name
    assert not Validator().check(state({"online": online, "timestamp": NOW}))


STATE_BROKEN: list[tuple[str, Message]] = [
    ("STATE payload", state(b"ONLINE")),
    ("STATE payload", state(b"\xff\xfe")),
    ("STATE payload", state([1, 2])),
    ("STATE payload", state({"online": "true", "timestamp": NOW})),
    ("STATE payload", state(b"[" * 100_000)),
    ("STATE birth payload", state({"online": True})),
    ("STATE birth payload", state({"online": True, "timestamp": str(NOW)})),
    ("STATE birth payload", state({"online": True, "timestamp": NOW // 1000})),
    ("STATE death payload", state({"online": False, "timestamp": None})),
    ("STATE birth qos", state(GOOD_STATE, qos=0)),
    ("STATE death qos", state(GOOD_STATE | {"online": False}, qos=0)),
    ("STATE birth retain", state(GOOD_STATE, retain=False)),
    ("STATE death retain", state(GOOD_STATE | {"online": False}, retain=False)),
]


@pytest.mark.parametrize(("rule", "sent"), STATE_BROKEN)
def test_a_broken_state_is_named(rule: str, sent: Message) -> None:
    assert rules(Validator().check(sent)) == {rule}


def test_every_rule_is_tested() -> None:
    tested = {rule for _, rule, _ in BROKEN} | {rule for _, rule in TOPICS_BROKEN}
    tested |= {rule for rule, _ in ORDER_BROKEN} | {rule for rule, _ in STATE_BROKEN}
    tested |= {f"{verb} {what}" for verb in PUBLISHED for what in ("qos", "retain", "timestamp")} | {"NDEATH retain"}
    tested |= {f"{verb} seq" for verb in MAKERS} | {f"{verb} seq missing" for verb in PUBLISHED if verb[1:] != "CMD"}
    tested |= {"payload", "NBIRTH payload", "DBIRTH payload", "NDEATH payload", "device id"}
    assert tested | {"ids differ by case", "bdSeq changed by rebirth"} == RULES.keys()


def test_every_rule_names_assertions_that_there_are() -> None:
    assert sparkplug.assertions().keys() >= ASSERTIONS
    found = Validator().check(message("NBIRTH", node_birth(), qos=1))
    assert found[0].assertions == RULES["NBIRTH qos"]
    assert "tck-id-payloads-nbirth-qos" in found[0].assertions


def test_the_same_fault_of_many_metrics_is_one_finding() -> None:
    def many(made: Any) -> None:
        for number in range(1000):
            add(made, f"m{number}", double_value=0.0, timestamp=None)

    (found,) = changed("DBIRTH", many)
    assert found.text.endswith("m2 has no timestamp of its own; and 997 more")


TOPICS = st.sampled_from([*map(topic, MAKERS), "spBv1.0/STATE/scada", "spBv1.0/a/b/c/d", "spBv1.0///"])


@given(st.lists(st.tuples(TOPICS, st.binary(max_size=60)), max_size=12))
def test_garbage_is_reported_and_never_raises(messages: list[tuple[str, bytes]]) -> None:
    validator = Validator(complete=True)
    for to, data in messages:
        validator.check(Message(to, data, 0, False, NOW))


@given(st.sampled_from(list(MAKERS)), st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_message_never_raises(verb: str, place: int, byte: int) -> None:
    data = bytearray(MAKERS[verb]().SerializeToString())
    data[place % len(data) : place % len(data) + 1] = bytes((byte,))
    validator = Validator(complete=True)
    for one in (*before(verb), message(verb, bytes(data)), *before("NDATA"), message("NDATA", node_data())):
        validator.check(one)
