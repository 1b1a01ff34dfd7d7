"""Data for a database of one's own: where it cannot be made, it is said why and what to do."""

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.samples import Misconfigured
from shopfloor.simulators import databases
from shopfloor.testing.programs import MariaDb, require_program, skipped


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the server's user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="shopfloor-databases-test-") as folder:
        yield Path(folder)


def test_a_program_that_is_not_there_is_named_with_how_to_install_it() -> None:
    with pytest.raises(databases.NotInstalled, match="no-such-server is not installed; install it with: get it"):
        databases.program("no-such-server", "get it")


def test_what_the_server_said_is_said(home: Path) -> None:
    """Where something is there already, nothing is written over."""
    try:
        databases.postgres_programs()
    except databases.NotInstalled as error:
        skipped(str(error))
    (home / "data").mkdir()
    (home / "data" / "mine").write_text("keep it")
    (home / "data").chmod(0o755)
    with pytest.raises(Misconfigured, match="no data could be made for a PostgreSQL of our own; it said:") as raised:
        databases.postgres_cluster(home)
    assert str(home / "data") in str(raised.value), "which initdb named"
    assert (home / "data" / "mine").read_text() == "keep it"


def test_root_does_not_serve_databases(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives them to another user, and says so where there is none."""
    require_program("mariadbd", MariaDb.HOW_TO_INSTALL)
    require_program("mariadb-install-db", MariaDb.HOW_TO_INSTALL)

    def nobody(_: str) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    with pytest.raises(Misconfigured, match="root starts databases as the user mysql, which there is not"):
        databases.mariadb_data(home, login="socket", user="mysql")
