"""
Who can be written to, asked as the application would.

The question is a statement that needs write permission but locks and changes nothing: a read-only
transaction and a standby both refuse `SELECT … FOR UPDATE`, no trigger fires for it.
"""

from dataclasses import dataclass
from typing import Final

from psycopg import sql

from fixtures.errors import DatabaseError
from fixtures.postgres.session import Endpoint, connect

_WRITE_REFUSED: Final = "SQLSTATE 25006"


@dataclass(frozen=True, slots=True, kw_only=True)
class Writable:
    """
    Whether one entrance takes writes.

    Attributes:
        entrance: role, database and place; no secret.
        writable: the answer.
        reason: why, in words.
    """

    entrance: str
    writable: bool
    reason: str


def is_writable(endpoint: Endpoint) -> Writable:
    """
    Ask one entrance, with the credentials given, whether a write would be taken. Changes nothing.

    A refused log-in and a place that does not answer both count as not writable from here: whether
    silence is enough is the caller's question (an unreachable server is not a fenced one).
    """
    name = str(endpoint)
    try:
        with connect(endpoint) as session:
            if session.value("SELECT pg_is_in_recovery()"):
                return Writable(entrance=name, writable=False, reason="it is in recovery")
            if session.value("SHOW transaction_read_only") == "on":
                return Writable(entrance=name, writable=False, reason="its transactions are read-only")
            table = session.rows(_A_TABLE)
            if table:
                session.do(sql.SQL("SELECT FROM {} WHERE false FOR UPDATE").format(sql.Identifier(*table[0])))
                return Writable(entrance=name, writable=True, reason="it takes a row lock on a user table")
            return Writable(entrance=name, writable=True, reason="its transactions are read-write")
    except DatabaseError as error:
        if error.code == "RB503":
            return Writable(entrance=name, writable=False, reason=f"no log-in: {error.where}")
        if _WRITE_REFUSED in error.fact:
            return Writable(entrance=name, writable=False, reason="it refuses a write")
        raise


_A_TABLE: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
   AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
   AND has_table_privilege(c.oid, 'UPDATE')
 ORDER BY 1, 2 LIMIT 1
"""
