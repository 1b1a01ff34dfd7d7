"""Real databases for experiments and tests: where their programs are, and empty data for a server of one's own.

Nothing here starts a server, and none that runs is touched.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shopfloor.samples import Misconfigured

POSTGRES: Final = "apt-get install postgresql"
MARIADB: Final = "apt-get install mariadb-server"
_ADMIN_PATHS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Debian puts servers there; the PATH of an ordinary user leaves them out."""


class NotInstalled(Misconfigured):
    """A program is not there; the text names it and says how to install it."""

    def __init__(self, what: str, how_to_install: str) -> None:
        """``what`` is missing, in words."""
        super().__init__(f"{what}; install it with: {how_to_install}")


def found(name: str) -> str | None:
    """The path of a program; None where it is not installed."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_ADMIN_PATHS)))


def program(name: str, how_to_install: str) -> str:
    """The path of a program. Raises NotInstalled."""
    path = found(name)
    if path is None:
        raise NotInstalled(f"{name} is not installed", how_to_install)
    return path


def postgres_programs() -> Path:
    """The folder of the newest PostgreSQL's programs: Debian puts them beside all paths. Raises NotInstalled."""
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return there[-1].parent if there else Path(program("initdb", POSTGRES)).resolve().parent


def postgres_cluster(home: Path, *options: str | Path) -> list[str | Path]:
    """Make an empty cluster in ``home``/data, with further ``options`` of initdb; the command that serves it.

    root is no user for it: then it belongs to, and is served by, the user postgres. Raises Misconfigured.
    """
    programs, as_user = postgres_programs(), _as("postgres", home)
    where: list[str | Path] = ["-D", home / "data"]
    _made(
        "PostgreSQL",
        [*as_user, programs / "initdb", *where, "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8",
         *options],
    )  # fmt: skip
    return [*as_user, programs / "postgres", *where]


def mariadb_data(home: Path, *options: str, login: str, user: str = "root") -> list[str | Path]:
    """Make an empty data directory in ``home``/data, with these ``options`` of the server; the command that serves it.

    ``login`` is how its user root logs in: ``normal`` (without a password) or ``socket``. Where this computer's root
    asks, it is served by ``user``, who then owns ``home``. Raises Misconfigured.
    """
    install, server = program("mariadb-install-db", MARIADB), program("mariadbd", MARIADB)
    common = ["--no-defaults", f"--datadir={home / 'data'}", f"--tmpdir={home}"]
    if os.geteuid() == 0:
        _give(home, user)
        options = (*options, f"--user={user}")
    _made("MariaDB", [install, *common, f"--auth-root-authentication-method={login}", "--skip-test-db", *options])
    return [server, *common, *options]


def _as(user: str, home: Path) -> list[str | Path]:
    """What makes root start a program as this user, to whom ``home`` is given; nothing for all others."""
    if os.geteuid() != 0:
        return []
    there = _give(home, user)
    setpriv = program("setpriv", "apt-get install util-linux")
    return [setpriv, f"--reuid={there.pw_uid}", f"--regid={there.pw_gid}", "--clear-groups"]


def _give(home: Path, user: str) -> pwd.struct_passwd:
    try:
        there = pwd.getpwnam(user)
    except KeyError:
        raise Misconfigured(
            f"root starts databases as the user {user}, which there is not; add it, or do this as an ordinary user"
        ) from None
    os.chown(home, there.pw_uid, there.pw_gid)
    return there


def _made(what: str, command: Sequence[str | Path]) -> None:
    # from / : the user who serves it may not be allowed where this process stands
    done = subprocess.run(  # noqa: S603  # a fixed program
        command, check=False, capture_output=True, text=True, errors="replace", cwd="/"
    )
    if done.returncode:
        last = "\n".join([*done.stdout.splitlines(), *done.stderr.splitlines()][-10:])
        raise Misconfigured(f"no data could be made for a {what} of our own; it said:\n{last}")
