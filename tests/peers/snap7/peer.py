"""libsnap7, the C library, as server and client; python-snap7 2.1 is only how it is called.

`server PORT CONTROL` serves areas and takes requests in JSON, one a connection, on the control port:
{"do": "put"|"get"|"cpu", "area": "DB"|"PE"|"PA"|"MK"|"CT"|"TM", "at": 0, "data": hex, "size": 4, "status": 8}.
`client PORT RACK SLOT` reads a list of such requests from standard input, each a method of snap7's client with its
arguments, and prints their answers.
"""

import ctypes
import json
import socketserver
import sys
from collections.abc import Callable
from typing import Any, Final

from snap7.client import Client
from snap7.server import Server
from snap7.type import Area, SrvArea, WordLen

SIZES = {"DB": 512, "PE": 128, "PA": 128, "MK": 128, "CT": 32, "TM": 32}


def serve(port: int, control: int) -> None:
    server = Server(log=False)
    memory = {name: (ctypes.c_char * size)() for name, size in SIZES.items()}
    for name, data in memory.items():
        server.register_area(getattr(SrvArea, name), 1 if name == "DB" else 0, data)
    server.start(tcp_port=port)
    server.set_cpu_status(8)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = json.loads(self.rfile.readline())
            answer: Any = None
            if asked["do"] == "cpu":
                server.set_cpu_status(asked["status"])
            else:
                data, at = memory[asked["area"]], asked["at"]
                if asked["do"] == "put":
                    given = bytes.fromhex(asked["data"])
                    ctypes.memmove(ctypes.byref(data, at), given, len(given))
                else:
                    answer = ctypes.string_at(ctypes.byref(data, at), asked["size"]).hex()
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    socketserver.TCPServer.allow_reuse_address = True
    with socketserver.TCPServer(("127.0.0.1", control), Handler) as listening:
        listening.serve_forever()


def client(port: int, rack: int, slot: int) -> None:
    plc = Client()
    try:
        plc.connect("127.0.0.1", rack, slot, port)
        answer: Any = [ask(plc, *request) for request in json.load(sys.stdin)]
    except RuntimeError as error:
        answer = {"error": str(error)}
    finally:
        plc.disconnect()
    sys.stdout.write(json.dumps(answer))


def ask(plc: Client, method: str, *arguments: Any) -> Any:
    if method == "write_bit":  # one bit of an area, which the client's own methods do not offer
        area, db, bit, value = arguments
        data = ctypes.byref((ctypes.c_uint8 * 1)(value))
        call = plc._lib.Cli_WriteArea  # type: ignore[attr-defined]
        return int(call(plc._s7_client, Area[area].value, db, bit, 1, WordLen.Bit.value, data))  # type: ignore[attr-defined]
    answer = getattr(plc, method)(*map(given, arguments))
    return bytes(answer).hex() if isinstance(answer, bytes | bytearray) else str(answer)


def given(argument: Any) -> Any:
    """An area by its name, bytes by 0x…, anything else as it is."""
    if isinstance(argument, str) and argument in Area.__members__:
        return Area[argument]
    return bytearray.fromhex(argument[2:]) if isinstance(argument, str) and argument[:2] == "0x" else argument


ROLES: Final[dict[str, Callable[..., None]]] = {"server": serve, "client": client}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*map(int, sys.argv[2:]))
