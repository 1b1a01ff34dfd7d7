"""For those who write connectors: contract tests to inherit, clocks, broken networks, real servers.

It needs pytest, pytest-asyncio and trustme, which the product itself does not.
"""

import pytest

pytest.register_assert_rewrite("shopfloor.testing.contracts")
