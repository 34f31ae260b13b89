"""Detached jobs: whose exit status it is."""

from fixtures.command import end_job, exit_status, join, spawn


def test_an_earlier_jobs_late_exit_status_is_not_this_ones(tmp_path):
    """Its shell may write after a new job of the same name was started: a restart looks like an end otherwise."""
    first = spawn(["sh", "-c", "exit 3"], name="server", folder=tmp_path)
    join(first, timeout_s=20, what="the first", check=False)
    late = first.rc.read_text()
    second = spawn(["sleep", "60"], name="server", folder=tmp_path)
    first.rc.write_text(late)

    assert exit_status(first) == 3
    assert exit_status(second) is None

    end_job(second)
    assert exit_status(second) not in {None, 3}


def test_a_status_of_before_the_pid_was_named_still_counts(tmp_path):
    """A run that was begun by an earlier version goes on."""
    job = spawn(["true"], name="old", folder=tmp_path)
    join(job, timeout_s=20, what="it")
    job.rc.write_text("7\n")

    assert exit_status(job) == 7
