"""How pgBackRest is called, as far as that needs no pgBackRest."""

from pathlib import Path

from fixtures.providers.pgbackrest.tool import Tool
from fixtures.settings import PgBackRestProvider


def test_variables_of_productions_repository_do_not_reach_the_new_one() -> None:
    """A variable overrides the file: the new repository would be opened with the old one's keys."""
    settings = PgBackRestProvider(
        stanza="shop",
        env=("PGBACKREST_REPO1_S3_KEY_SECRET",),
        new_stanza="restored",
        new_config=Path("/new.conf"),
    )

    new = Tool(settings=settings, user=None).new().settings

    assert (new.stanza, new.config, new.env) == ("restored", Path("/new.conf"), ())
