"""Every type SQL Server sends, with its extremes: how T-SQL writes a value, and what Python has for it.

Python's clock ends at microseconds, so the seventh digit of a `time(7)` is checked as the server's text by the clients that need it.
"""

import struct
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal as D


def real(text):
    """The nearest float32, as Python's float shows it."""
    return struct.unpack("<f", struct.pack("<f", float(text)))[0]


GUID = uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")
EMOJI = "a😀é漢"

# declaration -> [(literal, value)]
VALUES = {
    "bit": [("0", False), ("1", True)],
    "tinyint": [("0", 0), ("255", 255)],
    "smallint": [("-32768", -32768), ("32767", 32767)],
    "int": [("-2147483648", -(2**31)), ("2147483647", 2**31 - 1), ("0", 0)],
    "bigint": [("-9223372036854775808", -(2**63)), ("9223372036854775807", 2**63 - 1)],
    "real": [("-3.40282347E+38", real("-3.40282347e38")), ("1.17549435E-38", real("1.17549435e-38")), ("0.1", real("0.1"))],
    "float": [
        ("-1.7976931348623157E+308", -1.7976931348623157e308),
        ("2.2250738585072014E-308", 2.2250738585072014e-308),
        ("0.1E0", 0.1),
    ],
    "decimal(38,0)": [("9" * 38, D("9" * 38)), ("-" + "9" * 38, D("-" + "9" * 38))],
    "decimal(38,38)": [("0." + "9" * 38, D("0." + "9" * 38)), ("0", D("0E-38"))],
    "decimal(5,2)": [("-999.99", D("-999.99")), ("0.5", D("0.50"))],
    "numeric(19,4)": [("922337203685477.5807", D("922337203685477.5807")), ("-0.0001", D("-0.0001"))],
    "money": [("-922337203685477.5808", D("-922337203685477.5808")), ("922337203685477.5807", D("922337203685477.5807"))],
    "smallmoney": [("-214748.3648", D("-214748.3648")), ("214748.3647", D("214748.3647"))],
    "date": [("'0001-01-01'", date(1, 1, 1)), ("'9999-12-31'", date(9999, 12, 31)), ("'2024-02-29'", date(2024, 2, 29))],
    "time(0)": [("'23:59:59'", time(23, 59, 59))],
    "time(3)": [("'12:34:56.789'", time(12, 34, 56, 789000))],
    "time(7)": [("'00:00:00'", time(0)), ("'23:59:59.999999'", time(23, 59, 59, 999999))],
    "smalldatetime": [("'1900-01-01T00:00:00'", datetime(1900, 1, 1)), ("'2079-06-06T23:59:00'", datetime(2079, 6, 6, 23, 59))],
    "datetime": [
        ("'1753-01-01T00:00:00'", datetime(1753, 1, 1)),
        ("'9999-12-31T23:59:59.997'", datetime(9999, 12, 31, 23, 59, 59, 997000)),
    ],
    "datetime2(0)": [("'9999-12-31T23:59:59'", datetime(9999, 12, 31, 23, 59, 59))],
    "datetime2(3)": [("'2024-02-29T12:34:56.789'", datetime(2024, 2, 29, 12, 34, 56, 789000))],
    "datetime2(7)": [
        ("'0001-01-01T00:00:00'", datetime(1, 1, 1)),
        ("'9999-12-31T23:59:59.999999'", datetime(9999, 12, 31, 23, 59, 59, 999999)),
    ],
    "datetimeoffset(7)": [
        ("'2024-02-29T12:34:56.123456+14:00'", datetime(2024, 2, 29, 12, 34, 56, 123456, timezone(timedelta(hours=14)))),
        ("'1900-01-02T00:00:00-13:30'", datetime(1900, 1, 2, 0, 0, 0, 0, timezone(-timedelta(hours=13, minutes=30)))),
    ],
    "char(5)": [("'ab'", "ab   "), ("'abcde'", "abcde")],
    "varchar(20)": [("''", ""), ("'naïve café'", "naïve café"), ("'a'' b'", "a' b")],
    "varchar(max)": [("''", ""), ("REPLICATE(CAST('x' AS varchar(max)), 9000)", "x" * 9000)],
    "nchar(4)": [("N'漢'", "漢   ")],
    "nvarchar(20)": [("N''", ""), (f"N'{EMOJI}'", EMOJI)],
    "nvarchar(max)": [("N''", ""), ("REPLICATE(CAST(N'漢😀' AS nvarchar(max)), 5000)", "漢😀" * 5000)],
    "binary(4)": [("0x0001", b"\x00\x01\x00\x00"), ("0xFFFFFFFF", b"\xff" * 4)],
    "varbinary(8)": [("0x", b""), ("0x0001020304050607", bytes(range(8)))],
    "varbinary(max)": [("0x", b""), ("CAST(REPLICATE(CAST('x' AS varchar(max)), 9000) AS varbinary(max))", b"x" * 9000)],
    "uniqueidentifier": [(f"'{GUID}'", GUID), ("'00000000-0000-0000-0000-000000000000'", uuid.UUID(int=0))],
    "text": [("'naïve'", "naïve"), ("''", "")],
    "ntext": [(f"N'{EMOJI}'", EMOJI)],
    "image": [("0x00FF", b"\x00\xff")],
    "xml": [("N'<a b=\"1\">é</a>'", '<a b="1">é</a>')],
}

# Types that T-SQL does not let one cast NULL to and compare, or that a table has at most one of, are not here.
BIG = 1024 * 1024
