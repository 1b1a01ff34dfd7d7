"""A client made with PyPI's pylogix, for Shopfloor's tests; runs in a virtual environment of its own.

client.py PORT '[["list"], ["read", "Press.PV"], ["read", "Pressures", 10], ["write", "SP", 55.5]]'

It answers with one line of JSON: for each request its value, or its list of [name, type], and the status.
"""

import json
import sys
from typing import Any

import pylogix

PORT, REQUESTS = int(sys.argv[1]), json.loads(sys.argv[2])


def said(plc: Any, request: list[Any]) -> list[Any]:
    match request:
        case ["list"]:
            found = plc.GetTagList()
            return [[[tag.TagName, tag.DataType] for tag in found.Value or []], found.Status]
        case ["read", name, *more]:
            found = plc.Read(name, *more)
            return [found.Value, found.Status]
        case ["write", name, value]:
            return [None, plc.Write(name, value).Status]
    raise ValueError(request)


with pylogix.PLC("127.0.0.1", 0, 5.0, False, PORT) as plc:
    sys.stdout.write(json.dumps([said(plc, request) for request in REQUESTS]) + "\n")
