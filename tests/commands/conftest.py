"""A shop for every test."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.commands.shop import SECOND, Shop, barriers


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """Commands over a machine; they are stopped afterwards."""
    shop = Shop(tmp_path)
    await shop.enter()
    yield shop
    barriers.clear()
    stopping = asyncio.ensure_future(shop.commands.__aexit__())
    while not stopping.done():
        await shop.clock.advance(SECOND)
        await asyncio.wait({stopping}, timeout=0.001)
    await stopping
