"""Microsoft's mssql-python: ODBC Driver 18 underneath, and for bulk copies the mssql-tds core."""

import re
from datetime import date, datetime

import mssql_python

from checks import server
from dbapi import Suite
from values import VALUES

WORDS = {
    4060: r'Cannot open database "nowhere" requested by the login\. The login failed\.$',
    18456: r"Login failed for user 'sa'\.$",
    102: r"Incorrect syntax near '\+'\.$",
    207: r"Invalid column name 'nothing'\.$",
    208: r"Invalid object name 'nowhere'\.$",
    220: r"Arithmetic overflow error for data type tinyint, value = 300\.$",
    245: r"Conversion failed when converting the varchar value 'x' to data type int\.$",
    515: r"Cannot insert the value NULL into column 'id', table 'tempdb\.dbo\.#keys[_0-9A-F]*'; column does not allow nulls\. INSERT fails\.$",
    547: r'The INSERT statement conflicted with the CHECK constraint "CK__',
    2627: r"Violation of PRIMARY KEY constraint 'pk_keys'\. Cannot insert duplicate key in object 'dbo\.#keys'\. The duplicate key value is \(1\)\.$",
    2812: r"Could not find stored procedure 'SELEC'\.$",
    8134: r"Divide by zero error encountered\.$",
    50000: "own 42$",
    51234: "thrown$",
}


class Client:
    name = "mssql-python"
    placeholder = "?"
    error = mssql_python.Error
    # The driver tells the later message of the two (4060, 18456) first, as it does with SQL Server.
    unknown_database = 18456

    def connect(self, encrypted=True, database="proof", password=None, autocommit=True):
        host, port, user, right = server()
        return mssql_python.connect(
            f"Server={host},{port};Database={database};UID={user};PWD={{{password or right}}};"
            f"Encrypt={'yes' if encrypted else 'no'};TrustServerCertificate=yes",
            autocommit=autocommit,
        )

    def number_of(self, error):
        """It keeps a server's words and not its number."""
        return next((number for number, words in WORDS.items() if re.search(words, str(error))), str(error))

    def read(self, declaration, value):
        return value

    def write(self, declaration, value):
        # It refuses such a date before it asks the server.
        return str(value) if type(value) is date and value.year < 1753 else value

    def null(self, declaration):
        return None

    def more(self):
        return [bulk_copy]


def brought(value):
    """Its bulk copy (mssql-python-rs 0.3.0) puts a datetimeoffset's local time on the wire, where MS-TDS 2.2.5.5.1.9 has the UTC time."""
    return value + value.utcoffset() if isinstance(value, datetime) and value.tzinfo else value


def bulk_copy(suite):
    """Every type through the mssql-tds core, with NULLs, several batches and identity values."""
    connection = suite.client.connect()
    cursor = connection.cursor()
    for declaration, values in VALUES.items():
        def check():
            cursor.execute("DROP TABLE IF EXISTS dbo.loaded")
            cursor.execute(f"CREATE TABLE dbo.loaded (id int NOT NULL, value {declaration} NULL)")
            rows = [(number, value) for number, (_, value) in enumerate(values)] + [(1000, None)]
            result = cursor.bulkcopy("dbo.loaded", rows, batch_size=2)
            suite.checks.equal(f"bulk copy {declaration}: count", result["rows_copied"], len(rows))
            cursor.execute("SELECT id, value FROM dbo.loaded ORDER BY id")
            suite.checks.equal(f"bulk copy {declaration}", [tuple(row) for row in cursor.fetchall()], [(number, brought(value)) for number, value in rows])

        suite.checks.run(f"bulk copy {declaration}", check)
    cursor.execute("DROP TABLE IF EXISTS dbo.loaded")
    cursor.execute("CREATE TABLE dbo.loaded (id int IDENTITY(1, 1) PRIMARY KEY, name nvarchar(50) NOT NULL)")
    rows = [(number * 3, f"row {number} é") for number in range(1, 5001)]
    cursor.bulkcopy("dbo.loaded", rows, batch_size=1000, keep_identity=True, table_lock=True)
    cursor.execute("SELECT id, name FROM dbo.loaded ORDER BY id")
    suite.checks.equal("bulk copy keeps identity values", [tuple(row) for row in cursor.fetchall()], rows)
    try:
        cursor.bulkcopy("dbo.loaded", [(3, "again")], keep_identity=True)
        words = ""
    except Exception as error:
        words = str(error)
    suite.checks.equal("bulk copy of a duplicate key", "Violation of PRIMARY KEY constraint" in words, True)


if __name__ == "__main__":
    Suite(Client()).run()
