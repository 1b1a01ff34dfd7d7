"""Dead letters over the API."""

import httpx

from tests.console.fakes import T0, FakeRuntime


async def test_letters_are_listed_with_their_first_samples(client: httpx.AsyncClient) -> None:
    letters = (await client.get("/api/dead-letters")).json()["letters"]
    assert [(one["id"], one["reader"], one["source"], one["count"]) for one in letters] == [
        (2, "mqtt", "plc", 12),
        (1, "files", "", 1),
    ]
    assert len(letters[0]["samples"]) == 10
    first = {"tag": "press-1/PV", "time": T0 / 1e6, "value": {"float": "NaN"}, "quality": 192}
    assert letters[0]["samples"][0] == first
    some = (await client.get("/api/dead-letters", params={"reader": "files"})).json()["letters"]
    assert [one["id"] for one in some] == [1]


async def test_who_decides_is_recorded(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    answer = await client.post("/api/dead-letters/retry", json={"ids": [2, 77]})
    assert (answer.status_code, answer.json()) == (200, {"letters": 1})
    assert (await client.post("/api/dead-letters/drop", json={"ids": [1]})).json() == {"letters": 1}
    assert runtime.decided == [("retry", (2, 77)), ("drop", (1,))]
    records = (await client.get("/api/audit")).json()["records"]
    assert [(one["event"], one["detail"]) for one in records] == [
        ("control", "dead letters 1: drop"),
        ("control", "dead letters 2, 77: retry"),
    ]


async def test_a_wish_that_names_none_is_refused(client: httpx.AsyncClient, runtime: FakeRuntime) -> None:
    bodies: tuple[dict[str, object], ...] = ({"ids": []}, {"ids": ["2"]}, {"ids": [0]}, {}, {"ids": [1], "all": True})
    for body in bodies:
        answer = await client.post("/api/dead-letters/drop", json=body)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
    assert runtime.decided == []
