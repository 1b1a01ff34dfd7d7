"""The page of Sparkplug says of each assertion what the marks of the tests and the tables beside them say."""

from pathlib import Path

import pytest

from tools import sparkplug

PAGE = sparkplug.page()


def written(folder: Path, text: str) -> Path:
    (folder / "test_one.py").write_text(f"import pytest\n\n\n{text}", "utf-8")
    return folder


@pytest.mark.parametrize(
    "text",
    [
        '@pytest.mark.sparkplug("a", "b")\nasync def test_it(): ...',
        '@pytest.mark.sparkplug("a")\n@pytest.mark.sparkplug("b")\ndef test_it(): ...',
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.sparkplug("a", "b"))])\ndef test_it(x): ...',
    ],
)
def test_the_marks_of_a_test_are_found(text: str, tmp_path: Path) -> None:
    found = list(sparkplug.showings(written(tmp_path, text)))
    assert {one.test for one in found} == {"test_it"}
    assert {name for one in found for name in one.ids} == {"a", "b"}


def test_a_class_and_its_tests_are_named_as_pytest_names_them(tmp_path: Path) -> None:
    text = '@pytest.mark.sparkplug("a")\nclass TestIt:\n    @pytest.mark.sparkplug("b")\n    def test_it(self): ...'
    assert [one.test for one in sparkplug.showings(written(tmp_path, text))] == ["TestIt", "TestIt::test_it"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('pytestmark = pytest.mark.sparkplug("a")', "as a decorator"),
        ('@pytest.mark.sparkplug(*["a"])\ndef test_it(): ...', "as plain texts"),
        ('@pytest.mark.sparkplug(f"a{1}")\ndef test_it(): ...', "as plain texts"),
    ],
)
def test_a_mark_that_cannot_be_read_is_refused_with_its_line(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"test_one\.py:4: .*{why}"):
        list(sparkplug.showings(written(tmp_path, text)))


def test_what_names_no_assertion_is_a_problem(tmp_path: Path) -> None:
    known = sparkplug.assertions()
    shown = sparkplug.Showing(tmp_path, "test_it", 4, ("tck-id-none",))
    said = sparkplug.Evidence({"tck-id-none": [shown]}, {"tck-id-unmet": ""}, {"tck-id-reason": ""})
    found = list(sparkplug.problems(known, said))
    assert [text.split()[1] for text in found] == ["tck-id-none", "tck-id-unmet", "tck-id-reason"]
    assert not list(sparkplug.problems(known, sparkplug.evidence()))


def test_a_known_breach_counts_for_more_than_a_test_and_a_test_for_more_than_a_reason(tmp_path: Path) -> None:
    shown = [sparkplug.Showing(tmp_path, "test_it", 4, ("x",))]
    said = sparkplug.Evidence({"a": shown, "b": shown}, {"a": "why"}, {"b": "why", "c": "why"})
    assert [said.state(name) for name in "abcd"] == ["not met", "tested", "does not apply", "not yet"]


def test_each_of_the_299_assertions_has_its_line() -> None:
    known = sparkplug.assertions()
    assert len(known) == 299
    lines = [line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert sorted(f"tck-id-{name}" for name in lines) == sorted(known)
