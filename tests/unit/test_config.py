"""Configuration: every error at once, with line and nearest key; secrets only by name."""

from pathlib import Path

import pytest

from fixtures.config import load_config, merge, secret_from_environment, secret_from_file
from fixtures.errors import ConfigError

COMPLETE = """\
[production]
name = "shop"
dsn = "host=db.internal user=admin dbname=shop"
app_role = "shop_app"

[[databases]]
name = "shop"
critical_tables = ["public.orders"]

[provider]
name = "basebackup"

[provider.basebackup]
base_backups = "backups"
archive = "/srv/archive"

[restore]
directory = "/srv/restore"

[roles]
owner = "Olga"
scribe = "Sam"
reviewer = "Rita"

[app]
served_url = "http://127.0.0.1:1/"
maintenance = { kind = "file", path = "/srv/maintenance" }
connections = [{ kind = "file", path = "/srv/dsn", database = "shop" }]

[canary]
command = ["app"]
routes = [{ path = "/" }]

[monitoring]
metrics_url = "http://127.0.0.1:1/metrics"

[safety_copy]
directory = "/srv/safety"

[ticket]
directory = "tickets"
"""


@pytest.fixture
def write(tmp_path):
    """Write a configuration file and return its path."""

    def put(text: str) -> Path:
        path = tmp_path / "runbook.toml"
        path.write_text(text)
        return path

    return put


def test_a_complete_file_loads_with_paths_from_its_folder(write):
    """Relative paths are taken from the file's folder."""
    path = write(COMPLETE)
    settings = load_config(path).settings

    assert settings.provider.basebackup.base_backups == path.parent / "backups"
    assert settings.objectives.rpo.total_seconds() == 15 * 60


def test_all_errors_come_at_once_with_their_lines(write):
    """An unknown key names the nearest; a missing one and a bad duration stand beside it."""
    text = COMPLETE.replace('owner = "Olga"', 'ownr = "Olga"').replace(
        "[canary]", '[lock]\nproof_window = "soon"\n\n[canary]'
    )

    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    fact = caught.value.fact
    assert "runbook.toml:21: unknown key roles.ownr; did you mean 'owner'?" in fact
    assert "roles.owner is missing" in fact
    assert "lock.proof_window: 'soon' is not a duration" in fact


def test_the_reviewer_is_not_the_owner(write):
    """One person cannot be both."""
    with pytest.raises(ConfigError, match="Reviewer must not be the Owner"):
        load_config(write(COMPLETE.replace('"Rita"', '"Olga"')))


def test_a_password_in_the_dsn_is_refused_and_not_repeated(write):
    """The message does not hold the password."""
    with pytest.raises(ConfigError) as caught:
        load_config(write(COMPLETE.replace("user=admin", "user=admin password=hunter2xyz")))
    assert "hunter2xyz" not in caught.value.block()


def test_no_file_and_no_toml_are_told_apart(write, tmp_path):
    """Both say where and what next."""
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(write("[production\n"))


def test_bindings_merge_tables_and_replace_arrays():
    """Tables merge; arrays and values are replaced."""
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}

    assert merge(base, {"a": {"y": [3]}, "c": 2}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": 2}


def test_a_missing_variable_is_named(monkeypatch):
    """The hint is the command to run."""
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)

    with pytest.raises(ConfigError, match="SHOP_PASSWORD is not set"):
        secret_from_environment("SHOP_PASSWORD")


def test_a_secret_file_others_can_read_is_refused(tmp_path):
    """Mode 0644 is refused, 0600 is read."""
    file = tmp_path / "secret"
    file.write_text("s3cret-value\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        secret_from_file(file)
    file.chmod(0o600)

    assert secret_from_file(file).reveal() == "s3cret-value"


# -- what is not set yet -----------------------------------------------------------------------------


def test_a_key_that_is_not_set_is_refused_with_its_line(write):
    """What a first configuration leaves open stands beside every other error, in the file's order."""
    text = COMPLETE.replace('"Olga"', '"CHANGE ME owner"').replace('["app"]', '["CHANGE ME"]')
    path = write(text.replace('archive = "/srv/archive"', "archive = 3"))

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    lines = [line.strip() for line in caught.value.fact.splitlines()[1:]]
    assert lines[0].startswith("runbook.toml:15: provider.basebackup.archive:")
    assert lines[1:] == [
        "runbook.toml:21: roles.owner is not set yet (CHANGE ME)",
        "runbook.toml:31: canary.command is not set yet (CHANGE ME)",
    ]


def test_who_reads_none_of_it_may_do_without(write):
    """The gaps stay known, by subtree; one outside what may lack is refused all the same."""
    path = write(COMPLETE.replace('["app"]', '["CHANGE ME"]').replace('path = "/"', 'path = "CHANGE ME"'))

    config = load_config(path, may_lack={"canary"})

    assert [gap.key for gap in config.gaps] == ["canary.command", "canary.routes.0.path"]
    assert [gap.place for gap in config.gaps_in("canary.routes")] == ["runbook.toml:32"]
    assert config.gaps_in("can") == ()
    with pytest.raises(ConfigError, match="is not set yet"):
        load_config(path, may_lack={"app"})


@pytest.mark.parametrize(
    ("provider", "place"),
    [
        ('name = "basebackup"', ""),
        ('name = "neon"\n[provider.neon]\napi_key_env = "K"\nproject = "p"\nbranch = "b"', "history"),
        (
            'name = "rds"\n[provider.rds]\nregion = "r"\ninstance = "i"\npassword_env = "P"\nisolation_security_groups = ["sg-0"]',
            "AWS's automated backups",
        ),
    ],
)
def test_a_service_protects_its_copy_without_folders(write, provider, place):
    """Else the gate before the cutover says UNPROTECTED of what the service backs up."""
    text = COMPLETE.replace('name = "basebackup"', provider)
    settings = load_config(write(text)).settings
    assert (place in settings.protection) if place else settings.protection == ""


@pytest.mark.parametrize(("state", "said"), [("down", "in_place needs"), ("damaged", "")])
def test_a_fenced_neon_branch_gives_its_host_to_nobody(write, state, said):
    """Its fence disables the compute that in_place would lead to the copy."""
    neon = 'name = "neon"\n[provider.neon]\napi_key_env = "K"\nproject = "p"\nbranch = "b"\nin_place = true'
    text = COMPLETE.replace('name = "basebackup"', neon).replace(
        "[production]\n", f'[production]\nstate = "{state}"\n'
    )
    if not said:
        assert load_config(write(text)).settings.production.state == state
        return
    with pytest.raises(ConfigError, match=said):
        load_config(write(text))


@pytest.mark.parametrize(
    ("place", "endpoint", "said"),
    [
        ("s3:/backups", "https://store.internal", "'s3:/backups' is no place on an object store"),
        ("https://backups", "https://store.internal", "'https://backups' is no place on an object store"),
        ("s3://backups", "http://store.internal:9000", "must be https://HOST"),
        ("s3://backups", "https://store.internal/backups", "must be https://HOST"),
    ],
)
def test_a_slip_in_an_address_is_no_folder_and_said_in_words(write, place, endpoint, said):
    """Before anything is asked of a store."""
    own = f'base_backups = "{place}"\ns3 = {{ endpoint_url = "{endpoint}" }}'
    with pytest.raises(ConfigError, match=said):
        load_config(write(COMPLETE.replace('base_backups = "backups"', own)))


@pytest.mark.parametrize(
    ("archive", "base_backups", "said"),
    [
        ("s3://new/wal", "s3://new/base", ""),
        ("s3://old/walker", "s3://old/based", ""),
        ("s3://old/wal/below", "s3://new/base", "overlaps with s3://old/wal"),
        ("s3://new/wal", "s3://old", "overlaps with s3://old/"),
        ("s3://new/wal", "s3://new/wal", "overlaps with s3://new/wal"),
        ("s3://new/wal", "/srv/base", "both be on S3, or both be folders"),
    ],
)
def test_new_places_on_s3_are_both_there_and_none_is_productions(write, archive, base_backups, said):
    """Two timelines in one archive lose commits."""
    text = COMPLETE.replace('"backups"', '"s3://old/base"').replace('"/srv/archive"', '"s3://old/wal"')
    text += f'\n[commission]\narchive = "{archive}"\nbase_backups = "{base_backups}"\n'
    if said:
        with pytest.raises(ConfigError, match=said):
            load_config(write(text))
        return
    settings = load_config(write(text)).settings
    assert settings.protection == f"archive {archive}, base backups {base_backups}"
    own = '[provider.command]\nargv = ["own"]\n'
    with pytest.raises(ConfigError, match="no places on S3"):
        load_config(write(text.replace('name = "basebackup"', 'name = "command"') + own))
