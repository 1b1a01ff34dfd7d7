"""The HTTP API: what docs/api.md says, and a problem document for everything else."""

import math
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shopfloor.console import create_app
from shopfloor.journal import LedgerRow
from shopfloor.samples import Sample
from tests.console.fakes import T0, FakeHistorian, FakeRuntime

MS = T0 // 10**6


async def get(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    answer = await client.get(path, params=parameters or None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


async def test_the_plant(client: httpx.AsyncClient) -> None:
    plant = await get(client, "/api/plant")
    assert (plant["site"], plant["timezone"], plant["started"], plant["historian"]) == (
        "bremen", "Europe/Berlin", MS, True,
    )  # fmt: skip


async def test_without_accounts_everybody_is_an_operator_named_by_the_address(client: httpx.AsyncClient) -> None:
    assert await get(client, "/api/me") == {"name": "console@10.0.3.7", "role": "operator"}


async def test_tags_are_those_declared_and_those_seen_but_not_shopfloors_own(
    client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    runtime.give(Sample("press-1/PV", T0 + 1_500_000, 41.5), Sample("extra", T0, 1), Sample("$clock/tick", T0, 1))
    tags = (await get(client, "/api/tags"))["tags"]
    assert [tag["tag"] for tag in tags] == ["extra", "press-1/PV", "press-1/SP", "press-1/Start", "press-1/good"]
    assert tags[1] == {
        "tag": "press-1/PV", "source": "plc", "unit": "bar", "description": "pressure", "data_type": "Double",
        "value": 41.5, "time": MS + 1.5, "quality": 192, "writable": False,
    }  # fmt: skip
    assert (tags[2]["value"], tags[2]["time"], tags[2]["quality"], tags[2]["writable"]) == (None, None, 32, True)
    few = (await get(client, "/api/tags", match="press-1/S*"))["tags"]
    assert [tag["tag"] for tag in few] == ["press-1/SP", "press-1/Start"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, True),
        (2**53 - 1, 2**53 - 1),
        (2**53, {"int": "9007199254740992"}),
        (2**64 - 1, {"int": "18446744073709551615"}),
        (-(2**63), {"int": "-9223372036854775808"}),
        (math.nan, {"float": "NaN"}),
        (-math.inf, {"float": "-Infinity"}),
        (b"\x00\xff", {"bytes": "AP8="}),
        ("on", "on"),
        ("\ud800", "?"),
        (None, None),
    ],
)
async def test_values_that_json_cannot_carry_have_an_exact_form(
    client: httpx.AsyncClient, runtime: FakeRuntime, value: Any, shown: Any
) -> None:
    runtime.give(Sample("press-1/PV", T0, value))
    assert (await get(client, "/api/tags/press-1/PV"))["value"] == shown


async def test_long_text_is_cut_in_lists_and_whole_alone(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    runtime.give(Sample("long", T0, "x" * 1_000_000))
    (row,) = (await get(client, "/api/tags", match="long"))["tags"]
    assert row["value"] == {"text": "x" * 1_000, "length": 1_000_000}
    assert len((await get(client, "/api/tags/long"))["value"]) == 1_000_000


async def test_one_tag_with_everything(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    runtime.give(Sample("press-1/SP", T0 + 1, 40.0, 192, 0x40000000, T0 + 10**6))
    tag = await get(client, "/api/tags/press-1/SP")
    assert (tag["address"], tag["time_ns"], tag["status"], tag["server_time"]) == (
        "ns=2;s=SP", str(T0 + 1), 0x40000000, MS + 1,
    )  # fmt: skip
    assert tag["command"] == {
        "tag": "press-1/SP", "role": "operator", "range": [0.0, 80.0], "momentary": False, "lease": 500,
        "expires": 5000, "allowed": True, "held_by": None,
    }  # fmt: skip
    assert (await get(client, "/api/tags/press-1/PV"))["command"] is None


@pytest.mark.parametrize(
    "path",
    ["/api/tags/nothing", "/api/tags/", "/api/machines/none", "/api/nothing", "/api", "/api/", "/api/tags/a%00b"],
)
async def test_what_is_not_there_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    problem(await client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/tags"),
        ("GET", "/api/components/plc/restart"),
        ("PUT", "/health"),
        ("POST", "/"),
        ("POST", "/x"),
    ],
)
async def test_a_wrong_method_is_a_problem(client: httpx.AsyncClient, method: str, path: str) -> None:
    problem(await client.request(method, path), 405)


async def test_history_raw(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    answer = await get(client, "/api/history", tag="press-1/PV", **{"from": str(T0), "to": str(T0 + 10**9)})
    assert answer == {
        "tag": "press-1/PV", "unit": "bar", "from": MS, "to": MS + 1000, "every": None, "aggregate": None,
        "times": [MS, MS + 1.500001], "values": [41.5, 42.0], "qualities": [192, 64], "truncated": False,
    }  # fmt: skip
    assert isinstance(runtime.historian, FakeHistorian)
    assert runtime.historian.asked == [("press-1/PV", T0, T0 + 10**9, 20_000)]


async def test_history_in_exact_nanoseconds(client: httpx.AsyncClient) -> None:
    answer = await get(client, "/api/history", tag="press-1/PV", time="ns", **{"from": str(T0), "to": str(T0 + 1)})
    assert (answer["from"], answer["to"], answer["times"]) == (T0, T0 + 1, [T0, T0 + 1_500_001])


async def test_history_aggregated_in_the_sites_time(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    answer = await get(
        client, "/api/history", tag="press-1/PV", every="1 min", aggregate="twa",
        **{"from": "2025-11-21T01:00:00", "to": "2025-11-21T01:00:00Z"},
    )  # fmt: skip
    assert (answer["every"], answer["aggregate"]) == (60_000, "twa")
    assert isinstance(runtime.historian, FakeHistorian)
    assert runtime.historian.asked == [
        ("press-1/PV", T0, T0 + 3600 * 10**9, 60 * 10**9, "twa", "Europe/Berlin"),
    ]


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({}, 422),
        ({"tag": ""}, 422),
        ({"tag": "x" * 300}, 422),
        ({"tag": "press-1/PV", "from": "yesterday"}, 422),
        ({"tag": "press-1/PV", "from": "-1 fortnight"}, 422),
        ({"tag": "press-1/PV", "from": "99999999999999999999"}, 422),
        ({"tag": "press-1/PV", "from": "0001-01-01"}, 422),
        ({"tag": "press-1/PV", "to": "9999-12-31T23:59:59+00:00"}, 422),
        ({"tag": "press-1/PV", "from": "-999999999999999999d"}, 422),
        ({"tag": "press-1/PV", "from": "now", "to": "-1h"}, 422),
        ({"tag": "press-1/PV", "aggregate": "avg"}, 422),
        ({"tag": "press-1/PV", "every": "1 min", "aggregate": "median"}, 422),
        ({"tag": "press-1/PV", "every": "soon"}, 422),
        ({"tag": "press-1/PV", "every": "0"}, 422),
        ({"tag": "press-1/PV", "every": "1 ms", "from": "-1h"}, 422),
        ({"tag": "press-1/PV", "limit": "0"}, 422),
        ({"tag": "press-1/PV", "limit": "many"}, 422),
        ({"tag": "press-1/PV", "time": "s"}, 422),
        ({"tag": "nobody/knows"}, 404),
    ],
)
async def test_a_bad_question_about_history_is_a_problem(
    client: httpx.AsyncClient, parameters: dict[str, str], status: int
) -> None:
    problem(await client.get("/api/history", params=parameters), status)


async def test_both_wrong_times_are_told_at_once(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/history", params={"tag": "press-1/PV", "from": "x", "to": "y"})
    assert [error["field"] for error in problem(answer, 422)["errors"]] == ["from", "to"]


@pytest.mark.parametrize("tag", ["press-1/SP", "press-9/old"])
async def test_a_known_tag_without_samples_is_empty(client: httpx.AsyncClient, tag: str) -> None:
    answer = await get(client, "/api/history", tag=tag)
    assert (answer["times"], answer["values"], answer["qualities"]) == ([], [], [])


async def test_history_without_a_historian_says_which_it_is(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    runtime.historian = None
    away = problem(await client.get("/api/history", params={"tag": "press-1/PV"}), 503)
    assert "is away" in away["detail"]
    runtime.plant = runtime.plant.model_copy(update={"historian": None})
    none = problem(await client.get("/api/history", params={"tag": "press-1/PV"}), 503)
    assert "no historian" in none["detail"]


async def test_machines(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    (machine,) = (await get(client, "/api/machines"))["machines"]
    assert machine["tags"] == ["press-1/good", "press-1/PV", "press-1/SP"]
    assert [command["tag"] for command in machine["commands"]] == [
        "press-1/SP", "press-1/Start", "press-1/Stop", "press-1/Mode",
    ]  # fmt: skip
    assert [command["allowed"] for command in machine["commands"]] == [True, True, True, False]
    assert machine["ideal_cycle"] == 1200
    runtime.give(Sample("press-1/PV", T0, 41.5))
    detail = await get(client, "/api/machines/press-1")
    assert {row["tag"]: row["value"] for row in detail["samples"]}["press-1/PV"] == 41.5
    assert "press-1/Stop" in [row["tag"] for row in detail["samples"]]


async def test_components_and_journal(client: httpx.AsyncClient) -> None:
    answer = await get(client, "/api/components")
    assert [component["name"] for component in answer["components"]] == ["plc", "mqtt"]
    assert answer["components"][0]["last_error_at"] is None
    assert answer["components"][1]["last_error_at"] == MS
    assert answer["journal"] == {
        "entries": 3, "samples": 5, "size": 4096, "keep": 20_000_000_000, "oldest": MS, "full": False, "damaged": 0,
        "thinned": 0, "dropped": 0, "salvaged": "",
    }  # fmt: skip


async def test_a_component_is_controlled_and_it_is_recorded_who_did_it(
    client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    for action in ("pause", "resume", "restart"):
        answer = await client.post(f"/api/components/plc/{action}")
        assert (answer.status_code, answer.json()["name"]) == (200, "plc")
    assert runtime.controlled == [("plc", "pause"), ("plc", "resume"), ("plc", "restart")]
    records = (await get(client, "/api/audit"))["records"]
    assert [(r["event"], r["who"], r["detail"]) for r in records][-1] == ("control", "console@10.0.3.7", "plc: pause")
    problem(await client.post("/api/components/none/pause"), 404)
    problem(await client.post("/api/components/plc/explode"), 422)
    problem(await client.post("/api/components/mqtt/resume"), 503)


async def test_the_ledger(client: httpx.AsyncClient) -> None:
    rows = (await get(client, "/api/ledger"))["rows"]
    assert [(row["outcome"], row["samples"]) for row in rows] == [("received", 5), ("delivered", 4), ("rejected", 1)]
    assert (rows[0]["first"], rows[2]["first"]) == (None, MS)


async def test_a_command_is_carried_out_once_and_recorded(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    for _ in range(2):
        answer = await client.post("/api/commands", json={"tag": "press-1/SP", "value": 45, "id": "one"})
        assert answer.status_code == 200
        assert answer.json() == {
            "id": "one", "tag": "press-1/SP", "value": 45, "done": True, "detail": "read back 45",
        }  # fmt: skip
    assert runtime.writes == [("press-1/SP", 45)]
    records = (await get(client, "/api/audit"))["records"]
    assert [(record["event"], record["number"]) for record in records] == [("done", 2), ("issued", 1)]
    assert [r["number"] for r in (await get(client, "/api/audit", before=2, limit=5))["records"]] == [1]
    assert (await get(client, "/api/audit/verify"))["intact"]


async def test_a_command_to_a_machine_that_is_away_is_not_done(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    runtime.connected = False
    answer = await client.post("/api/commands", json={"tag": "press-1/SP", "value": 45})
    assert (answer.status_code, answer.json()["done"]) == (200, False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tag": "press-1/PV", "value": 1}, 403),
        ({"tag": "press-1/Mode", "value": 1}, 403),
        ({"tag": "press-1/SP", "value": 95}, 422),
        ({"tag": "press-1/SP", "value": "45"}, 422),
        ({"tag": "press-1/SP", "value": True}, 422),
        ({"tag": "press-1/SP", "value": None}, 422),
        ({"tag": "press-1/SP", "value": [1]}, 422),
        ({"tag": "press-1/SP", "value": {"float": "NaN"}}, 422),
        ({"tag": "press-1/SP", "value": {"int": "x"}}, 422),
        ({"tag": "press-1/Start", "value": True}, 422),
        ({"tag": "press-1/SP"}, 422),
        ({"value": 1}, 422),
        ({"tag": 1, "value": 1}, 422),
        ({"tag": "press-1/SP", "value": 1, "id": "a b"}, 422),
        ({"tag": "press-1/SP", "value": 1, "id": ""}, 422),
        ({"tag": "press-1/SP", "value": 1, "expires": 0}, 422),
        ({"tag": "press-1/SP", "value": 1, "expires": "1 h"}, 422),
        ({"tag": "press-1/SP", "value": 1, "force": True}, 422),
        ([], 422),
        (None, 422),
    ],
)
async def test_a_command_that_must_not_be_is_a_problem_and_nothing_is_written(
    client: httpx.AsyncClient, runtime: FakeRuntime, body: Any, status: int
) -> None:
    problem(await client.post("/api/commands", json=body), status)
    assert runtime.writes == []


async def test_an_id_used_for_something_else_is_in_conflict(client: httpx.AsyncClient) -> None:
    await client.post("/api/commands", json={"tag": "press-1/SP", "value": 45, "id": "one"})
    problem(await client.post("/api/commands", json={"tag": "press-1/SP", "value": 46, "id": "one"}), 409)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b'{"tag":"press-1/SP","value":' + b"1" * 5_000 + b"}", "application/json", 400),
        (b'{"tag":"press-1/SP","value":NaN}', "application/json", 422),
        (b'{"tag":"\\ud800","value":1}', "application/json", 422),
        (b'{"tag":"press-1/SP","value":1}', "text/plain", 415),
        (b'{"tag":"press-1/SP","value":1}', "application/x-www-form-urlencoded", 415),
        (b" " * 70_000, "application/json", 413),
    ],
)
async def test_a_body_that_cannot_be_read_is_a_problem(
    client: httpx.AsyncClient, runtime: FakeRuntime, content: bytes, kind: str, status: int
) -> None:
    answer = await client.post("/api/commands", content=content, headers={"Content-Type": kind})
    problem(answer, status)
    assert runtime.writes == []


async def test_a_body_in_chunks_is_refused(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        yield b"{}"

    problem(await client.post("/api/commands", content=chunks(), headers={"Content-Type": "application/json"}), 411)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8080"}, 200),
        ({"Host": "console.plant.example", "Origin": "https://console.plant.example"}, 200),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 200),
        ({"Origin": "http://127.0.0.1:8081"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8080.evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "evil.example/127.0.0.1"}, 421),
        ({"Host": "127.0.0.1@evil.example"}, 421),
        ({"Host": "[::1"}, 421),
        ({"Host": ""}, 421),
    ],
)
async def test_only_the_consoles_own_pages_may_write(
    client: httpx.AsyncClient, runtime: FakeRuntime, headers: dict[str, str], status: int
) -> None:
    answer = await client.post("/api/commands", json={"tag": "press-1/SP", "value": 45}, headers=headers)
    assert answer.status_code == status, answer.text
    assert (runtime.writes == [("press-1/SP", 45)]) == (status == 200)


async def test_reading_needs_no_origin_but_a_known_host(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/tags", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    problem(await client.get("/api/tags", headers={"Host": "evil.example"}), 421)


async def test_health_and_readiness(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    assert (await get(client, "/health"))["status"] == "alive"
    runtime.states["mqtt"] = "waiting"
    assert await get(client, "/ready") == {"ready": True, "waiting": []}
    runtime.states["plc"] = "waiting"
    answer = await client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["waiting"] == [{"name": "plc", "state": "waiting", "reason": ""}]


async def test_metrics_can_be_parsed_and_hold_what_the_plant_says(
    client: httpx.AsyncClient, runtime: FakeRuntime
) -> None:
    runtime.give(Sample("press-1/PV", T0, 1.0))
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    plc = (("component", "plc"), ("kind", "source"), ("type", "fake"))
    assert found["shopfloor_component_samples_total", *plc] == 5
    assert found["shopfloor_component_state", *plc[:2], ("state", "running"), plc[2]] == 1
    assert found["shopfloor_component_state", *plc[:2], ("state", "waiting"), plc[2]] == 0
    rejected = (("outcome", "rejected"), ("reader", "mqtt"), ("reason", 'too "long"\n'), ("source", "plc"))
    assert found["shopfloor_ledger_samples", *rejected] == 1
    assert found["shopfloor_journal_bytes",] == 4096
    assert found["shopfloor_live_tags",] == 1
    assert found["process_start_time_seconds",] > 0
    open_metrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert open_metrics.text.endswith("# EOF\n")


async def test_a_bug_is_a_problem_document_too_and_logged_once(
    client: httpx.AsyncClient, runtime: FakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.ledger = None  # type: ignore[method-assign, assignment]  # the bug
    assert "TypeError" in problem(await client.get("/api/ledger"), 500)["detail"]
    assert len(caplog.records) == 1
    assert "Traceback" in caplog.text


async def test_what_the_historian_cannot_sum_up_is_told_in_its_words(
    client: httpx.AsyncClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*_: object) -> None:
        raise ValueError("a bucket longer than a day must be a whole number of days")

    monkeypatch.setattr(runtime.historian, "aggregate", refuses)
    answer = await client.get("/api/history", params={"tag": "press-1/PV", "every": "25h"})
    assert "whole number of days" in problem(answer, 422)["detail"]


async def test_every_answer_carries_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/", "/api/tags", "/api/nothing", "/health"):
        headers = (await client.get(path)).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("path", "status", "cache"),
    [
        ("/", 200, "no-cache"),
        ("/index.html", 200, "no-cache"),
        ("/machines", 200, "no-cache"),
        ("/machines/press-1", 307, None),
        ("/sw.js", 200, "no-cache"),
        ("/assets/index-abc.js", 200, "public, max-age=31536000, immutable"),
        ("/assets/gone.js", 404, None),
        ("/../secret.txt", 404, None),
        ("/..%2fsecret.txt", 404, None),
        ("/assets/%2e%2e/%2e%2e/secret.txt", 404, None),
        ("/a%00b.txt", 404, None),
        ("//etc/passwd.txt", 404, None),
        ("/" + "x" * 5_000 + ".js", 404, None),
    ],
)
async def test_the_app_is_served_with_its_routes_and_nothing_else(
    client: httpx.AsyncClient, path: str, status: int, cache: str | None
) -> None:
    answer = await client.get(path)
    assert answer.status_code == status, answer.text
    assert "secret" not in answer.text or status == 404
    if cache is not None:
        assert answer.headers["cache-control"] == cache
    again = await client.get(path, headers={"If-None-Match": answer.headers.get("etag", "")})
    assert again.status_code == (304 if status == 200 else status)


async def test_without_a_build_the_page_says_how_to_build_it(runtime: FakeRuntime, tmp_path: Path) -> None:
    app = create_app(runtime, folder=tmp_path / "nothing")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answer = await client.get("/")
        assert answer.status_code == 503
        assert "make web" in answer.text
        assert (await client.get("/api/tags")).status_code == 200


async def test_openapi_names_every_operation_and_its_problems(client: httpx.AsyncClient) -> None:
    document = await get_openapi(client)
    assert set(document["paths"]) == {
        "/health", "/ready", "/metrics", "/api/plant", "/api/me", "/api/tags", "/api/tags/{tag}", "/api/history",
        "/api/machines", "/api/machines/{id}", "/api/machines/{id}/kpi", "/api/machines/{id}/timeline",
        "/api/machines/{id}/stops", "/api/machines/{id}/reasons", "/api/machines/{id}/reasons/undo", "/api/events",
        "/api/machines/{id}/units",
        "/api/lines", "/api/lines/{id}/kpi", "/api/report", "/api/report.csv",
        "/api/components", "/api/components/{name}/{action}", "/api/ledger",
        "/api/dead-letters", "/api/dead-letters/retry", "/api/dead-letters/drop",
        "/api/audit", "/api/audit/verify", "/api/commands", "/api/live",
    }  # fmt: skip
    assert "Problem" in document["components"]["schemas"]
    posted = document["paths"]["/api/commands"]["post"]["responses"]
    assert set(posted) == {"200", "400", "403", "409", "411", "413", "415", "422", "503"}
    assert "application/problem+json" in posted["422"]["content"]


async def get_openapi(client: httpx.AsyncClient) -> Any:
    return (await client.get("/api/openapi.json")).json()


async def test_metrics_do_not_grow_with_every_new_reason(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    async def many() -> list[LedgerRow]:
        return [LedgerRow("plc", "mqtt", "rejected", 1, f"reason {i}") for i in range(2_000)]

    runtime.ledger = many  # type: ignore[method-assign]  # another ledger
    lines = [line for line in (await client.get("/metrics")).text.splitlines() if "ledger_samples{" in line]
    assert len(lines) == 501
    assert sum(float(line.split()[-1]) for line in lines) == 2_000
