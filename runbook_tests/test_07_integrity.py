"""
Step 7 - Check integrity (all must be green) [Integrität prüfen].

Before: the restored copy is migrated and isolated.
Proves: it is the right cluster at the right moment, physically sound, referentially whole, and its
        content is what the references say. A check that could not run is not a pass.
Undo:   nothing to undo: the checks only read.
"""

from fixtures.actions.integrity import CheckGroup
from fixtures.steps import step


@step("s07.identity")
def test_it_is_the_right_cluster_and_database(run):
    """Cluster, timeline and database are production's, the instance is not."""
    assert run.perform(CheckGroup("identity")).stopping == ()


@step("s07.moment")
def test_it_stands_exactly_at_the_target(run):
    """The last commit before the target is there, the first one after it is not."""
    assert run.perform(CheckGroup("moment")).stopping == ()


@step("s07.recovery")
def test_recovery_has_ended_and_its_clock_is_right(run):
    """pg_is_in_recovery() is false and now() agrees with this machine."""
    assert run.perform(CheckGroup("recovery")).stopping == ()


@step("s07.surroundings")
def test_nothing_in_it_would_act_on_the_world(run):
    """No subscription, job or foreign server of the copy reaches out."""
    assert run.perform(CheckGroup("surroundings")).stopping == ()


@step("s07.structure")
def test_constraints_indexes_and_triggers_are_in_force(run):
    """Nothing structural is missing, invalid or switched off."""
    assert run.perform(CheckGroup("structure")).stopping == ()


@step("s07.privileges")
def test_everybody_may_do_what_they_might_before(run):
    """Roles, owners and grants are production's, none lost and none widened."""
    assert run.perform(CheckGroup("privileges")).stopping == ()


@step("s07.sequences")
def test_sequences_are_ahead_of_their_columns(run):
    """The next id is free everywhere."""
    assert run.perform(CheckGroup("sequences")).stopping == ()


@step("s07.content")
def test_counts_and_checksums_match_their_references(run):
    """Critical tables hold what the references say."""
    assert run.perform(CheckGroup("content")).stopping == ()


@step("s07.rows")
def test_rows_keep_what_they_were_promised_to_keep(run):
    """Domains, exclusions and large objects hold."""
    assert run.perform(CheckGroup("rows")).stopping == ()


@step("s07.storage")
def test_files_are_there_and_visibility_maps_are_true(run):
    """Every relation has its files, and no map calls a row visible that is not."""
    assert run.perform(CheckGroup("storage")).stopping == ()


@step("s07.physical")
def test_pages_and_indexes_are_sound(run):
    """Checksums, heaps and indexes of the critical tables hold."""
    assert run.perform(CheckGroup("physical")).stopping == ()


@step("s07.foreign_keys")
def test_no_row_refers_to_a_missing_one(run):
    """Foreign-key violations are zero."""
    assert run.perform(CheckGroup("foreign_keys")).stopping == ()


@step("s07.sanity")
def test_the_teams_own_queries_answer_right(run):
    """Every configured sanity query returns what it must."""
    assert run.perform(CheckGroup("sanity")).stopping == ()
