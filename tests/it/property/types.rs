//! The column types of random tables, and random values of them.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

/// A column type with its random values.
#[derive(Clone, Copy, Debug)]
pub struct Type {
    pub declared: &'static str,
    /// whether the type may be in a key
    pub key: bool,
    /// returns a random value as a literal
    pub literal: fn(&mut StdRng) -> String,
}

/// One of the choices.
pub fn pick<'a>(rng: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices.choose(rng).copied().unwrap_or("NULL")
}

fn small(rng: &mut StdRng) -> String {
    rng.random_range(0..8).to_string()
}

fn word(rng: &mut StdRng) -> String {
    pick(rng, &["N'a'", "N'A'", "N'a '", "N'b'", "N''", "N'zz'", "N'\u{e4}'", "N'Ab'"]).to_owned()
}

fn long_text(rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => format!(
            "REPLICATE(CAST(N'{}' AS nvarchar(max)), {})",
            pick(rng, &["x", "yz", "\u{6771}"]),
            rng.random_range(3_990..4_400)
        ),
        1 => "N''".to_owned(),
        _ => format!("N'text {}'", rng.random_range(0..1_000)),
    }
}

fn long_bytes(rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => format!(
            "CAST(REPLICATE(CAST('z' AS varchar(max)), {}) AS varbinary(max))",
            rng.random_range(7_990..8_100)
        ),
        1 => "0x".to_owned(),
        _ => format!("0x{:08X}", rng.random::<u32>()),
    }
}

pub const TYPES: &[Type] = &[
    Type { declared: "INT", key: true, literal: small },
    Type {
        declared: "BIGINT",
        key: true,
        literal: |rng| pick(rng, &["0", "1", "-1", "9223372036854775807", "5"]).to_owned(),
    },
    Type { declared: "SMALLINT", key: true, literal: small },
    Type { declared: "TINYINT", key: true, literal: small },
    Type { declared: "BIT", key: false, literal: |rng| pick(rng, &["0", "1"]).to_owned() },
    Type {
        declared: "DECIMAL(18,4)",
        key: true,
        literal: |rng| pick(rng, &["0", "1.5", "-1.5", "99999999999999.9999", "1.5001"]).to_owned(),
    },
    Type {
        declared: "DECIMAL(38,10)",
        key: true,
        literal: |rng| {
            pick(rng, &["0", "1", "-0.0000000001", "9999999999999999999999999999.9999999999"])
                .to_owned()
        },
    },
    Type {
        declared: "MONEY",
        key: false,
        literal: |rng| pick(rng, &["0", "922337203685477.5807", "-0.0001", "1.25"]).to_owned(),
    },
    Type {
        declared: "SMALLMONEY",
        key: false,
        literal: |rng| pick(rng, &["0", "214748.3647", "-0.0001"]).to_owned(),
    },
    Type {
        declared: "REAL",
        key: false,
        literal: |rng| pick(rng, &["0", "1.5E0", "3.4028235E38", "-1.1E-30"]).to_owned(),
    },
    Type {
        declared: "FLOAT",
        key: false,
        literal: |rng| pick(rng, &["0", "0.1E0", "1.7976931348623157E308", "-2.5E0"]).to_owned(),
    },
    Type {
        declared: "DATE",
        key: true,
        literal: |rng| {
            pick(rng, &["'0001-01-01'", "'9999-12-31'", "'2024-02-29'", "'2024-03-01'"]).to_owned()
        },
    },
    Type {
        declared: "TIME(7)",
        key: true,
        literal: |rng| {
            pick(rng, &["'00:00:00'", "'23:59:59.9999999'", "'12:00:00.0000001'"]).to_owned()
        },
    },
    Type {
        declared: "DATETIME",
        key: true,
        literal: |rng| {
            pick(
                rng,
                &["'1753-01-01T00:00:00'", "'2024-02-29T12:34:56.997'", "'2024-02-29T12:34:57'"],
            )
            .to_owned()
        },
    },
    Type {
        declared: "SMALLDATETIME",
        key: false,
        literal: |rng| pick(rng, &["'1900-01-01T00:00:00'", "'2024-02-29T12:34:00'"]).to_owned(),
    },
    Type {
        declared: "DATETIME2(7)",
        key: true,
        literal: |rng| {
            pick(
                rng,
                &[
                    "'0001-01-01T00:00:00.0000001'",
                    "'2024-02-29T12:34:56.1234567'",
                    "'2024-02-29T12:34:56.1234568'",
                ],
            )
            .to_owned()
        },
    },
    Type {
        declared: "DATETIME2(3)",
        key: false,
        literal: |rng| pick(rng, &["'2024-02-29T12:34:56.789'", "'2000-01-01'"]).to_owned(),
    },
    Type {
        declared: "DATETIMEOFFSET(7)",
        key: true,
        literal: |rng| {
            pick(
                rng,
                &[
                    "'2024-02-29T12:00:00 +05:30'",
                    "'2024-02-29T06:30:00 +00:00'",
                    "'2000-01-01T00:00:00.0000001 -14:00'",
                ],
            )
            .to_owned()
        },
    },
    Type {
        declared: "UNIQUEIDENTIFIER",
        key: true,
        literal: |rng| {
            format!(
                "'{}0112233-4455-6677-8899-aabbccddeef{}'",
                rng.random_range(0..3),
                rng.random_range(0..3)
            )
        },
    },
    Type {
        declared: "BINARY(4)",
        key: true,
        literal: |rng| pick(rng, &["0x00000000", "0x01", "0xDEADBEEF", "0x0100"]).to_owned(),
    },
    Type {
        declared: "VARBINARY(10)",
        key: true,
        literal: |rng| pick(rng, &["0x", "0x01", "0x0100", "0xFF"]).to_owned(),
    },
    Type { declared: "CHAR(5)", key: true, literal: word },
    Type { declared: "VARCHAR(20)", key: true, literal: word },
    Type { declared: "NCHAR(5)", key: true, literal: word },
    Type { declared: "NVARCHAR(20)", key: true, literal: word },
    Type { declared: "NVARCHAR(20) COLLATE Latin1_General_BIN2", key: true, literal: word },
    Type { declared: "NVARCHAR(20) COLLATE Latin1_General_100_CS_AS", key: true, literal: word },
    Type { declared: "VARCHAR(MAX)", key: false, literal: long_text },
    Type { declared: "NVARCHAR(MAX)", key: false, literal: long_text },
    Type { declared: "VARBINARY(MAX)", key: false, literal: long_bytes },
    Type {
        declared: "TEXT",
        key: false,
        literal: |rng| pick(rng, &["'text'", "''", "REPLICATE('t', 8000)"]).to_owned(),
    },
    Type {
        declared: "NTEXT",
        key: false,
        literal: |rng| pick(rng, &["N'text \u{6771}'", "N''"]).to_owned(),
    },
    Type { declared: "IMAGE", key: false, literal: |rng| pick(rng, &["0x", "0x0102"]).to_owned() },
    Type {
        declared: "XML",
        key: false,
        literal: |rng| pick(rng, &["N'<a/>'", "N'<a b=\"1\">x</a>'"]).to_owned(),
    },
];
