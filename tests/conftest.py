"""What all tests share: how Hypothesis searches. Ports, programs and servers are in `shopfloor.testing`."""

import os

from hypothesis import HealthCheck, settings

# No deadline: a busy machine is no fault. In CI the same examples every time, so a red build is red again.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")
