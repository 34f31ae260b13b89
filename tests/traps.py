"""
Which test springs which trap on which provider: what a store, or who asks it, can do to a restore.

A provider that a trap does not concern says why. Held to the tests that are there by tests/unit/test_traps.py;
a new provider has no line here until it has its tests.
"""

from typing import Final

_CONTRACT: Final = "test_providers"
_S3: Final = "test_provider_pgbackrest_s3"
_FOLDER: Final = "its store is a folder: no credentials, no service"
_OWN: Final = "the vendor keeps it: there is nothing of a store to look at"
_FOLDERS: Final = ("basebackup", "barman")
_AWS: Final = ("rds", "aurora")
_REPLAYING: Final = (
    "basebackup",
    "barman",
    "basebackup-s3",
    "barman_cloud",
    "pgbackrest",
    "pgbackrest-s3",
    "walg",
)
_LOCAL: Final = (*_REPLAYING, "dump")

#: trap -> provider's lab, or its name -> "module::test", or the reason why there is none
TRAPS: Final[dict[str, dict[str, str]]] = {
    "wrong credentials": {
        **dict.fromkeys(_FOLDERS, _FOLDER),
        "basebackup-s3": "test_basebackup_s3::test_a_wrong_place_or_secret_is_named",
        "barman_cloud": "test_provider_barman_cloud::test_what_cannot_be_asked_is_said",
        "pgbackrest-s3": f"{_S3}::test_a_store_that_refuses_says_what_and_what_to_do",
        "dump": "test_provider_dump::test_a_store_that_refuses_is_named",
        "walg": "test_provider_walg::test_a_secret_goes_by_environment_and_is_never_shown",
        "neon": "test_provider_neon::test_a_wrong_key_and_a_wrong_branch_are_told",
        **dict.fromkeys(_AWS, "test_provider_rds::test_who_may_not_ask_is_told_before_anything_is_made"),
    },
    "credentials that only read restore": {
        **dict.fromkeys(_FOLDERS, _FOLDER),
        "basebackup-s3": "test_basebackup_s3::test_credentials_that_only_read_are_enough",
        "barman_cloud": "test_provider_barman_cloud::test_it_restores_with_keys_that_can_only_read_and_keeps_them_nowhere",
        "pgbackrest-s3": f"{_S3}::test_it_restores_with_credentials_that_can_only_read",
        "dump": "test_provider_dump::test_a_set_on_s3_is_restored",
        "walg": "simulated over a folder, which is only read: see the credentials of the new prefix",
        "neon": "test_provider_neon::test_a_key_that_may_not_leaves_at_most_one_branch_to_go_on_with",
        **dict.fromkeys(
            _AWS, "test_provider_rds::test_credentials_that_fail_on_the_way_leave_one_copy_to_go_on_with"
        ),
    },
    "credentials that only read protect nothing": {
        **dict.fromkeys(
            ("basebackup", "dump"), "the new places are those of [commission]: see basebackup-s3"
        ),
        "barman": "test_provider_barman::test_a_new_server_in_somebodys_folder_is_refused",
        "basebackup-s3": "test_basebackup_s3::test_a_new_prefix_protects_the_copy",
        "barman_cloud": "test_provider_barman_cloud::test_a_new_place_protects_the_copy",
        "pgbackrest-s3": f"{_S3}::test_a_new_stanza_nobody_may_write_is_refused_with_the_stores_word",
        "walg": "test_provider_walg::test_the_copy_gets_a_prefix_of_its_own",
        **dict.fromkeys(("neon", *_AWS), _OWN),
    },
    "expired token before the run": {
        **dict.fromkeys(_FOLDERS, _FOLDER),
        **dict.fromkeys(
            ("basebackup-s3", "barman_cloud", "pgbackrest-s3"),
            f"{_CONTRACT}::test_a_token_that_expired_before_the_run_is_named",
        ),
        "dump": "test_provider_dump::test_a_token_that_expires_is_an_outage",
        "walg": "test_provider_walg::test_a_token_that_expires_is_an_outage_wherever_it_does",
        "neon": "test_provider_neon::test_a_wrong_key_and_a_wrong_branch_are_told",
        **dict.fromkeys(_AWS, "test_provider_rds::test_who_may_not_ask_is_told_before_anything_is_made"),
    },
    "expired token on the way": {
        **dict.fromkeys(_FOLDERS, _FOLDER),
        **dict.fromkeys(
            ("basebackup-s3", "barman_cloud", "pgbackrest-s3"),
            f"{_CONTRACT}::test_a_token_that_expires_on_the_way_is_an_outage",
        ),
        "dump": "test_provider_dump::test_a_token_that_expires_is_an_outage",
        "walg": "test_provider_walg::test_a_token_that_expires_is_an_outage_wherever_it_does",
        "neon": "test_provider_neon::test_a_key_that_is_revoked_within_a_restore",
        **dict.fromkeys(
            _AWS, "test_provider_rds::test_credentials_that_fail_on_the_way_leave_one_copy_to_go_on_with"
        ),
    },
    "wrong bucket, stanza, server, branch or instance": {
        "basebackup": "test_provider_basebackup::test_an_unreadable_store_is_refused",
        "barman": "test_provider_barman::test_what_cannot_be_asked_is_said",
        "basebackup-s3": "test_basebackup_s3::test_a_wrong_place_or_secret_is_named",
        "barman_cloud": "test_provider_barman_cloud::test_what_cannot_be_asked_is_said",
        "pgbackrest-s3": f"{_S3}::test_a_stanza_that_is_not_there_is_told_from_those_that_are",
        "dump": "test_provider_dump::test_a_store_that_refuses_is_named",
        "walg": "test_provider_walg::test_a_storage_of_another_cluster_and_an_empty_one_are_told_apart",
        "neon": "test_provider_neon::test_a_wrong_key_and_a_wrong_branch_are_told",
        **dict.fromkeys(_AWS, "test_provider_rds::test_a_source_that_is_not_there_is_named"),
    },
    "wrong encryption key": {
        **dict.fromkeys(("basebackup", "basebackup-s3", "dump"), "it has no encryption of its own"),
        "barman": "no catalogue that Barman encrypts was tried",
        "barman_cloud": "a backup that says it is encrypted is refused (RB108); none was tried",
        "pgbackrest-s3": f"{_S3}::test_a_store_that_refuses_says_what_and_what_to_do",
        "walg": "test_provider_walg::test_a_secret_goes_by_environment_and_is_never_shown",
        "neon": _OWN,
        **dict.fromkeys(_AWS, "test_provider_rds::test_what_aws_refuses_is_an_error_of_the_catalogue"),
    },
    "clock skew": {
        **dict.fromkeys(_FOLDERS, _FOLDER),
        **dict.fromkeys(
            ("basebackup-s3", "barman_cloud", "dump"), "test_objects::test_a_wrong_clock_is_named"
        ),
        "pgbackrest-s3": f"{_S3}::test_a_wrong_clock_is_named",
        "walg": "WAL-G signs: its words are quoted, and no WAL-G runs here",
        "neon": "a key, no signature: it carries no time",
        **dict.fromkeys(_AWS, "test_provider_rds::test_who_may_not_ask_is_told_before_anything_is_made"),
    },
    "outage in the middle of replay": {
        **dict.fromkeys(
            ("basebackup", "barman", "basebackup-s3", "barman_cloud", "pgbackrest-s3", "walg"),
            f"{_CONTRACT}::test_an_unreachable_store_is_not_the_end_of_the_log",
        ),
        "dump": "test_provider_dump::test_a_store_that_refuses_is_named",
        "neon": "test_provider_neon::test_refusals_that_pass_are_outlasted_and_a_lost_answer_makes_no_second_branch",
        **dict.fromkeys(
            _AWS, "test_provider_rds::test_credentials_that_fail_on_the_way_leave_one_copy_to_go_on_with"
        ),
    },
    "missing or truncated object": {
        **dict.fromkeys(
            ("basebackup", "barman", "basebackup-s3", "barman_cloud", "pgbackrest-s3", "walg"),
            f"{_CONTRACT}::test_a_gap_and_a_cut_off_segment_are_refused",
        ),
        "dump": "test_provider_dump::test_a_store_that_refuses_is_named",
        **dict.fromkeys(("neon", *_AWS), _OWN),
    },
    "disk full in the copy": {
        **dict.fromkeys(_LOCAL, f"{_CONTRACT}::test_a_full_disk_is_called_that_and_can_be_freed"),
        "neon": "test_provider_neon::test_a_plans_limit_is_told",
        **dict.fromkeys(_AWS, "test_provider_rds::test_what_aws_would_refuse_later_is_refused_first"),
    },
    "disk full in the replay": {
        **dict.fromkeys(_REPLAYING, f"{_CONTRACT}::test_a_full_disk_is_called_that_and_can_be_freed"),
        "dump": "test_provider_dump::test_a_disk_that_fills_while_it_is_restored_is_named_and_can_be_freed",
        **dict.fromkeys(("neon", *_AWS), "the vendor replays, on its own disks"),
    },
    "restore killed and resumed": {
        **dict.fromkeys(_LOCAL, f"{_CONTRACT}::test_a_killed_copy_is_taken_up_again"),
        "neon": "test_provider_neon::test_a_killed_restore_is_joined_wherever_it_was",
        **dict.fromkeys(_AWS, "test_provider_rds::test_a_new_process_joins_what_a_dead_one_had_made"),
    },
    "server killed in the replay and resumed": {
        **dict.fromkeys(_REPLAYING, f"{_CONTRACT}::test_a_new_process_joins_what_a_dead_one_began"),
        "dump": "test_provider_dump::test_a_killed_restore_is_redone",
        **dict.fromkeys(("neon", *_AWS), "the vendor replays"),
    },
    "two restores at once": {
        **dict.fromkeys(_LOCAL, f"{_CONTRACT}::test_two_restores_at_once_do_not_meet"),
        "neon": "test_provider_neon::test_two_restores_at_once_do_not_meet",
        **dict.fromkeys(_AWS, "test_provider_rds::test_two_restores_at_once_do_not_meet"),
    },
    "discard twice": {
        **dict.fromkeys(_LOCAL, f"{_CONTRACT}::test_discard_removes_its_own_and_nothing_else"),
        "neon": "test_provider_neon::test_only_this_runs_branches_are_deleted",
        **dict.fromkeys(_AWS, "test_provider_rds::test_discard_deletes_its_own_and_nothing_else"),
    },
    "discard of what this run did not make": {
        **dict.fromkeys(_LOCAL, f"{_CONTRACT}::test_discard_removes_its_own_and_nothing_else"),
        "neon": "test_provider_neon::test_only_this_runs_branches_are_deleted",
        **dict.fromkeys(_AWS, "test_provider_rds::test_somebody_elses_instance_of_that_name_is_left_alone"),
    },
    "target before the backup's end": {
        **dict.fromkeys(_REPLAYING, f"{_CONTRACT}::test_a_target_before_the_backups_end_is_refused"),
        "dump": "test_provider_dump::test_a_time_between_two_sets_is_refused_with_both",
        "neon": "test_provider_neon::test_what_cannot_be_reached_is_refused_before_anything_is_changed",
        **dict.fromkeys(_AWS, "test_provider_rds::test_times_outside_the_window_are_refused"),
    },
    "target in another timeline": {
        **dict.fromkeys(_REPLAYING, f"{_CONTRACT}::test_another_cluster_and_timeline_are_refused"),
        "dump": "test_provider_dump::test_a_set_of_a_history_production_left_is_not_taken",
        **dict.fromkeys(("neon", *_AWS), "its targets name no timeline"),
    },
    "name and xid targets": {
        **dict.fromkeys(_REPLAYING, f"{_CONTRACT}::test_each_target_restores_exactly_its_rows"),
        "dump": "test_provider_dump::test_what_only_a_log_can_do_is_refused",
        "neon": "test_provider_neon::test_what_cannot_be_reached_is_refused_before_anything_is_changed",
        **dict.fromkeys(_AWS, "test_provider_rds::test_a_target_aws_has_no_word_for_is_refused"),
    },
    "gap in the log": {
        **dict.fromkeys(_REPLAYING, f"{_CONTRACT}::test_the_window_shows_a_gap_with_its_times"),
        "dump": "it has no log",
        **dict.fromkeys(("neon", *_AWS), _OWN),
    },
}
