"""A Sparkplug edge node made with PyPI's pysparkplug, for Shopfloor's tests; runs in a virtual environment of its own.

edge.py '{"broker": 1883, "control": 4841, "node": "e1", "metrics": […], "devices": {"cnc": […]}}'

A metric is {"name", "type", "value"}, with bytes in base64 and times in ms. The control port takes one JSON object a
line and answers with one: {"data": […], "device": "cnc"}, {"leave": "cnc"}, {"join": "cnc"}, {"stop": true},
{"ping": true}. What a host writes is published as data. The library knows no rebirth, so this node connects anew.
"""

import base64
import datetime as dt
import json
import queue
import sys
import threading
import time
from typing import Any

import pysparkplug as spb
from control import serve  # type: ignore[import-not-found]  # it stands beside this program

OPTIONS = json.loads(sys.argv[1])
REBIRTH = "Node Control/Rebirth"
TYPES = {"".join(part.capitalize() for part in kind.name.split("_")).lower(): kind for kind in spb.DataType}


def metric_of(said: dict[str, Any]) -> spb.Metric:
    kind = TYPES[said["type"].lower()]
    now = time.time_ns() // 10**6
    value = value_of(kind, said["value"])
    return spb.Metric(
        said.get("timestamp", now), said["name"], kind, value=value, is_historical=said.get("isHistorical", False)
    )


def value_of(kind: spb.DataType, value: Any) -> Any:
    if value is None:
        return None
    if kind in (spb.DataType.BYTES, spb.DataType.FILE):
        return base64.b64decode(value)
    if kind == spb.DataType.DATETIME:
        return dt.datetime.fromtimestamp(value / 1000, dt.UTC)
    if kind == spb.DataType.DATETIME_ARRAY:
        return tuple(dt.datetime.fromtimestamp(one / 1000, dt.UTC) for one in value)
    if kind in (spb.DataType.INT64, spb.DataType.UINT64):
        return int(value)
    return tuple(value) if isinstance(value, list) else value


class Node:
    """The node, its devices, and what a host told them."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        self.births = 0
        self.tasks: queue.Queue[Any] = queue.Queue()
        self.away: dict[str, spb.Device] = {}
        client = spb.Client(client_id=f"pysparkplug-{OPTIONS['node']}")
        metrics = [metric_of(one) for one in OPTIONS["metrics"]]
        self.edge = spb.EdgeNode("g", OPTIONS["node"], metrics, client=client, cmd_callback=self.obey)
        for name, said in OPTIONS.get("devices", {}).items():
            self.edge.register(spb.Device(name, [metric_of(one) for one in said], cmd_callback=self.obey))

    def connect(self) -> None:
        self.births += 1
        self.edge.connect("127.0.0.1", port=OPTIONS["broker"], keepalive=OPTIONS.get("keepalive", 5))

    def obey(self, _: Any, message: Any) -> None:
        """Runs in the network's thread, which may not connect; so what is to be done waits for the main thread."""
        device = message.topic.device_id or ""
        for metric in message.payload.metrics:
            said = {"device": device, "name": metric.name, "type": metric.datatype.name, "value": str(metric.value)}
            self.commands.append(said)
            if metric.name == REBIRTH:
                self.tasks.put(self.reborn)
            else:
                self.tasks.put(lambda metric=metric: self.tell(device, [metric]))

    def reborn(self) -> None:
        self.edge.disconnect()
        self.connect()

    def tell(self, device: str, metrics: list[spb.Metric]) -> None:
        if device:
            self.edge.update_device(device, metrics)
        else:
            self.edge.update(metrics)

    def request(self, said: dict[str, Any]) -> dict[str, Any]:
        match said:
            case {"data": metrics, **more}:
                self.tell(more.get("device") or "", [metric_of(one) for one in metrics])
            case {"leave": name}:
                self.away[name] = self.edge.devices[name]
                self.edge.deregister(name)
            case {"join": name}:
                self.edge.register(self.away.pop(name))
            case {"stop": _}:
                self.edge.disconnect()
            case _:
                return {"births": self.births, "commands": self.commands}
        return {}


node = Node()
node.connect()
threading.Thread(target=serve, args=(OPTIONS["control"], node.request), daemon=True).start()
while True:
    node.tasks.get()()
