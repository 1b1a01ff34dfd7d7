"""What the plant file may say of an OPC UA source, and what it is told when it says it wrongly."""

from pathlib import Path

import pytest

from shopfloor.plant import PlantError, parse
from shopfloor.sources.opcua import OpcUaConfig, OpcUaSource

PLANT = """
plant: {{site: bremen, timezone: Europe/Berlin}}
sources:
  - name: kepware
    type: opcua
    {endpoint}
    {more}
    tags:
      - {tag}
"""
ENDPOINT = "endpoint: opc.tcp://10.0.3.21:49320"
TAG = '{tag: press-1/PV, node: "ns=2;s=Channel1.Device1.PV", unit: bar}'


def source(tag: str = TAG, more: str = "queue: 10", endpoint: str = ENDPOINT) -> OpcUaConfig:
    plant = parse(PLANT.format(endpoint=endpoint, more=more, tag=tag), "plant.yaml", Path("/plants"), {"PW": "secret"})
    (found,) = plant.sources
    assert isinstance(found, OpcUaConfig)
    return found


def test_the_plant_file_of_the_design() -> None:
    config = source(more="security: {policy: Basic256Sha256, mode: sign_and_encrypt}")
    assert isinstance(config.build(), OpcUaSource)
    (tag,) = config.declared()
    assert (tag.tag, tag.address, tag.unit) == ("press-1/PV", "ns=2;s=Channel1.Device1.PV", "bar")
    assert config.pki == Path("/plants/data/pki")


def test_the_password_is_never_printed() -> None:
    config = source(more='username: shopfloor\n    password: "${PW}"')
    assert "secret" not in repr(config)
    assert config.server().password == "secret"  # the test's own


@pytest.mark.parametrize(
    ("tag", "more", "endpoint", "said"),
    [
        ("{tag: a, node: PV}", "queue: 10", ENDPOINT, "ns=2;s="),
        ("{tag: a, node: 'ns=2;x=1'}", "queue: 10", ENDPOINT, "no OPC UA node id"),
        ("{tag: a, node: 'ns=99999999;i=1'}", "queue: 10", ENDPOINT, "no OPC UA node id"),
        ("{tag: a, node: 'ns=2;i=pv'}", "queue: 10", ENDPOINT, "no OPC UA node id"),
        ("{tag: a, node: 'nsu=urn:plc;PV'}", "queue: 10", ENDPOINT, "no OPC UA node id"),
        ("{tag: a, node: 'ns=2;s=a', colour: red}", "queue: 10", ENDPOINT, "colour"),
        ("{tag: a, node: 'ns=2;s=a', deadband: -1}", "queue: 10", ENDPOINT, "deadband"),
        ("{tag: a, node: 'ns=2;s=a', deadband: '2 %', mode: poll}", "queue: 10", ENDPOINT, "absolute"),
        ("{tag: a, node: 'ns=2;s=a', sampling: 100}", "queue: 10", ENDPOINT, "unit"),
        ("{tag: a, node: 'i=1'}\n      - {tag: a, node: 'i=2'}", "queue: 10", ENDPOINT, "twice"),
        (TAG, "queue: 1", ENDPOINT, "queue"),
        (TAG, "mode: push", ENDPOINT, "mode"),
        (TAG, "password: secret", ENDPOINT, "${NAME}"),
        (TAG, 'password: "${PW}"', ENDPOINT, "username"),
        (TAG, "security: {policy: Basic256Sha256}", ENDPOINT, "mode"),
        (TAG, "security: {mode: sign}", ENDPOINT, "policy"),
        (TAG, "security: {policy: Basic128Rsa15, mode: sign}", ENDPOINT, "Basic256Sha256"),
        (TAG, "security: {policy: Basic256Sha256, mode: sign, certificate: a.der}", ENDPOINT, "private_key"),
        (TAG, "queue: 10", "endpoint: http://10.0.3.21", "opc.tcp://"),
        (TAG, "queue: 10", "endpoint: opc.tcp://u:p@10.0.3.21", "username"),
        (TAG, "queue: 10", "endpoint: opc.tcp://10.0.3.21:99999", "opc.tcp://"),
        (TAG, "queue: 10", "retry: 5 s", "endpoint"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(tag: str, more: str, endpoint: str, said: str) -> None:
    with pytest.raises(PlantError) as refused:
        source(tag, more, endpoint)
    assert said in str(refused.value)
    assert "plant.yaml:" in str(refused.value)


@pytest.mark.parametrize("node", ["i=2253", "ns=2;i=7", "ns=1;g=09087e75-8e5e-499b-954f-f2a9603db28a", "ns=2;s=a;b=c"])
@pytest.mark.parametrize("deadband", ["0.5", "'2 %'", "2"])
def test_node_ids_and_deadbands_that_are_right(node: str, deadband: str) -> None:
    config = source(f"{{tag: a, node: '{node}', deadband: {deadband}, sampling: 0 ms}}")
    assert config.tags[0].node == node


def test_a_hundred_thousand_tags() -> None:
    """Everything that is checked is checked once a tag: a large plant file is no problem."""
    tags = [{"tag": f"m/{i}", "node": f"ns=2;s=Channel.Device.Tag{i}"} for i in range(100_000)]
    config = OpcUaConfig.model_validate({"name": "big", "type": "opcua", "endpoint": "opc.tcp://plc", "tags": tags})
    assert len(config.declared()) == 100_000
