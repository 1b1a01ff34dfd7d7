"""The press simulator over real OPC UA: what a client of a Kepware or CODESYS server would see."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from shopfloor.protocols.opcua_security import generate
from shopfloor.samples import Misconfigured
from shopfloor.simulators.press import TAGS, PressServer, serve
from shopfloor.simulators.press_line import Press, State
from shopfloor.testing.contracts import Leftovers, until
from shopfloor.testing.programs import free_port


def endpoint() -> str:
    return f"opc.tcp://127.0.0.1:{free_port()}"


@asynccontextmanager
async def at_work(press: Press, **options: object) -> AsyncIterator[PressServer]:
    async with PressServer(endpoint(), press, **options) as server:  # type: ignore[arg-type]  # the test names its options
        running = asyncio.create_task(server.run())
        try:
            yield server
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def node(client: Client, name: str) -> Node:
    return client.get_node(f"ns=2;s=Channel1.Device1.{name}")


async def test_every_tag_is_there_with_its_type_and_unit() -> None:
    async with PressServer(endpoint(), Press(running=True)) as server, Client(server.endpoint) as client:
        for name, tag in TAGS.items():
            value = await node(client, name).read_data_value()
            assert value.Value is not None
            assert value.Value.VariantType == tag.kind
            assert value.StatusCode is not None
            assert value.StatusCode.is_good()
            assert value.SourceTimestamp is not None
        assert (await node(client, "PV").get_path(as_string=True))[-3:] == ["2:Channel1", "2:Device1", "2:PV"]
        unit = await node(client, "PV").get_child("0:EngineeringUnits")
        assert (await unit.read_value()).DisplayName.Text == "bar"


async def test_values_move_and_the_source_says_when() -> None:
    async with at_work(Press(running=True)) as server, Client(server.endpoint) as client:

        async def read() -> tuple[object, object]:
            found = await node(client, "PV").read_data_value()
            assert found.Value is not None
            return found.Value.Value, found.SourceTimestamp

        first = await read()

        async def moved() -> bool:
            return all(now != then for now, then in zip(await read(), first, strict=True))

        await until(moved, "the pressure moves")


async def test_buttons_and_set_point_reach_the_machine() -> None:
    async with at_work(Press(running=False, jam_every=math.inf)) as server, Client(server.endpoint) as client:
        await node(client, "Start").write_value(True)
        await node(client, "Start").write_value(False)  # faster than a scan: must not be missed
        assert server.press.running

        async def shown() -> bool:
            return bool(await node(client, "MotorStatus").read_value())

        await until(shown, "the motor's status shows that it runs")
        await node(client, "SP").write_value(55.5, ua.VariantType.Float)
        assert server.press.set_point == 55.5
        assert await node(client, "SP").read_value() == 55.5
        await node(client, "Stop").write_value(True)
        assert server.press.read().State == State.STOPPED


async def test_what_the_plc_would_refuse_is_refused() -> None:
    async with PressServer(endpoint(), Press()) as server, Client(server.endpoint) as client:
        with pytest.raises(UaStatusCodeError, match="BadTypeMismatch"):
            await node(client, "SP").write_value("fast", ua.VariantType.String)
        for name in ("PV", "GoodParts", "State"):
            with pytest.raises(UaStatusCodeError, match=r"Denied|NotWritable"):
                await node(client, name).write_value(1, TAGS[name].kind)


async def test_nan_as_set_point_is_replaced_by_what_the_plc_goes_on_with() -> None:
    async with at_work(Press(running=True)) as server, Client(server.endpoint) as client:
        await node(client, "SP").write_value(math.nan, ua.VariantType.Float)

        async def replaced() -> bool:
            return bool(await node(client, "SP").read_value() == 40)

        await until(replaced, "the set-point shows 40 again")
        assert server.press.set_point == 40


async def test_extra_tags_change_each_second_and_are_browsable() -> None:
    async with PressServer(endpoint(), Press(), extra_tags=250) as server, Client(server.endpoint) as client:
        groups = await client.get_node("ns=2;s=Channel1.Device2").get_children()
        found = [tag for group in groups for tag in await group.get_children()]
        assert (len(groups), len(found)) == (3, 250)
        await server.show(1.0)
        before = await client.read_values(found)
        await server.show(1.0)
        after = await client.read_values(found)
        assert sum(a != b for a, b in zip(before, after, strict=True)) > 200
        await server.show(0.1)
        later = await client.read_values(found)
        assert sum(a != b for a, b in zip(after, later, strict=True)) <= 25, "changes are spread over the second"


async def test_security_is_offered_with_a_certificate_and_kept(tmp_path: Path) -> None:
    generate(tmp_path / "client.der", tmp_path / "client.pem")
    async with PressServer(endpoint(), Press(), certificates=tmp_path / "server") as server:
        own = (tmp_path / "server" / "own.der").read_bytes()
        client = Client(server.endpoint)
        await client.set_security(
            SecurityPolicyBasic256Sha256,
            tmp_path / "client.der",
            tmp_path / "client.pem",
            server_certificate=str(tmp_path / "server" / "own.der"),
        )
        async with client:
            assert await node(client, "SP").read_value() == 40
    async with PressServer(endpoint(), Press(), certificates=tmp_path / "server"):
        assert (tmp_path / "server" / "own.der").read_bytes() == own


async def test_with_users_only_they_come_in() -> None:
    async with PressServer(endpoint(), Press(), users={"line": "secret"}) as server:
        client = Client(server.endpoint)
        client.set_user("line")
        client.set_password("secret")
        async with client:
            assert await node(client, "SP").read_value() == 40
        for user, password in (("line", "wrong"), ("nobody", "secret")):
            stranger = Client(server.endpoint)
            stranger.set_user(user)
            stranger.set_password(password)
            with pytest.raises(UaError):
                await stranger.connect()
        with pytest.raises(UaError):
            await Client(server.endpoint).connect()


async def test_a_taken_port_says_what_to_do() -> None:
    taken = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        with pytest.raises(Misconfigured, match="choose another port"):
            await serve(f"opc.tcp://127.0.0.1:{port}")


async def test_serving_ends_cleanly_when_cancelled() -> None:
    left = Leftovers()
    up = asyncio.Event()
    serving = asyncio.create_task(serve(endpoint(), seed=3, ready=up.set))
    await asyncio.wait_for(up.wait(), 20)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
    await left.none()
