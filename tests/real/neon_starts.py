"""A process that restores through the provider `neon`, to be killed by a test: `python -m tests.real.neon_starts FILE`."""

import json
import sys
from datetime import datetime
from pathlib import Path

from fixtures.postgres.session import Endpoint
from fixtures.providers.base import Cluster, Site, Target, TargetKind
from fixtures.providers.neon.backend import Neon
from fixtures.settings import NeonProvider


def main(file: Path) -> None:
    """Restore what a file describes."""
    told = json.loads(file.read_text())
    home = Path(told["home"])
    site = Site(
        run_id=told["run_id"], directory=home, host="", port=0, sockets=home, logs=home / "logs", binaries=None,
        cluster=Cluster(system_identifier=told["system_identifier"]), timeout_s=60,
        production=lambda: Endpoint.parse(told["production"]),
    )  # fmt: skip
    moment = datetime.fromisoformat(told["at"])
    own = Neon(NeonProvider(**told["settings"]), site)
    own.start(own.plan(Target(kind=TargetKind.TIME, value=told["at"], at=moment)), lambda _: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
