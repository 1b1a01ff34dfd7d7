"""Units as OPC UA tells them: EUInformation with the numbers of UNECE Recommendation 20 (OPC 10000-8, 5.6.4.3)."""

from functools import lru_cache
from typing import Final

from asyncua import ua

_UNECE: Final = "http://www.opcfoundation.org/UA/units/un/cefact"
_CODES: Final = {
    "%": "P1", "°C": "CEL", "°F": "FAH", "K": "KEL",
    "bar": "BAR", "mbar": "MBR", "Pa": "PAL", "hPa": "A97", "kPa": "KPA", "MPa": "MPA", "psi": "PS",
    "m": "MTR", "mm": "MMT", "cm": "CMT", "µm": "4H", "km": "KMT", "in": "INH", "ft": "FOT",
    "m²": "MTK", "m³": "MTQ", "l": "LTR", "L": "LTR", "ml": "MLT", "g": "GRM", "kg": "KGM", "t": "TNE", "mg": "MGM",
    "s": "SEC", "ms": "C26", "min": "MIN", "h": "HUR", "d": "DAY", "Hz": "HTZ", "kHz": "KHZ",
    "W": "WTT", "kW": "KWT", "MW": "MAW", "Wh": "WHR", "kWh": "KWH", "MWh": "MWH", "J": "JOU", "kJ": "KJO",
    "V": "VLT", "mV": "2Z", "kV": "KVT", "A": "AMP", "mA": "4K", "Ω": "OHM", "VA": "D46", "kVA": "KVA",
    "N": "NEW", "kN": "B47", "Nm": "NU", "N·m": "NU", "rpm": "RPM", "1/min": "RPM", "m/s": "MTS", "mm/s": "C16",
    "m/min": "2X", "l/min": "L2", "m³/h": "MQH", "kg/h": "E93", "dB": "2N", "lx": "LUX", "mol": "C34",
}  # fmt: skip
"""The common code of each unit as plant files write it."""


@lru_cache(4096)
def engineering_units(unit: str) -> ua.EUInformation:
    """The unit; one without a UNECE code has the id -1 and its own text."""
    code = _CODES.get(unit)
    return ua.EUInformation(
        NamespaceUri=_UNECE if code else "",
        UnitId=ua.Int32(-1 if code is None else int.from_bytes(code.encode("ascii"))),
        DisplayName=ua.LocalizedText(unit),
        Description=ua.LocalizedText(unit),
    )
