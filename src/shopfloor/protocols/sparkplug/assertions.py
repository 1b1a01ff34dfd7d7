"""What the validator looks for: each rule with the assertions of Sparkplug 3.0 that a message breaks with it.

The identifiers are the specification's. Several chapters demand the same thing, so a rule may have several.
A rule without any breaks the specification's text where that has no assertion.
"""

from collections.abc import Mapping
from typing import Final

_FLOW: Final = "message-flow-edge-node-birth-publish-"
_HOST: Final = "operational-behavior-host-application-"
_OPERATION: Final = "operational-behavior-"

_SHORT: Final[Mapping[str, tuple[str, ...]]] = {
    # ---- topics
    "namespace": ("topic-structure-namespace-a",),
    "topic": ("topic-structure",),
    "device level missing": ("topic-structure-namespace-device-id-associated-message-types",),
    "device level": ("topic-structure-namespace-device-id-non-associated-message-types",),
    "group id": ("topic-structure-namespace-valid-group-id", "intro-group-id-chars"),
    "edge node id": ("topic-structure-namespace-valid-edge-node-id", "intro-edge-node-id-chars"),
    "device id": ("topic-structure-namespace-valid-device-id", "intro-device-id-chars"),
    "ids differ by case": ("case-sensitivity-sparkplug-ids",),
    # ---- how a message was published
    "NBIRTH qos": ("topics-nbirth-mqtt", f"{_FLOW}nbirth-qos", "payloads-nbirth-qos"),
    "DBIRTH qos": ("topics-dbirth-mqtt", "message-flow-device-birth-publish-dbirth-qos", "payloads-dbirth-qos"),
    "NDATA qos": ("topics-ndata-mqtt", "payloads-ndata-qos"),
    "DDATA qos": ("topics-ddata-mqtt", "payloads-ddata-qos"),
    "DDEATH qos": ("topics-ddeath-mqtt",),
    "NCMD qos": ("topics-ncmd-mqtt", "payloads-ncmd-qos"),
    "DCMD qos": ("topics-dcmd-mqtt", "payloads-dcmd-qos"),
    "NBIRTH retain": ("topics-nbirth-mqtt", f"{_FLOW}nbirth-retained", "payloads-nbirth-retain"),
    "DBIRTH retain": (
        "topics-dbirth-mqtt", "message-flow-device-birth-publish-dbirth-retained", "payloads-dbirth-retain",
    ),
    "NDATA retain": ("topics-ndata-mqtt", "payloads-ndata-retain"),
    "DDATA retain": ("topics-ddata-mqtt", "payloads-ddata-retain"),
    "NDEATH retain": ("payloads-ndeath-will-message-retain", f"{_FLOW}will-message-will-retained"),
    "DDEATH retain": ("topics-ddeath-mqtt",),
    "NCMD retain": ("topics-ncmd-mqtt", "payloads-ncmd-retain"),
    "DCMD retain": ("topics-dcmd-mqtt", "payloads-dcmd-retain"),
    # ---- payloads as a whole
    "NBIRTH payload": (f"{_FLOW}nbirth-payload",),
    "DBIRTH payload": ("message-flow-device-birth-publish-dbirth-payload",),
    "NDEATH payload": (f"{_FLOW}will-message-payload",),
    "payload": ("topic-structure-namespace-a",),
    "NBIRTH timestamp": ("topics-nbirth-timestamp", "payloads-nbirth-timestamp"),
    "DBIRTH timestamp": ("topics-dbirth-timestamp", "payloads-dbirth-timestamp"),
    "NDATA timestamp": ("topics-ndata-timestamp", "payloads-ndata-timestamp"),
    "DDATA timestamp": ("topics-ddata-timestamp", "payloads-ddata-timestamp"),
    "DDEATH timestamp": ("payloads-ddeath-timestamp",),
    "NCMD timestamp": ("topics-ncmd-timestamp", "payloads-ncmd-timestamp"),
    "DCMD timestamp": ("topics-dcmd-timestamp", "payloads-dcmd-timestamp"),
    "payload time": ("payloads-timestamp-in-UTC",),
    "metric time": ("payloads-metric-timestamp-in-UTC",),
    # ---- the sequence of a node
    "NBIRTH seq missing": (
        "topics-nbirth-seq-num", f"{_FLOW}nbirth-payload-seq", "payloads-nbirth-seq",
        "payloads-sequence-num-req-nbirth", "payloads-sequence-num-always-included",
    ),
    "NBIRTH seq range": (f"{_FLOW}nbirth-payload-seq", "payloads-nbirth-seq", "payloads-sequence-num-req-nbirth"),
    "NBIRTH seq": ("topics-nbirth-seq-num",),
    "DBIRTH seq missing": ("payloads-dbirth-seq", "topics-dbirth-seq", "payloads-sequence-num-always-included"),
    "NDATA seq missing": ("payloads-ndata-seq", "topics-ndata-seq-num", "payloads-sequence-num-always-included"),
    "DDATA seq missing": ("payloads-ddata-seq", "topics-ddata-seq-num", "payloads-sequence-num-always-included"),
    "DDEATH seq missing": (
        "payloads-ddeath-seq", "payloads-ddeath-seq-number", "topics-ddeath-seq-num",
        "payloads-sequence-num-always-included",
    ),
    "DBIRTH seq": (
        "topics-dbirth-seq", "message-flow-device-birth-publish-dbirth-payload-seq", "payloads-dbirth-seq-inc",
        "payloads-sequence-num-incrementing",
    ),
    "NDATA seq": ("topics-ndata-seq-num", "payloads-ndata-seq-inc", "payloads-sequence-num-incrementing"),
    "DDATA seq": ("topics-ddata-seq-num", "payloads-ddata-seq-inc", "payloads-sequence-num-incrementing"),
    "DDEATH seq": ("topics-ddeath-seq-num", "payloads-ddeath-seq-inc", "payloads-sequence-num-incrementing"),
    "NDEATH seq": ("topics-ndeath-seq", "payloads-ndeath-seq"),
    "NCMD seq": ("payloads-ncmd-seq",),
    "DCMD seq": ("payloads-dcmd-seq",),
    # ---- births come first
    "DBIRTH before NBIRTH": ("message-flow-device-birth-publish-nbirth-wait", "principles-birth-certificates-order"),
    "NDATA before NBIRTH": ("payloads-ndata-order", "principles-birth-certificates-order"),
    "DDATA before DBIRTH": ("payloads-ddata-order", "principles-birth-certificates-order"),
    # ---- bdSeq
    "bdSeq missing": ("topics-nbirth-bdseq-included", "payloads-nbirth-bdseq"),
    "bdSeq type": (f"{_FLOW}nbirth-payload-bdSeq",),
    "bdSeq same": ("topics-nbirth-bdseq-increment",),
    "bdSeq changed by rebirth": (f"{_OPERATION}data-commands-rebirth-action-3",),
    "NDEATH metrics": ("topics-ndeath-payload",),
    "NDEATH bdSeq type": (f"{_FLOW}will-message-payload-bdSeq",),
    "NDEATH bdSeq": ("payloads-ndeath-bdseq", "topics-nbirth-bdseq-matching", "payloads-nbirth-bdseq-repeat"),
    # ---- Node Control/Rebirth
    "rebirth missing": (
        "topics-nbirth-rebirth-metric", "payloads-nbirth-rebirth-req", f"{_OPERATION}data-commands-rebirth-name",
    ),
    "rebirth type": ("topics-nbirth-rebirth-metric", f"{_OPERATION}data-commands-rebirth-datatype"),
    "rebirth value": (
        "topics-nbirth-rebirth-metric", "payloads-nbirth-rebirth-req", f"{_OPERATION}data-commands-rebirth-value",
    ),
    "rebirth alias": (f"{_OPERATION}data-commands-rebirth-name-aliases",),
    # ---- metrics
    "name missing": ("payloads-name-requirement",),
    "NBIRTH name missing": ("topics-nbirth-metrics", "payloads-alias-birth-requirement"),
    "DBIRTH name missing": ("topics-dbirth-metrics", "payloads-alias-birth-requirement"),
    "NBIRTH type missing": ("topics-nbirth-metrics", "payloads-metric-datatype-req"),
    "DBIRTH type missing": ("topics-dbirth-metrics", "payloads-metric-datatype-req"),
    "NBIRTH value missing": ("topics-nbirth-metrics", f"{_OPERATION}data-publish-nbirth-values"),
    "DBIRTH value missing": ("topics-dbirth-metrics", f"{_OPERATION}data-publish-dbirth-values"),
    "NBIRTH null with value": (f"{_OPERATION}data-publish-nbirth-values",),
    "DBIRTH null with value": (f"{_OPERATION}data-publish-dbirth-values",),
    "metric timestamp missing": ("payloads-name-birth-data-requirement",),
    "datatype": ("payloads-metric-datatype-value",),
    "datatype repeated": ("payloads-metric-datatype-not-req",),
    "value of another type": (),
    "alias twice": ("payloads-alias-uniqueness",),
    "alias with name": ("payloads-alias-data-cmd-requirement",),
    "names differ by case": ("case-sensitivity-metric-names",),
    "NDATA unknown metric": ("topics-nbirth-metric-reqs", f"{_OPERATION}data-publish-nbirth"),
    "DDATA unknown metric": ("topics-dbirth-metric-reqs", f"{_OPERATION}data-publish-dbirth"),
    "node order": (f"{_OPERATION}data-publish-nbirth-order",),
    "device order": (f"{_OPERATION}data-publish-dbirth-order",),
    # ---- commands
    "NCMD empty": ("topics-ncmd-payload",),
    "DCMD empty": ("topics-dcmd-payload",),
    "NCMD unknown metric": (f"{_OPERATION}data-commands-ncmd-metric-name",),
    "DCMD unknown metric": (f"{_OPERATION}data-commands-dcmd-metric-name",),
    "NCMD value": (f"{_OPERATION}data-commands-ncmd-metric-value",),
    "DCMD value": (f"{_OPERATION}data-commands-dcmd-metric-value",),
    "rebirth verb": (f"{_OPERATION}data-commands-ncmd-rebirth-verb",),
    "rebirth request": (f"{_OPERATION}data-commands-ncmd-rebirth-value",),
    # ---- property sets
    "property set sizes": ("payloads-propertyset-keys-array-size", "payloads-propertyset-values-array-size"),
    "property type": ("payloads-metric-propertyvalue-type-value",),
    "property type missing": ("payloads-metric-propertyvalue-type-req",),
    "quality type": ("payloads-propertyset-quality-value-type",),
    "quality value": ("payloads-propertyset-quality-value-value",),
    # ---- data sets
    "dataset column count": ("payloads-dataset-column-size",),
    "dataset types missing": ("payloads-dataset-parameter-type-req",),
    "dataset types count": ("payloads-dataset-column-num-headers", "payloads-dataset-types-num"),
    "dataset type": ("payloads-dataset-types-value",),
    "dataset cell": ("payloads-template-dataset-value",),
    "dataset row": (),
    # ---- templates
    "definition outside NBIRTH": ("payloads-template-definition-nbirth-only",),
    "definition missing": ("payloads-template-definition-nbirth", "topics-nbirth-templates"),
    "definition with ref": ("payloads-template-definition-ref", "payloads-template-ref-definition"),
    "is_definition missing": ("payloads-template-is-definition",),
    "instance without ref": ("payloads-template-instance-ref", "payloads-template-ref-instance"),
    "instance member unknown": ("payloads-template-instance-members", "payloads-template-definition-members"),
    "instance member missing": ("payloads-template-instance-members-birth",),
    "instance parameter unknown": ("payloads-template-definition-parameters",),
    "parameter name": ("payloads-template-parameter-name-required",),
    "parameter type": ("payloads-template-parameter-type-value",),
    "parameter type missing": ("payloads-template-parameter-type-req",),
    "parameter value": ("payloads-template-parameter-value",),
    # ---- STATE
    "STATE topic": (
        "host-topic-phid-birth-topic", "host-topic-phid-death-topic", f"{_HOST}connect-birth-topic",
        f"{_HOST}death-topic",
    ),
    "STATE payload": ("host-topic-phid-birth-payload", "host-topic-phid-death-payload"),
    "STATE birth payload": (
        "host-topic-phid-birth-payload", "message-flow-phid-sparkplug-state-publish-payload",
        f"{_HOST}connect-birth-payload", "payloads-state-birth-payload",
    ),
    "STATE death payload": (
        "host-topic-phid-death-payload", f"{_HOST}death-payload", "payloads-state-will-message-payload",
    ),
    "STATE birth qos": ("host-topic-phid-birth-qos", f"{_HOST}connect-birth-qos", "payloads-state-birth"),
    "STATE death qos": ("host-topic-phid-death-qos", f"{_HOST}death-qos", "payloads-state-will-message-qos"),
    "STATE birth retain": ("host-topic-phid-birth-retain", f"{_HOST}connect-birth-retained", "payloads-state-birth"),
    "STATE death retain": (
        "host-topic-phid-death-retain", f"{_HOST}death-retained", "payloads-state-will-message-retain",
    ),
}  # fmt: skip

RULES: Final[Mapping[str, tuple[str, ...]]] = {
    rule: tuple(f"tck-id-{name}" for name in names) for rule, names in _SHORT.items()
}
"""Each rule with the assertions that are broken with it."""

ASSERTIONS: Final = frozenset(name for names in RULES.values() for name in names)
"""All assertions that the validator can name."""

ADVICE: Final = frozenset(
    {"ids differ by case", "names differ by case", "datatype repeated", "NCMD unknown metric", "DCMD unknown metric"}
)
"""Rules that the specification gives as a SHOULD."""
