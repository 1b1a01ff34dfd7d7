"""Tags of metrics: how they are named, and that no two metrics share one."""

from collections.abc import ItemsView
from typing import Final, NamedTuple

from shopfloor.protocols.sparkplug.exchange import Event, Step
from shopfloor.protocols.sparkplug.model import Metric, Template
from shopfloor.protocols.sparkplug.nodes import Known, Node, Owner

_LONGEST_TAG: Final = 255
_FORBIDDEN: Final = str.maketrans({c: f"%{ord(c):02X}" for c in ("%", *"*?[]", *map(chr, range(32)))})


class Place(NamedTuple):
    """Whose tag it is."""

    node: Node
    owner: Owner
    known: Known


class Tags:
    """The tags of one host."""

    def __init__(self, template: str) -> None:
        """``template`` has ``{group}``, ``{node}``, ``{device}`` and ``{metric}``."""
        self._device_tag = template
        self._node_tag = "/".join(level for level in template.split("/") if "{device}" not in level)
        self._places: dict[str, Place] = {}

    def get(self, tag: str) -> Place | None:
        """Whose tag it is; None when no birth announced it."""
        return self._places.get(tag)

    def items(self) -> ItemsView[str, Place]:
        """Every tag with its place."""
        return self._places.items()

    def forget(self, tag: str) -> None:
        """A birth left the metric out."""
        self._places.pop(tag, None)

    def know(self, node: Node, owner: Owner, metric: Metric, name: str, step: Step) -> Known:
        """A metric of a birth with its tag, unless it gives no samples or the tag is another's."""
        if isinstance(metric.value, Template) and metric.value.is_definition:
            return Known(metric, name, None)
        template = self._node_tag if owner.device is None else self._device_tag
        tag = template.format(
            group=node.key.group.translate(_FORBIDDEN), node=node.key.node.translate(_FORBIDDEN),
            device=(owner.device or "").translate(_FORBIDDEN), metric=name.translate(_FORBIDDEN),
        )  # fmt: skip
        if not tag or len(tag) > _LONGEST_TAG or tag[0] in "$ ":
            step.events.append(Event("fault", node.where, f"{name[:80]!r} cannot be a tag's name; it gives no samples"))
            return Known(metric, name, None)
        other = self._places.get(tag)
        if other is not None and (other.node is not node or other.owner is not owner or other.known.name != name):
            text = f"{name} would have the tag {tag} of {other.node.where}; it gives no samples, change `tag`"
            step.events.append(Event("fault", node.where, text))
            return Known(metric, name, None)
        known = Known(metric, name, tag)
        self._places[tag] = Place(node, owner, known)
        return known
