"""Every statement the daemon sent during the tests, read by a T-SQL parser that is not ours (sqlfluff's).

    parse_sql.py FOLDER     parses FOLDER/*.sql; exits 1 when one is not T-SQL

The scenarios' servers write each distinct statement to a file. Statements that differ in names, numbers, texts, types and the length of
their lists only are one shape; the shortest of each shape is parsed, as it was sent. What the parser does not read is mended in the daemon,
or stands in sql_allowed.toml with the page that allows it.
"""

import multiprocessing
import re
import sys
import tomllib
from pathlib import Path

from sqlfluff.core import FluffConfig, Linter

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
    "UPDATE dbo.T a = 1",
    "UPDAT dbo.T SET a = 1 WHERE x = 2",
    "DELETE d dbo.T AS d",
    "CREATE TABLE IF NOT EXISTS dbo.T (a int)",
    "ALTER TABLE dbo.T ADD COLUMN a int",
    "DECLARE x int = 1",
    "IF 1 = 1 BEGIN SELECT 1",
    "IF 1 = 1 SELECT 1 ELSE",
)

TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|N?'(?:[^']|'')*'|\[(?:[^\]]|\]\])*\]|0x[0-9A-Fa-f]*|\d+(?:\.\d*)?|[@#\w$]+|\s+|.", re.S)
TYPE = re.compile(
    r"\b(?:bigint|int|smallint|tinyint|bit|decimal|numeric|money|smallmoney|float|real|date|time|datetime2?|smalldatetime|datetimeoffset|"
    r"n?varchar|n?char|varbinary|binary|n?text|image|xml|uniqueidentifier|sql_variant|rowversion|timestamp)\b"
    r"(?: \( (?:0(?: , 0)?|max) \))?"
)

parser = Linter(config=FluffConfig(overrides={"dialect": "tsql", "templater": "raw"}))


class Allowance:
    """One entry of sql_allowed.toml."""

    def __init__(self, entry):
        pattern = entry["pattern"]
        for word, meaning in entry.get("words", {}).items():
            pattern = re.sub(rf"\b{word}\b", lambda _: meaning, pattern)
        self.what, self.page = entry["what"], entry["page"]
        self.pattern, self.parsed_as = re.compile(pattern), entry["parsed_as"]

    def apply(self, statement):
        return self.pattern.sub(lambda _: self.parsed_as, statement)


def shape(statement):
    """What two statements have in common that a parser reads alike: list items once, in the order of their first appearance."""
    words = []
    for token in TOKEN.findall(statement):
        if token.isspace() or token.startswith(("--", "/*")):
            continue
        if token.startswith("["):
            # A doubled bracket is a thing of its own to a parser.
            words.append("[]]" if "]]" in token else "[]")
        elif token.endswith("'") and len(token) > 1:
            words.append("''")
        elif token[0].isdigit():
            words.append("0")
        else:
            words.append(re.sub(r"\d+", "0", token))
    text = re.sub(r"COLLATE \w+", "COLLATE c", TYPE.sub("type", " ".join(words)))
    return tuple(dict.fromkeys(re.split(r" , | (?=AND |OR )", text)))


def complaints(statement):
    """What the parser has against a statement; nothing when it reads it to the end."""
    parsed = parser.parse_string(statement)
    found = [violation.desc() for violation in parsed.violations]
    return found or ([] if parsed.tree else ["it has no parse tree"])


def judge(named):
    """The allowances (by place in the file) that a statement needed, or what is wrong with it."""
    name, statement, allowances = named
    wrong = complaints(statement)
    if not wrong:
        return name, (), None
    needed, text = [], statement
    for place, allowance in enumerate(allowances):
        changed = allowance.apply(text)
        if changed != text:
            needed.append(place)
            text = changed
            if not text.strip() or not complaints(text):
                return name, tuple(needed), None
    return name, (), wrong


def main(folder):
    allowances = [Allowance(entry) for entry in tomllib.loads((Path(__file__).parent / "sql_allowed.toml").read_text())["allowed"]]
    files = sorted(Path(folder).glob("*.sql"))
    if len(files) < STATEMENTS_MIN:
        sys.exit(f"{folder} has {len(files)} statements: run all scenarios first, they write them")
    shortest = {}
    for file in files:
        statement = file.read_text(encoding="utf-8")
        known = shortest.setdefault(shape(statement), (file.name, statement))
        if len(statement) < len(known[1]):
            shortest[shape(statement)] = (file.name, statement)
    failed = 0
    for statement in BROKEN:
        if judge(("", statement, allowances))[2] is None:
            failed += 1
            print(f"FAIL the parser takes what is not T-SQL: {statement}")
    used = set()
    with multiprocessing.Pool() as pool:
        for name, needed, wrong in pool.imap(judge, [(*named, allowances) for named in shortest.values()], chunksize=8):
            used.update(needed)
            if wrong:
                failed += 1
                print(f"FAIL {Path(folder) / name}: {wrong[0]}")
    for place, allowance in enumerate(allowances):
        if place not in used:
            failed += 1
            print(f"FAIL nothing needs this entry of sql_allowed.toml any more: {allowance.what}")
    print(f"{len(files)} statements in {len(shortest)} shapes, {len(BROKEN)} broken ones refused")
    print(f"{len(shortest) + len(BROKEN) + len(allowances) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
