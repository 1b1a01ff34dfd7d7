"""The press simulator over real OPC UA: what a client of a Kepware or CODESYS server would see."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from shopfloor.protocols.opcua_security import generate, identity
from shopfloor.samples import Misconfigured
from shopfloor.simulators.packml import State
from shopfloor.simulators.press import TAGS, PressServer, serve
from shopfloor.simulators.press_line import Press
from shopfloor.testing.contracts import Leftovers, until
from shopfloor.testing.programs import answers, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


class Line(NamedTuple):
    server: PressServer
    client: Client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line() -> AsyncIterator[Line]:
    """One press at work for all tests that leave it as they found it: a server takes a second to come up."""
    async with (
        at_work(Press(running=True, jam_every=math.inf)) as server,
        Client(server.endpoint) as client,
    ):
        yield Line(server, client)


async def test_every_tag_is_there_with_its_type_and_unit(line: Line) -> None:
    for name, tag in TAGS.items():
        value = await node(line.client, name).read_data_value()
        assert value.Value is not None
        assert value.Value.VariantType == tag.kind
        assert value.StatusCode is not None
        assert value.StatusCode.is_good()
        assert value.SourceTimestamp is not None
    path = await node(line.client, "PV").get_path(as_string=True)
    assert path[-3:] == ["2:Channel1", "2:Device1", "2:PV"]
    unit = await node(line.client, "PV").get_child("0:EngineeringUnits")
    assert (await unit.read_value()).DisplayName.Text == "bar"


async def test_values_move_and_the_source_says_when(line: Line) -> None:
    async def read() -> tuple[object, object]:
        found = await node(line.client, "PV").read_data_value()
        assert found.Value is not None
        return found.Value.Value, found.SourceTimestamp

    first = await read()

    async def moved() -> bool:
        return all(now != then for now, then in zip(await read(), first, strict=True))

    await until(moved, "the pressure moves")


async def test_buttons_and_set_point_reach_the_machine(line: Line) -> None:
    async def motor(*, runs: bool) -> None:
        async def shown() -> bool:
            return bool(await node(line.client, "MotorStatus").read_value() == runs)

        await until(shown, f"the motor's status shows {runs}")

    await node(line.client, "Stop").write_value(True)
    assert line.server.press.read().State == State.STOPPED
    await motor(runs=False)
    await node(line.client, "Stop").write_value(False)
    await node(line.client, "Start").write_value(True)
    await node(line.client, "Start").write_value(False)  # faster than a scan: must not be missed
    assert line.server.press.running
    await motor(runs=True)
    await node(line.client, "SP").write_value(55.5, ua.VariantType.Float)
    assert line.server.press.set_point == 55.5
    assert await node(line.client, "SP").read_value() == 55.5


async def test_what_the_plc_would_refuse_is_refused(line: Line) -> None:
    with pytest.raises(UaStatusCodeError, match="BadTypeMismatch"):
        await node(line.client, "SP").write_value("fast", ua.VariantType.String)
    for name in ("PV", "GoodParts", "State"):
        with pytest.raises(UaStatusCodeError, match=r"Denied|NotWritable"):
            await node(line.client, name).write_value(1, TAGS[name].kind)


async def test_nan_as_set_point_is_replaced_by_what_the_plc_goes_on_with(line: Line) -> None:
    await node(line.client, "SP").write_value(45.0, ua.VariantType.Float)
    await node(line.client, "SP").write_value(math.nan, ua.VariantType.Float)

    async def replaced() -> bool:
        return bool(await node(line.client, "SP").read_value() == 45)

    await until(replaced, "the set-point shows 45 again")
    assert line.server.press.set_point == 45


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
    (tmp_path / "server").mkdir()
    identity(tmp_path / "server")
    own = (tmp_path / "server" / "own.der").read_bytes()
    async with PressServer(endpoint(), Press(), certificates=tmp_path / "server") as server:
        client = Client(server.endpoint)
        await client.set_security(
            SecurityPolicyBasic256Sha256,
            tmp_path / "client.der",
            tmp_path / "client.pem",
            server_certificate=str(tmp_path / "server" / "own.der"),
        )
        async with client:
            assert await node(client, "SP").read_value() == 40
    assert (tmp_path / "server" / "own.der").read_bytes() == own, "a certificate that clients trust is not replaced"


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


@pytest.mark.asyncio(loop_scope="function")  # a loop of its own: the line's client works in the module's
async def test_serving_ends_cleanly_when_cancelled() -> None:
    left = Leftovers()
    address = endpoint()
    port = int(address.rpartition(":")[2])
    up = asyncio.Event()
    serving = asyncio.create_task(serve(address, seed=3, ready=up.set))
    await asyncio.wait_for(up.wait(), 100)
    assert answers("127.0.0.1", port)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
    assert not answers("127.0.0.1", port)
    await left.none()
