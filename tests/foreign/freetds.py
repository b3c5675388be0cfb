"""FreeTDS by its own programs: `tsql` for statements and messages, `freebcp` for bulk loads out and in, as characters and as native bytes."""

import os
import re
import subprocess
import tempfile

from checks import Checks, server

checks = Checks("freetds")
host, port, user, password = server()


def environment(encrypted):
    """FreeTDS reads its servers from a file; encryption is said there and nowhere else."""
    path = os.path.join(folder, f"freetds-{encrypted}.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"[standin]\nhost = {host}\nport = {port}\ntds version = 7.4\nclient charset = UTF-8\n"
            f"encryption = {'require' if encrypted else 'off'}\n"
        )
    return {**os.environ, "FREETDSCONF": path, "LC_ALL": "C.UTF-8"}


def tsql(script, encrypted=True, login=(), database="proof"):
    command = ["tsql", "-S", "standin", "-U", user, "-P", login or password, "-D", database, "-o", "qf", "-t", "|"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, env=environment(encrypted), timeout=60, check=False)
    return done.returncode, done.stdout.replace("\r", ""), done.stderr


def bcp(*arguments):
    command = ["freebcp", *arguments, "-S", "standin", "-U", user, "-P", password, "-D", "proof"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(True), timeout=60, check=False)
    found = re.search(r"(\d+) rows copied", done.stdout)
    return (int(found.group(1)) if found else None), done.stdout + done.stderr


def messages(text):
    found = re.findall(r'Msg (\d+) \(severity (\d+), state (\d+)\) from (\S+?)(?:, Procedure (\S+))? ?(?:Line (\d+))?:\s+"(.*?)"$', text, re.M)
    return [(int(number), int(severity), int(state), int(line or 0), words) for number, severity, state, _, _, line, words in found]


def connects():
    for encrypted in (True, False):
        _, out, err = tsql("SELECT encrypt_option, DB_NAME() FROM sys.dm_exec_connections WHERE session_id = @@SPID\ngo\n", encrypted)
        checks.equal(f"encrypted={encrypted}", "TRUE|proof" in out if encrypted else "FALSE|proof" in out, True)
    code, out, err = tsql("", login="wrong")
    checks.equal("a wrong password", (code, messages(out + err)), (1, [(18456, 14, 1, 0, "Login failed for user 'sa'.")]))
    code, out, err = tsql("", database="nowhere")
    want = [
        (4060, 11, 1, 0, 'Cannot open database "nowhere" requested by the login. The login failed.'),
        (18456, 14, 1, 0, "Login failed for user 'sa'."),
    ]
    checks.equal("an unknown database", (code, messages(out + err)), (1, want))


def statements():
    _, out, err = tsql("SELECT 1 AS a, CAST(NULL AS int) AS b\nSELECT N'x😀é' AS c\ngo\n")
    checks.equal("two result sets", [line for line in out.splitlines() if line and not line.startswith(("locale", "using"))], ["a|b", "1|NULL", "c", "x😀é"])
    for script, want in (
        ("SELECT 1\n\nSELECT 1/0\ngo\n", (8134, 16, 1, 3, "Divide by zero error encountered.")),
        ("\nRAISERROR('own %s', 12, 34, 'text')\ngo\n", (50000, 12, 34, 2, "own text")),
        ("SELECT * FROM nowhere\ngo\n", (208, 16, 1, 1, "Invalid object name 'nowhere'.")),
        ("PRINT N'said é'\ngo\n", None),
    ):
        _, out, err = tsql(script)
        if want:
            checks.equal(f"error {want[0]}", messages(out + err), [want])
        else:
            checks.equal("PRINT", "said é" in out + err, True)
    script = (
        "DROP TABLE IF EXISTS dbo.journal; CREATE TABLE dbo.journal (id int)\ngo\n"
        "BEGIN TRAN\nINSERT INTO dbo.journal VALUES (1)\nROLLBACK\ngo\nBEGIN TRAN\nINSERT INTO dbo.journal VALUES (2)\nCOMMIT\ngo\n"
        "SELECT 'kept', id FROM dbo.journal\ngo\n"
    )
    _, out, _ = tsql(script)
    checks.equal("rollback and commit", re.findall(r"kept\|(\d+)", out), ["2"])


TABLE = """
    id int NOT NULL, t tinyint NULL, s smallint NULL, b bigint NULL, x bit NULL, r real NULL, f float NULL, d decimal(38, 10) NULL,
    m money NULL, c char(5) NULL, v varchar(50) NULL, nc nchar(4) NULL, nv nvarchar(50) NULL, bi binary(4) NULL, vb varbinary(50) NULL,
    dt datetime NULL, sd smalldatetime NULL, g uniqueidentifier NULL
"""
ROWS = """
    (1, 255, 32767, 9223372036854775807, 1, 3.5, 2.2250738585072014E-308, 9999999999999999999999999999.9999999999, 922337203685477.5807, 'ab',
     'text', N'漢', N'a😀é', 0x01020304, 0x00FF, '9999-12-31T23:59:59.997', '2079-06-06T23:59:00', '6F9619FF-8B86-D011-B42D-00C04FC964FF'),
    (2, 0, -32768, -9223372036854775808, 0, -3.5, -1.7976931348623157E+308, -0.0000000001, -922337203685477.5808, 'abcde',
     'x', N'abcd', N'b', 0xFFFFFFFF, 0x01, '1753-01-01T00:00:00', '1900-01-01T00:00:00', '00000000-0000-0000-0000-000000000000'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
"""


def bulk_copies():
    """Out of one table and into another of the same shape: nothing may differ, as the server itself compares them."""
    for form in ("-n", "-c"):
        tsql(f"DROP TABLE IF EXISTS dbo.from_here; CREATE TABLE dbo.from_here ({TABLE}); INSERT INTO dbo.from_here VALUES {ROWS}\ngo\n")
        if form == "-n":
            # Its native files know no NULL (length 0 is read back as a value of a fixed type, or as an empty one), and keep Unicode columns
            # in the client's character set, which it loads back as it stands.
            tsql("DELETE FROM dbo.from_here WHERE id = 3; UPDATE dbo.from_here SET nc = NULL, nv = NULL\ngo\n")
        rows = 2 if form == "-n" else 3
        tsql(f"DROP TABLE IF EXISTS dbo.to_there; CREATE TABLE dbo.to_there ({TABLE})\ngo\n")
        path = os.path.join(folder, f"rows{form}")
        copied, said = bcp("proof.dbo.from_here", "out", path, form)
        checks.equal(f"freebcp out {form}", copied or said, rows)
        copied, said = bcp("proof.dbo.to_there", "in", path, form)
        checks.equal(f"freebcp in {form}", copied or said, rows)
        # As characters, real and float lose digits and a time of day its milliseconds: those columns are not compared then.
        columns = "id, t, s, b, x, r, f, d, m, c, v, bi, vb, dt, sd, g" if form == "-n" else "id, t, s, b, x, d, m, c, v, nc, nv, bi, vb, sd, g"
        query = f"SELECT 'differ', COUNT(*) FROM (SELECT {columns} FROM dbo.from_here EXCEPT SELECT {columns} FROM dbo.to_there) AS d\ngo\n"
        _, out, err = tsql(query)
        checks.equal(f"what freebcp {form} brought", re.findall(r"differ\|(\d+)", out) or out + err, ["0"])


with tempfile.TemporaryDirectory() as folder:
    for check in (connects, statements, bulk_copies):
        checks.run(check.__name__, check)
checks.summary()
