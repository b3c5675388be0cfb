"""What any Python DB-API client asks of the server: connections, types, errors, result sets, counts, transactions, big values."""

from checks import Checks
from values import BIG, VALUES


class Suite:
    """`client` says how its driver does things: connect(), placeholder, number_of(error), error, read(declaration, value), write(…)."""

    def __init__(self, client):
        self.client, self.checks = client, Checks(client.name)

    def run(self):
        for check in (
            self.connects,
            self.refuses,
            self.literals,
            self.parameters,
            self.columns,
            self.errors,
            self.result_sets,
            self.counts,
            self.transactions,
            self.big_values,
            self.long_statements,
            self.many_rows,
            self.describes,
        ):
            self.checks.run(check.__name__, check)
        for check in self.client.more():
            self.checks.run(check.__name__, lambda check=check: check(self))
        self.checks.summary()

    def one(self, cursor, statement, *params):
        cursor.execute(statement, params) if params else cursor.execute(statement)
        return cursor.fetchone()[0]

    def cursor(self, **options):
        return self.client.connect(**options).cursor()

    def error_of(self, act):
        try:
            act()
        except self.client.error as error:
            return self.client.number_of(error)
        return None

    def connects(self):
        for encrypted in (True, False):
            cursor = self.cursor(encrypted=encrypted)
            query = "SELECT encrypt_option FROM sys.dm_exec_connections WHERE session_id = @@SPID"
            self.checks.equal(f"encrypted={encrypted}: encrypt_option", self.one(cursor, query), "TRUE" if encrypted else "FALSE")
            self.checks.equal(f"encrypted={encrypted}: database", self.one(cursor, "SELECT DB_NAME()"), "proof")

    def refuses(self):
        self.checks.equal("a wrong password is 18456", self.error_of(lambda: self.client.connect(password="wrong")), 18456)
        self.checks.equal("an unknown database is 4060", self.error_of(lambda: self.client.connect(database="nowhere")), self.client.unknown_database)

    def literals(self):
        cursor = self.cursor()
        for declaration, values in VALUES.items():
            for literal, value in values:
                def check():
                    got = self.one(cursor, f"SELECT CAST({literal} AS {declaration})")
                    self.checks.equal(f"literal {declaration} {literal[:40]}", got, self.client.read(declaration, value))
                self.checks.run(f"literal {declaration} {literal[:40]}", check)
            got = self.one(cursor, f"SELECT CAST(NULL AS {declaration})")
            self.checks.equal(f"literal {declaration} NULL", got, None)

    def parameters(self):
        """Each value as a parameter, and back."""
        cursor = self.cursor()
        for declaration, values in VALUES.items():
            for literal, value in values:
                def check():
                    got = self.one(cursor, f"SELECT CAST({self.client.placeholder} AS {declaration})", self.client.write(declaration, value))
                    self.checks.equal(f"parameter {declaration} {literal[:40]}", got, self.client.read(declaration, value))
                self.checks.run(f"parameter {declaration} {literal[:40]}", check)
            got = self.one(cursor, f"SELECT CAST({self.client.placeholder} AS {declaration})", self.client.null(declaration))
            self.checks.equal(f"parameter {declaration} NULL", got, None)

    def columns(self):
        """Each value into a column of its type, and out again: rows with a value, and rows of NULL among them."""
        connection = self.client.connect()
        cursor = connection.cursor()
        for declaration, values in VALUES.items():
            def check():
                cursor.execute(f"CREATE TABLE #column (id int NOT NULL PRIMARY KEY, value {declaration} NULL)")
                for number, (_, value) in enumerate(values):
                    place = self.client.placeholder
                    cursor.execute(f"INSERT INTO #column (id, value) VALUES ({place}, {place})", (number, self.client.write(declaration, value)))
                cursor.execute("INSERT INTO #column (id) VALUES (1000)")
                cursor.execute("SELECT value FROM #column ORDER BY id")
                got = [row[0] for row in cursor.fetchall()]
                want = [self.client.read(declaration, value) for _, value in values] + [None]
                self.checks.equal(f"column {declaration}", got, want)
            self.checks.run(f"column {declaration}", check)
            cursor.execute("DROP TABLE IF EXISTS #column")

    def errors(self):
        cursor = self.cursor()
        for name, statement, number in (
            ("object", "SELECT * FROM nowhere", 208),
            ("column", "SELECT nothing FROM sys.tables", 207),
            ("syntax", "SELECT 1 +", 102),
            ("procedure", "SELEC 1", 2812),
            ("division", "SELECT 1/0", 8134),
            ("conversion", "SELECT CAST('x' AS int)", 245),
            ("overflow", "SELECT CAST(300 AS tinyint)", 220),
            ("raised", "RAISERROR('own %d', 16, 7, 42)", 50000),
            ("thrown", "THROW 51234, 'thrown', 3", 51234),
        ):
            def act():
                cursor.execute(statement)
                cursor.fetchall()
            self.checks.equal(f"error {number} ({name})", self.error_of(act), number)
        cursor.execute("CREATE TABLE #keys (id int NOT NULL CONSTRAINT pk_keys PRIMARY KEY, small tinyint NULL CHECK (small > 1))")
        cursor.execute("INSERT INTO #keys VALUES (1, 2)")
        self.checks.equal("error 2627", self.error_of(lambda: cursor.execute("INSERT INTO #keys VALUES (1, 2)")), 2627)
        self.checks.equal("error 515", self.error_of(lambda: cursor.execute("INSERT INTO #keys VALUES (NULL, 2)")), 515)
        self.checks.equal("error 547", self.error_of(lambda: cursor.execute("INSERT INTO #keys VALUES (2, 1)")), 547)
        self.checks.equal("the connection lives on", self.one(cursor, "SELECT COUNT(*) FROM #keys"), 1)

    def result_sets(self):
        cursor = self.cursor()
        cursor.execute("SELECT 1 AS a; SELECT N'two' AS b, 3 AS c; SELECT 4 AS d WHERE 1 = 0")
        got = []
        while True:
            got.append(([column[0] for column in cursor.description], [tuple(row) for row in cursor.fetchall()]))
            if not cursor.nextset():
                break
        self.checks.equal("three result sets", got, [(["a"], [(1,)]), (["b", "c"], [("two", 3)]), (["d"], [])])

    def counts(self):
        cursor = self.cursor()
        cursor.execute("CREATE TABLE #counted (id int NOT NULL)")
        cursor.execute("INSERT INTO #counted VALUES (1), (2), (3)")
        self.checks.equal("count of INSERT", cursor.rowcount, 3)
        cursor.execute("UPDATE #counted SET id = id + 1 WHERE id > 1")
        self.checks.equal("count of UPDATE", cursor.rowcount, 2)
        cursor.execute("DELETE FROM #counted WHERE id = 100")
        self.checks.equal("count of nothing", cursor.rowcount, 0)
        cursor.execute("SET NOCOUNT ON; DELETE FROM #counted WHERE id = 1; SELECT @@ROWCOUNT")
        self.checks.equal("@@ROWCOUNT under NOCOUNT", cursor.fetchone()[0], 1)

    def transactions(self):
        connection = self.client.connect(autocommit=False)
        other = self.cursor()
        cursor = connection.cursor()
        other.execute("DROP TABLE IF EXISTS dbo.journal; CREATE TABLE dbo.journal (id int NOT NULL PRIMARY KEY)")
        cursor.execute("INSERT INTO dbo.journal VALUES (1)")
        self.checks.equal("in a transaction", self.one(cursor, "SELECT @@TRANCOUNT"), 1)
        connection.rollback()
        self.checks.equal("rolled back", self.one(other, "SELECT COUNT(*) FROM dbo.journal"), 0)
        cursor.execute("INSERT INTO dbo.journal VALUES (2)")
        self.checks.equal("not seen by another", self.one(other, "SELECT COUNT(*) FROM dbo.journal WITH (READPAST)"), 0)
        connection.commit()
        self.checks.equal("committed", self.one(other, "SELECT id FROM dbo.journal"), 2)
        cursor.execute("INSERT INTO dbo.journal VALUES (3)")
        connection.close()
        self.checks.equal("closed without commit", self.one(other, "SELECT COUNT(*) FROM dbo.journal"), 1)

    def big_values(self):
        cursor = self.cursor()
        cursor.execute("CREATE TABLE #big (id int NOT NULL PRIMARY KEY, v varchar(max), n nvarchar(max), b varbinary(max))")
        text, unicode, binary = "0123456789abcdef" * (BIG // 16), "漢字かな" * (BIG // 8), bytes(range(256)) * (BIG // 256)
        place = self.client.placeholder
        for column, value in (("v", text), ("n", unicode), ("b", binary)):
            cursor.execute(f"INSERT INTO #big (id, {column}) VALUES ({ord(column)}, {place})", (self.client.write("", value),))
            got = self.one(cursor, f"SELECT {column} FROM #big WHERE id = {ord(column)}")
            self.checks.equal(f"1 MiB in {column}", got, value)
            self.checks.equal(f"DATALENGTH of {column}", self.one(cursor, f"SELECT DATALENGTH({column}) FROM #big WHERE id = {ord(column)}"), BIG)

    def long_statements(self):
        cursor = self.cursor()
        literal = "y" * 200_000
        self.checks.equal("a statement of 200,000 characters", self.one(cursor, f"SELECT '{literal}'"), literal)
        numbers = ", ".join(str(number) for number in range(2000))
        self.checks.equal("IN of 2,000", self.one(cursor, f"SELECT COUNT(*) FROM (VALUES (5), (1999), (2000)) AS v (n) WHERE n IN ({numbers})"), 2)

    def many_rows(self):
        cursor = self.cursor()
        cursor.execute(
            "WITH ten AS (SELECT n FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS v (n)) "
            "SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n, CASE WHEN a.n = 3 THEN NULL ELSE REPLICATE('x', a.n) END "
            "FROM ten AS a CROSS JOIN ten AS b CROSS JOIN ten AS c CROSS JOIN ten AS d ORDER BY 1"
        )
        want = [(n, None if n % 10 == 3 else "x" * (n % 10)) for n in range(10_000)]
        self.checks.equal("10,000 rows", [tuple(row) for row in cursor.fetchall()], want)

    def describes(self):
        cursor = self.cursor()
        cursor.execute("SELECT CAST(1 AS int) AS number, CAST(N'x' AS nvarchar(5)) AS [odd ]] name], 1 + 1")
        self.checks.equal("names of columns", [column[0] for column in cursor.description], ["number", "odd ] name", ""])
