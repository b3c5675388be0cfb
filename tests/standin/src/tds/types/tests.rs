//! Every type there and back, NULL and not, in rows and in parameters, through packets of an
//! awkward size.

use super::{
    Place,
    decode::{read_type_info, read_value},
    encode::{write_type_info, write_value},
};
use crate::{
    tds::{
        packet::{Packet, kind, status},
        reader::{MessageReader, PacketSource},
    },
    value::{Collation, Decimal, Length, SqlType, Value},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::VecDeque;

struct Packets(VecDeque<Packet>);

impl PacketSource for Packets {
    fn next_packet(&mut self) -> Option<Packet> {
        self.0.pop_front()
    }
}

/// Seven bytes a packet: nothing of more than one byte can count on being in one piece.
fn with_reader<T>(bytes: &[u8], read: impl FnOnce(&mut MessageReader<'_>) -> T) -> T {
    let mut packets: VecDeque<Packet> = bytes
        .chunks(7)
        .map(|chunk| Packet { kind: kind::RPC, status: 0, payload: chunk.to_vec() })
        .collect();
    packets.push_back(Packet {
        kind: kind::RPC,
        status: status::END_OF_MESSAGE,
        payload: Vec::new(),
    });
    let first = packets.pop_front().expect("a packet");
    let mut source = Packets(packets);
    read(&mut MessageReader::new(first, &mut source, 1 << 24).expect("a message"))
}

fn there_and_back(ty: SqlType, value: &Value) {
    for place in [Place::Column, Place::Param, Place::Bulk] {
        for nullable in [true, false] {
            if !nullable && *value == Value::Null {
                continue;
            }
            let mut bytes = Vec::new();
            write_type_info(&mut bytes, ty, nullable, place);
            write_value(&mut bytes, ty, nullable, value, place)
                .unwrap_or_else(|misfit| panic!("{value:?} as {ty:?} does not encode: {misfit:?}"));
            // RPC parameters have no text pointer, so a NULL is a length there; the server itself
            // returns no text parameters.
            let long = matches!(ty, SqlType::Text(_) | SqlType::NText(_) | SqlType::Image);
            if long && place == Place::Param && *value == Value::Null {
                continue;
            }
            let (read_ty, read) = with_reader(&bytes, |from| {
                let info = read_type_info(from, place).expect("TYPE_INFO");
                let value = read_value(from, &info, place).expect("a value");
                assert!(from.at_end().expect("an end"), "{ty:?}: bytes left over");
                (info.ty, value)
            });
            let expected = if ty == SqlType::RowVersion { SqlType::Binary(8) } else { ty };
            assert_eq!(read_ty, expected);
            assert_eq!(&read, value, "{ty:?} in {place:?}");
        }
    }
}

fn types(rng: &mut StdRng) -> Vec<(SqlType, Value)> {
    let latin = Collation::DEFAULT;
    let cyrillic = Collation::by_name("Cyrillic_General_CI_AS").expect("a Cyrillic collation");
    let utf8 = Collation::by_name("Latin1_General_100_CI_AS_SC_UTF8").expect("a UTF-8 collation");
    let text = |s: &str| Value::Str(s.into());
    let mut bytes = |n: usize| -> Value {
        Value::Bytes((0..n).map(|_| rng.random()).collect::<Vec<u8>>().into())
    };
    let (short_bytes, long_bytes, eight) = (bytes(20), bytes(30_000), bytes(8));
    let long_text = text(&"Ünïcode 🦀 ".repeat(3000));
    let days = rng.random_range(0..=3_652_058);
    let ticks = rng.random_range(0..864_000_000_000u64);
    let mut all = vec![
        (SqlType::Bit, Value::Bit(rng.random())),
        (SqlType::TinyInt, Value::Int(rng.random::<u8>().into())),
        (SqlType::SmallInt, Value::Int(rng.random::<i16>().into())),
        (SqlType::Int, Value::Int(rng.random::<i32>().into())),
        (SqlType::BigInt, Value::Int(rng.random())),
        (
            SqlType::Money,
            Value::Decimal(Decimal { mantissa: rng.random::<i64>().into(), scale: 4 }),
        ),
        (
            SqlType::SmallMoney,
            Value::Decimal(Decimal { mantissa: rng.random::<i32>().into(), scale: 4 }),
        ),
        (SqlType::Real, Value::Float(rng.random::<f32>().into())),
        (SqlType::Float, Value::Float(rng.random())),
        (SqlType::Date, Value::Date(days)),
        (
            SqlType::DateTime,
            Value::DateTime {
                days: rng.random_range(-53_690..=2_958_463),
                ticks300: rng.random_range(0..25_920_000),
            },
        ),
        (
            SqlType::SmallDateTime,
            Value::SmallDateTime { days: rng.random(), minutes: rng.random_range(0..1440) },
        ),
        (SqlType::Char(10, latin), text("Köln      ")),
        (SqlType::VarChar(Length::N(20), cyrillic), text("Привет")),
        (SqlType::VarChar(Length::N(40), utf8), text("Привет 🦀")),
        (SqlType::VarChar(Length::N(40), latin), text("")),
        (SqlType::VarChar(Length::Max, latin), text(&"é".repeat(20_000))),
        (SqlType::VarChar(Length::Max, latin), text("")),
        (SqlType::NChar(3, latin), text("日本語")),
        (SqlType::NVarChar(Length::N(4000), latin), text("🦀 and 日本語")),
        (SqlType::NVarChar(Length::Max, latin), long_text.clone()),
        (SqlType::Text(cyrillic), text("Привет")),
        (SqlType::NText(latin), long_text.clone()),
        (SqlType::Binary(20), short_bytes.clone()),
        (SqlType::VarBinary(Length::N(8000)), short_bytes.clone()),
        (SqlType::VarBinary(Length::Max), long_bytes.clone()),
        (SqlType::Image, long_bytes.clone()),
        (SqlType::UniqueIdentifier, Value::Guid(rng.random())),
        (SqlType::Xml, text("<a b=\"ç\"/>")),
        (SqlType::RowVersion, eight),
        (SqlType::HierarchyId, short_bytes.clone()),
        (SqlType::Geometry, long_bytes.clone()),
        (SqlType::Geography, long_bytes),
    ];
    for scale in 0..=7u8 {
        let ticks = ticks / super::ticks_per_unit(scale) * super::ticks_per_unit(scale);
        all.push((SqlType::Time(scale), Value::Time(ticks)));
        all.push((SqlType::DateTime2(scale), Value::DateTime2 { days, ticks }));
        let offset_minutes = rng.random_range(-840..=840);
        all.push((
            SqlType::DateTimeOffset(scale),
            Value::DateTimeOffset { days, ticks, offset_minutes },
        ));
    }
    for precision in 1..=38u8 {
        let scale = rng.random_range(0..=precision);
        let bound = 10i128.pow(precision.into());
        let mantissa = rng.random_range(-bound + 1..bound);
        all.push((
            SqlType::Decimal { precision, scale },
            Value::Decimal(Decimal { mantissa, scale }),
        ));
    }
    all
}

#[test]
fn every_type_goes_there_and_back() {
    for seed in 0..20 {
        let rng = &mut StdRng::seed_from_u64(seed);
        for (ty, value) in types(rng) {
            there_and_back(ty, &value);
            there_and_back(ty, &Value::Null);
        }
    }
}

#[test]
fn every_base_type_of_sql_variant_goes_there_and_back() {
    let rng = &mut StdRng::seed_from_u64(1);
    let mut seen = 0;
    for (ty, value) in types(rng) {
        let in_variant = !matches!(
            ty,
            SqlType::VarChar(Length::Max, _)
                | SqlType::NVarChar(Length::Max, _)
                | SqlType::VarBinary(Length::Max)
                | SqlType::Text(_)
                | SqlType::NText(_)
                | SqlType::Image
                | SqlType::Xml
                | SqlType::RowVersion
                | SqlType::HierarchyId
                | SqlType::Geometry
                | SqlType::Geography
        );
        if in_variant {
            there_and_back(SqlType::SqlVariant, &Value::Variant(Box::new((ty, value))));
            seen += 1;
        }
    }
    assert!(seen > 60);
    there_and_back(SqlType::SqlVariant, &Value::Null);
}

#[test]
fn a_value_that_does_not_fit_is_told_not_sent() {
    for (ty, value) in [
        (SqlType::TinyInt, Value::Int(256)),
        (SqlType::SmallInt, Value::Int(40_000)),
        (SqlType::Int, Value::Str("1".into())),
        (
            SqlType::Decimal { precision: 5, scale: 2 },
            Value::Decimal(Decimal { mantissa: 1 << 40, scale: 2 }),
        ),
        (SqlType::Money, Value::Decimal(Decimal { mantissa: 12_345, scale: 5 })),
        (SqlType::VarChar(Length::N(10), Collation::DEFAULT), Value::Int(1)),
    ] {
        assert!(
            write_value(&mut Vec::new(), ty, true, &value, Place::Column).is_err(),
            "{value:?} as {ty:?}"
        );
    }
    assert!(
        write_value(&mut Vec::new(), SqlType::Int, false, &Value::Null, Place::Column).is_err()
    );
}

#[test]
fn broken_bytes_are_an_error_never_a_panic() {
    let rng = &mut StdRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..rng.random_range(1..60)).map(|_| rng.random()).collect();
        for place in [Place::Column, Place::Param, Place::Bulk] {
            with_reader(&bytes, |from| {
                if let Ok(info) = read_type_info(from, place) {
                    // Whatever comes out, it comes out.
                    let _ = read_value(from, &info, place);
                }
            });
        }
    }
}
