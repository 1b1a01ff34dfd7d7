"""``shopfloor chaos``: break things on this computer, and count what became of every sample.

``stage`` sets the scene, ``databases`` has the real servers on it, ``faults`` says what is broken and how it is mended,
``experiment`` does it and counts, ``report`` shows it.
"""

from shopfloor.chaos.experiment import Finding
from shopfloor.chaos.faults import FAULTS, Fault
from shopfloor.chaos.report import as_list, run

__all__ = ["FAULTS", "Fault", "Finding", "as_list", "run"]
