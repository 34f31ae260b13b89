"""Roles, owners and grants are compared although production is down, and what cannot be is named."""

from dataclasses import replace

from fixtures.checks import content, privileges
from fixtures.checks.taking import take_manifest
from fixtures.evidence import Verdict
from fixtures.providers.base import Target, TargetKind
from tests.real import checks_lab
from tests.real.checks_lab import NewSubject, found, home_of, script

template, lab = checks_lab.template, checks_lab.lab
own_server, subject_of = checks_lab.own_server, checks_lab.subject_of
OPEN = Verdict.COULD_NOT_VERIFY


def test_roles_are_held_against_production_at_the_lock(subject_of: NewSubject) -> None:
    """Equal ones pass; a lost role, or one that may more, is shown; the rest is named, and never passes."""
    script(subject_of().restored, "CREATE ROLE clerk LOGIN", "CREATE ROLE staff", "GRANT staff TO clerk")
    subject = subject_of()
    whole = {check.id: check for check in privileges.check(subject)}
    script(subject.restored, "REVOKE staff FROM clerk", "ALTER ROLE clerk CREATEDB")
    changed = {check.id: check for check in privileges.check(subject)}
    lifted = replace(subject, lifted=frozenset({("login", "clerk")}))
    left_out = found(privileges.check(lifted), "privileges.roles")
    script(subject.restored, "DROP ROLE clerk", "DROP ROLE staff")

    assert {name for name, check in whole.items() if check.verdict is Verdict.PASS} == {
        "privileges.roles", "privileges.memberships",
    }  # fmt: skip
    assert {check.verdict for check in whole.values()} == {Verdict.PASS, OPEN}
    assert (changed["privileges.roles"].verdict, changed["privileges.roles"].actual) == (OPEN, "clerk")
    assert changed["privileges.memberships"].actual == "clerk in staff"
    assert left_out.verdict is Verdict.PASS
    assert found(privileges.check(replace(subject, capture=None)), "privileges.").verdict is OPEN


def test_everything_is_held_against_a_manifest(subject_of: NewSubject) -> None:
    """At its own moment a difference is a fault; at another one it may be rightful, and is shown."""
    subject = subject_of()
    manifest = take_manifest(subject.restored, subject.databases, jobs=2, wait_s=20)
    here = Target(kind=TargetKind.NAME, value=manifest.restore_point)
    at_it = replace(subject, manifest=manifest, target=here)
    later = replace(subject, manifest=manifest)
    whole = privileges.check(later)
    script(
        home_of(subject), "GRANT DELETE ON users TO PUBLIC", "ALTER DATABASE postgres SET work_mem = '1MB'"
    )
    changed = {check.id.partition(":")[0]: check.verdict for check in privileges.check(later)}
    wrong = {check.id.partition(":")[0] for check in privileges.check(at_it) if check.verdict is Verdict.FAIL}
    script(subject.restored, "ALTER DATABASE postgres RESET work_mem")

    open_ones = {"privileges.passwords"}  # a manifest keeps none
    assert {check.id for check in whole if check.verdict is not Verdict.PASS} == open_ones
    assert {name for name, verdict in changed.items() if verdict is not Verdict.PASS} == {
        *open_ones, "privileges.settings", "privileges.grants",
    }  # fmt: skip
    assert Verdict.FAIL not in changed.values()
    assert wrong == {"privileges.settings", "privileges.grants"}


def test_a_missing_database_is_answered_once_by_each_check(subject_of: NewSubject) -> None:
    """No id stands for two answers, with critical tables and without."""
    subject = subject_of()
    gone = subject.databases[0].model_copy(update={"name": "gone"})
    for tables in (gone.critical_tables, ()):
        databases = (gone.model_copy(update={"critical_tables": tables}),)
        names = [check.id for check in content.check(replace(subject, databases=databases))]
        assert sorted(set(names)) == sorted(names)
        assert "content:gone" in names
