"""The Sparkplug host as a state machine: every rule of its module's docstring, without a socket or a clock."""

import json
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from shopfloor.protocols.sparkplug.exchange import Arrival, HostSettings, Moment, Publication, Step, Verb
from shopfloor.protocols.sparkplug.host import Host
from shopfloor.protocols.sparkplug.model import (
    DataSet,
    DataType,
    Fault,
    Metric,
    Parameter,
    Payload,
    Property,
    PropertySet,
    Template,
)
from shopfloor.protocols.sparkplug.payload import Columns, decode_columns, encode
from shopfloor.protocols.sparkplug.reading import reading, suited, type_name
from shopfloor.protocols.sparkplug.rebirth import NodeKey, Rebirths
from shopfloor.samples import Quality, Value
from shopfloor.testing.clocks import instant

SECOND = 10**9
MS = 10**6
START = instant("2026-01-05T06:00:00Z")
BROKER = "mqtt://broker"


class Floor:
    """A host with one server, its two clocks and nodes that say what a test lets them say."""

    def __init__(self, **settings: Any) -> None:
        self.host = Host(HostSettings(**{"host_id": "mes", "rebirth_spread": 0, **settings}), random.Random(1).random)
        self.now = Moment(START, 0)
        self.will = self.host.connecting(BROKER, self.now)
        self.birth = self.host.connected(BROKER, self.now)
        self.seq: dict[str, int] = {}

    def passes(self, seconds: float) -> Step:
        self.now = Moment(self.now.utc + int(seconds * SECOND), self.now.monotonic + int(seconds * SECOND))
        return self.host.tick(self.now)

    def says(
        self, verb: Verb, *metrics: Metric, node: str = "e1", device: str | None = None, group: str = "g",
        seq: int | None = None, timestamp: int | None = None, server: str = BROKER,
    ) -> Step:  # fmt: skip
        if seq is None and verb != "NDEATH":
            seq = 0 if verb == "NBIRTH" else (self.seq.get(node, 0) + 1) % 256
        if seq is not None:
            self.seq[node] = seq
        ms = self.now.utc // MS if timestamp is None else timestamp
        return self.host.received(
            server, Arrival(verb, group, node, device, Payload(timestamp=ms, metrics=metrics, seq=seq)), self.now
        )

    def born(self, node: str = "e1", bdseq: int = 0, **more: Any) -> Step:
        return self.says("NBIRTH", bd(bdseq), REBIRTH, metric("Temp", 20.5, 1), node=node, **more)


def metric(name: str | None, value: Any, alias: int | None = None, **more: Any) -> Metric:
    kinds = {bool: DataType.BOOLEAN, int: DataType.INT32, float: DataType.DOUBLE, str: DataType.STRING}
    kind = more.pop("type", kinds.get(type(value)))
    return Metric(name=name, alias=alias, value=value, type=kind, **more)


def alias(number: int, value: Any, **more: Any) -> Metric:
    return Metric(alias=number, value=value, **more)


def bd(number: int) -> Metric:
    return Metric(name="bdSeq", type=DataType.INT64, value=number)


REBIRTH = Metric(name="Node Control/Rebirth", type=DataType.BOOLEAN, value=False)


def rows(step: Step) -> list[tuple[str, Value, int]]:
    return list(zip(step.tags, step.values, step.qualities, strict=True))


def asked(step: Step) -> list[str]:
    return [one.topic for one in step.publications if "/NCMD/" in one.topic]


def kinds(step: Step) -> list[str]:
    return [event.kind for event in step.events]


def state(publication: Publication | None) -> dict[str, Any]:
    assert publication is not None
    assert isinstance(publication.body, bytes)
    found: dict[str, Any] = json.loads(publication.body)
    return found


# ---- STATE ------------------------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-host-topic-phid-birth-qos", "tck-id-host-topic-phid-birth-retain", "tck-id-host-topic-phid-birth-topic",
    "tck-id-host-topic-phid-birth-payload", "tck-id-host-topic-phid-birth-payload-timestamp",
    "tck-id-host-topic-phid-death-qos", "tck-id-host-topic-phid-death-retain", "tck-id-host-topic-phid-death-topic",
    "tck-id-host-topic-phid-death-payload", "tck-id-host-topic-phid-death-payload-timestamp-connect",
    "tck-id-operational-behavior-host-application-connect-will-topic",
    "tck-id-operational-behavior-host-application-connect-will-payload",
    "tck-id-operational-behavior-host-application-connect-will-qos",
    "tck-id-operational-behavior-host-application-connect-will-retained",
    "tck-id-operational-behavior-host-application-connect-birth-topic",
    "tck-id-operational-behavior-host-application-connect-birth-payload",
    "tck-id-operational-behavior-host-application-connect-birth-qos",
    "tck-id-operational-behavior-host-application-connect-birth-retained",
    "tck-id-message-flow-phid-sparkplug-state-publish-payload-timestamp",
    "tck-id-payloads-state-will-message-payload", "tck-id-payloads-state-birth-payload",
)  # fmt: skip
def test_will_and_birth_of_a_session_carry_one_timestamp() -> None:
    """Exactly the moment of CONNECT, in ms, however much later the birth is published."""
    host = Host(HostSettings(host_id="mes"))
    will = host.connecting(BROKER, Moment(START, 0))
    birth = host.connected(BROKER, Moment(START + 7 * SECOND, 7 * SECOND)).publications[0]
    assert will is not None
    assert will[:2] + will[3:] == birth[:2] + birth[3:] == (BROKER, "spBv1.0/STATE/mes", 1, True)
    assert state(will) == {"online": False, "timestamp": START // MS}
    assert state(birth) == {"online": True, "timestamp": START // MS}


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-host-application-multi-server-timestamp",
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-state",
)
def test_each_server_has_its_own_timestamp_and_its_own_birth() -> None:
    host = Host(HostSettings(host_id="mes"))
    host.connecting("a", Moment(START, 0))
    host.connecting("b", Moment(START + SECOND, SECOND))
    a, b = (host.connected(server, Moment(START + 2 * SECOND, 2 * SECOND)).publications[0] for server in "ab")
    assert (a.server, state(a)["timestamp"]) == ("a", START // MS)
    assert (b.server, state(b)["timestamp"]) == ("b", START // MS + 1000)


@pytest.mark.sparkplug("tck-id-message-flow-hid-sparkplug-state-message-delivered")
def test_who_says_that_this_host_is_offline_is_contradicted_at_once() -> None:
    floor = Floor()
    late_will = json.dumps({"online": False, "timestamp": START // MS - 9}).encode()
    (answer,) = floor.host.state(BROKER, "mes", late_will).publications
    assert answer == floor.birth.publications[0]
    assert not floor.host.state(BROKER, "mes", answer.body if isinstance(answer.body, bytes) else b"").publications
    assert not floor.host.state(BROKER, "other", late_will).publications


@pytest.mark.parametrize("body", [b"", b"OFFLINE", b"\xff", b"{}", b'{"online": 1, "timestamp": "x"}'])
def test_garbage_on_the_own_state_topic_is_replaced_by_the_truth(body: bytes) -> None:
    floor = Floor()
    step = floor.host.state(BROKER, "mes", body)
    assert step.publications == floor.birth.publications
    assert kinds(step) == ["state"]


@pytest.mark.sparkplug("tck-id-operational-behavior-host-application-host-id")
def test_another_host_with_the_same_id_is_noticed() -> None:
    floor = Floor()
    body = json.dumps({"online": True, "timestamp": START // MS + 5}).encode()
    assert kinds(floor.host.state(BROKER, "mes", body)) == ["clash"]


@pytest.mark.sparkplug(
    "tck-id-host-topic-phid-death-payload-timestamp-disconnect-clean",
    "tck-id-operational-behavior-host-application-death-topic",
    "tck-id-operational-behavior-host-application-death-payload",
    "tck-id-operational-behavior-host-application-death-qos",
    "tck-id-operational-behavior-host-application-death-retained",
)
def test_a_clean_stop_says_offline_with_the_present_time() -> None:
    floor = Floor()
    floor.passes(60)
    (death,) = floor.host.disconnecting(BROKER, floor.now)
    assert death[1:2] + death[3:] == ("spBv1.0/STATE/mes", 1, True)
    assert state(death) == {"online": False, "timestamp": START // MS + 60_000}


def test_a_passive_host_publishes_nothing() -> None:
    """No STATE, no rebirth request, no command, whatever happens."""
    floor = Floor(primary=False)
    assert floor.will is None
    assert not floor.birth.publications
    assert "spBv1.0/STATE/mes" not in floor.host.subscriptions()
    floor.says("NDATA", alias(1, 1.0))
    assert not floor.passes(3600).publications
    floor.born()
    with pytest.raises(ValueError, match="passive"):
        floor.host.write("g/e1/Temp", 1.0, floor.now)
    assert not floor.host.disconnecting(BROKER, floor.now)


@pytest.mark.sparkplug("tck-id-host-topic-phid-birth-sub-required", "tck-id-payloads-state-subscribe")
def test_it_subscribes_to_its_state_and_to_the_groups_that_it_is_for() -> None:
    assert Host(HostSettings(host_id="mes")).subscriptions() == ["spBv1.0/STATE/mes", "spBv1.0/+/+/+/#"]
    groups = Host(HostSettings(host_id="mes", groups=["a", "b"]))
    assert groups.subscriptions() == ["spBv1.0/STATE/mes", "spBv1.0/a/#", "spBv1.0/b/#"]


def test_other_groups_are_not_heard() -> None:
    floor = Floor(groups=["mine"])
    assert not rows(floor.born(group="yours"))
    assert rows(floor.born(group="mine"))


# ---- births and data --------------------------------------------------------------------------------


def test_names_and_aliases_of_the_birth_give_the_tags() -> None:
    """A birth's values are samples; data by alias, by name and of devices finds its tags."""
    floor = Floor()
    assert rows(floor.born()) == [("g/e1/Temp", 20.5, 192)]
    assert rows(floor.says("NDATA", alias(1, 21.0))) == [("g/e1/Temp", 21.0, 192)]
    assert rows(floor.says("NDATA", metric("Temp", 22.0))) == [("g/e1/Temp", 22.0, 192)]
    floor.says("DBIRTH", metric("Axis/X", 5, 7), device="cnc")
    assert rows(floor.says("DDATA", alias(7, 6), device="cnc")) == [("g/e1/cnc/Axis/X", 6, 192)]


def test_the_type_of_the_birth_makes_a_bare_value_exact() -> None:
    """Negative small integers travel by alias as their bits in 32 or 64."""
    floor = Floor()
    floor.says("NBIRTH", bd(0), metric("Small", 1, 1, type=DataType.INT16), metric("Big", 1, 2, type=DataType.UINT64))
    step = floor.says("NDATA", alias(1, 0xFFFFFFFB), alias(1, 0xFFFB), alias(2, 2**64 - 1))
    assert step.values == [-5, -5, 2**64 - 1]


def test_a_metrics_own_time_counts_then_the_payloads_then_reception() -> None:
    floor = Floor()
    floor.born()
    ms = START // MS
    step = floor.says("NDATA", alias(1, 1.0, timestamp=ms - 5), alias(1, 2.0), timestamp=ms - 3)
    assert step.times == [(ms - 5) * MS, (ms - 3) * MS]
    arrival = Arrival("NDATA", "g", "e1", None, Payload(metrics=[alias(1, 3.0)], seq=2))
    assert floor.host.received(BROKER, arrival, floor.now).times == [floor.now.utc]


def test_history_and_clocks_a_day_off_keep_their_own_time() -> None:
    floor = Floor()
    day = 86_400_000
    step = floor.born(timestamp=START // MS + day)
    assert "clock" in kinds(step)
    assert step.times == [(START // MS + day) * MS]
    step = floor.says("NDATA", alias(1, 1.0, timestamp=START // MS - 30 * day, is_historical=True))
    assert step.times == [(START // MS - 30 * day) * MS]
    assert step.qualities == [192]


def test_a_clock_skew_limit_replaces_live_times_only() -> None:
    floor = Floor(clock_skew_limit=10 * SECOND)
    floor.born()
    old = START // MS - 3_600_000
    step = floor.says("NDATA", alias(1, 1.0, timestamp=old), alias(1, 2.0, timestamp=old, is_historical=True))
    assert step.times == [floor.now.utc, old * MS]
    assert step.qualities == [Quality.UNCERTAIN, Quality.GOOD]


def test_a_time_beyond_what_ns_can_say_is_the_time_of_reception() -> None:
    floor = Floor()
    floor.born()
    step = floor.says("NDATA", alias(1, 1.0, timestamp=2**64 - 1))
    assert (step.times, step.qualities) == ([floor.now.utc], [Quality.UNCERTAIN])


@pytest.mark.parametrize(
    ("said", "meant"),
    [(0, 0), (192, 192), (500, Quality.LAST_KNOWN), (64, 64), (1000, Quality.UNCERTAIN), ("good", Quality.UNCERTAIN)],
)
def test_the_quality_property_becomes_an_opc_quality(said: int | str, meant: int) -> None:
    floor = Floor()
    floor.born()
    properties: PropertySet = {"Quality": Property(DataType.INT32, said)}
    assert floor.says("NDATA", alias(1, 1.0, properties=properties)).qualities == [meant]


def test_null_is_none_and_good_and_a_missing_value_is_bad() -> None:
    floor = Floor()
    floor.born()
    assert rows(floor.says("NDATA", alias(1, None, is_null=True))) == [("g/e1/Temp", None, 192)]
    assert rows(floor.says("NDATA", alias(1, None))) == [("g/e1/Temp", None, 0)]


def test_structures_become_json_text() -> None:
    table = DataSet(["a", "b"], [DataType.UINT64, DataType.STRING], [[2**64 - 1, "x"], [0, None]])
    assert json.loads(str(reading(table))) == {
        "columns": ["a", "b"], "types": ["UInt64", "String"], "rows": [[2**64 - 1, "x"], [0, None]],
    }  # fmt: skip
    inner = Template(metrics=[metric("m", 1)], parameters=[Parameter("p", DataType.STRING, "v")], template_ref="T")
    assert json.loads(str(reading(inner))) == {
        "template": "T", "version": None, "parameters": {"p": "v"},
        "metrics": [{"name": "m", "type": "Int32", "value": 1}],
    }  # fmt: skip
    assert reading([1, 2, 3]) == "[1,2,3]"
    assert reading({"k": Property(DataType.BOOLEAN, True)}) == '{"k":true}'


def test_a_template_definition_is_no_reading() -> None:
    floor = Floor()
    definition = Template(metrics=[metric("m", 0)], is_definition=True)
    step = floor.says("NBIRTH", bd(0), Metric(name="T", type=DataType.TEMPLATE, value=definition))
    assert not rows(step)


def test_one_metric_that_cannot_be_read_does_not_cost_the_others() -> None:
    floor = Floor()
    floor.says("NBIRTH", bd(0), metric("A", 1), metric("B", 2))
    payload = Payload(timestamp=START // MS, metrics=[metric("B", 3)], seq=1, faults=[Fault(0, "A", "type 99")])
    step = floor.host.received(BROKER, Arrival("NDATA", "g", "e1", None, payload), floor.now)
    assert rows(step) == [("g/e1/B", 3, 192), ("g/e1/A", None, 0)]
    assert kinds(step) == ["fault"]


def test_what_cannot_be_a_tag_is_said_and_what_can_is_encoded() -> None:
    floor = Floor()
    step = floor.says("NBIRTH", bd(0), metric("a*b[1]", 1), metric("x" * 300, 2), metric("50%", 3))
    assert step.tags == ["g/e1/a%2Ab%5B1%5D", "g/e1/50%25"]
    assert "fault" in kinds(step)


def test_two_metrics_never_share_a_tag() -> None:
    """A node's metric ``cnc/Speed`` and the metric ``Speed`` of its device ``cnc`` would."""
    floor = Floor()
    floor.says("NBIRTH", bd(0), metric("cnc/Speed", 1))
    step = floor.says("DBIRTH", metric("Speed", 2), metric("Load", 3), device="cnc")
    assert step.tags == ["g/e1/cnc/Load"]
    assert "fault" in kinds(step)


def test_a_rebirth_replaces_the_maps_and_makes_stale_what_it_leaves_out() -> None:
    floor = Floor()
    floor.says("NBIRTH", bd(0), metric("A", 1, 1), metric("B", 2, 2))
    step = floor.says("NBIRTH", bd(0), metric("B", 3, 1))
    assert rows(step) == [("g/e1/A", None, Quality.NOT_CONNECTED), ("g/e1/B", 3, 192)]
    assert rows(floor.says("NDATA", alias(1, 4))) == [("g/e1/B", 4, 192)]


def test_births_with_100_000_metrics_are_taken() -> None:
    floor = Floor()
    step = floor.says("NBIRTH", bd(0), *(metric(f"m{i}", i, i) for i in range(100_000)))
    assert len(step.tags) == 100_000
    assert floor.says("NDATA", alias(99_999, 7)).tags == ["g/e1/m99999"]


def columns_of(*metrics: Metric, seq: int = 1, types: Any = None) -> Columns:
    body = encode(Payload(timestamp=START // MS, seq=seq, metrics=metrics), datatypes=False)
    found = decode_columns(body, types)
    assert found is not None
    return found


def test_columns_give_what_the_message_gives() -> None:
    """By alias and by name, with the birth's types; both ways leave the host in the same state."""
    moment = {"timestamp": START // MS - 5}
    messages = [
        [metric(None, 21.5, 1, **moment), metric(None, -5, 2, **moment)],
        [metric("Temp", 22.5, **moment), metric("Small", -6, **moment)],
    ]
    ways: list[list[Any]] = []
    for fast in (True, False):
        floor = Floor()
        floor.says("NBIRTH", bd(0), metric("Temp", 20.5, 1), metric("Small", 1, 2))
        found: list[Any] = []
        for seq, metrics in enumerate(messages, 1):
            if fast:
                columns = columns_of(*metrics, seq=seq, types=floor.host.types("g", "e1", None))
                step = floor.host.received_columns("g", "e1", None, columns, floor.now)
            else:
                step = floor.says("NDATA", *metrics, seq=seq)
            assert step is not None
            found.append((rows(step), step.times))
        found.append(floor.says("NDEATH", bd(0)).times)
        ways.append(found)
    assert ways[0] == ways[1]
    assert [value for _, value, _ in ways[0][0][0]] == [21.5, -5]


def test_columns_that_are_not_the_usual_case_are_left_to_the_message() -> None:
    """Another turn, an unknown alias, history, an awaited tag, a doubtful time: nothing is done."""
    floor = Floor(clock_skew_limit=3600 * SECOND)
    now = START // MS
    usual = columns_of(metric("Temp", 1.0, timestamp=now), types={"Temp": DataType.DOUBLE})
    assert floor.host.types("g", "e1", None) is None
    assert floor.host.received_columns("g", "e1", None, usual, floor.now) is None
    floor.born()
    for name, odd in {
        "turn": columns_of(metric("Temp", 1.0, timestamp=now), seq=7, types={"Temp": DataType.DOUBLE}),
        "unknown": columns_of(metric("What", 1.0, timestamp=now), types={"What": DataType.DOUBLE}),
        "history": columns_of(metric("Temp", 1.0, timestamp=now, is_historical=True), types={"Temp": DataType.DOUBLE}),
        "time": columns_of(metric("Temp", 1.0, timestamp=now - 86_400_000), types={"Temp": DataType.DOUBLE}),
    }.items():
        assert floor.host.received_columns("g", "e1", None, odd, floor.now) is None, name
        assert floor.host.received_columns("g", "e1", "cnc", odd, floor.now) is None, name
    floor.host.watched.add("g/e1/Temp")
    assert floor.host.received_columns("g", "e1", None, usual, floor.now) is None
    floor.host.watched.clear()
    assert floor.host.received_columns("g", "e1", None, usual, floor.now) is not None


def test_columns_close_a_gap_too() -> None:
    floor = Floor()
    floor.born()
    floor.says("NDATA", alias(1, 2.0), seq=2)
    columns = columns_of(metric("Temp", 1.0, timestamp=START // MS), types=floor.host.types("g", "e1", None))
    step = floor.host.received_columns("g", "e1", None, columns, floor.now)
    assert step is not None
    assert step.values == [1.0, 2.0]
    assert floor.says("NDATA", alias(1, 3.0), seq=3).values == [3.0]


# ---- death ------------------------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale",
)
def test_ndeath_makes_the_node_and_all_its_devices_stale_by_the_hosts_clock() -> None:
    floor = Floor()
    floor.born(bdseq=3)
    floor.says("DBIRTH", metric("X", 5, 7), device="cnc")
    floor.passes(10)
    step = floor.says("NDEATH", bd(3), timestamp=START // MS)
    assert rows(step) == [("g/e1/Temp", None, 8), ("g/e1/cnc/X", None, 8)]
    assert step.times == [floor.now.utc] * 2
    assert "death" in kinds(step)
    assert not rows(floor.says("NDATA", alias(1, 1.0)))


def test_what_did_not_change_while_it_was_away_counts_from_its_new_birth() -> None:
    """Its own time is older than the stale mark: told so, the mark would stay the newest that is known of the tag."""
    floor = Floor()
    old = metric("Temp", 20.5, 1, timestamp=START // MS)
    floor.says("NBIRTH", bd(0), REBIRTH, old)
    floor.says("DBIRTH", metric("X", 5, 7, timestamp=START // MS), device="cnc")
    floor.passes(10)
    died = floor.says("NDEATH", bd(0)).times[0]
    floor.passes(5)
    new = metric("New", 1, 2, timestamp=START // MS)
    past = metric("Past", 2, 3, timestamp=START // MS, is_historical=True)
    born = floor.says("NBIRTH", bd(1), REBIRTH, old, new, past, timestamp=floor.now.utc // MS)
    assert rows(born)[:1] == [("g/e1/Temp", 20.5, 192)]
    assert born.times == [floor.now.utc // MS * MS, START, START]
    assert born.times[0] > died
    device = floor.says("DBIRTH", metric("X", 5, 7, timestamp=START // MS), device="cnc", timestamp=START // MS)
    assert device.times == [died + 1]  # its clock is behind ours
    assert floor.says("NDATA", alias(1, 3.5, timestamp=START // MS), seq=2).times == [START]


def test_a_late_will_of_the_session_before_changes_nothing() -> None:
    floor = Floor()
    floor.born(bdseq=3)
    floor.born(bdseq=4)
    step = floor.says("NDEATH", bd(3))
    assert (rows(step), kinds(step)) == ([], ["fault"])
    assert rows(floor.says("NDATA", alias(1, 1.0), seq=1))


def test_stale_never_comes_before_what_was_said_last() -> None:
    """A node whose clock is ahead dies after its last value, not before."""
    floor = Floor()
    ahead = START // MS + 86_400_000
    floor.born(timestamp=ahead)
    step = floor.says("NDEATH", bd(0))
    assert step.times == [ahead * MS + 1]


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale",
)
def test_ddeath_makes_that_device_stale_by_its_own_timestamp() -> None:
    floor = Floor()
    floor.born()
    floor.says("DBIRTH", metric("X", 5, 7), device="cnc")
    floor.passes(10)
    step = floor.says("DDEATH", device="cnc", timestamp=START // MS + 4000)
    assert rows(step) == [("g/e1/cnc/X", None, 8)]
    assert step.times == [START + 4 * SECOND]
    assert rows(floor.says("NDATA", alias(1, 1.0)))


def test_a_lost_server_makes_stale_what_came_through_it() -> None:
    floor = Floor()
    floor.host.connecting("other", floor.now)
    floor.born("e1")
    floor.born("e2", server="other")
    step = floor.host.disconnected(BROKER, floor.now)
    assert rows(step) == [("g/e1/Temp", None, 8)]
    assert not rows(floor.host.disconnected(BROKER, floor.now))


def test_nodes_that_stay_silent_when_the_host_is_back_are_asked() -> None:
    """Those that give their births by themselves, on STATE, are not."""
    floor = Floor()
    floor.born("e1")
    floor.born("e2")
    floor.host.disconnected(BROKER, floor.now)
    floor.host.connecting(BROKER, floor.now)
    floor.host.connected(BROKER, floor.now)
    floor.passes(1)
    floor.born("e2")
    assert asked(floor.passes(60)) == ["spBv1.0/g/NCMD/e1"]


def test_devices_that_a_rebirth_leaves_out_are_gone_after_a_while() -> None:
    floor = Floor()
    floor.born()
    floor.says("DBIRTH", metric("X", 1, 7), device="stays")
    floor.says("DBIRTH", metric("X", 1, 8), device="goes")
    assert "g/e1/stays/X" not in floor.born().tags
    floor.says("DBIRTH", metric("X", 1, 7), device="stays")
    assert rows(floor.passes(60)) == [("g/e1/goes/X", None, 8)]


def test_a_new_session_makes_devices_stale_at_once() -> None:
    floor = Floor()
    floor.born(bdseq=0)
    floor.says("DBIRTH", metric("X", 1, 7), device="cnc")
    assert ("g/e1/cnc/X", None, 8) in rows(floor.born(bdseq=1))


# ---- order ------------------------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-host-reordering-param", "tck-id-operational-behavior-host-reordering-start",
    "tck-id-operational-behavior-host-reordering-success",
)  # fmt: skip
def test_messages_that_overtook_each_other_are_put_in_order() -> None:
    floor = Floor(reorder=2 * SECOND)
    floor.born()
    assert not rows(floor.says("NDATA", alias(1, 3.0), seq=3))
    assert not rows(floor.says("NDATA", alias(1, 2.0), seq=2))
    assert floor.says("NDATA", alias(1, 1.0), seq=1).values == [1.0, 2.0, 3.0]
    step = floor.passes(60)
    assert (step.publications, step.lost) == ([], 0)


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-host-reordering-rebirth",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-verb",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-name",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-value",
)
def test_a_gap_that_stays_is_counted_and_a_rebirth_requested_once() -> None:
    floor = Floor(reorder=2 * SECOND, rebirth_pause=0)
    floor.born()
    floor.says("NDATA", alias(1, 3.0), seq=3)
    assert not floor.passes(1).publications
    step = floor.passes(1.5)
    assert (step.lost, step.values) == (2, [3.0])
    (request,) = [*step.publications, *floor.passes(1).publications]
    assert (request.topic, request.qos, request.retain) == ("spBv1.0/g/NCMD/e1", 0, False)
    assert isinstance(request.body, Payload)
    (wanted,) = request.body.metrics
    assert (wanted.name, wanted.type, wanted.value) == ("Node Control/Rebirth", DataType.BOOLEAN, True)
    assert request.body.seq is None
    assert floor.says("NDATA", alias(1, 4.0), seq=4).values == [4.0]
    assert not floor.passes(3600).publications


def test_without_a_reorder_time_everything_is_taken_as_it_comes() -> None:
    floor = Floor(reorder=0, rebirth_pause=0)
    floor.born()
    step = floor.says("NDATA", alias(1, 3.0), seq=3)
    assert (step.values, step.lost) == ([3.0], 2)
    assert asked(floor.passes(1)) == ["spBv1.0/g/NCMD/e1"]


def test_the_sequence_goes_on_with_0_after_255() -> None:
    floor = Floor(rebirth_pause=0)
    floor.born()
    for number in range(1, 600):
        assert floor.says("NDATA", alias(1, float(number)), seq=number % 256).values == [float(number)]
    assert not floor.passes(60).publications


def test_what_waits_for_a_gap_is_taken_before_the_death() -> None:
    floor = Floor()
    floor.born()
    floor.says("NDATA", alias(1, 3.0), seq=3)
    assert floor.says("NDEATH", bd(0)).values == [3.0, None]


@given(st.permutations(range(1, 20)))
def test_any_order_within_the_window_comes_out_sorted(order: Sequence[int]) -> None:
    floor = Floor()
    floor.born()
    found: list[Value] = []
    for number in order:
        found += floor.says("NDATA", alias(1, float(number)), seq=number).values
    assert found == [float(number) for number in range(1, 20)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA"]),
            st.none() | st.integers(-1, 300),
            st.sampled_from([None, "d"]),
            st.integers(0, 3),
            st.none() | st.integers(0, 2**64 - 1),
            st.sampled_from([0, 1, 40]),
        ),
        max_size=40,
    )
)
def test_no_sequence_of_messages_breaks_the_host(
    messages: list[tuple[Verb, int | None, str | None, int, Any, int]],
) -> None:
    """Columns stay equal in length, times are int64, requests stay within the budget."""
    floor = Floor()
    requests = 0
    for verb, seq, device, number, timestamp, wait in messages:
        payload = Payload(
            timestamp=timestamp, seq=seq, metrics=[bd(number), metric(f"m{number}", 1, number), alias(number, 2)]
        )
        step = floor.host.received(BROKER, Arrival(verb, "g", "e", device, payload), floor.now)
        assert len(step.tags) == len(step.times) == len(step.values) == len(step.qualities)
        assert all(-(2**63) <= time < 2**63 for time in step.times)
        requests += len(floor.passes(wait).publications)
    assert requests <= 1 + floor.now.monotonic // SECOND


# ---- rebirths ---------------------------------------------------------------------------------------


def test_data_before_the_birth_asks_once_and_is_counted() -> None:
    floor = Floor()
    steps = [floor.says("NDATA", alias(1, float(i)), seq=i) for i in range(100)]
    assert sum(step.lost for step in steps) == 100
    assert not any(step.tags for step in steps)
    assert asked(floor.passes(5)) == ["spBv1.0/g/NCMD/e1"]
    assert not asked(floor.passes(3600))


def test_an_unknown_alias_asks_once_and_not_again_after_a_birth_without_it() -> None:
    floor = Floor()
    floor.born()
    requests: list[str] = []
    for _ in range(100):
        floor.says("NDATA", alias(99, 1.0))
        if found := asked(floor.passes(10)):
            requests += found
            floor.born()
    assert len(requests) == 1


def test_data_of_an_unknown_device_asks_for_a_rebirth_of_its_node() -> None:
    floor = Floor(rebirth_pause=0)
    floor.born()
    step = floor.says("DDATA", alias(7, 1), device="cnc")
    assert step.lost == 1
    assert asked(floor.passes(1)) == ["spBv1.0/g/NCMD/e1"]


def test_1000_nodes_at_once_are_asked_at_most_once_each_and_never_above_the_budget() -> None:
    """The host starts beside 1,000 running nodes that answer and go on talking all the time."""
    floor = Floor(rebirth_rate=50, rebirth_spread=2 * SECOND)
    nodes = [f"n{i}" for i in range(1000)]
    waiting: list[str] = []
    requests: list[str] = []
    born: set[str] = set()
    most = 0
    for tick in range(300):  # 30 s in steps of 100 ms
        for node in waiting:
            floor.born(node)
            born.add(node)
        if tick % 10 == 0:
            for node in nodes:
                floor.says("NDATA", alias(1, float(tick)), node=node)
        waiting = [topic.rsplit("/", 1)[1] for topic in asked(floor.passes(0.1))]
        requests += waiting
        most = max(most, len(waiting))
    assert len(requests) == len(set(requests)) == 1000
    assert len(born) == 1000
    assert most <= 55


def test_1000_nodes_that_return_by_themselves_are_not_asked() -> None:
    floor = Floor()
    for i in range(1000):
        floor.born(f"n{i}")
    floor.host.disconnected(BROKER, floor.now)
    floor.host.connecting(BROKER, floor.now)
    floor.host.connected(BROKER, floor.now)
    for i in range(1000):
        floor.says("NDATA", alias(1, 1.0), node=f"n{i}")  # what was under way before the birth
        floor.born(f"n{i}")
    assert not asked(floor.passes(3600))


def test_a_node_that_does_not_answer_is_asked_more_and_more_rarely() -> None:
    rebirths = Rebirths(rate=100, spread=0, pause=30 * SECOND, chance=lambda: 0.0)
    node = NodeKey("g", "e")
    times = []
    for second in range(1000):
        rebirths.ask(node, "unknown", second * SECOND)
        if rebirths.take(second * SECOND):
            times.append(second)
    assert times == [0, 30, 90, 210, 450, 930]


def test_requests_are_spread_by_chance() -> None:
    chance = random.Random(7).random
    rebirths = Rebirths(rate=10_000, spread=2 * SECOND, pause=SECOND, chance=chance)
    for i in range(100):
        rebirths.ask(NodeKey("g", str(i)), "unknown", 0)
    assert 30 < len(rebirths.take(SECOND)) < 70


def test_next_tick_says_when_something_is_to_do() -> None:
    floor = Floor(reorder=2 * SECOND, rebirth_pause=0)
    assert floor.host.next_tick() is None
    floor.born()
    floor.says("NDATA", alias(1, 3.0), seq=3)
    assert floor.host.next_tick() == 2 * SECOND
    floor.passes(2)
    while (when := floor.host.next_tick()) is not None:
        assert floor.passes((when - floor.now.monotonic) / SECOND).publications


# ---- identity ---------------------------------------------------------------------------------------


def test_two_clients_with_one_identity_are_noticed_and_not_asked_in_circles() -> None:
    """The broker throws out one for the other; each comes back with its own next bdSeq."""
    floor = Floor(rebirth_pause=0)
    found: list[str] = []
    for a, b in zip(range(5, 12), range(40, 47), strict=True):
        for number in (a, b):
            found += kinds(floor.born(bdseq=number))
            floor.passes(1)
    assert found.count("clash") == 1
    floor.says("NDATA", alias(77, 1.0), seq=9)
    assert not asked(floor.passes(60))


def test_a_node_that_reconnects_or_starts_anew_is_no_clash() -> None:
    floor = Floor()
    found: list[str] = []
    for number in [*range(250, 256), *range(6), 0, 0, 0, 17, 18]:
        found += kinds(floor.born(bdseq=number))
        floor.passes(1)
    assert "clash" not in found


# ---- commands and discovery -------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-topics-ncmd-topic", "tck-id-topics-ncmd-mqtt", "tck-id-topics-ncmd-timestamp",
    "tck-id-topics-ncmd-payload", "tck-id-topics-dcmd-topic", "tck-id-topics-dcmd-mqtt", "tck-id-topics-dcmd-timestamp",
    "tck-id-topics-dcmd-payload", "tck-id-payloads-ncmd-timestamp", "tck-id-payloads-ncmd-seq",
    "tck-id-payloads-ncmd-qos", "tck-id-payloads-ncmd-retain", "tck-id-payloads-dcmd-timestamp",
    "tck-id-payloads-dcmd-seq", "tck-id-payloads-dcmd-qos", "tck-id-payloads-dcmd-retain",
    "tck-id-operational-behavior-data-commands-ncmd-verb", "tck-id-operational-behavior-data-commands-dcmd-verb",
    "tck-id-operational-behavior-data-commands-ncmd-metric-name",
    "tck-id-operational-behavior-data-commands-dcmd-metric-name",
    "tck-id-operational-behavior-data-commands-ncmd-metric-value",
    "tck-id-operational-behavior-data-commands-dcmd-metric-value", "tck-id-payloads-alias-data-cmd-requirement",
)  # fmt: skip
def test_a_command_is_sent_in_the_metrics_own_type_and_by_alias_where_there_is_one() -> None:
    floor = Floor()
    floor.born()
    floor.says("DBIRTH", metric("SP", 5, 7, type=DataType.UINT16), metric("Mode", 1), device="cnc")
    moment = floor.now.utc // MS
    for tag, value, topic, name, number, kind in (
        ("g/e1/Temp", 21, "spBv1.0/g/NCMD/e1", None, 1, DataType.DOUBLE),
        ("g/e1/cnc/SP", 80, "spBv1.0/g/DCMD/e1/cnc", None, 7, DataType.UINT16),
        ("g/e1/cnc/Mode", 2, "spBv1.0/g/DCMD/e1/cnc", "Mode", None, DataType.INT32),
    ):
        sent = floor.host.write(tag, value, floor.now)
        meant = Metric(name=name, alias=number, timestamp=moment, type=kind, value=value)
        body = Payload(timestamp=moment, metrics=[meant])
        assert sent == Publication(BROKER, topic, body, 0, retain=False)


@pytest.mark.parametrize(
    ("tag", "value", "why"),
    [
        ("g/e1/none", 1, "no node has announced"),
        ("g/e1/Temp", "hot", "takes Double"),
        ("g/e1/Temp", True, "takes Double"),
        ("g/e1/Fixed", 1, "read-only"),
        ("g/gone/Temp", 1.0, "not there"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_reason(tag: str, value: Value, why: str) -> None:
    floor = Floor()
    fixed: PropertySet = {"readOnly": Property(DataType.BOOLEAN, True)}
    floor.says("NBIRTH", bd(0), metric("Temp", 1.0, 1), metric("Fixed", 1, properties=fixed))
    floor.born("gone")
    floor.says("NDEATH", bd(0), node="gone")
    with pytest.raises(ValueError, match=why):
        floor.host.write(tag, value, floor.now)


@pytest.mark.parametrize(
    ("kind", "fits", "not_"),
    [
        (DataType.INT8, [-128, 127, 5.0], [-129, 128, 1.5, True, "1", b"1", None]),
        (DataType.UINT64, [0, 2**64 - 1], [-1, 2**64]),
        (DataType.DATE_TIME, [0, 1_767_592_800_000], [-1]),
        (DataType.BOOLEAN, [True], [1, 0, "true", None]),
        (DataType.DOUBLE, [1, 1.5, math.inf], [True, "1", None]),
        (DataType.FLOAT, [1, 1.5, -math.inf], [1e39, b""]),
        (DataType.STRING, ["x"], [1, b"x"]),
        (DataType.BYTES, [b"x"], ["x"]),
        (DataType.DATA_SET, [], ["{}"]),
    ],
)
def test_a_commands_value_must_suit_the_metrics_type(kind: DataType, fits: list[Value], not_: list[Value]) -> None:
    for value in fits:
        assert suited(value, kind) == value
    for value in not_:
        with pytest.raises(ValueError, match=type_name(kind) if value != 1e39 else "beyond"):
            suited(value, kind)


def test_live_values_of_watched_tags_are_echoes_historical_ones_not() -> None:
    floor = Floor()
    floor.born()
    floor.host.watched.add("g/e1/Temp")
    step = floor.says("NDATA", alias(1, 1.0, is_historical=True), alias(1, 2.0))
    assert [echo.value for echo in step.echoes] == [2.0]
    assert step.values == [1.0, 2.0]


def test_browse_lists_what_was_born_with_type_unit_and_direction() -> None:
    floor = Floor()
    properties: PropertySet = {
        "engUnit": Property(DataType.STRING, "bar"), "readOnly": Property(DataType.BOOLEAN, True),
    }  # fmt: skip
    floor.says("NBIRTH", bd(0), metric("P", 1.0, 1, properties=properties))
    floor.says("DBIRTH", metric("Axis/X", 5, 7), device="cnc")
    pressure, axis = floor.host.browse()
    assert (pressure.tag, pressure.address) == ("g/e1/P", "g/e1/P")
    assert (pressure.data_type, pressure.unit, pressure.writable) == ("Double", "bar", False)
    assert (axis.tag, axis.data_type, axis.writable) == ("g/e1/cnc/Axis/X", "Int32", None)


def test_tags_are_named_by_the_template() -> None:
    floor = Floor(tag="{node}/{device}/{metric}")
    assert floor.born().tags == ["e1/Temp"]
    assert floor.says("DBIRTH", metric("X", 1), device="cnc").tags == ["e1/cnc/X"]
