"""A plant as a service of systemd: a user of its own, logs in the system's journal, started again when it fails."""

import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import click

from shopfloor.plant import Plant, load
from shopfloor.samples import Misconfigured, Unavailable

MARK: Final = "# Written by `shopfloor service install`; change it by installing again."
LOWEST_FREE_PORT: Final = 1024
_UNITS: Final = Path("etc/systemd/system")
_USERS: Final = Path("etc/sysusers.d")


def unit(plant: Path, loaded: Plant, user: str, environment: Path | None) -> str:
    """The text of the unit file."""
    words = (sys.executable, "-m", "shopfloor", "run", str(plant))
    command = " ".join(_quoted(word).replace("$", "$$") for word in words)
    lines = [
        MARK,
        "[Unit]",
        f"Description=Shopfloor, {loaded.plant.site}",
        "Wants=network-online.target",
        "After=network-online.target time-sync.target",
        "",
        "[Service]",
        "Type=notify",
        f"User={user}",
        f"ExecStart={command}",
        *([f"EnvironmentFile={_plain(environment)}"] if environment else []),
        "Environment=PYTHONUNBUFFERED=1",
        "Restart=always",
        "RestartSec=5",
        "# 2: the plant file must be changed first",
        "RestartPreventExitStatus=2",
        "WatchdogSec=60",
        "TimeoutStartSec=120",
        "TimeoutStopSec=60",
        "NoNewPrivileges=yes",
        "PrivateTmp=yes",
        "ProtectSystem=full",
        "ProtectControlGroups=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        *(f"ReadWritePaths={_quoted(f'-{folder}')}" for folder in folders(loaded)),
        *_privileges(loaded),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def folders(loaded: Plant) -> list[Path]:
    """Where the plant keeps what it writes."""
    stores = [loaded.journal.path, getattr(loaded.historian, "path", None)]
    return sorted({path.parent for path in stores if path is not None})


def install(plant: Path, name: str, user: str, environment: Path | None, root: Path | None) -> None:
    """Write the unit and its user, start it now and at each boot. Raises Misconfigured, Unavailable.

    With ``root`` everything is put below that folder, an image of a system that is not running, and nothing is started.
    """
    plant = plant.resolve()
    environment = environment and environment.resolve()
    loaded = load(plant, {**os.environ, **(_variables(environment) if environment else {})})
    _may()
    base = root or Path("/")
    file = base / _UNITS / f"{name}.service"
    if file.exists() and not file.read_text("utf-8", "replace").startswith(MARK):
        raise Misconfigured(f"{file} is there and not ours; give the service another name: --name shopfloor-line-1")
    if root is None:
        _readable((Path(sys.executable), Path(sys.executable).resolve(), plant))
    home = folders(loaded)[0]
    users = base / _USERS / f"{name}.conf"
    _write(users, f'{MARK}\nu {user} - "Shopfloor" {_quoted(str(home))}\n')
    _do("systemd-sysusers", *_rooted(root), str(users))
    for folder in folders(loaded):
        _own(base / folder.relative_to("/"), user, base)
    _write(file, unit(plant, loaded, user, environment))
    if root is None:
        _do("systemctl", "daemon-reload")
        _do("systemctl", "enable", "--now", f"{name}.service")
        click.echo(f"{name} runs and starts at each boot; its log: journalctl -u {name} -f")
    else:
        _do("systemctl", *_rooted(root), "enable", f"{name}.service")
        click.echo(f"{name} is installed in {root} and starts when that system does")


def uninstall(name: str, root: Path | None) -> None:
    """Stop it and take its unit away; user and data stay. Raises Misconfigured, Unavailable."""
    _may()
    base = root or Path("/")
    file = base / _UNITS / f"{name}.service"
    if not file.exists() or not file.read_text("utf-8", "replace").startswith(MARK):
        raise Misconfigured(f"{file} is not there or not ours; `systemctl list-units 'shopfloor*'` lists what there is")
    _do("systemctl", *_rooted(root), "disable", *(() if root else ("--now",)), f"{name}.service")
    file.unlink()
    (base / _USERS / f"{name}.conf").unlink(missing_ok=True)
    if root is None:
        _do("systemctl", "daemon-reload")
    click.echo(f"{name} is no service any more; its user and its data are still there")


def status(name: str) -> int:
    """Show how it is; systemctl's exit code: 0 when it runs, 3 when it does not, 4 when there is none."""
    return subprocess.run([_program("systemctl"), "status", "--no-pager", f"{name}.service"], check=False).returncode  # noqa: S603  # a fixed program


def _may() -> None:
    if os.geteuid() != 0:
        again = shlex.join([sys.executable, "-m", "shopfloor", *sys.argv[1:]])
        raise Misconfigured(f"only root may install services; run: sudo {again}")


def _readable(files: Iterable[Path]) -> None:
    """Say it now when another user cannot reach a file, which systemd would only put into its log."""
    for file in files:
        if file.is_relative_to("/tmp"):  # noqa: S108  # not used, refused
            raise Misconfigured(f"{file} is below /tmp, which a service does not see; move it, for example below /opt")
        for place in (*file.parents, file):
            wanted = stat.S_IXOTH if place.is_dir() else stat.S_IROTH
            if not place.stat().st_mode & wanted:
                raise Misconfigured(
                    f"{place} is not open to other users, so the service's user cannot reach {file}; move it, for "
                    f"example below /opt or /srv, or run: chmod o+{'x' if place.is_dir() else 'r'} {place}"
                )


def _own(folder: Path, user: str, base: Path) -> None:
    """Make the folder the user's; one that is there already must be so, it may hold what is others'."""
    passwd = (line.split(":") for line in (base / "etc/passwd").read_text("utf-8").splitlines())
    uid, gid = next((int(parts[2]), int(parts[3])) for parts in passwd if parts[0] == user)
    if not folder.exists():
        folder.mkdir(parents=True)
        os.chown(folder, uid, gid)
    files = [folder, *(path for path in folder.iterdir() if path.is_file())]
    others = [path for path in files if path.stat().st_uid != uid]
    if others:
        raise Misconfigured(
            f"{others[0]} does not belong to {user}, as whom the service runs; if only Shopfloor uses this folder, "
            f"run: chown -R {user}: {folder}"
        )


def _variables(file: Path) -> Mapping[str, str]:
    """The variables that a file sets. Raises Misconfigured."""
    try:
        return _variables_of(file.read_text("utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} cannot be read: {error}") from error


def _variables_of(text: str, file: Path) -> Mapping[str, str]:
    """NAME=value lines as systemd reads them; no error shows a value. Raises Misconfigured."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not name or name[0] in "#;":
            continue
        try:
            parts = shlex.split(value)
        except ValueError as error:
            raise Misconfigured(f"{file}:{number}: {error}") from error
        if not equals:
            raise Misconfigured(f"{file}:{number}: write NAME=value")
        found[name.strip()] = " ".join(parts)
    return found


def _privileges(loaded: Plant) -> list[str]:
    """A console on port 80 or 443 needs one privilege, all others none."""
    port = int(loaded.console.listen.rpartition(":")[2]) if loaded.console else LOWEST_FREE_PORT
    if port >= LOWEST_FREE_PORT:
        return []
    return ["AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"]


def _plain(path: Path) -> str:
    """A path that is the whole of a line."""
    return _printable(str(path)).replace("%", "%%")


def _quoted(word: str) -> str:
    """A word among others."""
    safe = _printable(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{safe}"' if any(c.isspace() or c in "\"'\\;" for c in word) else safe


def _printable(text: str) -> str:
    if not text.isprintable():
        raise Misconfigured(f"{text!r} has characters that systemd cannot take; rename it")
    return text


def _rooted(root: Path | None) -> tuple[str, ...]:
    return (f"--root={root.resolve()}",) if root else ()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Misconfigured(
            f"{name} is not there: services are systemd's; without it start `shopfloor run` by what you have"
        )
    return found


def _do(program: str, *words: str) -> None:
    done = subprocess.run([_program(program), *words], capture_output=True, text=True, check=False)  # noqa: S603  # a fixed program
    if done.returncode:
        raise Unavailable(f"{program} {shlex.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise Misconfigured(f"{file} cannot be written: {error.strerror}") from error
