"""`shopfloor kafka-topics` against a real broker."""

from pathlib import Path

from click.testing import CliRunner, Result

from shopfloor.cli import shopfloor
from tests.kafka_broker import Shared, create

PLANT = """
plant: {{site: bremen}}
machines: [{{id: press-1}}, {{id: press-2}}]
sources:
  - {{name: orders, type: kafka, servers: "{server}", topics: [{{topic: {topic}.orders}}, {{topic: "{topic}.x.*"}}]}}
sinks:
  - name: bus
    type: kafka
    servers: "{server}"
    topic: "{topic}.{{machine}}"
    create: {{partitions: 3, retention: 2 d, config: {{max.message.bytes: "2000000"}}}}
"""


def ran(folder: Path, text: str, *options: str) -> Result:
    (folder / "plant.yaml").write_text(text)
    return CliRunner().invoke(shopfloor, ["kafka-topics", str(folder / "plant.yaml"), *options])


def results(result: Result) -> dict[str, str]:
    return {line.split()[0].rpartition(".")[2]: line.split()[1] for line in result.stdout.splitlines()}


def test_topics_are_made_as_the_plant_file_says_and_once(kafka: Shared, topic: str, tmp_path: Path) -> None:
    """`--check` makes none and says by its exit code that some are missing; the second time nothing is left to do."""
    text = PLANT.format(server=kafka.server, topic=topic)
    checked = ran(tmp_path, text, "--check")
    assert checked.exit_code == 1
    assert results(checked) == {"orders": "missing", "press-1": "missing", "press-2": "missing"}
    made = ran(tmp_path, text)
    assert made.exit_code == 0, made.output
    assert results(made) == {"orders": "created", "press-1": "created", "press-2": "created"}
    for options in ((), ("--check",)):
        again = ran(tmp_path, text, *options)
        assert again.exit_code == 0, again.output
        assert set(results(again).values()) == {"ok"}
    there = kafka.admin.list_topics(timeout=30).topics
    assert len(there[f"{topic}.press-1"].partitions) == 3
    assert len(there[f"{topic}.orders"].partitions) == 1


def test_topics_that_are_otherwise_are_said_and_left(kafka: Shared, topic: str, tmp_path: Path) -> None:
    create(kafka.server, f"{topic}.press-1", retention_ms="1000000")
    result = ran(tmp_path, PLANT.format(server=kafka.server, topic=topic))
    assert result.exit_code == 1
    assert results(result) == {"orders": "created", "press-1": "differs", "press-2": "created"}
    (line,) = [line for line in result.output.splitlines() if "differs" in line]
    assert "it has 2 partitions, not 3" in line
    assert "retention.ms is 1000000, not 172800000" in line
    assert "max.message.bytes is" in line
    assert len(kafka.admin.list_topics(timeout=30).topics[f"{topic}.press-1"].partitions) == 2


def test_what_cannot_be_made_is_said(kafka: Shared, topic: str, tmp_path: Path) -> None:
    text = PLANT.format(server=kafka.server, topic=topic).replace("partitions: 3", "partitions: 3, replication: 3")
    result = ran(tmp_path, text)
    assert result.exit_code == 1
    assert results(result) == {"orders": "created", "press-1": "failed", "press-2": "failed"}
    assert "Set `replication` to as many brokers as there are" in result.output


def test_machines_that_only_messages_name_are_named_by_hand(kafka: Shared, topic: str, tmp_path: Path) -> None:
    """Else it says that their topics are not there yet."""
    text = f"""
plant: {{site: bremen}}
sources:
  - {{name: fleet, type: mqtt, servers: "mqtt://broker", topics: [{{topic: "fleet/+/+", payload: telemetry}}]}}
sinks:
  - {{name: bus, type: kafka, servers: "{kafka.server}", topic: "{topic}.{{machine}}"}}
"""
    made = ran(tmp_path, text)
    assert made.exit_code == 0
    assert f"bus: machines that only messages name have no topic {topic}.{{machine}} yet: name them with" in made.output
    made = ran(tmp_path, text, "--machine", "m-1", "--machine", "m-2")
    assert (made.exit_code, results(made)) == (0, {"m-1": "created", "m-2": "created"}), made.output
    makes = ran(tmp_path, text.replace('machine}"}', 'machine}", create_topics: true}'))
    assert (makes.exit_code, makes.output) == (0, "")


def test_two_who_want_a_topic_otherwise_are_told(kafka: Shared, topic: str, tmp_path: Path) -> None:
    text = PLANT.format(server=kafka.server, topic=topic)
    text += f"  - {{name: other, type: kafka, servers: '{kafka.server}', topic: {topic}.press-1}}\n"
    result = ran(tmp_path, text)
    assert "two components want topic" in str(result.exception)


def test_a_plant_without_kafka_has_nothing_to_do(tmp_path: Path) -> None:
    result = ran(tmp_path, "plant: {site: bremen}\nsources: []\n")
    assert (result.exit_code, result.output) == (0, "the plant file names no topics of Kafka\n")
