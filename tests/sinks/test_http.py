"""The HTTP sink against a simulated MES in a process of its own, through a network that fails."""

import asyncio
import base64
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import pytest
from httpx import Headers
from pydantic import TypeAdapter, ValidationError

from shopfloor import plant
from shopfloor.pipeline import runner
from shopfloor.pipeline.probe import probe
from shopfloor.plant.components import FromEnvironment
from shopfloor.plant.http import OAuth2
from shopfloor.protocols.http import Answer, ClientCredentials, Header, retry_after
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable, Value
from shopfloor.sinks.http import HttpConfig
from shopfloor.sinks.http_templates import described
from shopfloor.testing.certificates import Authority, Identity
from shopfloor.testing.clocks import instant
from shopfloor.testing.contracts import SinkContract, SinkRig
from shopfloor.testing.faults import FaultProxy
from tests.pipeline.hands import Bench, state, until
from tests.sinks.killing import fill, kill_and_finish
from tests.sinks.mes import MesProcess
from tests.sinks.scripted import Asked, Said, Scripted

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789


def config(url: str, **options: object) -> HttpConfig:
    return HttpConfig.model_validate({"name": "mes", "type": "http", "url": url, **options})


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MesProcess]:
    with MesProcess(tmp_path_factory.mktemp("mes") / "taken.jsonl") as process:
        yield process


@pytest.fixture
def mes(process: MesProcess) -> MesProcess:
    """The MES, empty and well."""
    process.forget()
    return process


class HttpRig(SinkRig):
    def __init__(self, proxy: FaultProxy, mes: MesProcess) -> None:
        self.connected = config(f"http://127.0.0.1:{proxy.port}/api/samples").build()
        super().__init__(self.connected)
        self.proxy = proxy
        self.mes = mes

    async def content(self) -> Sequence[Sample]:
        return self.mes.samples()

    async def lose(self) -> None:
        self.proxy.reset()

    async def restore(self) -> None:
        self.connected._seconds = 10
        self.proxy.heal()

    async def freeze(self) -> bool:
        self.connected._seconds = 0.5  # else the test waits long for what never answers
        self.proxy.black_hole()
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        return batch(Sample("a/x", NOW, 1.0), Sample("a/y", NOW, "\ud800"), Sample("a/z\udfff", NOW, 2)), {1, 2}


class TestHttp(SinkContract):
    """The MES knows the keys of requests, so what comes again counts once."""

    exactly_once = True

    @pytest.fixture(autouse=True)
    def _mes(self, mes: MesProcess) -> None:
        self.mes = mes

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        del folder
        async with FaultProxy("127.0.0.1", self.mes.port) as proxy:
            yield HttpRig(proxy, self.mes)


# ---- what is sent ----------------------------------------------------------------------------------------


async def sent(sink: HttpConfig, *samples: Sample, offset: int = 1) -> None:
    async with sink.build() as connected:
        await connected.write_many([(offset, batch(*samples))])


async def test_without_a_template_the_body_says_all_that_is_known(mes: MesProcess) -> None:
    text = """
        plant: {site: bremen}
        sources:
          - {name: plc, type: modbus, host: 127.0.0.1, tags: [{tag: press-1/PV, address: "30001", unit: bar}]}
        sinks:
          - {name: mes, type: http, url: "%s/api"}
    """
    sink = plant.parse(text % mes.url, "plant.yaml", Path()).sinks[0]
    assert isinstance(sink, HttpConfig)
    await sent(sink, Sample("press-1/PV", NOW, 41.5), Sample("press-1/State", NOW, None, 24, 0x80310000), offset=7)
    (request,) = mes.requests()
    assert (request["path"], request["key"]) == ("/api", "bremen.mes-7-0-1.2")
    assert json.loads(request["body"]) == {
        "site": "bremen",
        "key": "bremen.mes-7-0-1.2",
        "samples": [
            {"tag": "press-1/PV", "time": "2026-01-05T06:00:00.123456789Z", "value": 41.5, "quality": 192, "good": True,
             "unit": "bar", "source": "press", "key": "bremen.mes-7-0"},
            {"tag": "press-1/State", "time": "2026-01-05T06:00:00.123456789Z", "value": None, "quality": 24,
             "good": False, "source": "press", "status": 2150694912, "key": "bremen.mes-7-1"},
        ],
    }  # fmt: skip


async def test_a_template_escapes_what_a_machine_says(mes: MesProcess) -> None:
    body = """{"rows": [
        {% for s in samples %}
        {"k": {{ s.key }}, "what": {{ s.machine ~ "." ~ s.signal }}, "v": {{ s.value }}, "at": {{ s.time_ms }}}
        {{- "," | raw if not loop.last }}
        {% endfor %}
    ]}"""
    odd = '"}], "x": "\\ \n\x00🏭'
    values: list[Value] = [1.5, 2**64 - 1, True, odd, None, b"\xff"]
    await sent(config(mes.url, body=body), *(Sample(f"m/{i}{odd}", NOW + i, v) for i, v in enumerate(values)))
    (request,) = mes.requests()
    rows = json.loads(request["body"])["rows"]
    assert [row["v"] for row in rows] == [1.5, 2**64 - 1, True, odd, None, "/w=="]
    assert [row["what"] for row in rows] == [f"m.{i}{odd}" for i in range(len(values))]
    assert rows[0]["at"] == NOW // 10**6


async def test_xml_and_an_address_by_tag(mes: MesProcess) -> None:
    sink = config(
        f"{mes.url}/api/{{{{ machine }}}}/{{{{ signal }}}}?of={{{{ source }}}}", method="PUT",
        content_type="application/xml; charset=utf-8",
        body='<m k="{{ key }}">{% for s in samples %}<v t="{{ s.tag }}">{{ s.value }}</v>{% endfor %}</m>',
    )  # fmt: skip
    tags = ["oven 2/T<1>", "press/n", "oven 2/T<1>", "press/n"]
    values: list[Value] = ["<&'\"", 1, "\x00", True]
    with pytest.raises(Rejected, match="cannot hold a control character") as rejected:
        await sent(sink, *map(Sample, tags, [NOW] * 4, values))
    assert rejected.value.indices == [2]
    assert {request["path"]: request["body"] for request in mes.requests()} == {
        "/api/oven%202/T%3C1%3E?of=press": '<m k=".mes-1-0"><v t="oven 2/T&lt;1&gt;">&lt;&amp;&apos;&quot;</v></m>',
        "/api/press/n?of=press": '<m k=".mes-1-1-3.2"><v t="press/n">1</v><v t="press/n">true</v></m>',
    }


async def test_a_batch_is_cut_into_requests_of_the_size_asked_for(mes: MesProcess) -> None:
    await sent(config(mes.url, batch=1, compression="gzip"), *(Sample("a", NOW + i, i) for i in range(3)))
    await sent(config(mes.url, batch=2), *(Sample("b", NOW + i, i) for i in range(3)), offset=2)
    sizes = [len(json.loads(request["body"])["samples"]) for request in mes.requests()]
    assert sizes == [1, 1, 1, 2, 1]
    assert [request["key"] for request in mes.requests()][:3] == [".mes-1-0", ".mes-1-1", ".mes-1-2"]


# ---- what is answered ------------------------------------------------------------------------------------


async def test_what_is_refused_is_found_in_the_batch_and_the_rest_arrives_once(mes: MesProcess) -> None:
    """The MES refuses the whole request; it is halved until what it refuses stands alone."""
    mes.behave(refuse="oven/*")
    offered = batch(*(Sample("oven/T" if i in (3, 8) else "press/PV", NOW + i, i) for i in range(12)))
    async with config(mes.url).build() as sink:
        with pytest.raises(Rejected, match=r"oven/T is not known here \(422\)") as rejected:
            await sink.write_many([(1, batch(Sample("press/PV", NOW - 1, -1))), (2, offered)])
        await sink.write(1, batch(Sample("press/PV", NOW - 1, -1)))
        with pytest.raises(Rejected) as rejected:
            await sink.write(2, offered)
        assert rejected.value.indices == [3, 8]
        asked = mes.state()["refused"]
        await sink.write(2, offered.select([i for i in range(12) if i not in (3, 8)]))
        assert mes.state()["refused"] == asked, "it asked again what it knew"
    assert sorted(said["value"] for said in mes.said()) == [-1, *(i for i in range(12) if i not in (3, 8))]
    assert mes.state()["doubles"] == 0


async def test_a_request_may_be_taken_in_part(mes: MesProcess) -> None:
    mes.behave(refuse="oven/*", partial=True)
    offered = batch(Sample("oven/T", NOW, 1), Sample("press/PV", NOW, 2), Sample("oven/P", NOW, 3))
    async with config(mes.url, partial={}).build() as sink:
        with pytest.raises(Rejected) as rejected:
            await sink.write(1, offered)
        assert rejected.value.why(3) == {"oven/T is not known here": [0], "oven/P is not known here": [2]}
        offered = offered.select([1])
        await sink.write(1, offered)
    assert len(mes.requests()) == 1
    with pytest.raises(Misconfigured, match=r"answers 207.*`partial`"):
        await sent(config(mes.url), Sample("oven/T", NOW, 1), offset=2)
    with pytest.raises(Misconfigured, match=r"cannot be read.*correct `partial`"):
        await sent(config(mes.url, partial={"index": "place"}), Sample("oven/T", NOW, 1), offset=3)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, Misconfigured, r"does not let us in: answers 401 \(401\); give `auth`"),
        (403, Misconfigured, "allow it there, or give `auth`"),
        (404, Misconfigured, "answers POST with 404.*correct `url`, `method` or `content_type`"),
        (405, Misconfigured, "correct `url`, `method`"),
        (415, Misconfigured, "`content_type`"),
        (408, Unavailable, "takes nothing now"),
        (409, Rejected, r"answers 409 \(409\)"),
        (422, Rejected, r"answers 422 \(422\)"),
        (425, Unavailable, "takes nothing now"),
        (429, Unavailable, "takes nothing now"),
        (500, Unavailable, "takes nothing now"),
        (503, Unavailable, "takes nothing now"),
    ],
)
async def test_what_answers_mean(status: int, error: type[Exception], words: str, mes: MesProcess) -> None:
    mes.behave(status=status)
    with pytest.raises(error, match=words):
        await sent(config(mes.url), Sample("a", NOW, 1))


async def test_what_409_means_is_the_plants_to_say(mes: MesProcess) -> None:
    mes.behave(status=409)
    await sent(config(mes.url, conflict="held"), Sample("a", NOW, 1))
    with pytest.raises(Unavailable):
        await sent(config(mes.url, conflict="retry"), Sample("a", NOW, 1))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 20),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "-5"}, 0),
        ({}, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers, instant("2026-10-21T07:28:10Z") / 1e9) == seconds


async def test_retry_after_reaches_the_pipeline(mes: MesProcess) -> None:
    for status in (429, 503):
        mes.behave(status=status, retry_after="7")
        with pytest.raises(Unavailable) as away:
            await sent(config(mes.url), Sample("a", NOW, 1))
        assert away.value.after == 7


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"type":"about:blank","title":"Bad","detail":"no order 17"}', "no order 17"),
        (b'{"errors":[{"message":"no order"},{"message":"no part"}]}', "no order; no part"),
        (b'{"error":{"code":17,"message":"no order"}}', "no order"),
        (b"<html><head><title>x</title></head><body><h1>Bad\n Gateway</h1></body></html>", "Bad Gateway"),
        (b"no order", "no order"),
        (b"", "503 Service Unavailable"),
        (b"\xff" + b"x" * 500, "\ufffd" + "x" * 299 + "…"),
    ],
)
def test_the_servers_sentence_is_shown(body: bytes, words: str) -> None:
    assert Answer(503, Headers(), body).sentence == words


@pytest.mark.parametrize(
    "body",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<html><center>The plain HTTP request was sent to HTTPS port</center></html>",
    ],
)
async def test_a_port_that_wants_tls_refuses_no_samples(body: bytes) -> None:
    """Go's servers and nginx answer 400; taken for a refusal it would make a dead letter of every sample."""
    async with Scripted(lambda asked: Said(400 if asked.method == "POST" else 200, body)) as server:
        with pytest.raises(Misconfigured, match="wants TLS at this port; write the address as https://"):
            await sent(config(server.url), Sample("a", NOW, 1), Sample("b", NOW, 1))


async def test_an_answer_that_is_lost_makes_no_double(mes: MesProcess) -> None:
    """Taken, but the answer never comes: after a restart it goes again under the same key."""
    mes.behave(lose_answers=True)
    with pytest.raises(Unavailable):
        await sent(config(mes.url), Sample("a", NOW, 1), Sample("b", NOW, 2))
    mes.behave()
    await sent(config(mes.url), Sample("a", NOW, 1), Sample("b", NOW, 2))
    assert mes.state()["doubles"] == 1
    assert [said["value"] for said in mes.said()] == [1, 2]


async def test_a_request_whose_answer_was_lost_is_sent_again_as_it_was() -> None:
    """Also after another one was refused and halved: a service that knows its key counts it once."""
    taken: dict[str, list[int]] = {}
    losing = [True]

    async def service(asked: Asked) -> Said:
        if asked.method != "POST":
            return Said()
        values = [one["value"] for one in json.loads(asked.body)["samples"]]
        if 1 in values:
            return Said(422)
        taken.setdefault(asked.headers["idempotency-key"], values)
        if values == [2, 3] and losing.pop():
            losing.append(False)
            return Said(503)
        return Said(201)

    offered = batch(*(Sample(f"a/{i}", NOW, i) for i in range(10)))
    async with Scripted(service) as server:
        sink = config(server.url, batch=4)
        async with sink.build() as connected:
            with pytest.raises(Unavailable):
                await connected.write(1, offered)
        async with sink.build() as connected:
            with pytest.raises(Rejected) as rejected:
                await connected.write(1, offered)
            assert rejected.value.indices == [1]
            await connected.write(1, offered.select([0, *range(2, 10)]))
            asked = len(server.asked)
            await connected.write(1, offered.select([0, *range(2, 10)]))
            assert len(server.asked) == asked, "nothing was left to be sent"
    assert list(taken.values()) == [[0], [2, 3], [4, 5, 6, 7], [8, 9]]


async def test_what_is_refused_for_many_reasons_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence for each: the batch is not offered, nor described, as often; and others have their turn meanwhile."""
    calls = [0, 0]

    async def service(asked: Asked) -> Said:
        if asked.method != "POST":
            return Said()
        return Said(422, b"no order " + json.loads(asked.body)["samples"][0]["key"].encode())

    def counted(*given: Any) -> Mapping[str, object]:
        calls[0] += 1
        return described(*given)

    async def turned() -> None:
        calls[1] += 1

    monkeypatch.setattr("shopfloor.sinks.http.described", counted)
    monkeypatch.setattr("shopfloor.turns.turn", turned)
    size = 256
    async with Scripted(service) as server, config(server.url, batch=size).build() as connected:
        with pytest.raises(Rejected) as rejected:
            await connected.write(1, batch(*(Sample(f"a/{i}", NOW, i) for i in range(size))))
    assert [*rejected.value.why(size).values()] == [[i] for i in range(size)]
    assert calls[0] == size * 9, "once for each halving"
    assert calls[1] > size // 100


async def test_what_was_confirmed_before_a_loss_is_not_sent_again(mes: MesProcess) -> None:
    sink = config(mes.url, batch=2)
    offered = batch(*(Sample("a", NOW + i, i) for i in range(6)))
    async with sink.build() as connected:
        await connected.write(1, batch(Sample("b", NOW, 0)))
        await connected.write(2, offered.select([0, 1]))
        mes.behave(status=503)
        with pytest.raises(Unavailable):
            await connected.write(3, offered)
    mes.behave()
    async with sink.build() as connected:  # the pipeline builds a new one, and offers from the last commit
        await connected.write_many([(1, batch(Sample("b", NOW, 0))), (2, offered.select([0, 1])), (3, offered)])
    assert mes.state()["doubles"] == 0
    assert len(mes.requests()) == 1 + 1 + 3


async def test_a_server_that_takes_too_long() -> None:
    """One of its own, that never answers: the MES of all tests would take it in the middle of another one."""

    async def slow(asked: Asked) -> Said:
        if asked.body:
            await asyncio.Event().wait()
        return Said()

    async with Scripted(slow) as server, config(server.url).build() as connected:
        connected._seconds = 0.3  # of the write only: entering may take its time
        with pytest.raises(Unavailable, match=r"does not answer within 0\.3 s"):
            await connected.write(1, batch(Sample("a", NOW, 1)))


# ---- doors -----------------------------------------------------------------------------------------------


def tls(identity: Identity, clients: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    context.load_cert_chain(identity.certificate, identity.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "basic", "username": "edge", "password": FromEnvironment("s:ß")}, "authorization",
         "Basic " + base64.b64encode("edge:s:ß".encode()).decode()),
        ({"type": "bearer", "token": FromEnvironment("t0ken")}, "authorization", "Bearer t0ken"),
        ({"type": "api_key", "key": FromEnvironment("k3y")}, "x-api-key", "k3y"),
    ],
)  # fmt: skip
async def test_who_we_are(auth: dict[str, str], header: str, value: str) -> None:
    async with Scripted(lambda asked: Said(201 if asked.headers.get(header) == value else 401)) as server:
        await sent(config(server.url, auth=auth), Sample("a", NOW, 1))
        with pytest.raises(Misconfigured, match=r"does not let us in: 401 Unauthorized .*give `auth`"):
            await sent(config(server.url), Sample("a", NOW, 1))


class Issuer:
    """Gives tokens to whom it knows, and takes only the newest one."""

    def __init__(self, lasts: float) -> None:
        self.lasts = lasts
        self.given = 0

    def __call__(self, asked: Asked) -> Said:
        if asked.path == "/token":
            form = parse_qs(asked.body.decode())
            known = asked.headers.get("authorization") == "Basic " + base64.b64encode(b"edge:s3cret").decode()
            if not known or form != {"grant_type": ["client_credentials"], "scope": ["mes.write"]}:
                return Said(401, b'{"error":"invalid_client","error_description":"who is that?"}')
            self.given += 1
            return Said(200, json.dumps({"access_token": f"t{self.given}", "expires_in": self.lasts}).encode())
        return Said(201 if asked.headers.get("authorization") == f"Bearer t{self.given}" else 401)


async def test_tokens_are_fetched_and_renewed() -> None:
    issuer = Issuer(3600)
    async with Scripted(issuer) as server:
        auth = {"type": "oauth2", "token_url": f"{server.url}/token", "client_id": "edge", "scope": "mes.write",
                "client_secret": FromEnvironment("s3cret")}  # fmt: skip
        async with config(server.url, auth=auth).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1)))
            await sink.write(2, batch(Sample("a", NOW, 1)))
            assert issuer.given == 1
            issuer.given += 1  # the one that it has is taken back
            await sink.write(3, batch(Sample("a", NOW, 1)))
            assert issuer.given == 3
        issuer.lasts = 0
        async with config(server.url, auth=auth).build() as sink:
            before = issuer.given
            await sink.write(1, batch(Sample("a", NOW, 1)))
            assert issuer.given == before + 1, "it has ended, so a new one is fetched first"
        wrong = auth | {"client_secret": FromEnvironment("wrong")}
        with pytest.raises(Misconfigured, match=r"gives no token: who is that\? \(401\); correct `client_id`"):
            await config(server.url, auth=wrong).build().__aenter__()
        server.script = lambda asked: Said(503, b"", {"Retry-After": "9"} if asked.path == "/token" else {})
        with pytest.raises(Unavailable, match="gives no token now") as away:
            await config(server.url, auth=auth).build().__aenter__()
        assert away.value.after == 9


async def test_a_login_server_that_is_away_is_not_said_as_the_service() -> None:
    async with Scripted(lambda _: Said(201)) as server:
        auth = {"type": "oauth2", "token_url": "http://127.0.0.1:1/token", "client_id": "edge",
                "client_secret": FromEnvironment("s3cret")}  # fmt: skip
        with pytest.raises(Unavailable, match=r"^http://127\.0\.0\.1:1/token cannot be reached: connection refused"):
            await config(server.url, auth=auth).build().__aenter__()


def test_id_and_secret_are_encoded_before_they_are_a_login() -> None:
    """RFC 6749, 2.3.1; the server decodes them, so a colon in the id or `%2F` in the secret would be others."""
    given = {"type": "oauth2", "token_url": "http://m/token", "client_id": "edge:1 \u00e9"}
    auth = TypeAdapter(OAuth2).validate_python({**given, "client_secret": FromEnvironment("a+b%2F:c")})
    _, _, said = ClientCredentials(auth)._asking().headers["authorization"].partition(" ")
    name, _, secret = base64.b64decode(said).decode().partition(":")
    assert (unquote_plus(name), unquote_plus(secret)) == ("edge:1 \u00e9", "a+b%2F:c")


async def test_a_secret_that_is_no_header_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break at its end, as files of secrets have it: said by the plant file; else without its text."""
    text = "plant: {site: x}\nsinks: [{name: mes, type: http, url: http://m/, auth: {type: api_key, key: '${KEY}'}}]"
    for secret in ("s3cret\n", "s3cr\u00e9t"):
        with pytest.raises(
            plant.PlantError, match=r"sinks\[0\]\.auth\.key: is no value of a header.*line break"
        ) as wrong:
            plant.parse(text, "plant.yaml", Path(), {"KEY": secret})
        assert "s3cr" not in str(wrong.value)
    async with Scripted(lambda _: Said(201)) as server:
        sink = config(server.url)
        monkeypatch.setattr(HttpConfig, "authentication", lambda _: Header("X-Key", "s3cret\n"))
        with pytest.raises(Misconfigured, match="look for line breaks") as refused:
            await sink.build().__aenter__()
        assert "s3cret" not in str(refused.value)


async def test_certificates(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    client = authority.client("edge")
    ours = {"ca_file": authority.certificate}
    async with Scripted(lambda _: Said(201), tls(authority.server())) as server:
        await sent(config(server.url, **ours), Sample("a", NOW, 1))
        for ca_file in ({"ca_file": stranger.certificate}, {}):
            with pytest.raises(Misconfigured, match=r"certificate of .* is not accepted.*`ca_file`"):
                await config(server.url, **ca_file).build().__aenter__()
        with pytest.raises(Unavailable):
            await config(server.url.replace("https", "http")).build().__aenter__()
    async with Scripted(lambda _: Said(201), tls(authority.server(), authority.certificate)) as server:
        files = {"certificate_file": client.certificate, "key_file": client.key}
        await sent(config(server.url, **ours, **files), Sample("a", NOW, 1))
        with pytest.raises((Misconfigured, Unavailable)):  # which of alert and RST comes first is chance
            await sent(config(server.url, **ours), Sample("a", NOW, 1))
    async with Scripted(lambda _: Said(201)) as server:
        with pytest.raises((Misconfigured, Unavailable), match="TLS at this port"):
            await config(server.url.replace("http", "https")).build().__aenter__()


async def test_an_address_that_has_moved_is_said() -> None:
    async with Scripted(lambda _: Said(308, b"", {"Location": "https://new.example/"})) as server:
        with pytest.raises(Misconfigured, match=r"has moved to https://new.example/.*write that into `url`"):
            await sent(config(server.url), Sample("a", NOW, 1))


async def test_whether_the_service_is_well_can_be_asked_for() -> None:
    answers = {"/health": Said(503, b"starting", {"Retry-After": "3"}), "/nothing": Said(404)}
    async with Scripted(lambda asked: answers.get(asked.path, Said(201))) as server:
        with pytest.raises(Unavailable, match="is not ready: starting") as away:
            await config(server.url, health=f"{server.url}/health").build().__aenter__()
        assert away.value.after == 3
        with pytest.raises(Misconfigured, match="correct `health`"):
            await config(server.url, health=f"{server.url}/nothing").build().__aenter__()
        async with config(server.url, health=f"{server.url}/other").build():
            assert [asked.method for asked in server.asked] == ["GET"] * 3


# ---- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "mes.example/api"}, "is no address of a server; write https://host/path"),
        ({"url": "https://edge:secret@mes.example/"}, "do not belong into the address"),
        ({"url": "http://m/{{ value }}"}, "'value' is undefined"),
        ({"url": "http://m/{{ tag"}, r"is no template: .* \(line 1 of it\)"),
        ({"body": '{"v": {{ sample.value }}\n'}, "is no JSON once it is filled in"),
        ({"body": '{"v":\n"{{ sample.tag }}"}'}, "line 2 column .*without quotes round it"),
        ({"body": "{\n{% for s in samples %}\n}"}, r"is no template: .*endfor.*\(line 2 of it\)"),
        ({"body": '{"v":\n{{ sample.valeu }}}'}, r"has no attribute 'valeu' \(line 2 of it\)"),
        ({"body": "<a>{{ sample.tag }}", "content_type": "text/xml"}, "is no XML once it is filled in"),
        ({"content_type": "text/csv"}, "say by `body` what is sent"),
        ({"headers": {"Authorization": "Bearer x"}}, "use `content_type`, `compression` or `auth`"),
        ({"auth": {"type": "basic", "username": "u", "password": "clear"}}, "must not stand in the plant file"),
        ({"auth": {"type": "kerberos"}}, "basic.*bearer"),
        ({"headers": {"X-Plant": "G\u00f6ttingen"}}, "is no value of a header"),
        ({"headers": {"X-Plant": "a\r\nb: c"}}, "is no value of a header"),
        ({"auth": {"type": "basic", "username": "u", "password": FromEnvironment("s\n")}}, "has a line break"),
        ({"ca_file": "ca.pem"}, "needs TLS; write the address as https://"),
        ({"batch": 0}, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_plant_file_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**{"url": "http://mes.example/", **options})  # type: ignore[arg-type]


WRONG = """
plant: {site: bremen}
sinks:
  - {name: mes, type: http, url: "https://mes.example/{{ machine }/samples"}
  - {name: erp, type: http, url: "https://erp.example/api", auth: {type: kerberos}}
  - {name: bde, type: http, url: "https://bde.example/api", auth: {type: bearer, token: clear}}
  - name: qs
    type: http
    url: "https://qs.example/api"
    body: |
      {"rows": [
        {% for s in samples %}
        {"v": "{{ s.tag }}"}
        {% endfor %}
      ]}
  - {name: cert, type: http, url: "https://qs.example/api", auth: {username: edge}}
"""


def test_a_check_names_the_line_and_what_to_do() -> None:
    with pytest.raises(plant.PlantError) as wrong:
        plant.parse(WRONG, "plant.yaml", Path())
    expected = [
        ("plant.yaml:4: sinks[0].url: is no template: ", "(line 1 of it)"),
        ("plant.yaml:5: sinks[1].auth: `type` must be one of ", "'basic', 'bearer', 'api_key', 'oauth2'"),
        ("plant.yaml:6: sinks[2].auth.token: a secret must not stand in the plant file", "write ${NAME} here"),
        ("plant.yaml:10: sinks[3].body: is no JSON once it is filled in: ", """line 3 column 11 (char 24): '{"v": """),
        ("plant.yaml:16: sinks[4].auth: needs `type`, which says the kind", ""),
    ]
    said = str(wrong.value).splitlines()
    assert len(said) == len(expected)
    for line, (begin, words) in zip(said, expected, strict=True):
        assert line.startswith(begin)
        assert words in line


# ---- in a plant ------------------------------------------------------------------------------------------

PLANT = """
    plant: {site: bremen}
    sinks:
      - {name: mes, type: http, url: "%s/api", batch: 10}
    journal: {path: journal.db}
    console: null
"""


async def test_killed_while_it_delivers_each_sample_arrives_once(
    mes: MesProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` of Shopfloor: requests come again under the same keys, so the MES has each sample once."""
    filled = await fill(tmp_path, "mes", 40, 25)

    def progress() -> int:
        return sum(mes.state()["keys"].values())

    await kill_and_finish(tmp_path, PLANT % mes.url, "mes", progress, monkeypatch)
    assert mes.state()["doubles"] > 0, "it must have been killed at work"
    found = Counter((sample.tag, sample.time, sample.value) for sample in mes.samples())
    wanted = Counter((sample.tag, sample.time, sample.value) for sample in filled)
    # Not `==`: what pytest would say about a thousand samples takes minutes to find.
    assert (found - wanted, wanted - found) == (Counter(), Counter()), [r["key"] for r in mes.requests()]


async def test_the_mes_is_killed_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The experiment by the book: kill the MES, watch what waits grow, bring it back: nothing lost or doubled."""
    monkeypatch.setattr(runner, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.05)
    bench = Bench(tmp_path)
    with MesProcess(tmp_path / "taken.jsonl") as mes:
        sinks = [config(f"{mes.url}/api", batch=5)]
        async with bench.running(sinks=sinks) as pipeline:
            bench.machine.give(*range(20))
            await until(lambda: len(mes.samples()) == 20, "all before")
            await until(lambda: all(not c.lag_entries for c in pipeline.components()), "answered before")
            mes.kill()
            waiting = []
            for step in range(1, 4):
                bench.machine.give(*range(20 * step, 20 * step + 20))
                await until(lambda step=step: bench.machine.acknowledged == step + 1, "journalled")  # type: ignore[misc]
                waiting.append(next(c.lag_entries for c in pipeline.components() if c.name == "mes"))
            assert waiting == [1, 2, 3]
            await until(lambda: state(pipeline, "mes") == "waiting", "the loss")
            mes.start()
            await until(lambda: all(not c.lag_entries for c in pipeline.components()), "the rest")
        assert [sample.value for sample in mes.samples()] == list(range(80))
    said = capsys.readouterr().out
    assert (said.count("sink mes is away"), said.count("sink mes is back")) == (1, 1)


async def test_a_probe_says_what_is_wrong_and_sends_nothing(mes: MesProcess) -> None:
    urls = [f"{mes.url}/api", "http://127.0.0.1:1/api", f"{mes.url.replace('http', 'https')}/api"]
    sinks = [config(url).model_copy(update={"name": f"mes-{i}"}) for i, url in enumerate(urls)]
    site = plant.parse("plant: {site: bremen}", "plant.yaml", Path())
    probed = [one async for one in probe(site.model_copy(update={"sinks": sinks}))]
    assert [one.result for one in probed[:2]] == ["ok", "away"]
    assert "cannot be reached: connection refused;" in probed[1].detail
    assert probed[2].result in ("away", "misconfigured")
    assert "TLS" in probed[2].detail
    assert not mes.requests()
