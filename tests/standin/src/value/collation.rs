//! The collations this server knows: names, wire form, code pages.
//!
//! The wire form is MS-TDS 2.2.5.1.2: 20 bits of LCID, then fIgnoreCase, fIgnoreAccent,
//! fIgnoreKana, fIgnoreWidth, fBinary, fBinary2, fUTF8, one reserved bit, four bits of version, and
//! a byte of sort id (only the SQL_ collations have one). Names follow the pattern of
//! `sys.fn_helpcollations()`: a base and a suffix; the table is their product.
//!
//! A SQL_ collation has two sets of rules (`sys.fn_helpcollations()` describes both): those of a
//! Windows locale for Unicode, and a sort order for text in its code page. Behind the collations
//! the table has each of these once more, for the second set.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use encoding_rs::Encoding;

use super::Collation;

/// What the name of a collation says.
#[derive(Clone, Debug)]
pub(crate) struct CollationInfo {
    pub(crate) name: String,
    pub(crate) lcid: u32,
    pub(crate) version: u8,
    pub(crate) sort_id: u8,
    pub(crate) code_page: u16,
    pub(crate) case_sensitive: bool,
    pub(crate) accent_sensitive: bool,
    pub(crate) kana_sensitive: bool,
    pub(crate) width_sensitive: bool,
    pub(crate) binary: bool,
    pub(crate) binary2: bool,
    pub(crate) utf8: bool,
    pub(crate) supplementary: bool,
    /// A SQL_ collation as it compares text of its code page, by a sort order of its own; the entry
    /// of that name compares Unicode.
    pub(crate) sort_order: bool,
}

/// Windows collations: base name, LCID, version, code page.
const WINDOWS: &[(&str, u32, u8, u16)] = &[
    ("Latin1_General", 0x0409, 0, 1252),
    ("Latin1_General_100", 0x0409, 2, 1252),
    ("Cyrillic_General", 0x0419, 0, 1251),
    ("Cyrillic_General_100", 0x0419, 2, 1251),
    ("Greek", 0x0408, 0, 1253),
    ("Greek_100", 0x0408, 2, 1253),
    ("Turkish", 0x041F, 0, 1254),
    ("Turkish_100", 0x041F, 2, 1254),
    ("Japanese", 0x0411, 0, 932),
    ("Japanese_XJIS_100", 0x0411, 2, 932),
    ("Chinese_PRC", 0x0804, 0, 936),
    ("Chinese_Taiwan_Stroke", 0x0404, 0, 950),
    ("Korean_Wansung", 0x0412, 0, 949),
    ("Hebrew", 0x040D, 0, 1255),
    ("Arabic", 0x0401, 0, 1256),
    ("Thai", 0x041E, 0, 874),
    ("Vietnamese", 0x042A, 0, 1258),
    ("Finnish_Swedish", 0x040B, 0, 1252),
    ("Finnish_Swedish_100", 0x040B, 2, 1252),
    ("Danish_Norwegian", 0x0406, 0, 1252),
    ("Polish", 0x0415, 0, 1250),
    ("Polish_100", 0x0415, 2, 1250),
    ("Czech", 0x0405, 0, 1250),
    ("Czech_100", 0x0405, 2, 1250),
    ("Lithuanian", 0x0427, 0, 1257),
    ("French", 0x040C, 0, 1252),
    ("Modern_Spanish", 0x0C0A, 0, 1252),
];

/// SQL collations: name, LCID, sort id, code page. All of version 0, kana and width insensitive.
const SQL: &[(&str, u32, u8, u16)] = &[
    ("SQL_Latin1_General_CP437_BIN", 0x0409, 30, 437),
    ("SQL_Latin1_General_CP437_CS_AS", 0x0409, 31, 437),
    ("SQL_Latin1_General_CP437_CI_AS", 0x0409, 32, 437),
    ("SQL_Latin1_General_CP437_CI_AI", 0x0409, 34, 437),
    ("SQL_Latin1_General_CP850_BIN", 0x0409, 40, 850),
    ("SQL_Latin1_General_CP850_CS_AS", 0x0409, 41, 850),
    ("SQL_Latin1_General_CP850_CI_AS", 0x0409, 42, 850),
    ("SQL_Latin1_General_CP850_CI_AI", 0x0409, 44, 850),
    ("SQL_1xCompat_CP850_CI_AS", 0x0409, 49, 850),
    ("SQL_Latin1_General_CP1_CS_AS", 0x0409, 51, 1252),
    ("SQL_Latin1_General_CP1_CI_AI", 0x0409, 54, 1252),
    ("SQL_Latin1_General_CP1250_CS_AS", 0x0409, 81, 1250),
    ("SQL_Latin1_General_CP1250_CI_AS", 0x0409, 82, 1250),
    ("SQL_Latin1_General_CP1251_CS_AS", 0x0419, 105, 1251),
    ("SQL_Latin1_General_CP1251_CI_AS", 0x0419, 106, 1251),
    ("SQL_Latin1_General_CP1253_CS_AS", 0x0408, 113, 1253),
    ("SQL_Latin1_General_CP1253_CI_AS", 0x0408, 114, 1253),
    ("SQL_Latin1_General_CP1254_CS_AS", 0x041F, 129, 1254),
    ("SQL_Latin1_General_CP1254_CI_AS", 0x041F, 130, 1254),
];

const SUFFIXES: &[&str] = &[
    "BIN",
    "BIN2",
    "CI_AI",
    "CI_AI_KS",
    "CI_AI_KS_WS",
    "CI_AI_WS",
    "CI_AS",
    "CI_AS_KS",
    "CI_AS_KS_WS",
    "CI_AS_WS",
    "CS_AI",
    "CS_AI_KS",
    "CS_AI_KS_WS",
    "CS_AI_WS",
    "CS_AS",
    "CS_AS_KS",
    "CS_AS_KS_WS",
    "CS_AS_WS",
];

static TABLE: LazyLock<Vec<CollationInfo>> = LazyLock::new(build);
static BY_NAME: LazyLock<HashMap<String, u16>> = LazyLock::new(|| {
    TABLE
        .iter()
        .zip(0..)
        .filter(|(info, _)| !info.sort_order)
        .map(|(info, i)| (info.name.to_ascii_lowercase(), i))
        .collect()
});
static SORT_ORDERS: LazyLock<HashMap<&str, u16>> = LazyLock::new(|| {
    TABLE
        .iter()
        .zip(0..)
        .filter(|(info, _)| info.sort_order)
        .map(|(info, i)| (info.name.as_str(), i))
        .collect()
});
static BY_WIRE: LazyLock<HashMap<[u8; 5], u16>> = LazyLock::new(|| {
    let mut map = HashMap::new();
    for (_, i) in TABLE.iter().zip(0u16..) {
        map.entry(Collation(i).wire()).or_insert(i);
    }
    map
});

fn info(name: String, lcid: u32, version: u8, sort_id: u8, code_page: u16) -> CollationInfo {
    let parts: Vec<&str> = name.split('_').collect();
    let has = |part: &str| parts.contains(&part);
    let utf8 = has("UTF8");
    let (binary, binary2) = (has("BIN"), has("BIN2"));
    CollationInfo {
        lcid,
        version,
        sort_id,
        code_page: if utf8 { 65001 } else { code_page },
        case_sensitive: has("CS") || binary || binary2,
        accent_sensitive: has("AS") || binary || binary2,
        kana_sensitive: has("KS") || binary || binary2,
        width_sensitive: has("WS") || binary || binary2,
        binary,
        binary2,
        utf8,
        supplementary: has("SC") || utf8,
        sort_order: false,
        name,
    }
}

/// The first three entries are the constants of [`Collation`].
fn build() -> Vec<CollationInfo> {
    let mut table = vec![
        info("SQL_Latin1_General_CP1_CI_AS".into(), 0x0409, 0, 52, 1252),
        info("Latin1_General_100_CI_AS_SC".into(), 0x0409, 2, 0, 1252),
        info("Latin1_General_BIN2".into(), 0x0409, 0, 0, 1252),
    ];
    for &(name, lcid, sort_id, code_page) in SQL {
        table.push(info(name.into(), lcid, 0, sort_id, code_page));
    }
    for &(base, lcid, version, code_page) in WINDOWS {
        for suffix in SUFFIXES {
            table.push(info(format!("{base}_{suffix}"), lcid, version, 0, code_page));
            if version >= 2 && *suffix != "BIN" {
                if *suffix != "BIN2" {
                    table.push(info(format!("{base}_{suffix}_SC"), lcid, version, 0, code_page));
                }
                let sc = if *suffix == "BIN2" { "" } else { "_SC" };
                table.push(info(format!("{base}_{suffix}{sc}_UTF8"), lcid, version, 0, code_page));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    table.retain(|info| seen.insert(info.name.clone()));
    let sort_orders = |info: &&CollationInfo| info.sort_id != 0 && !info.binary && !info.binary2;
    let again: Vec<_> = table
        .iter()
        .filter(sort_orders)
        .map(|info| CollationInfo { sort_order: true, ..info.clone() })
        .collect();
    table.extend(again);
    table
}

impl Collation {
    /// SQL_Latin1_General_CP1_CI_AS, the default of an instance installed for US English.
    pub const DEFAULT: Self = Self(0);
    /// Latin1_General_100_CI_AS_SC
    pub const LATIN1_100_CI_AS_SC: Self = Self(1);
    /// Latin1_General_BIN2
    pub const LATIN1_BIN2: Self = Self(2);

    pub(crate) fn info(self) -> &'static CollationInfo {
        &TABLE[usize::from(self.0)]
    }

    /// The collation of that name (names compare without case). `database_default` is not one: the
    /// engine knows the database.
    pub fn by_name(name: &str) -> Option<Self> {
        BY_NAME.get(&name.to_ascii_lowercase()).map(|&i| Self(i))
    }

    /// Every collation, as `sys.fn_helpcollations()` lists them.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().zip(0..).filter(|(info, _)| !info.sort_order).map(|(_, i)| Self(i))
    }

    /// The rules for text in the collation's code page: its sort order, or its only rules.
    pub fn in_code_page(self) -> Self {
        SORT_ORDERS.get(self.name()).map_or(self, |&i| Self(i))
    }

    /// Whether these are the rules for text in a code page alone.
    pub fn is_sort_order(self) -> bool {
        self.info().sort_order
    }

    pub fn name(self) -> &'static str {
        &self.info().name
    }

    pub fn lcid(self) -> u32 {
        self.info().lcid
    }

    /// The eight flag bits of the wire form, fIgnoreCase lowest.
    pub fn flags(self) -> u8 {
        let i = self.info();
        if i.binary || i.binary2 {
            return u8::from(i.binary) << 4 | u8::from(i.binary2) << 5 | u8::from(i.utf8) << 6;
        }
        u8::from(!i.case_sensitive)
            | u8::from(!i.accent_sensitive) << 1
            | u8::from(!i.kana_sensitive) << 2
            | u8::from(!i.width_sensitive) << 3
            | u8::from(i.utf8) << 6
    }

    pub fn version(self) -> u8 {
        self.info().version
    }

    pub fn sort_id(self) -> u8 {
        self.info().sort_id
    }

    /// The five bytes of the wire.
    pub fn wire(self) -> [u8; 5] {
        let word = self.lcid() | u32::from(self.flags()) << 20 | u32::from(self.version()) << 28;
        let [a, b, c, d] = word.to_le_bytes();
        [a, b, c, d, self.sort_id()]
    }

    /// The first collation with this wire form.
    pub fn from_wire(wire: [u8; 5]) -> Option<Self> {
        BY_WIRE.get(&wire).map(|&i| Self(i))
    }

    pub fn code_page(self) -> u16 {
        self.info().code_page
    }

    pub fn is_utf8(self) -> bool {
        self.info().utf8
    }

    pub fn is_case_sensitive(self) -> bool {
        self.info().case_sensitive
    }

    /// BIN or BIN2.
    pub fn is_binary(self) -> bool {
        self.info().binary || self.info().binary2
    }

    /// Whether LEN, SUBSTRING and the like count surrogate pairs as one character (the _SC and
    /// _UTF8 collations).
    pub fn counts_code_points(self) -> bool {
        self.info().supplementary
    }

    /// The bytes of a char, varchar or text value; what the code page lacks becomes a question
    /// mark, as on the server.
    pub fn encode(self, text: &str) -> Vec<u8> {
        if text.is_ascii() || self.is_utf8() {
            return text.as_bytes().to_vec();
        }
        let code_page = self.code_page();
        if oem_table(code_page).is_none() {
            // at once where the code page has every character, as nearly always
            let (bytes, _, unmappable) = encoding(code_page).encode(text);
            if !unmappable {
                return bytes.into_owned();
            }
        }
        let mut out = Vec::with_capacity(text.len());
        for c in text.chars() {
            encode_char(code_page, c, &mut out);
        }
        out
    }

    /// How many bytes [`Self::encode`] gives.
    pub fn encoded_len(self, text: &str) -> usize {
        if text.is_ascii() || self.is_utf8() { text.len() } else { self.encode(text).len() }
    }

    pub fn decode(self, bytes: &[u8]) -> String {
        if bytes.is_ascii() {
            return bytes.iter().map(|&b| char::from(b)).collect();
        }
        match oem_table(self.code_page()) {
            Some(table) => bytes
                .iter()
                .map(|&b| if b < 0x80 { char::from(b) } else { table[usize::from(b - 0x80)] })
                .collect(),
            None => encoding(self.code_page()).decode_without_bom_handling(bytes).0.into_owned(),
        }
    }

    /// What a round trip through the code page leaves of a text: every store into a char or varchar
    /// does this.
    pub fn squeeze(self, text: &Arc<str>) -> Arc<str> {
        if text.is_ascii() || self.is_utf8() {
            return text.clone();
        }
        let bytes = self.encode(text);
        let back = self.decode(&bytes);
        if back == **text { text.clone() } else { back.into() }
    }
}

fn encode_char(code_page: u16, c: char, out: &mut Vec<u8>) {
    if c.is_ascii() {
        out.push(c as u8);
        return;
    }
    if let Some(table) = oem_table(code_page) {
        out.push(table.iter().zip(0x80u8..=0xFF).find(|(t, _)| **t == c).map_or(b'?', |(_, b)| b));
        return;
    }
    let mut buffer = [0; 4];
    let (bytes, _, unmappable) = encoding(code_page).encode(c.encode_utf8(&mut buffer));
    if unmappable { out.push(b'?') } else { out.extend_from_slice(&bytes) }
}

fn encoding(code_page: u16) -> &'static Encoding {
    match code_page {
        874 => encoding_rs::WINDOWS_874,
        932 => encoding_rs::SHIFT_JIS,
        936 => encoding_rs::GBK,
        949 => encoding_rs::EUC_KR,
        950 => encoding_rs::BIG5,
        1250 => encoding_rs::WINDOWS_1250,
        1251 => encoding_rs::WINDOWS_1251,
        1253 => encoding_rs::WINDOWS_1253,
        1254 => encoding_rs::WINDOWS_1254,
        1255 => encoding_rs::WINDOWS_1255,
        1256 => encoding_rs::WINDOWS_1256,
        1257 => encoding_rs::WINDOWS_1257,
        1258 => encoding_rs::WINDOWS_1258,
        65001 => encoding_rs::UTF_8,
        _ => encoding_rs::WINDOWS_1252,
    }
}

/// The upper halves of the two DOS code pages, which the WHATWG encodings lack.
fn oem_table(code_page: u16) -> Option<&'static [char]> {
    static CP437: LazyLock<Vec<char>> = LazyLock::new(|| {
        "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}"
            .chars()
            .collect()
    });
    static CP850: LazyLock<Vec<char>> = LazyLock::new(|| {
        "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}"
            .chars()
            .collect()
    });
    match code_page {
        437 => Some(&CP437),
        850 => Some(&CP850),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(name: &str) -> [u8; 5] {
        Collation::by_name(name).map(Collation::wire).unwrap_or_default()
    }

    #[test]
    fn wire_forms() {
        assert_eq!(wire("sql_latin1_general_cp1_ci_as"), [0x09, 0x04, 0xD0, 0x00, 0x34]);
        assert_eq!(wire("Latin1_General_CI_AS"), [0x09, 0x04, 0xD0, 0x00, 0x00]);
        assert_eq!(wire("Latin1_General_CS_AS"), [0x09, 0x04, 0xC0, 0x00, 0x00]);
        assert_eq!(wire("Latin1_General_BIN"), [0x09, 0x04, 0x00, 0x01, 0x00]);
        assert_eq!(wire("Latin1_General_BIN2"), [0x09, 0x04, 0x00, 0x02, 0x00]);
        assert_eq!(wire("Latin1_General_100_CI_AS_SC_UTF8"), [0x09, 0x04, 0xD0, 0x24, 0x00]);
        assert_eq!(wire("Latin1_General_100_BIN2_UTF8"), [0x09, 0x04, 0x00, 0x26, 0x00]);
        assert_eq!(wire("Japanese_CI_AS"), [0x11, 0x04, 0xD0, 0x00, 0x00]);
        assert_eq!(Collation::from_wire(Collation::DEFAULT.wire()), Some(Collation::DEFAULT));
    }

    #[test]
    fn constants_and_uniqueness() {
        assert_eq!(
            Collation::by_name("Latin1_General_100_CI_AS_SC"),
            Some(Collation::LATIN1_100_CI_AS_SC)
        );
        assert_eq!(Collation::by_name("Latin1_General_BIN2"), Some(Collation::LATIN1_BIN2));
        assert_eq!(BY_NAME.len() + SORT_ORDERS.len(), TABLE.len());
        assert!(Collation::by_name("No_Such").is_none());
    }

    #[test]
    fn code_pages() {
        let by = |n: &str| Collation::by_name(n).unwrap_or(Collation::DEFAULT);
        assert_eq!(Collation::DEFAULT.encode("aé€Ж"), [b'a', 0xE9, 0x80, b'?']);
        assert_eq!(by("Cyrillic_General_CI_AS").encode("Ж"), [0xC6]);
        assert_eq!(by("Japanese_CI_AS").encode("日"), [0x93, 0xFA]);
        assert_eq!(by("SQL_1xCompat_CP850_CI_AS").encode("é"), [0x82]);
        assert_eq!(by("SQL_1xCompat_CP850_CI_AS").decode(&[0x82, 0xFF]), "é\u{a0}");
        assert_eq!(oem_table(437).map(<[char]>::len), Some(128));
        assert_eq!(oem_table(850).map(<[char]>::len), Some(128));
        assert_eq!(by("Latin1_General_100_CI_AS_SC_UTF8").encode("😀").len(), 4);
        assert_eq!(&*Collation::DEFAULT.squeeze(&"Ωx".into()), "?x");
    }
}
