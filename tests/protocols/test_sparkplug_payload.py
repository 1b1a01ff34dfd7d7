"""Payloads against bytes made by hand from the specification, and there and back for every type."""

import math
import struct
from typing import Any

import pytest
from hypothesis import given, strategies as st

from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.model import (
    DataSet,
    DataType,
    Fault,
    MetaData,
    Metric,
    MetricValue,
    Parameter,
    Payload,
    Property,
    Template,
)
from shopfloor.protocols.sparkplug.payload import DEEPEST, Columns, Malformed, decode, decode_columns, encode, typed


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


def one(data_type: DataType | None, value: MetricValue, **fields: Any) -> Payload:
    """A payload of one metric."""
    return Payload(metrics=(Metric(name="m", type=data_type, value=value, **fields),))


def field(tag: int, body: bytes) -> bytes:
    """A length-delimited field of fewer than 128 bytes by its first byte."""
    return bytes((tag, len(body))) + body


def metric_of(data_type: int, rest: str) -> bytes:
    """The bytes of a payload with a metric "m" of this type; ``rest`` are the value's bytes in hexadecimal."""
    return field(0x12, b"\x0a\x01m\x20" + bytes((data_type,)) + hexed(rest))


SCALARS: list[tuple[DataType, MetricValue, str]] = [
    (DataType.INT8, -1, "50 ffffffff0f"),
    (DataType.INT8, -128, "50 80ffffff0f"),
    (DataType.INT8, 127, "50 7f"),
    (DataType.INT16, -2, "50 feffffff0f"),
    (DataType.INT32, -(2**31), "50 8080808008"),
    (DataType.INT64, -1, "58 ffffffffffffffffff01"),
    (DataType.UINT8, 255, "50 ff01"),
    (DataType.UINT16, 65535, "50 ffff03"),
    (DataType.UINT32, 2**32 - 1, "50 ffffffff0f"),
    (DataType.UINT64, 2**64 - 1, "58 ffffffffffffffffff01"),
    (DataType.FLOAT, 1.5, "65 0000c03f"),
    (DataType.DOUBLE, -2.0, "69 00000000000000c0"),
    (DataType.BOOLEAN, True, "70 01"),
    (DataType.BOOLEAN, False, "70 00"),
    (DataType.STRING, "é", "7a 02 c3a9"),
    (DataType.DATE_TIME, 300, "58 ac02"),
    (DataType.TEXT, "", "7a 00"),
    (DataType.UUID, "0fd3cf2c-0b3f-4e2a-8a52-2f0a9a5ad9b0", "7a 24" + b"0fd3cf2c-0b3f-4e2a-8a52-2f0a9a5ad9b0".hex()),
    (DataType.BYTES, b"\x00\xff", "8201 02 00ff"),
    (DataType.FILE, b"", "8201 00"),
]

ARRAYS: list[tuple[DataType, MetricValue, str]] = [
    (DataType.INT8_ARRAY, [-23, 123], "e97b"),
    (DataType.INT16_ARRAY, [-30000, 30000], "d08a 3075"),
    (DataType.INT32_ARRAY, [-1, 315338746], "ffffffff faafcb12"),
    (DataType.INT64_ARRAY, [-4270929666821191986, -3601064768563266876], "ce0672ac189cbac4 c4ba9c18ac7206ce"),
    (DataType.UINT8_ARRAY, [23, 250], "17fa"),
    (DataType.UINT16_ARRAY, [30, 52360], "1e00 88cc"),
    (DataType.UINT32_ARRAY, [52, 3293969225], "34000000 49fb55c4"),
    (DataType.UINT64_ARRAY, [52, 16444743074749521625], "3400000000000000 d99e02d1b27637e4"),
    (DataType.FLOAT_ARRAY, [1.5, -2.0], "0000c03f 000000c0"),
    (DataType.DOUBLE_ARRAY, [1.0, -2.0], "000000000000f03f 00000000000000c0"),
    (
        DataType.BOOLEAN_ARRAY,
        [False, False, True, True, False, True, False, False, True, True, False, True],
        "0c000000 34d0",
    ),
    (DataType.BOOLEAN_ARRAY, [], "00000000"),
    (DataType.STRING_ARRAY, ["ABC", "hello"], "41424300 68656c6c6f00"),
    (DataType.STRING_ARRAY, [""], "00"),
    (DataType.DATE_TIME_ARRAY, [1256102875335, 1656107875000], "c7d0907524010000 b8bab89781010000"),
]


@pytest.mark.parametrize(("data_type", "value", "rest"), SCALARS)
def test_a_scalar_is_on_the_wire_as_the_specification_says(data_type: DataType, value: MetricValue, rest: str) -> None:
    data = metric_of(data_type, rest)
    assert encode(one(data_type, value)) == data
    assert decode(data) == one(data_type, value)


@pytest.mark.parametrize(("data_type", "value", "packed"), ARRAYS)
def test_an_array_is_packed_little_endian_as_the_specification_says(
    data_type: DataType, value: MetricValue, packed: str
) -> None:
    body = hexed(packed)
    data = metric_of(data_type, "8201" + bytes((len(body),)).hex() + packed)
    assert encode(one(data_type, value)) == data
    assert decode(data) == one(data_type, value)


def test_every_type_of_the_specification_has_its_golden_bytes() -> None:
    shown = {data_type for data_type, _, _ in SCALARS + ARRAYS}
    nested = {DataType.DATA_SET, DataType.TEMPLATE, DataType.PROPERTY_SET, DataType.PROPERTY_SET_LIST}
    assert shown | nested | {DataType.UNKNOWN} == set(DataType)


@pytest.mark.sparkplug(
    "tck-id-payloads-metric-datatype-value-type",
    "tck-id-payloads-metric-datatype-value",
)
def test_a_whole_payload_is_on_the_wire_as_the_specification_says() -> None:
    payload = Payload(
        timestamp=300,
        metrics=(
            Metric(
                name="a/b", alias=5, timestamp=299, type=DataType.INT32, is_historical=True, is_transient=True, value=7
            ),
            Metric(name="n", type=DataType.STRING, is_null=True),
        ),
        seq=0,
        uuid="x",
        body=b"\x01",
    )
    first = hexed("0a03 612f62  1005  18ab02  2003  2801  3001  5007")
    second = hexed("0a01 6e  200c  3801")
    expected = hexed("08ac02") + field(0x12, first) + field(0x12, second) + hexed("1800  220178  2a0101")
    assert encode(payload) == expected
    assert decode(expected) == payload


@pytest.mark.sparkplug(
    "tck-id-payloads-dataset-column-size",
    "tck-id-payloads-dataset-column-num-headers",
    "tck-id-payloads-dataset-types-def",
    "tck-id-payloads-dataset-types-num",
    "tck-id-payloads-dataset-types-type",
    "tck-id-payloads-dataset-types-value",
    "tck-id-payloads-dataset-parameter-type-req",
    "tck-id-payloads-template-dataset-value",
)
def test_a_data_set_is_on_the_wire_as_the_specification_says() -> None:
    """Columns, types and rows are counted, each cell is in the field of its column's type, no value is null."""
    table = DataSet(["a", "b"], [DataType.INT8, DataType.STRING], [[-1, "x"], [None, ""]])
    rows = field(0x22, field(0x0A, hexed("08ffffffff0f")) + field(0x0A, hexed("320178")))
    rows += field(0x22, field(0x0A, b"") + field(0x0A, hexed("3200")))
    body = hexed("0802  120161 120162  1801 180c") + rows
    data = metric_of(16, (b"\x8a\x01" + bytes((len(body),)) + body).hex())
    assert encode(one(DataType.DATA_SET, table)) == data
    assert decode(data) == one(DataType.DATA_SET, table)


@pytest.mark.sparkplug(
    "tck-id-payloads-template-is-definition",
    "tck-id-payloads-template-is-definition-definition",
    "tck-id-payloads-template-definition-is-definition",
    "tck-id-payloads-template-definition-ref",
    "tck-id-payloads-template-ref-definition",
    "tck-id-payloads-template-version",
    "tck-id-payloads-template-parameter-name-required",
    "tck-id-payloads-template-parameter-name-type",
    "tck-id-payloads-template-parameter-value-type",
    "tck-id-payloads-template-parameter-type-value",
    "tck-id-payloads-template-parameter-type-req",
    "tck-id-payloads-template-parameter-value",
    "tck-id-payloads-template-definition-parameters-default",
)
def test_a_template_definition_is_on_the_wire_as_the_specification_says() -> None:
    """It says that it is one, has no reference, and its parameters have a name, a type and a default."""
    template = Template(
        version="1",
        metrics=(Metric(name="t", type=DataType.DOUBLE),),
        parameters=(Parameter("p", DataType.BOOLEAN, value=True), Parameter("q", DataType.INT8, -1)),
        is_definition=True,
    )
    body = hexed("0a0131") + field(0x12, hexed("0a0174 200a"))
    body += field(0x1A, hexed("0a0170 100b 3801")) + field(0x1A, hexed("0a0171 1001 18ffffffff0f")) + hexed("2801")
    data = metric_of(19, (b"\x92\x01" + bytes((len(body),)) + body).hex())
    assert encode(one(DataType.TEMPLATE, template)) == data
    assert decode(data) == one(DataType.TEMPLATE, template)


@pytest.mark.sparkplug(
    "tck-id-payloads-template-instance-is-definition",
    "tck-id-payloads-template-is-definition-instance",
    "tck-id-payloads-template-instance-ref",
    "tck-id-payloads-template-ref-instance",
    "tck-id-payloads-template-instance-members-data",
)
def test_a_template_instance_is_on_the_wire_as_the_specification_says() -> None:
    """It says that it is no definition and names its own; templates nest."""
    inner = Template(template_ref="in", metrics=(Metric(name="x", type=DataType.BOOLEAN, value=True),))
    template = Template(template_ref="out", metrics=(Metric(name="i", type=DataType.TEMPLATE, value=inner),))
    nested = field(0x12, hexed("0a0178 200b 7001")) + hexed("2202696e 2800")
    member = field(0x12, hexed("0a0169 2013 9201") + bytes((len(nested),)) + nested)
    body = member + hexed("22036f7574 2800")
    data = metric_of(19, (b"\x92\x01" + bytes((len(body),)) + body).hex())
    assert encode(one(DataType.TEMPLATE, template)) == data
    assert decode(data) == one(DataType.TEMPLATE, template)


@pytest.mark.sparkplug(
    "tck-id-payloads-propertyset-keys-array-size",
    "tck-id-payloads-propertyset-values-array-size",
    "tck-id-payloads-metric-propertyvalue-type-type",
    "tck-id-payloads-metric-propertyvalue-type-value",
    "tck-id-payloads-metric-propertyvalue-type-req",
    "tck-id-payloads-propertyset-quality-value-type",
    "tck-id-payloads-propertyset-quality-value-value",
)
def test_properties_are_on_the_wire_as_the_specification_says() -> None:
    """As many values as keys, each with its type; sets nest alone and in lists; null is said."""
    properties = {
        "Quality": Property(DataType.INT32, 192),
        "n": Property(DataType.STRING, None),
        "s": Property(DataType.PROPERTY_SET, {"k": Property(DataType.BOOLEAN, value=True)}),
        "l": Property(DataType.PROPERTY_SET_LIST, [{}]),
    }
    keys = field(0x0A, b"Quality") + field(0x0A, b"n") + field(0x0A, b"s") + field(0x0A, b"l")
    inner = field(0x0A, b"k") + field(0x12, hexed("080b 3801"))
    values = field(0x12, hexed("0803 18c001")) + field(0x12, hexed("080c 1001"))
    values += field(0x12, hexed("0814") + field(0x4A, inner)) + field(0x12, hexed("0815") + field(0x52, hexed("0a00")))
    data = field(0x12, b"\x0a\x01m\x20\x0b" + field(0x4A, keys + values) + b"\x70\x01")
    payload = one(DataType.BOOLEAN, value=True, properties=properties)
    assert encode(payload) == data
    assert decode(data) == payload


def test_metadata_is_on_the_wire_as_the_specification_says() -> None:
    metadata = MetaData(
        is_multi_part=False, content_type="c", size=1, seq=2, file_name="f", file_type="t", md5="5", description="d"
    )
    body = hexed("0800 120163 1801 2002 2a0166 320174 3a0135 420164")
    data = field(0x12, b"\x0a\x01m\x20\x12" + field(0x42, body) + hexed("8201 01 ff"))
    payload = one(DataType.FILE, b"\xff", metadata=metadata)
    assert encode(payload) == data
    assert decode(data) == payload
    empty = one(DataType.FILE, b"\xff", metadata=MetaData())
    assert decode(encode(empty)) == empty


# --- there and back


def within(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
BASIC: dict[DataType, st.SearchStrategy[Any]] = {
    DataType.INT8: within(8, signed=True),
    DataType.INT16: within(16, signed=True),
    DataType.INT32: within(32, signed=True),
    DataType.INT64: within(64, signed=True),
    DataType.UINT8: within(8, signed=False),
    DataType.UINT16: within(16, signed=False),
    DataType.UINT32: within(32, signed=False),
    DataType.UINT64: within(64, signed=False),
    DataType.FLOAT: st.floats(width=32, allow_nan=False),
    DataType.DOUBLE: st.floats(allow_nan=False),
    DataType.BOOLEAN: st.booleans(),
    DataType.STRING: TEXTS,
    DataType.DATE_TIME: within(64, signed=False),
    DataType.TEXT: TEXTS,
}
FLAT = BASIC | {
    DataType.UUID: st.uuids().map(str),
    DataType.BYTES: st.binary(max_size=20),
    DataType.FILE: st.binary(max_size=20),
    DataType.STRING_ARRAY: st.lists(TEXTS.map(lambda text: text.replace("\0", "")), max_size=5),
    DataType.DATE_TIME_ARRAY: st.lists(BASIC[DataType.DATE_TIME], max_size=5),
    DataType.BOOLEAN_ARRAY: st.lists(st.booleans(), max_size=20),
} | {
    DataType[f"{data_type.name}_ARRAY"]: st.lists(BASIC[data_type], max_size=5)
    for data_type in (*list(BASIC)[:10],)
}  # fmt: skip


def some(strategies: dict[DataType, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[DataType, Any]]:
    """A type and a value of it, which may be None."""
    return st.sampled_from(sorted(strategies)).flatmap(
        lambda data_type: st.tuples(st.just(data_type), st.none() | strategies[data_type])
    )


def properties(depth: int = 2) -> st.SearchStrategy[dict[str, Property]]:
    values = some(BASIC).map(lambda pair: Property(*pair))
    if depth:
        deeper = properties(depth - 1)
        values |= deeper.map(lambda value: Property(DataType.PROPERTY_SET, value))
        values |= st.lists(deeper, max_size=2).map(lambda value: Property(DataType.PROPERTY_SET_LIST, value))
    return st.dictionaries(TEXTS, values, max_size=3)


@st.composite
def data_sets(draw: st.DrawFn) -> DataSet:
    types = draw(st.lists(st.sampled_from(sorted(BASIC)), max_size=4))
    row = st.tuples(*(st.none() | BASIC[data_type] for data_type in types)).map(list)
    return DataSet([draw(TEXTS) for _ in types], types, draw(st.lists(row, max_size=3)))


def templates(depth: int) -> st.SearchStrategy[Template]:
    parameters = st.lists(st.tuples(TEXTS, some(BASIC)).map(lambda item: Parameter(item[0], *item[1])), max_size=3)
    kinds = st.just((True, None)) | TEXTS.map(lambda ref: (False, ref))
    return st.builds(
        lambda kind, version, members, parameters: Template(
            version=version, metrics=members, parameters=parameters, is_definition=kind[0], template_ref=kind[1]
        ),
        kinds,
        st.none() | TEXTS,
        st.lists(metrics(depth), max_size=2).map(tuple),
        parameters.map(tuple),
    )


@st.composite
def metrics(draw: st.DrawFn, depth: int = 2) -> Metric:
    every: dict[DataType, st.SearchStrategy[Any]] = FLAT | {DataType.DATA_SET: data_sets()}
    if depth:
        every |= {DataType.TEMPLATE: templates(depth - 1)}
    data_type, value = draw(some(every))
    counts = within(64, signed=False)
    return Metric(
        name=draw(st.none() | TEXTS),
        alias=draw(st.none() | counts),
        timestamp=draw(st.none() | counts),
        type=data_type,
        is_historical=draw(st.booleans()),
        is_transient=draw(st.booleans()),
        is_null=value is None and draw(st.booleans()),
        metadata=draw(st.none() | st.builds(MetaData, size=st.none() | counts, md5=st.none() | TEXTS)),
        properties=draw(st.none() | properties()),
        value=value,
    )


PAYLOADS = st.builds(
    Payload,
    timestamp=st.none() | within(64, signed=False),
    metrics=st.lists(metrics(), max_size=3).map(tuple),
    seq=st.none() | st.integers(0, 255),
    uuid=st.none() | TEXTS,
    body=st.none() | st.binary(max_size=5),
)


@given(PAYLOADS)
def test_what_is_written_is_read_the_same(payload: Payload) -> None:
    assert decode(encode(payload)) == payload


@given(st.lists(some(FLAT), min_size=1, max_size=5))
def test_a_value_without_its_type_is_exact_once_the_birth_gives_it(values: list[tuple[DataType, Any]]) -> None:
    """By alias while reading, or afterwards by ``typed``."""
    given_metrics = tuple(Metric(alias=i, type=kind, value=value) for i, (kind, value) in enumerate(values))
    data = encode(Payload(metrics=given_metrics), datatypes=False)
    assert decode(data, {i: kind for i, (kind, _) in enumerate(values)}).metrics == given_metrics
    raw = decode(data).metrics
    assert all(metric.type is None for metric in raw)
    assert [typed(metric.value, kind) for metric, (kind, _) in zip(raw, values, strict=True)] == [v for _, v in values]


def test_infinity_and_not_a_number_come_through() -> None:
    for data_type in (DataType.FLOAT, DataType.DOUBLE):
        for value in (math.inf, -math.inf):
            assert decode(encode(one(data_type, value))) == one(data_type, value)
        (metric,) = decode(encode(one(data_type, math.nan))).metrics
        assert isinstance(metric.value, float)
        assert math.isnan(metric.value)


# --- what others write


@pytest.mark.parametrize(
    ("data_type", "rest", "value"),
    [
        (DataType.INT8, "50 ff01", -1),
        (DataType.INT8, "50 8001", -128),
        (DataType.INT16, "50 ffff03", -1),
        (DataType.INT32, "50 ffffffff0f", -1),
    ],
)
def test_a_negative_integer_is_read_in_its_own_width_too(data_type: DataType, rest: str, value: int) -> None:
    assert decode(metric_of(data_type, rest)) == one(data_type, value)


def test_uint32_in_long_is_read_and_written_only_when_asked() -> None:
    data = metric_of(DataType.UINT32, "58 ffffffff0f")
    (fault,) = decode(data).faults
    assert fault == Fault(0, "m", "UINT32 in long_value; it belongs in int_value (legacy_uint32_in_long reads it)")
    payload = one(DataType.UINT32, 2**32 - 1)
    assert decode(data, legacy_uint32_in_long=True) == payload
    assert decode(encode(payload), legacy_uint32_in_long=True) == payload
    assert encode(payload, legacy_uint32_in_long=True) == data


def test_unknown_fields_are_passed_over() -> None:
    extension = hexed("fa7d0178")  # field 2015, "x"
    data = field(0x12, hexed("0a016d 200b 7001") + extension) + extension
    assert decode(data) == one(DataType.BOOLEAN, value=True)


def test_a_metric_may_be_null_and_have_a_value_on_the_wire() -> None:
    assert decode(metric_of(DataType.INT8, "3801 5001")) == one(DataType.INT8, None, is_null=True)


def test_a_metric_without_value_and_without_null_says_nothing_of_its_value() -> None:
    assert decode(metric_of(DataType.INT8, "")) == one(DataType.INT8, None)


@pytest.mark.parametrize("data", [b"", b"\x08\x01"])
def test_a_payload_may_be_empty(data: bytes) -> None:
    assert decode(data).metrics == ()


# --- bad metrics


@pytest.mark.parametrize(
    ("data_type", "rest", "reason"),
    [
        (77, "5001", "data type 77 is not one of Sparkplug 3.0"),
        (DataType.INT8, "50 ac02", "300 is outside -128 … 127"),
        (DataType.INT8, "50 fffeffff0f", "outside -128"),
        (DataType.UINT8, "50 8002", "256 is outside 0 … 255"),
        (DataType.DOUBLE, "65 0000c03f", "DOUBLE in float_value; it belongs in double_value"),
        (DataType.STRING, "7a 01 ff", "is no UTF-8 text"),
        (DataType.INT16_ARRAY, "8201 01 00", "1 bytes are no whole number of values of 2 bytes"),
        (DataType.BOOLEAN_ARRAY, "8201 02 0100", "starts with a count of 4 bytes"),
        (DataType.BOOLEAN_ARRAY, "8201 05 ffffffff 00", "4294967295 booleans do not take 1 bytes"),
        (DataType.STRING_ARRAY, "8201 01 41", "does not end with NUL"),
        (DataType.STRING_ARRAY, "8201 02 ff00", "utf-8"),
        (DataType.PROPERTY_SET, "5001", "PROPERTY_SET in int_value"),
        (DataType.DATA_SET, "8a01 01 ff", "DataSet is damaged"),
        (DataType.DATA_SET, "8a01 03 120161", "1 columns and 0 types"),
        (DataType.DATA_SET, "8a01 07 0807 120161 1801", "1 columns that says it has 7"),
        (DataType.DATA_SET, "8a01 05 120161 1811", "type BYTES, which is no basic type"),
        (DataType.DATA_SET, "8a01 07 120161 1801 2200", "a row of 0 cells in a data set of 1 columns"),
        (DataType.TEMPLATE, "9201 06 1204 0a01 7820", "member"),
        (DataType.TEMPLATE, "9201 07 1a05 0a0170 1011", "parameter 'p' has type BYTES"),
        (DataType.BOOLEAN, "4a 03 0a016b 7001", "1 keys and 0 values"),
        (DataType.BOOLEAN, "4a 09 0a016b 1204 0801 380f 7001", "property 'k': INT8 in boolean_value"),
        (DataType.BOOLEAN, "4203 1201ff 7001", "content_type: b'\\xff' is no UTF-8 text"),
        (DataType.BOOLEAN, "4a07 0a01ff 1202 0803 7001", "is no UTF-8 text"),
        (DataType.DATA_SET, "8a01 05 1201ff 1801", "is no UTF-8 text"),
        (DataType.TEMPLATE, "9201 03 0a01ff", "version: b'\\xff' is no UTF-8 text"),
        (DataType.TEMPLATE, "9201 07 1a05 0a01ff 1001", "is no UTF-8 text"),
        (DataType.UNKNOWN, "7a01 ff", "is no UTF-8 text"),
    ],
)
def test_a_bad_metric_becomes_a_fault_and_the_others_are_read(data_type: int, rest: str, reason: str) -> None:
    good = metric_of(DataType.BOOLEAN, "7001")
    read = decode(good + metric_of(data_type, rest) + good)
    assert len(read.metrics) == 2
    (fault,) = read.faults
    assert fault.index == 1
    assert fault.name == "m"
    assert reason in fault.reason
    assert decode_columns(good + metric_of(data_type, rest)) is None


def test_a_metric_that_is_no_message_costs_only_itself() -> None:
    good = metric_of(DataType.BOOLEAN, "7001")
    read = decode(good + field(0x12, b"\xff") + good)
    assert len(read.metrics) == 2
    assert read.faults == (Fault(1, "", "Metric is damaged"),)


def test_a_name_that_is_no_text_costs_only_its_metric() -> None:
    data = hexed("0809") + metric_of(DataType.BOOLEAN, "7001") + field(0x12, hexed("0a01ff 200b 7001"))
    assert decode(data).faults == (Fault(1, "", "name: b'\\xff' is no UTF-8 text"),)
    assert decode_columns(data) is None


def test_a_fault_names_a_metric_without_name_by_its_alias() -> None:
    (fault,) = decode(field(0x12, hexed("1007 204d"))).faults
    assert fault.name == "alias 7"


@pytest.mark.parametrize("data", [b"\xff", b"\x12\x05", b"{}", b"\x22\x01\xff"])
def test_what_is_no_payload_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"no Sparkplug payload|no UTF-8"):
        decode(data)


def nested(levels: int) -> bytes:
    """Templates in templates."""
    body = b""
    for _ in range(levels):
        template = wire.LazyTemplate(metrics=[body] if body else [])
        body = wire.LazyMetric(name="m", datatype=19, template_value=template.SerializeToString()).SerializeToString()
    return body


def test_templates_nest_only_so_deep() -> None:
    assert not decode(wire.FramePayload(metrics=[nested(DEEPEST)]).SerializeToString()).faults
    for levels in (DEEPEST + 1, 5_000):
        (fault,) = decode(wire.FramePayload(metrics=[nested(levels)]).SerializeToString()).faults
        assert "nested deeper" in fault.reason


# --- bad values


def too_deep() -> Template:
    template = Template(template_ref="t")
    for _ in range(DEEPEST):
        template = Template(template_ref="t", metrics=[Metric(name="m", type=DataType.TEMPLATE, value=template)])
    return template


@pytest.mark.parametrize(
    ("data_type", "value", "reason"),
    [
        (None, 1, "1 needs its data type"),
        (DataType.UNKNOWN, 1, "no value for UNKNOWN"),
        (DataType.INT8, 128, "INT8: 128 is outside -128 … 127"),
        (DataType.UINT64, -1, "UINT64: -1 is outside"),
        (DataType.INT32, 1.0, "1.0 is no integer"),
        (DataType.INT32, True, "True is no integer"),
        (DataType.DOUBLE, "1", "'1' is no number"),
        (DataType.FLOAT, 1e300, "too large"),
        (DataType.DOUBLE, 10**400, "too large"),
        (DataType.BOOLEAN, 1, "1 is no boolean"),
        (DataType.STRING, b"x", "is no UTF-8 text"),
        (DataType.STRING, "\ud800", "surrogates"),
        (DataType.UUID, "x", "'x' is no UUID"),
        (DataType.BYTES, "x", "'x' is no bytes"),
        (DataType.INT8_ARRAY, [128], "INT8_ARRAY: not all are integers of 1 bytes"),
        (DataType.INT8_ARRAY, [True], "does not hold booleans"),
        (DataType.INT8_ARRAY, 1, "1 is no sequence"),
        (DataType.FLOAT_ARRAY, [1e300], "not all are numbers"),
        (DataType.BOOLEAN_ARRAY, [1], "1 is no boolean"),
        (DataType.STRING_ARRAY, "abc", "'abc' is no sequence"),
        (DataType.STRING_ARRAY, ["a\0b"], "cannot hold NUL"),
        (DataType.DATA_SET, 1, "int is no value for DATA_SET"),
        (DataType.DATA_SET, DataSet(["a"], [], []), "1 columns and 0 types"),
        (DataType.DATA_SET, DataSet(["a"], [DataType.INT8], [[1], []]), "row 2 has 0 cells"),
        (DataType.DATA_SET, DataSet(["a"], [DataType.BYTES], [[b""]]), "no value for BYTES here"),
        (DataType.TEMPLATE, Template(template_ref="t", is_definition=True), "definition has no template_ref"),
        (DataType.TEMPLATE, Template(), "needs the template_ref"),
        (DataType.TEMPLATE, too_deep(), "nested deeper"),
        (
            DataType.TEMPLATE,
            Template(template_ref="t", metrics=[Metric(name="x", type=DataType.INT8, value=300)]),
            "metric 'x': INT8: 300",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(
    data_type: DataType | None, value: MetricValue, reason: str
) -> None:
    with pytest.raises(ValueError, match=r"^metric 'm': ") as caught:
        encode(one(data_type, value))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (Payload(seq=-1), "seq: -1 does not fit"),
        (one(DataType.INT8, 1, is_null=True), "is_null and a value at once"),
        (one(DataType.INT8, 1, alias=2**64), "alias: 18446744073709551616 does not fit"),
        (one(DataType.INT8, 1, properties={"q": Property(DataType.BYTES, b"")}), "property 'q': bytes is no value"),
        (one(DataType.INT8, 1, metadata=MetaData(size=-1)), "metric 'm': size: -1 does not fit"),
    ],
)
def test_a_field_that_does_not_fit_is_refused_by_name(payload: Payload, reason: str) -> None:
    with pytest.raises(ValueError, match=r"fit|once|bytes") as caught:
        encode(payload)
    assert reason in str(caught.value)


# --- columns


PLAIN = BASIC | {DataType.UUID: FLAT[DataType.UUID]}


@given(
    st.lists(st.sampled_from(sorted(PLAIN)).flatmap(lambda t: st.tuples(st.just(t), PLAIN[t])), max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_columns_say_what_metrics_say(values: list[tuple[DataType, Any]], by_alias: bool, historical: bool) -> None:  # noqa: FBT001
    """With the types in the message and with those of the birth, in fields of one kind and of several."""
    payload = Payload(
        timestamp=9,
        seq=4,
        metrics=[
            Metric(
                name=None if by_alias else f"n{i}",
                alias=i if by_alias else None,
                timestamp=i,
                type=kind,
                value=value,
                is_historical=historical,
            )
            for i, (kind, value) in enumerate(values)
        ],
    )
    expected = Columns(
        timestamp=9,
        seq=4,
        names=[] if by_alias else [f"n{i}" for i in range(len(values))],
        aliases=list(range(len(values))) if by_alias else [],
        timestamps=list(range(len(values))),
        types=[kind for kind, _ in values],
        values=[value for _, value in values],
        historical=[historical] * len(values),
    )
    assert decode_columns(encode(payload)) == expected
    types = {i if by_alias else f"n{i}": kind for i, (kind, _) in enumerate(values)}
    assert decode_columns(encode(payload, datatypes=False), types) == expected


@given(PAYLOADS)
def test_columns_are_given_only_where_metrics_say_no_more(payload: Payload) -> None:
    columns = decode_columns(encode(payload))
    if columns is not None:
        assert [metric.value for metric in payload.metrics] == columns.values
        assert all(
            metric.properties is None and metric.metadata is None and not metric.is_null for metric in payload.metrics
        )


def test_metrics_without_a_time_have_the_payloads() -> None:
    columns = decode_columns(hexed("0809") + metric_of(DataType.BOOLEAN, "7001"))
    assert columns is not None
    assert columns.timestamps == [9]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(metric_of(DataType.BOOLEAN, "7001"), id="no time"),
        pytest.param(hexed("0809") + field(0x12, hexed("0a016d 7001")), id="type not known"),
        pytest.param(hexed("0809") + metric_of(DataType.BOOLEAN, "3801"), id="null"),
        pytest.param(hexed("0809") + metric_of(DataType.BOOLEAN, "3001 7001"), id="transient"),
        pytest.param(hexed("0809") + metric_of(DataType.BOOLEAN, "4200 7001"), id="metadata"),
        pytest.param(hexed("0809") + metric_of(DataType.BOOLEAN, "4a00 7001"), id="properties"),
        pytest.param(hexed("0809") + metric_of(DataType.BYTES, "820100"), id="bytes"),
        pytest.param(hexed("0809") + metric_of(DataType.BOOLEAN, ""), id="no value"),
        pytest.param(
            hexed("0809") + metric_of(DataType.BOOLEAN, "5001") + metric_of(DataType.INT8, "7001"), id="crossed fields"
        ),
        pytest.param(
            hexed("0809") + field(0x12, hexed("0a016d 200b 7001")) + field(0x12, hexed("1001 200b 7001")),
            id="one by name, one by alias",
        ),
    ],
)
def test_columns_are_not_given_for_what_is_not_plain(data: bytes) -> None:
    assert decode_columns(data) is None


def test_columns_are_not_given_for_garbage() -> None:
    with pytest.raises(Malformed):
        decode_columns(b"\xff")


def test_the_message_is_that_of_the_specification() -> None:
    """Its full name, its depth, and the highest numbers of the specification's schema."""
    descriptor = wire.Payload.DESCRIPTOR
    assert descriptor.full_name == "org.eclipse.tahu.protobuf.Payload"
    assert {field.name: field.number for field in descriptor.fields}["body"] == 5
    metric = descriptor.nested_types_by_name["Metric"].fields_by_name
    assert (metric["int_value"].number, metric["template_value"].number) == (10, 18)
    assert struct.unpack("<d", encode(one(DataType.DOUBLE, 1.25))[-8:]) == (1.25,)
