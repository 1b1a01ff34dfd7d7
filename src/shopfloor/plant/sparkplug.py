"""How a plant file says that a partner speaks a Sparkplug older than 3.0."""

from pydantic import Field

from shopfloor.plant.components import Strict


class SparkplugLegacy(Strict):
    """What partners older than Sparkplug 3.0 need. It breaks 3.0, so none of it is done unasked."""

    state_2_2: bool = Field(
        default=False,
        description="The host's STATE is that of Sparkplug 2.2, `ONLINE` or `OFFLINE` as text on `STATE/<host id>`, "
        "and 3.0's is neither said nor heard.",
    )
    uint32_in_long: bool = Field(
        default=False,
        description="UInt32 is written in `long_value`, for partners that read it nowhere else. "
        "Both places are always read.",
    )


class SparkplugNodeLegacy(SparkplugLegacy):
    """What hosts older than Sparkplug 3.0 need. It breaks 3.0, or its advice, so none of it is done unasked."""

    datatypes_in_data: bool = Field(
        default=False,
        description="Data messages repeat the datatypes of the births, for partners that cannot read them without.",
    )
