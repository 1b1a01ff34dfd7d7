"""How much materials grow with temperature: mean coefficients of linear expansion at room temperature, with sources.

Batches, tempers and directions differ by some per cent from what tables say: who needs better than that measures the
coefficient, and gives it as ``expansion``.
"""

from typing import Final, NamedTuple

from shopfloor.plant.wording import meant

CALLISTER: Final = (
    "W. D. Callister, D. G. Rethwisch: Fundamentals of Materials Science and Engineering, 3rd ed., Wiley 2008, "
    "Table B.6 (from the ASM Handbooks), room temperature"
)
EN_10088: Final = "EN 10088-1: Stainless steels, physical properties, mean value from 20 to 100 °C"
ISO_3650: Final = "ISO 3650:1998, 6.2.2, gauge blocks of steel, from 10 to 30 °C: (11.5 ± 1.0)·10⁻⁶ /K"
NIST_180: Final = (
    "T. Doiron, J. Beers: The Gauge Block Handbook, NIST Monograph 180; granites differ, from 4 to 8·10⁻⁶ /K"
)
SCHOTT: Final = "SCHOTT: ZERODUR, technical details, mean value from 0 to 50 °C, expansion class 2: (0 ± 0.1)·10⁻⁶ /K"


class Material(NamedTuple):
    """A material and its coefficient."""

    name: str
    expansion: float
    """1/K."""
    source: str


MATERIALS: Final = (
    Material("aluminium 1100", 23.6e-6, CALLISTER),
    Material("aluminium 2024", 22.9e-6, CALLISTER),
    Material("aluminium 6061", 23.6e-6, CALLISTER),
    Material("aluminium 7075", 23.4e-6, CALLISTER),
    Material("aluminium 356.0", 21.5e-6, CALLISTER),
    Material("magnesium AZ31B", 26.0e-6, CALLISTER),
    Material("magnesium AZ91D", 26.0e-6, CALLISTER),
    Material("titanium grade 1", 8.6e-6, CALLISTER),
    Material("titanium Ti-6Al-4V", 8.6e-6, CALLISTER),
    Material("steel A36", 11.7e-6, CALLISTER),
    Material("steel 1020", 11.7e-6, CALLISTER),
    Material("steel 1040", 11.3e-6, CALLISTER),
    Material("steel 4140", 12.3e-6, CALLISTER),
    Material("steel 4340", 12.3e-6, CALLISTER),
    Material("gauge block steel", 11.5e-6, ISO_3650),
    Material("stainless steel 304", 16.0e-6, EN_10088),
    Material("stainless steel 316", 16.0e-6, EN_10088),
    Material("stainless steel 410", 10.5e-6, EN_10088),
    Material("stainless steel 430", 10.0e-6, EN_10088),
    Material("stainless steel 2205", 13.0e-6, EN_10088),
    Material("grey cast iron", 11.4e-6, CALLISTER),
    Material("ductile iron 60-40-18", 11.2e-6, CALLISTER),
    Material("copper C11000", 17.0e-6, CALLISTER),
    Material("brass C26000", 19.9e-6, CALLISTER),
    Material("brass C36000", 20.5e-6, CALLISTER),
    Material("bronze C93200", 18.0e-6, CALLISTER),
    Material("nickel 200", 13.3e-6, CALLISTER),
    Material("Inconel 625", 12.8e-6, CALLISTER),
    Material("Kovar", 5.1e-6, CALLISTER),
    Material("Invar", 1.6e-6, CALLISTER),
    Material("Super Invar", 0.72e-6, CALLISTER),
    Material("zirconia", 9.6e-6, CALLISTER),
    Material("alumina", 7.4e-6, CALLISTER),
    Material("borosilicate glass", 3.3e-6, CALLISTER),
    Material("silicon", 2.5e-6, CALLISTER),
    Material("granite", 6.3e-6, NIST_180),
    Material("Zerodur", 0.0, SCHOTT),
)


def material(name: str) -> Material:
    """The material of this name; capitals, spaces and hyphens do not matter. Raises ValueError with a proposal."""
    found = _BY_KEY.get(_key(name))
    if found is None:
        near = meant(name.lower(), [m.name.lower() for m in MATERIALS])
        known = f"; give `expansion`, in 1/K, or one of: {', '.join(m.name for m in MATERIALS)}"
        raise ValueError(f"there is no material {name[:80]!r} in the table{near or known}")
    return found


def _key(name: str) -> str:
    return "".join(name.lower().replace("aluminum", "aluminium").replace("-", "").split())


_BY_KEY: Final = {_key(m.name): m for m in MATERIALS}
