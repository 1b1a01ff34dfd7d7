"""Further databases for tests and benches, each with its files in a folder of the caller's."""

import os
from pathlib import Path
from typing import Final

import shopfloor
from shopfloor.testing.programs import ServerProcess, free_port, missing, require_program

_INFLUX: Final = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
[http]
bind-address = "127.0.0.1:{port}"
auth-enabled = {auth}
log-enabled = false
[monitor]
store-enabled = false
"""


class InfluxDb(ServerProcess):
    """A real InfluxDB 1 on a free loopback port; ``url`` is its address."""

    HOW_TO_INSTALL: Final = "apt-get install influxdb"

    def __init__(self, folder: Path, *, auth: bool = False) -> None:
        """Write its configuration into ``folder``, which must exist; ``auth``: users have to log in."""
        program = require_program("influxd", self.HOW_TO_INSTALL)
        port = free_port()
        file = folder / "influxdb.conf"
        file.write_text(_INFLUX.format(folder=folder, port=port, rpc=free_port(), auth=str(auth).lower()))
        super().__init__([program, "-config", file], port, environment={"HOME": str(folder)})
        self.url = f"http://127.0.0.1:{port}"


class MongoPeer(ServerProcess):
    """mongo-java-server, which stores behind MongoDB's wire protocol, on a free loopback port; ``url`` is its address.

    It is built in a checkout of Shopfloor only (tests/peers/mongo).
    """

    HOW_TO_INSTALL: Final = "make test, or `mvn -q compile` in tests/peers/mongo"
    BUILT: Final = Path(shopfloor.__file__).parents[2] / "tests" / "peers" / "mongo" / "target"

    def __init__(self, folder: Path | None = None, *, memory: str = "256m") -> None:
        """What it answers for is in a file of ``folder``, also when it is killed; without one in memory only.

        ``memory``: of the Java machine.
        """
        java = require_program("java", "apt-get install openjdk-17-jdk-headless")
        if not (self.BUILT / "classes").is_dir():
            missing("the peer mongo-java-server is not built", self.HOW_TO_INSTALL)
        port = free_port()
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Xmx{memory}")
        classes = f"{self.BUILT / 'classes'}{os.pathsep}{self.BUILT / 'lib'}/*"
        file = [] if folder is None else [str(folder / "mongo.db")]
        super().__init__([java, *quick, "-cp", classes, "peer.Mongo", str(port), *file], port, within=120)
        self.url = f"mongodb://127.0.0.1:{port}"
