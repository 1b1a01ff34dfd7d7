# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""An OPC UA server that costs next to nothing, so that a bench measures the client.

It answers the services that a subscribing client needs and sends notification messages that are
composed once, with the times put in. ``python -m shopfloor.bench.opcua_server --values 1000`` prints its
port. Not a server for anything else: no security, one address space that says yes to every node.
"""

import argparse
import asyncio
import struct
import sys
import time
from collections import deque
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, struct_to_binary

from shopfloor.protocols.opcua_values import EPOCH

_CHUNK: Final = 65_000
_HEADER: Final = struct.Struct("<3ssII")
_SEQUENCE: Final = struct.Struct("<III")
_ITEM: Final = struct.Struct("<IBBdqq")
_DOUBLE, _ALL_FIELDS = 11, 0x0D


class Pace:
    """How many values a message has, and how often there is one."""

    def __init__(self, values: int, tags: int, every: float) -> None:
        """``every`` in seconds; 0 answers each publish request at once."""
        self.values = values
        self.tags = tags
        self.every = every


class _Connection(asyncio.Protocol):
    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._parts = b""
        self._sequence = 0
        self._waiting: deque[tuple[int, int]] = deque()
        self._handles: list[int] = []
        self._messages: list[bytearray] = []
        self._round = 0
        self._number = 0
        self._pacer: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a TCP server

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._pacer is not None:
            self._pacer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 8:  # noqa: PLR2004  # type, chunk, size
            size = int.from_bytes(self._received[4:8], "little")
            if len(self._received) < size:
                return
            packet = bytes(self._received[:size])
            del self._received[:size]
            self._packet(packet)

    def _packet(self, packet: bytes) -> None:
        kind = packet[:3]
        if kind == b"HEL":
            hello = struct_from_binary(ua.Hello, Buffer(packet, 8))
            answer: Any = ua.Acknowledge()
            answer.ReceiveBufferSize, answer.SendBufferSize = hello.ReceiveBufferSize, hello.SendBufferSize
            body = struct_to_binary(answer)
            self._write(b"ACKF" + struct.pack("<I", 8 + len(body)) + body)
        elif kind == b"OPN":
            data = Buffer(packet, 12)
            struct_from_binary(ua.AsymmetricAlgorithmHeader, data)
            sequence = struct_from_binary(ua.SequenceHeader, data)
            self._open(data, sequence.RequestId)
        elif kind == b"MSG":
            _, _, request = _SEQUENCE.unpack_from(packet, 12)
            self._parts += packet[24:]
            if packet[3:4] == b"F":
                body, self._parts = self._parts, b""
                self._message(body, request)
        elif self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _open(self, data: Buffer, request: int) -> None:
        nodeid_from_binary(data)
        header = struct_from_binary(ua.RequestHeader, data)
        answer: Any = ua.OpenSecureChannelResponse()
        answer.ResponseHeader.RequestHandle = header.RequestHandle
        answer.Parameters.SecurityToken.ChannelId = answer.Parameters.SecurityToken.TokenId = 1
        answer.Parameters.SecurityToken.RevisedLifetime = 3_600_000
        security: Any = ua.AsymmetricAlgorithmHeader()
        security.SecurityPolicyURI = "http://opcfoundation.org/UA/SecurityPolicy#None"
        self._sequence += 1
        body = struct_to_binary(security) + struct.pack("<II", self._sequence, request) + struct_to_binary(answer)
        self._write(_HEADER.pack(b"OPN", b"F", 12 + len(body), 1) + body)

    def _send(self, body: bytes, request: int) -> None:
        chunks: list[bytes] = []
        for start in range(0, len(body), _CHUNK):
            part = body[start : start + _CHUNK]
            self._sequence += 1
            last = b"F" if start + _CHUNK >= len(body) else b"C"
            chunks += (
                _HEADER.pack(b"MSG", last, 24 + len(part), 1),
                _SEQUENCE.pack(1, self._sequence, request),
                part,
            )
        self._write(b"".join(chunks))

    def _message(self, body: bytes, request: int) -> None:
        data = Buffer(body)
        kind = nodeid_from_binary(data).Identifier
        if kind == ObjectIds.PublishRequest_Encoding_DefaultBinary:
            header = struct_from_binary(ua.RequestHeader, data)
            self._waiting.append((request, header.RequestHandle))
            if not self._pace.every:
                self._publish()
            return
        answer = self._answer(kind, body)
        header = struct_from_binary(ua.RequestHeader, data)
        answer.ResponseHeader.RequestHandle = header.RequestHandle
        self._send(struct_to_binary(answer), request)

    def _answer(self, kind: object, body: bytes) -> Any:
        if kind == ObjectIds.GetEndpointsRequest_Encoding_DefaultBinary:
            answer: Any = ua.GetEndpointsResponse()
            answer.Endpoints = [_endpoint()]
        elif kind == ObjectIds.CreateSessionRequest_Encoding_DefaultBinary:
            answer = ua.CreateSessionResponse()
            answer.Parameters.AuthenticationToken = answer.Parameters.SessionId = ua.NodeId(ua.Int32(7))
            answer.Parameters.RevisedSessionTimeout = 60_000.0
            answer.Parameters.ServerEndpoints = [_endpoint()]
        elif kind == ObjectIds.ActivateSessionRequest_Encoding_DefaultBinary:
            answer = ua.ActivateSessionResponse()
        elif kind == ObjectIds.ReadRequest_Encoding_DefaultBinary:
            asked: Any = struct_from_binary(ua.ReadRequest, Buffer(body))
            answer = ua.ReadResponse()
            answer.Results = [ua.DataValue(ua.Variant(0, ua.VariantType.UInt32)) for _ in asked.Parameters.NodesToRead]
        elif kind == ObjectIds.CreateSubscriptionRequest_Encoding_DefaultBinary:
            wanted: Any = struct_from_binary(ua.CreateSubscriptionRequest, Buffer(body)).Parameters
            answer = ua.CreateSubscriptionResponse()
            answer.Parameters.SubscriptionId = 1
            answer.Parameters.RevisedPublishingInterval = wanted.RequestedPublishingInterval
            answer.Parameters.RevisedLifetimeCount = wanted.RequestedLifetimeCount
            answer.Parameters.RevisedMaxKeepAliveCount = wanted.RequestedMaxKeepAliveCount
        elif kind == ObjectIds.CreateMonitoredItemsRequest_Encoding_DefaultBinary:
            answer = self._monitor(struct_from_binary(ua.CreateMonitoredItemsRequest, Buffer(body)))
        elif kind == ObjectIds.CloseSessionRequest_Encoding_DefaultBinary:
            answer = ua.CloseSessionResponse()
        else:
            answer = ua.ServiceFault()
            answer.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(StatusCodes.BadServiceUnsupported))
        return answer

    def _monitor(self, asked: Any) -> Any:
        answer: Any = ua.CreateMonitoredItemsResponse()
        for item in asked.Parameters.ItemsToCreate:
            self._handles.append(item.RequestedParameters.ClientHandle)
            result: Any = ua.MonitoredItemCreateResult()
            result.MonitoredItemId = len(self._handles)
            answer.Results.append(result)
        if len(self._handles) >= self._pace.tags:
            self._compose()
            while not self._pace.every and self._publish():
                pass
            if self._pace.every:
                self._pacer = asyncio.get_running_loop().create_task(self._keep_pace())
        return answer

    def _compose(self) -> None:
        """The data change notifications, each of some tags, all tags in turn."""
        size = self._pace.values
        for start in range(0, len(self._handles), size):
            some = self._handles[start : start + size]
            items = b"".join(_ITEM.pack(h, _ALL_FIELDS, _DOUBLE, h * 0.1, 0, 0) for h in some)
            body = struct.pack("<i", len(some)) + items + struct.pack("<i", -1)
            extension = b"\x01\x00" + struct.pack("<HBi", 811, 1, len(body)) + body
            self._messages.append(bytearray(extension))

    def _publish(self) -> bool:
        """Answer the oldest publish request with the next message; False when there is none."""
        if not self._waiting or not self._messages:
            return False
        request, handle = self._waiting.popleft()
        message = self._messages[self._round % len(self._messages)]
        self._round += 1
        self._number += 1
        now = time.time_ns() // 100 + EPOCH
        for at in range(4 + 5 + 4, len(message) - 4, _ITEM.size):
            struct.pack_into("<dqq", message, at + 6, float(self._round), now, now)
        header = b"\x01\x00" + struct.pack("<HqIIBiHB", 829, now, handle, 0, 0, -1, 0, 0)
        more = self._round % len(self._messages) != 0
        published = struct.pack("<Ii", 1, 1) + struct.pack("<IBIqi", self._number, more, self._number, now, 1)
        self._send(header + published + bytes(message) + struct.pack("<ii", -1, -1), request)
        return True

    async def _keep_pace(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._pace.every
        while True:
            await asyncio.sleep(due - loop.time())
            due += self._pace.every
            self._publish()


def _endpoint() -> ua.EndpointDescription:
    endpoint = ua.EndpointDescription()
    endpoint.EndpointUrl = "opc.tcp://127.0.0.1"
    endpoint.SecurityMode = ua.MessageSecurityMode.None_
    endpoint.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
    endpoint.UserIdentityTokens = [ua.UserTokenPolicy(PolicyId="anonymous", TokenType=ua.UserTokenType.Anonymous)]
    return endpoint


async def serve(pace: Pace) -> None:
    """Serve on a free loopback port, which is printed, until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(pace), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=1000, help="values in a message")
    parser.add_argument("--tags", type=int, default=1000, help="monitored items after which it begins")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between messages; 0: as fast as asked for")
    chosen = parser.parse_args()
    asyncio.run(serve(Pace(chosen.values, chosen.tags, chosen.every)))


if __name__ == "__main__":
    main()
