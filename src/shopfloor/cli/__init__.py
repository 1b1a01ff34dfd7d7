"""The command line: ``shopfloor VERB``. Exit 0 done, 1 failed, 2 the user must change something.

Each verb imports what it needs when it runs, so ``--help`` answers at once.
"""

import sys
from typing import NoReturn

import click

from shopfloor.cli.measuring import bench
from shopfloor.cli.plants import browse, check, demo, import_, probe, replay, run, schema, test
from shopfloor.cli.records import audit, dead_letters, ledger
from shopfloor.cli.service import service
from shopfloor.cli.simulate import simulate
from shopfloor.cli.topics import kafka_topics
from shopfloor.cli.traffic import chaos, load_test, send, sparkplug, tap


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="shopfloor", message="%(version)s")
def shopfloor() -> None:
    """What machines say, as durable data, honest OEE and safe control.

    Start with `shopfloor demo`, then write a plant file of your own and `shopfloor run` it.
    """


for verb in (
    *(run, check, probe, browse, replay, test, import_, demo, schema),
    *(service, simulate, ledger, dead_letters, audit, kafka_topics),
    *(sparkplug, load_test, chaos, tap, send),
    bench,
):
    shopfloor.add_command(verb)


def main() -> NoReturn:
    """Run the command line; every error of ours ends as one plain message, never as a traceback."""
    from shopfloor.samples import Misconfigured, Unavailable  # noqa: PLC0415  # keeps --help fast

    try:
        code = shopfloor(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Misconfigured as error:
        click.echo(str(error), err=True)
        code = 2
    except Unavailable as error:
        click.echo(str(error), err=True)
        code = 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away: nothing to complain about
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
