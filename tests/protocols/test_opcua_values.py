"""StatusCodes, times and values of OPC UA in Shopfloor's terms."""

from datetime import datetime

import pytest
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from hypothesis import given, strategies as st

from shopfloor.protocols.opcua_values import iso, nanoseconds, overflowed, plain, quality, ticks_of
from shopfloor.samples import Quality

DAY = 864_000_000_000
SINCE_1601 = 134_774 * DAY


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (0, Quality.GOOD),
        (StatusCodes.GoodClamped, Quality.GOOD),
        (StatusCodes.GoodLocalOverride, Quality.LOCAL_OVERRIDE),
        (StatusCodes.Uncertain, Quality.UNCERTAIN),
        (StatusCodes.UncertainInitialValue, Quality.UNCERTAIN),
        (StatusCodes.UncertainSubNormal, Quality.SUB_NORMAL),
        (StatusCodes.UncertainSensorNotAccurate, Quality.SENSOR_NOT_ACCURATE),
        (StatusCodes.UncertainEngineeringUnitsExceeded, Quality.ENGINEERING_UNITS_EXCEEDED),
        (StatusCodes.UncertainLastUsableValue, Quality.LAST_USABLE),
        (StatusCodes.Bad, Quality.BAD),
        (StatusCodes.BadInternalError, Quality.BAD),
        (StatusCodes.BadConfigurationError, Quality.CONFIGURATION_ERROR),
        (StatusCodes.BadNotConnected, Quality.NOT_CONNECTED),
        (StatusCodes.BadNoCommunication, Quality.COMMUNICATION_FAILURE),
        (StatusCodes.BadOutOfService, Quality.OUT_OF_SERVICE),
        (StatusCodes.BadDeviceFailure, Quality.DEVICE_FAILURE),
        (StatusCodes.BadSensorFailure, Quality.SENSOR_FAILURE),
        (StatusCodes.BadWaitingForInitialData, Quality.WAITING_FOR_INITIAL_DATA),
        (0xC0000000, Quality.BAD),  # a severity that the standard reserves
    ],
)
def test_qualities_by_part_8(status: int, wanted: Quality) -> None:
    assert quality(status) == wanted


def test_limit_bits_are_passed_on() -> None:
    """Only where the info type says that they are there."""
    assert quality(StatusCodes.BadSensorFailure | 0x0400 | 0x0200) == Quality.SENSOR_FAILURE | 2
    assert quality(StatusCodes.BadSensorFailure | 0x0200) == Quality.SENSOR_FAILURE


@given(st.integers(0, 2**32 - 1))
def test_every_status_has_a_quality_of_its_severity(status: int) -> None:
    assert quality(status) >> 6 == {0: 3, 1: 1, 2: 0, 3: 0}[status >> 30]


def test_the_overflow_bit_needs_its_info_type() -> None:
    assert overflowed(0x00000480)
    assert overflowed(StatusCodes.UncertainInitialValue | 0x0480)
    assert not overflowed(0x00000080)
    assert not overflowed(0x00000400)


def test_times() -> None:
    """100 ns since 1601 to ns since 1970, with 10 ps; what int64 cannot hold or is before 1970 is no time."""
    assert nanoseconds(SINCE_1601 + 1) == 100
    assert nanoseconds(SINCE_1601 + 1, 9999) == 199
    assert nanoseconds(0) == nanoseconds(-1) == nanoseconds(SINCE_1601) == nanoseconds(2**63 - 1) == 0


@given(st.datetimes())
def test_text_and_back(moment: datetime) -> None:
    """ISO text keeps the time to 100 ns."""
    ticks = ua.datetime_to_win_epoch(moment)
    if 0 < ticks < ticks_of("9999-12-31T23:59:59Z"):
        assert ticks_of(iso(ticks)) == ticks


def test_text_without_an_offset_is_utc() -> None:
    assert ticks_of("2026-03-29T02:00:00") == ticks_of("2026-03-29T04:00:00+02:00")


def test_an_integer_beyond_uint64_is_text() -> None:
    assert plain(2**64) == str(2**64)
