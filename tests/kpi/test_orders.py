"""Products and orders: the ideal cycle that counts, accounts that split, and windows of what was made."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from hypothesis import given, settings, strategies as st

from shopfloor.kpi.account import Account
from shopfloor.kpi.facts import BAD, pack, unpack
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.runs import RunResult, Runs
from shopfloor.kpi.spec import OrderSpec, Spec
from shopfloor.kpi.windows import Windows
from tests.kpi.reference import History, Told
from tests.kpi.test_machine import NOW, Planned, kinds, laid_out, losses, told_counts, told_states, unique, window

IDEALS = {"A": 3, "B": 4}
ORDERS = {"1": OrderSpec("A", 10, None, ""), "2": OrderSpec("B", None, 2, ""), "3": OrderSpec("X", None, None, "")}
names = st.sampled_from(["A", "A", "B", "X", "", None, 0])
told_products = st.lists(st.tuples(st.integers(0, NOW - 1), names, st.booleans() | st.just(True)), max_size=12)
numbers = st.sampled_from([1, 1, 2, 3, "3", 4, 0, None])
told_orders = st.lists(st.tuples(st.integers(0, NOW - 1), numbers, st.booleans() | st.just(True)), max_size=12)


def spec(roles: Sequence[str] = ("product", "order"), *, ideal: int | None = 7) -> Spec:
    return Spec(
        "m", {role: f"m/{role}" for role in ("state", "good", *roles)},  # type: ignore[misc]
        minor_stop_below=20, ideal_cycle=ideal, products=IDEALS, orders=ORDERS, cycles="windows",
    )  # fmt: skip


def fed(spec: Spec, told: Mapping[str, Sequence[Told]], lost: Sequence[int] = ()) -> Machine:
    machine = Machine(spec)
    machine.facts.sources.update(dict.fromkeys(spec.roles, "plc"))
    for role, samples in told.items():
        for time, value, good in samples:
            machine.facts.take(role, time, value if good else BAD, "plc")  # type: ignore[arg-type]
    for time in lost:
        machine.facts.lose("plc", time)
    return machine


def said(told: Sequence[Told], time: int) -> str:
    """What was said last of what is made, plainly: nothing and bad samples say nothing, 0 is none."""
    known = [str(value) for at, value, good in told if at <= time and good and value is not None]
    return "" if not known or known[-1] == "0" else known[-1]


def ideal(product: str, order: str) -> int:
    known = ORDERS.get(order)
    return known.ideal_cycle if known and known.ideal_cycle else IDEALS.get(product, 7)


@settings(max_examples=200, deadline=None)
@given(
    told_states, told_counts, told_products, told_orders, losses, kinds,
    st.tuples(st.lists(st.integers(1, NOW - 1), max_size=6), st.booleans()),
)  # fmt: skip
def test_accounts_split_by_product_and_order_as_one_would_by_hand(
    states: list[Told], counted: list[Told], products: list[Told], orders: list[Told], lost: list[int],
    planned: list[tuple[int, int, str]], asked: tuple[list[int], bool],
) -> None:  # fmt: skip
    """Instant by instant and unit by unit; the shares of a window sum to it, those of its parts to its own."""
    cuts, tagged = asked
    states, counted, products, orders = unique(states), unique(counted), unique(products), unique(orders)
    told = {"state": states, "good": counted, "order": orders} | ({"product": products} if tagged else {})
    machine = fed(spec(("product", "order") if tagged else ("order",)), told, lost)
    history = History(states, counted, lost, kinds=laid_out(planned))
    calendar = Planned(history.kinds)
    whole = window(machine, calendar, 0, NOW)
    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        joined += window(machine, calendar, start, end)
    assert joined == whole

    def order(time: int) -> str:
        return said(orders, time)

    def product(time: int) -> str:
        return said(products, time) if tagged else (ORDERS[order(time)].product if order(time) in ORDERS else "")

    classes = history.classes(NOW)
    made = [one for one in history.made() if classes[one[0]].value not in ("not_scheduled", "planned_stop")]
    for name, part in whole.products.items():
        assert part.length == sum(product(time) == name for time in range(NOW))
        assert part.good == sum(units for time, units, _ in made if product(time) == name)
    for name, part in whole.orders.items():
        assert part.length == sum(order(time) == name for time in range(NOW))
    counts = [one for one in made if not one[2] and classes[one[0]].value != "unknown"]
    assert whole.ideal == sum(ideal(product(time), order(time)) * units for time, units, _ in counts)
    for shares in (whole.products, whole.orders):
        total = Account()
        for part in shares.values():
            total += part
        total.products, total.orders = whole.products, whole.orders
        assert total == whole


def test_an_unknown_product_has_no_performance() -> None:
    """Neither it nor the machine has an ideal cycle: its units are made, but nobody knows how fast."""
    machine = fed(
        spec(("product",), ideal=None),
        {"state": [(0, 6, True)], "good": [(0, 0, True), (10, 2, True), (20, 5, True)],
         "product": [(0, "A", True), (15, "X", True)]},
    )  # fmt: skip
    account = window(machine, Planned({}), 0, 100)
    assert (account.good, account.ideal, account.without_ideal) == (5, 6, 3)
    assert (account.products["A"].without_ideal, account.products["X"].without_ideal) == (0, 3)


whatever = st.one_of(
    st.tuples(st.just("state"), st.integers(0, NOW - 1), st.sampled_from([6, 6, 9, 4]), st.booleans() | st.just(True)),
    st.tuples(st.just("good"), st.integers(0, NOW - 1), st.integers(0, 12), st.booleans() | st.just(True)),
    st.tuples(st.just("product"), st.integers(0, NOW - 1), names, st.booleans() | st.just(True)),
    st.tuples(st.just("order"), st.integers(0, NOW - 1), numbers, st.booleans() | st.just(True)),
    st.tuples(st.just("quantity"), st.integers(0, NOW - 1), st.integers(0, 3), st.booleans() | st.just(True)),
)


class Plant:
    """A machine whose runs are given, tick by tick; what is left of all that was said."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], RunResult] = {}
        self.start()

    def start(self) -> None:
        """Nothing is known."""
        self.machine = Machine(spec(("product", "order", "quantity")))
        self.machine.facts.sources.update(dict.fromkeys(self.machine.spec.roles, "plc"))
        self.windows = Windows(self.machine, Planned({}), 10**6)
        self.runs = Runs(self.machine, self.windows)

    def tell(self, told: Sequence[tuple[str, int, object, bool]], now: int) -> None:
        """Facts come, and then a tick."""
        for role, time, value, good in told:
            touched = self.machine.facts.take(role, time, value if good else BAD, "plc")  # type: ignore[arg-type]
            self.windows.touch(touched, "late", now)
            if touched is not None:
                self.runs.touch(touched, "late")
        self.windows.tick(now)
        for run in self.runs.tick(now):
            key = run.kind, run.start
            if run.withdrawn:
                assert key in self.kept
                del self.kept[key]
            else:
                before = self.kept.get(key)
                assert run.revision == (0 if before is None else before.revision + 1)
                assert run.was == (None if before is None else before.account)
                self.kept[key] = run

    def crash(self) -> None:
        """Everything is stored and read again."""
        parts = [self.machine.facts.dump(), self.machine.orders.dump(), self.windows.dump(), self.runs.dump()]
        stored = unpack(pack(parts))
        self.start()
        self.machine.facts.load(stored[0])
        self.machine.orders.load(stored[1])
        self.windows.load(stored[2])
        self.runs.load(stored[3])

    def last(self) -> dict[tuple[str, int], RunResult]:
        """What was said last, without how often and why."""
        return {key: run._replace(revision=0, was=None, why="") for key, run in self.kept.items()}


@settings(max_examples=200, deadline=None)
@given(st.lists(whatever, max_size=40), losses, st.randoms(use_true_random=False), st.integers(1, 8))
def test_products_and_orders_given_late_are_in_the_end_those_of_who_had_everything_in_time(
    told: list[tuple[str, int, object, bool]], lost: list[int], chance: object, ticks: int
) -> None:
    told = list({(role, time): (role, time, value, good) for role, time, value, good in told}.values())
    in_time, late = Plant(), Plant()
    for time in lost:
        in_time.machine.facts.lose("plc", time)
        late.machine.facts.lose("plc", time)
    in_time.tell(sorted(told, key=lambda one: one[1]), NOW)
    chance.shuffle(told)  # type: ignore[attr-defined]
    for tick in range(ticks):
        late.tell(told[tick::ticks], NOW * (tick + 1) // ticks)
        late.crash()
    assert late.last() == in_time.last()
    machine = in_time.machine
    for run in in_time.last().values():
        whole = window(machine, Planned({}), run.start, run.end)
        whole.products, whole.orders = {}, {}
        assert run.account == whole
