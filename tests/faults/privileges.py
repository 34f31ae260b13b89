"""Faults of privileges: what somebody may do who might not, and the other way round."""

from tests.faults.fault import FAIL, Fault, sql
from tests.faults.structure import fails

GRANTS, OWNERS = "privileges.grants:shop", "privileges.owners:shop"
ROLES, SETTINGS, CLUSTER = "privileges.roles", "privileges.settings", "privileges.cluster"

FAULTS: tuple[Fault, ...] = (
    sql("everybody may read a table", GRANTS, "GRANT SELECT ON users TO PUBLIC"),
    sql("a grant is lost", GRANTS, "REVOKE INSERT ON stamps FROM app"),
    sql("a grant on a column is lost", GRANTS, "REVOKE UPDATE (name) ON users FROM app"),
    sql("a grant on a sequence is lost", GRANTS, "REVOKE USAGE ON SEQUENCE users_id_seq FROM app"),
    sql("a grant may be passed on", GRANTS, "GRANT SELECT ON users TO app WITH GRANT OPTION"),
    sql("everybody may use a schema", GRANTS, "GRANT USAGE ON SCHEMA internal TO PUBLIC"),
    sql("everybody may run a function", GRANTS, "GRANT EXECUTE ON FUNCTION guard() TO PUBLIC"),
    sql("a table has another owner", fails(OWNERS, GRANTS), "ALTER TABLE notes OWNER TO app"),
    sql("default privileges are lost", "privileges.defaults:shop",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA internal REVOKE SELECT ON TABLES FROM reader"),
    sql("everybody may connect", CLUSTER, "GRANT CONNECT ON DATABASE ledger TO PUBLIC"),
    sql("a database has another owner", CLUSTER, "ALTER DATABASE shop OWNER TO auditor"),
    sql("a parameter's grant is lost", CLUSTER, "REVOKE SET ON PARAMETER log_min_duration_statement FROM auditor"),
    sql("a role is missing", fails(ROLES, "privileges.passwords", CLUSTER), "DROP OWNED BY auditor", "DROP ROLE auditor"),
    sql("a role is superuser", ROLES, "ALTER ROLE app SUPERUSER"),
    sql("a role cannot log in", ROLES, "ALTER ROLE auditor NOLOGIN"),
    sql("a role has expired", ROLES, "ALTER ROLE auditor VALID UNTIL '2020-01-01'"),
    sql("a role passes row-level security", ROLES, "ALTER ROLE app BYPASSRLS"),
    sql("a password is another one", "privileges.passwords", "ALTER ROLE auditor PASSWORD 'another for the corpus'"),
    sql("a membership is lost", "privileges.memberships", "REVOKE reader FROM app"),
    sql("a membership is new", "privileges.memberships", "GRANT owner TO app"),
    sql("a member may admit others", "privileges.memberships", "GRANT reader TO app WITH ADMIN OPTION"),
    sql("a role's setting is lost", SETTINGS, "ALTER ROLE app RESET search_path"),
    sql("a role's setting in a database is lost", SETTINGS, "ALTER ROLE app IN DATABASE shop RESET statement_timeout"),
    sql("a database's setting is another one", SETTINGS, "ALTER DATABASE shop SET timezone = 'Asia/Tokyo'"),
    sql("a database takes few connections", {"privileges.databases": FAIL}, "ALTER DATABASE ledger CONNECTION LIMIT 1"),
    sql("a tablespace is new", {"privileges.databases": FAIL, CLUSTER: FAIL},
        "SET allow_in_place_tablespaces = on; ", "CREATE TABLESPACE stray LOCATION ''"),
)  # fmt: skip
