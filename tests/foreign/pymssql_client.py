"""pymssql: Python over FreeTDS's DB-Library. It has no parameters on the wire; it writes them into the text."""

import re
from datetime import date, datetime
from decimal import Decimal

import pymssql
from pymssql import _mssql

from checks import server
from dbapi import Suite
from values import VALUES


# DB-Library makes no datetimeoffset of a text.
NOT_BY_BULK_COPY = ("datetimeoffset(7)",)


class Client:
    name = "pymssql"
    placeholder = "%s"
    error = pymssql.Error
    # Of several messages it reports the most severe; a server sends 4060 (11), and then 18456 (14).
    unknown_database = 18456

    def connect(self, encrypted=True, database="proof", password=None, autocommit=True):
        host, port, user, right = server()
        return pymssql.connect(
            server=host,
            port=str(port),
            user=user,
            password=password or right,
            database=database,
            encryption="require" if encrypted else "off",
            autocommit=autocommit,
            tds_version="7.4",
            login_timeout=10,
            timeout=60,
        )

    def number_of(self, error):
        if error.args and isinstance(error.args[0], int):
            return error.args[0]
        # A failed connection's number is in the text.
        found = re.search(r"\((\d+), ", str(error))
        return int(found.group(1)) if found else str(error)

    def read(self, declaration, value):
        return value

    def write(self, declaration, value):
        if declaration.startswith("datetime2"):
            # Milliseconds are all it writes of any other datetime.
            return pymssql.datetime2(value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
        # It takes ASCII bytes for text, and a bytearray for bytes.
        return bytearray(value) if isinstance(value, bytes) else value

    def null(self, declaration):
        return None

    def more(self):
        return [details, procedure, bulk_copy]


def details(suite):
    """Number, severity, state, line and procedure of an error, as DB-Library gives them."""
    host, port, user, password = server()
    connection = _mssql.connect(server=host, port=str(port), user=user, password=password, database="proof", tds_version="7.4")
    connection.execute_non_query("CREATE OR ALTER PROCEDURE dbo.fails AS\nBEGIN\n  RAISERROR('no', 15, 9)\nEND")
    for statement, want in (
        ("SELECT 1\n\nSELECT 1/0", (8134, 16, 1, 3, "")),
        ("\nRAISERROR('own %s', 12, 34, 'text')", (50000, 12, 34, 2, "")),
        ("\n\n\nTHROW 51000, 'thrown', 5", (51000, 16, 5, 4, "")),
        ("EXEC dbo.fails", (50000, 15, 9, 3, "fails")),
        ("SELECT 1\nSELECT * FROM nowhere", (208, 16, 1, 2, "")),
    ):
        got = None
        try:
            connection.execute_query(statement)
            list(connection)
            while connection.nextresult():
                list(connection)
        except _mssql.MSSQLDatabaseException as error:
            got = (error.number, error.severity, error.state, error.line, (error.procname or b"").decode())
        suite.checks.equal(f"details of {statement!r}", got, want)
    connection.close()


def bulk_copy(suite):
    """Every type through BCP, with NULLs, several batches, defaults and identity values."""
    for declaration, values in VALUES.items():
        if declaration in NOT_BY_BULK_COPY:
            continue

        def check():
            # DB-Library leaves a connection inside a load that it gave up: each type has its own.
            connection = suite.client.connect()
            cursor = connection.cursor()
            cursor.execute(f"DROP TABLE IF EXISTS dbo.loaded; CREATE TABLE dbo.loaded (id int NOT NULL, value {declaration} NULL)")
            rows = [(number, value) for number, (_, value) in enumerate(values) if not two_digit_year(value)] + [(1000, None)]
            connection.bulk_copy("dbo.loaded", [(number, bcp(value)) for number, value in rows], batch_size=2)
            cursor.execute("SELECT id, value FROM dbo.loaded ORDER BY id")
            suite.checks.equal(f"bulk copy {declaration}", cursor.fetchall(), [(number, brought(declaration, value)) for number, value in rows])

        suite.checks.run(f"bulk copy {declaration}", check)
    connection = suite.client.connect()
    cursor = connection.cursor()
    cursor.execute("DROP TABLE IF EXISTS dbo.loaded; CREATE TABLE dbo.loaded (id int IDENTITY(1, 1) PRIMARY KEY, name nvarchar(50) NOT NULL)")
    rows = [(number * 3, f"row {number} é") for number in range(1, 5001)]
    connection.bulk_copy("dbo.loaded", rows, batch_size=1000, tablock=True)
    cursor.execute("SELECT id, name FROM dbo.loaded ORDER BY id")
    suite.checks.equal("bulk copy keeps identity values", cursor.fetchall(), rows)
    try:
        connection.bulk_copy("dbo.loaded", [(3, "again")])
        number = None
    except _mssql.MSSQLDatabaseException as error:
        number = error.number
    suite.checks.equal("bulk copy of a duplicate key", number, 2627)


def brought(declaration, value):
    """What DB-Library makes of a value on its way: an empty one is NULL, and a column that is not Unicode gets the client's bytes, UTF-8."""
    if value in ("", b""):
        return None
    return value.encode().decode("cp1252") if declaration in ("varchar(20)", "text") and value else value


def two_digit_year(value):
    """DB-Library turns text into dates itself, and takes the year 0001 for 2001."""
    return isinstance(value, date) and value.year < 100


def bcp(value):
    """DB-Library takes text for what it has no C type for."""
    if isinstance(value, (bool, int, float, bytes)) or value is None:
        return value
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def procedure(suite):
    """A call as an RPC: real parameters, an output parameter and a return status."""
    connection = suite.client.connect()
    cursor = connection.cursor()
    cursor.execute(
        "CREATE OR ALTER PROCEDURE dbo.doubled @in int, @text nvarchar(50), @out int OUTPUT AS "
        "BEGIN SET NOCOUNT ON; SET @out = 2 * @in; SELECT @text + N'!' AS said; RETURN 7 END"
    )
    out = pymssql.output(int)
    got = cursor.callproc("dbo.doubled", (21, "漢", out))
    suite.checks.equal("procedure: result set", cursor.fetchall(), [("漢!",)])
    cursor.execute("CREATE OR ALTER PROCEDURE dbo.tripled @in int, @out int OUTPUT AS BEGIN SET @out = 3 * @in; RETURN 7 END")
    got = cursor.callproc("dbo.tripled", (14, pymssql.output(int)))
    suite.checks.equal("procedure: output parameter", got, (14, 42))
    suite.checks.equal("procedure: return status", cursor.returnvalue, 7)


if __name__ == "__main__":
    Suite(Client()).run()
