"""What orders, and machines that make them, say against each other."""

from shopfloor.plant.machine import Machine
from shopfloor.plant.model import Plant
from shopfloor.plant.orders import Order
from shopfloor.plant.reader import Place, Reader
from shopfloor.plant.wording import meant


def lines_of(plant: Plant, machine: Machine) -> set[str]:
    """The lines to which a machine belongs, as it says itself or as they do."""
    found = {line.id for line in plant.lines if machine.id in line.machines}
    return found | ({machine.line} if machine.line is not None else set())


def orders_of(plant: Plant, machine: Machine) -> list[Order]:
    """The orders that may be made on a machine."""
    return [order for order in plant.orders if order.concerns(machine.id, lines_of(plant, machine))]


def check_orders(reader: Reader, plant: Plant) -> None:
    """Complain about orders that no machine can make, and about cycles that no tag tells."""
    machines = {machine.id: machine for machine in plant.machines}
    lines = {name for machine in plant.machines for name in lines_of(plant, machine)}
    making = [machine for machine in plant.machines if "order" in machine.roles]
    seen: dict[str, Place] = {}
    for i, order in enumerate(plant.orders):
        place = ("orders", i)
        if order.id in seen:
            line = reader.line(seen[order.id])
            reader.complain((*place, "id"), f"the id {order.id!r} is taken in line {line}; choose another")
        seen.setdefault(order.id, (*place, "id"))
        if order.machine is not None and order.line is not None:
            reader.complain((*place, "line"), "names a machine and a line; keep one of them")
        elif order.machine is not None and order.machine not in machines:
            text = f"there is no machine {order.machine!r} in `machines`{meant(order.machine, machines)}"
            reader.complain((*place, "machine"), text)
        elif order.line is not None and order.line not in lines:
            text = f"no machine is of the line {order.line!r}{meant(order.line, lines)}"
            reader.complain((*place, "line"), text)
        elif not any(order.concerns(machine.id, lines_of(plant, machine)) for machine in making):
            text = "no machine that may make it names a tag `order`, so nobody knows when it is made; add one"
            reader.complain((*place, "id"), text)
    _cycles(reader, plant)


def _cycles(reader: Reader, plant: Plant) -> None:
    for i, machine in enumerate(plant.machines):
        if machine.cycle is not None and machine.cycle_time is not None:
            reader.complain(("machines", i, "cycle"), "stands beside `cycle_time`; keep the one that tells the cycles")
        told = machine.cycle or machine.cycle_time or machine.good or machine.total or machine.scrap
        if machine.cycles != "none" and told is None:
            text = "needs a tag that tells the cycles: units (`good`, `total`), `cycle` or `cycle_time`"
            reader.complain(("machines", i, "cycles"), text)
        if machine.cycles == "none" and (machine.cycle or machine.cycle_time) is not None:
            key = "cycle" if machine.cycle is not None else "cycle_time"
            reader.complain(("machines", i, key), "tells cycles, but none are asked for; write `cycles: windows`")
