"""``shopfloor chaos``: break things on this computer, and count what became of every sample.

``stage`` sets the scene, ``faults`` says what is broken and how it is mended, ``experiment`` does it and counts,
``report`` shows it.
"""

from shopfloor.chaos.experiment import Finding
from shopfloor.chaos.faults import FAULTS, Fault, chosen
from shopfloor.chaos.report import run

__all__ = ["FAULTS", "Fault", "Finding", "chosen", "run"]
