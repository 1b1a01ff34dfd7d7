"""A Sparkplug host application made with the client of PyPI's pysparkplug, for Shopfloor's tests.

host.py '{"broker": 1883, "control": 4841, "hostId": "scada"}' says STATE and reads the group bremen. The control port
takes a JSON object a line and answers with one: {"heard": 0} (everything heard from that number on), {"topic":
"spBv1.0/bremen/NCMD/edge", "metrics": […]} (a command) and {"online": false}.
"""

import base64
import datetime as dt
import json
import sys
import time
from typing import Any

import pysparkplug as spb
from control import serve  # type: ignore[import-not-found]  # it stands beside this program

OPTIONS = json.loads(sys.argv[1])
TYPES = {kind.name.replace("_", "").lower(): kind for kind in spb.DataType}


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return round(value.timestamp() * 1000)
    return value


class Host:
    """What it heard, and what it says."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.state_topic = spb.Topic(message_type=spb.MessageType.STATE, sparkplug_host_id=OPTIONS["hostId"])
        self.began = time.time_ns() // 10**6
        self.client = spb.Client(client_id="pysparkplug-host")
        self.client.set_will(self.state(self.began, online=False))
        everything = spb.Topic(group_id="bremen", message_type="#")
        self.client.subscribe(everything, spb.QoS.AT_MOST_ONCE, self.hear)
        self.client.connect("127.0.0.1", port=OPTIONS["broker"], keepalive=5, callback=self.connected)

    def state(self, time_ms: int, *, online: bool) -> Any:
        said = spb.State(timestamp=time_ms, online=online)
        return spb.Message(self.state_topic, said, spb.QoS.AT_LEAST_ONCE, retain=True)

    def connected(self, client: Any) -> None:
        client.publish(self.state(self.began, online=True))

    def hear(self, _: Any, message: Any) -> None:
        topic, kind = message.topic, message.topic.message_type
        if kind.endswith("CMD"):
            return
        where = "/".join(filter(None, (topic.group_id, topic.edge_node_id, topic.device_id)))
        if not kind.endswith("DATA"):
            self.heard.append({"event": str(kind.value), "where": where})
        for metric in getattr(message.payload, "metrics", ()):
            said = {
                "event": "data" if kind.endswith("DATA") else "born",
                "where": where,
                "name": metric.name,
                "value": plain(metric.value),
                "timestamp": metric.timestamp,
                "historical": metric.is_historical,
            }
            self.heard.append(said)

    def command(self, topic: str, metrics: list[dict[str, Any]]) -> None:
        """Without datatypes, as the library does by itself."""
        now = time.time_ns() // 10**6
        said = tuple(spb.Metric(now, one["name"], TYPES[one["type"].lower()], value=one["value"]) for one in metrics)
        where = spb.Topic.from_str(topic)
        kind = spb.NCmd if where.message_type == spb.MessageType.NCMD else spb.DCmd
        self.client.publish(spb.Message(where, kind(timestamp=now, metrics=said), spb.QoS.AT_MOST_ONCE, retain=False))

    def request(self, said: dict[str, Any]) -> dict[str, Any]:
        match said:
            case {"topic": topic, "metrics": metrics}:
                self.command(topic, metrics)
            case {"online": bool(online)}:
                self.client.publish(self.state(time.time_ns() // 10**6, online=online))
            case {"heard": int(since)}:
                return {"value": self.heard[since:]}
        return {}


serve(OPTIONS["control"], Host().request)
