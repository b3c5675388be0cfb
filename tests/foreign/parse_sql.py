"""Every statement the daemon sent during the tests, read by Microsoft's own T-SQL parser (ScriptDom) in the grammars of 2016, 2017 and 2019.

    parse_sql.py FOLDER [FILE...]     parses FOLDER/*.sql and the files; exits 1 when something is not T-SQL in one of the grammars

The scenarios' servers write each distinct statement to a file of FOLDER. A FILE is a script (`.sql`, with GO between its batches) or a page
(`.md`) whose ```sql blocks are scripts. The assembly comes with PyPI's mssql-cli, the runtime with dotnetcore2 (`requirements-parser.txt`).
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import clr_loader
import pythonnet

# Fewer than a test run sends by far: the servers wrote nothing, or somewhere else.
STATEMENTS_MIN = 200

# Statements that a parser worth asking refuses: whoever changes the parser or its version sees here whether it still looks.
BROKEN = (
    "SELECT * FROM dbo.T WHERE (a = 1",
    "SELECT a FROM dbo.T LIMIT 5",
    "SELECT a, FROM dbo.T",
    "SELECT a FROM dbo.T ORDER a",
    "SELECT TOP FROM dbo.T",
    "SELECT ROW_NUMBER() OVER ORDER BY a FROM dbo.T",
    "SELECT `a` FROM dbo.T",
    "SELECT 'a' || 'b'",
    "SELECT N'abc",
    "SELECT CAST(a int) FROM dbo.T",
    "SELECT * FROM dbo.T WITH (NOSUCHHINT)",
    "SELECT * FROM dbo.T WHERE WHERE a = 1",
    "SELECT * FROM dbo.A LEFT dbo.B ON 1 = 1",
    "SELECT a FROM dbo.T FOR UPDATE",
    "INSERT INTO dbo.T (a, b,) VALUES (1, 2)",
    "INSERT INTO dbo.T (a) VALUES (1) ON CONFLICT DO NOTHING",
    "INSERT INTO dbo.T VALUES",
    "INSERT BULK dbo.T (a int) WITH (KEEP_NULLS, NOSUCHOPTION)",
    "UPDATE dbo.T a = 1",
    "UPDAT dbo.T SET a = 1 WHERE x = 2",
    "DELETE d dbo.T AS d",
    "CREATE TABLE IF NOT EXISTS dbo.T (a int)",
    "ALTER TABLE dbo.T ADD COLUMN a int",
    "DECLARE x int = 1",
    "IF 1 = 1 BEGIN SELECT 1",
    "IF 1 = 1 SELECT 1 ELSE",
)

# Statements it takes, with what our own reading of them depends on.
SOUND = (
    "SELECT a FROM dbo.[T]]x] AS t WITH (UPDLOCK) OPTION (MAXDOP 1)",
    "DECLARE c CURSOR FOR SELECT a FROM dbo.T FOR UPDATE",
    "INSERT BULK [#c] ([a] int, [b] varchar(10) COLLATE Latin1_General_CI_AS) WITH (KEEP_NULLS, TABLOCK)",
    "INSERT BULK dbo.T ([a] int) WITH (KEEP_NULLS)",
)

# An option that INSERT BULK takes from programs and that the grammar lacks ("external tool only syntax":
# https://learn.microsoft.com/sql/t-sql/statements/insert-transact-sql#syntax). Every other option is left to the parser.
BULK = re.compile(r"\A\s*INSERT\s+BULK\b", re.I)
KEEP_NULLS = re.compile(r"\bKEEP_NULLS\b\s*,?\s*(?=[\w)][^\[\]']*\Z)", re.I)
NO_OPTIONS = re.compile(r"\bWITH\s*\(\s*\)\s*\Z", re.I)


def load():
    """The parsers by the name of their server's version."""
    site = Path(clr_loader.__file__).parents[1]
    framework = {"name": "Microsoft.NETCore.App", "version": "3.1.23"}
    # Without ICU on the machine the runtime starts only when it is told to do without cultures.
    config = {"runtimeOptions": {"framework": framework, "configProperties": {"System.Globalization.Invariant": True}}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runtimeconfig.json"
        file.write_text(json.dumps(config))
        pythonnet.set_runtime(clr_loader.get_coreclr(runtime_config=str(file), dotnet_root=str(site / "dotnetcore2" / "bin")))
        import clr
    assembly = site / "mssqlcli" / "mssqltoolsservice" / "bin" / "Microsoft.SqlServer.TransactSql.ScriptDom.dll"
    clr.AddReference(str(assembly))
    from Microsoft.SqlServer.TransactSql import ScriptDom

    # True: QUOTED_IDENTIFIER is on, as it is in every session of the daemon.
    return {
        "2016": ScriptDom.TSql130Parser(True),
        "2017": ScriptDom.TSql140Parser(True),
        "2019": ScriptDom.TSql150Parser(True),
    }


def without_bulk_options(statement):
    """The statement without the one option of INSERT BULK that the grammar lacks."""
    if not BULK.match(statement):
        return statement
    return NO_OPTIONS.sub("", KEEP_NULLS.sub("", re.sub(r",\s*KEEP_NULLS\s*\)\s*\Z", ")", statement, flags=re.I)))


def stray_for_update(tree):
    """Whether FOR UPDATE stands where there is no cursor: the grammar takes it after any SELECT, the server after a cursor's only (Msg 1003)."""
    blank = ("WhiteSpace", "SingleLineComment", "MultilineComment", "EndOfFile")
    words = [token.Text.upper() for token in tree.ScriptTokenStream if str(token.TokenType) not in blank]
    return "CURSOR" not in words and "TRIGGER" not in words and ("FOR", "UPDATE") in zip(words, words[1:])


def complaints(parsers, statement):
    """What the grammars have against a statement, as `version: line: text`; nothing when all read it to the end."""
    from System.IO import StringReader

    statement, found = without_bulk_options(statement), []
    for version, parser in parsers.items():
        tree, errors = parser.Parse(StringReader(statement), None)
        found += [f"{version}: line {error.Line}: {error.Message}" for error in errors]
        if not found and stray_for_update(tree):
            found.append(f"{version}: FOR UPDATE is a cursor's only")
    return found


def scripts(file):
    """The scripts of a file with the places they stand at."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".md":
        return [(str(file), text)]
    blocks = re.finditer(r"^( *)```sql\n(.*?)^ *```$", text, re.M | re.S)
    return [(f"{file}:{text.count(chr(10), 0, block.start()) + 1}", block[2]) for block in blocks]


def main(folder, files):
    statements = [script for file in sorted(Path(folder).glob("*.sql")) for script in scripts(file)]
    if len(statements) < STATEMENTS_MIN:
        sys.exit(f"{folder} has {len(statements)} statements: run all scenarios first, they write them")
    named = [script for file in files for script in scripts(Path(file))]
    parsers, failed = load(), 0
    for statement in BROKEN:
        if not complaints(parsers, statement):
            failed += 1
            print(f"FAIL the parser takes what is not T-SQL: {statement}")
    for place, statement in [*((statement, statement) for statement in SOUND), *statements, *named]:
        wrong = complaints(parsers, statement)
        if wrong:
            failed += 1
            print(f"FAIL {place}: {'; '.join(wrong)}")
    print(f"{len(statements)} statements of the tests and {len(named)} scripts in {len(parsers)} grammars, {len(BROKEN)} broken ones refused")
    print(f"{len(statements) + len(named) + len(SOUND) + len(BROKEN) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
