"""What the redactor masks, what it leaves readable, and what the leak gate still finds."""

import json

import pytest

from fixtures.evidence import MASK, Check, Secret, Verdict, find_leaks, keyed_hash, redact, redact_value

IBAN = "DE89 3704 0044 0532 0130 00"
CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("postgresql://app:hunter2@db/x", "hunter2"),
        ("POSTGRESQL://app:hunter2@db/x", "hunter2"),
        ("postgres//app:hunter2@db", "hunter2"),
        ("postgresql://app:hun@ter2@db/x", "ter2"),
        ("postgresql://app:hun/ter2@db/x", "ter2"),
        ("host=db password=hunter2 user=app", "hunter2"),
        ("password='hun ter2'", "ter2"),
        ("PGPASSWORD=hunter2 psql", "hunter2"),
        ("DB_PASSWORD: hunter2", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ("{'password': 'hun ter2'}", "ter2"),
        (r"{\"password\": \"hunter2\"}", "hunter2"),
        ("secret_access_key=hunter2", "hunter2"),
        ("aws_secret_access_key = hunter2", "hunter2"),
        ("Authorization: Bearer hunter2", "hunter2"),
        ("Authorization: Basic aHVudGVyMg==", "aHVudGVyMg"),
        ("access_token=hunter2&x=1", "hunter2"),
        ("mail to jane.doe+x@mail.example.org today", "jane.doe"),
        (f"paid by {IBAN}.", "0532"),
        ("paid by DE89370400440532013000 PAID ON", "3704"),
        ("paid by BE68 5390 0754 7034 PAID ON MONDAY", "7034"),
        ("item id42 at12 DE89 3704 0044 0532 0130 00", "0532"),
        ("de89370400440532013000", "0532"),
        (f"card {CARD},", "1111"),
        ("5500005555555559", "5555"),
        ("call +49 171 1234567 now", "1234567"),
    ],
)
def test_redact_masks_it(text, gone):
    """Nothing of the secret or the person is left, and the gate agrees."""
    masked = redact(text)

    assert gone not in masked
    assert MASK in masked
    assert find_leaks(masked) == []


@pytest.mark.parametrize(
    "text",
    [
        "system identifier 7443812345678901234",
        "20251005123400",
        "20251005-123400F_20251006-123400D",
        "1759667640000 ms, 1759667640000000 us",
        "000000010000000000000012",
        "2025-10-05T12:34:00.123456+00:00 to 2025-10-05 12:35:00+01",
        "0/16B3748 and 16/B374D848",
        "password_env = PGPASS and password_file",
        "http://127.0.0.1:9090/metrics",
        "5f4dcc3b5aa765d61d8327deb882cf995f4dcc3b5aa765d61d8327deb882cf99",
        "123e4567-e89b-12d3-a456-426614174000",
        "allure@3.18.0",
        "2,000 rows in public.users, 4,000 in public.stamps",
    ],
)
def test_redact_leaves_it_readable(text):
    """Times, sizes, positions and identifiers that a restore compares stay as they are."""
    assert redact(text) == text
    assert find_leaks(text) == []


@pytest.mark.parametrize("number", range(7443812345678901230, 7443812345678901260))
def test_redact_never_masks_a_system_identifier(number):
    """A masked identifier in the journal could not be compared on a resume."""
    assert redact(str(number)) == str(number)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("jane@example.org", "e-mail address"),
        ("postgresql://a:b@c/d", "password in a URL"),
        (f"x {IBAN} y", "IBAN"),
        ("BE68 5390 0754 7034 PAID", "IBAN"),
        (CARD, "card number"),
        ("+49 171 1234567", "phone number"),
    ],
)
def test_find_leaks_names_the_kind(text, kind):
    """The gate names what it found without quoting it."""
    assert kind in find_leaks(text)


@pytest.mark.parametrize("text", ["4111 1111 1111 1112", "DE88 3704 0044 0532 0130 00"])
def test_wrong_check_digits_are_no_leak(text):
    """Figures that merely look like a card or an account stay readable."""
    assert find_leaks(text) == []


def test_redact_is_stable():
    """Text that was redacted once does not change when it is redacted again."""
    text = f"postgresql://u:p@h password=x 'token': 'y' {IBAN} {CARD} a@b.de"

    once = redact(text)

    assert redact(once) == once


def test_a_known_secret_is_masked_everywhere():
    """A value handed to `Secret` never prints, whatever it looks like."""
    secret = Secret("correct horse battery")

    assert "horse" not in redact("the correct horse battery staple")
    assert find_leaks("the correct horse battery staple") == ["known secret"]
    assert "horse" not in f"{secret} {secret!r}"
    assert secret.reveal() == "correct horse battery"


def test_a_quoted_value_keeps_its_quotes():
    """A redacted JSON document is still JSON."""
    masked = redact(json.dumps({"password": 'a "quoted" one', "rows": 5}))

    assert json.loads(masked) == {"password": MASK, "rows": 5}


def test_redact_value_masks_by_name_and_inside():
    """Mappings, lists and keys are covered, numbers are not touched."""
    value = {
        "password": "x",
        "db_password": "y",
        "note": ["to a@b.de", 7],
        "a@b.de": 1,
        "password_env": "NAME",
    }

    assert redact_value(value) == {
        "password": MASK,
        "db_password": MASK,
        "note": [f"to {MASK}", 7],
        MASK: 1,
        "password_env": "NAME",
    }


def test_keyed_hash_compares_equal_without_telling():
    """Equal values give equal hashes that hold nothing of the value."""
    assert keyed_hash("a@b.de") == keyed_hash("a@b.de")
    assert keyed_hash("a@b.de") != keyed_hash("a@b.dk")


@pytest.mark.parametrize(
    ("verdict", "blocking", "stops"),
    [
        (Verdict.PASS, True, False),
        (Verdict.NOT_APPLICABLE, True, False),
        (Verdict.FAIL, False, True),
        (Verdict.COULD_NOT_VERIFY, True, True),
        (Verdict.COULD_NOT_VERIFY, False, False),
        (Verdict.NOT_CONFIGURED, True, True),
    ],
)
def test_only_pass_is_green(verdict, blocking, stops):
    """A blocking check that could not run stops like one that failed."""
    assert Check(id="x", step="s07.content", verdict=verdict, blocking=blocking).stops is stops
