//! How text compares under a collation: sort keys, equality, LIKE, search.
//!
//! The weights follow the shape of the Windows sort (primary: the letter; then accents; then case,
//! kana, width) but not its full tables: within one script letters go in code point order after
//! Latin, symbols before digits before letters. Equality is what tests lean on, and it follows the
//! collation's name. Trailing blanks never count (SQL-92 padding, Microsoft KB 316626). Characters
//! outside the BMP have no weight in the version-80 and SQL collations, so they vanish from
//! comparisons there, as on the server.
//!
//! Text in the code page of a SQL_ collation is compared by that collation's sort order, one
//! character after the other: nothing is expanded ('ß' is not 'ss'), an accented letter comes after
//! its plain one and, unless accents do not count, is another one (SQL Server 7.0's "Sort Orders";
//! the descriptions in `sys.fn_helpcollations()`). The sort orders of code page 1252 are those of
//! ISO 8859-1: what no document tells of the letters that Windows added to it (Š, Œ, Ž, Ÿ) is
//! whether case counts for them. Each is only itself here.

use std::cmp::Ordering;

use unicode_normalization::UnicodeNormalization;

use super::{Collation, collation::CollationInfo};

impl Collation {
    pub fn compare(self, a: &str, b: &str) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        self.sort_key(a).cmp(&self.sort_key(b))
    }

    /// Whether `=` holds.
    pub fn equal(self, a: &str, b: &str) -> bool {
        if a.is_ascii() && b.is_ascii() && self.lcid() != 0x041F {
            let (a, b) = (a.trim_end_matches(' '), b.trim_end_matches(' '));
            if !a.contains('\0') && !b.contains('\0') {
                return if self.is_case_sensitive() { a == b } else { a.eq_ignore_ascii_case(b) };
            }
        }
        self.compare(a, b) == Ordering::Equal
    }

    /// Bytes that compare as the texts do.
    pub fn sort_key(self, text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 4);
        self.write_sort_key(text, &mut out);
        out
    }

    pub fn write_sort_key(self, text: &str, out: &mut Vec<u8>) {
        let info = self.info();
        let text = text.trim_end_matches(' ');
        if info.binary || info.binary2 {
            if info.utf8 {
                out.extend_from_slice(text.as_bytes());
            } else {
                out.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
            }
            return;
        }
        if info.sort_order {
            return dictionary_key(self, text, out);
        }
        if !info.case_sensitive && text.is_ascii() && info.lcid != 0x041F {
            out.extend(text.bytes().filter(|b| *b != 0).map(ascii_weight));
            return;
        }
        linguistic_key(info, text, out);
    }

    /// One character as LIKE, CHARINDEX and REPLACE see it: equal exactly when the collation takes
    /// the two for the same.
    pub fn fold(self, c: char) -> char {
        let info = self.info();
        if info.binary || info.binary2 {
            return c;
        }
        if info.sort_order {
            let c = if info.accent_sensitive {
                c
            } else {
                std::iter::once(c).nfd().next().unwrap_or(c)
            };
            return if info.case_sensitive { c } else { lower_in_page(info, c) };
        }
        let mut c = c;
        if !info.width_sensitive {
            c = narrow(c);
        }
        if !info.kana_sensitive {
            c = hiragana(c);
        }
        if !info.accent_sensitive
            && let Some(base) = std::iter::once(c).nfd().next()
        {
            c = base;
        }
        if !info.case_sensitive {
            c = lower(info, c);
        }
        c
    }

    /// LIKE with `%`, `_`, `[a-f]`, `[^…]` and an optional escape character.
    pub fn like(self, text: &str, pattern: &str, escape: Option<char>) -> bool {
        let text: Vec<char> = text.chars().collect();
        let pattern = parse_pattern(pattern, escape);
        match pattern {
            Some(pattern) => like_match(self, &text, &pattern),
            None => false,
        }
    }

    /// The first place (as a range of `char` indexes) at or after `from` where `needle` occurs.
    pub fn find(self, hay: &[char], needle: &[char], from: usize) -> Option<usize> {
        if needle.is_empty() || needle.len() > hay.len() {
            return None;
        }
        (from..=hay.len() - needle.len()).find(|&at| {
            hay[at..].iter().zip(needle).all(|(a, b)| a == b || self.fold(*a) == self.fold(*b))
        })
    }
}

#[derive(Debug)]
enum Element {
    Any,
    One,
    Literal(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

/// None when a bracket or an escape is not finished: such a pattern matches nothing.
fn parse_pattern(pattern: &str, escape: Option<char>) -> Option<Vec<Element>> {
    let mut out = Vec::new();
    let chars: Vec<char> = pattern.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        i += 1;
        if Some(c) == escape {
            out.push(Element::Literal(*chars.get(i)?));
            i += 1;
            continue;
        }
        match c {
            '%' => out.push(Element::Any),
            '_' => out.push(Element::One),
            '[' => {
                let negated = chars.get(i) == Some(&'^');
                i += usize::from(negated);
                let mut ranges = Vec::new();
                let first = i;
                loop {
                    let mut low = *chars.get(i)?;
                    if low == ']' && i > first {
                        i += 1;
                        break;
                    }
                    if low == ']' && !chars[i + 1..].contains(&']') {
                        i += 1;
                        break;
                    }
                    if Some(low) == escape {
                        i += 1;
                        low = *chars.get(i)?;
                    }
                    i += 1;
                    if chars.get(i) == Some(&'-') && chars.get(i + 1).is_some_and(|c| *c != ']') {
                        ranges.push((low, chars[i + 1]));
                        i += 2;
                    } else {
                        ranges.push((low, low));
                    }
                }
                out.push(Element::Set { negated, ranges });
            }
            c => out.push(Element::Literal(c)),
        }
    }
    Some(out)
}

fn like_match(collation: Collation, text: &[char], pattern: &[Element]) -> bool {
    let (mut t, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            Some(Element::Any) => {
                retry = Some((t, p + 1));
                p += 1;
                continue;
            }
            Some(element) if t < text.len() && one_matches(collation, text[t], element) => {
                t += 1;
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            _ => {}
        }
        match retry {
            Some((from, after)) if from < text.len() => {
                retry = Some((from + 1, after));
                t = from + 1;
                p = after;
            }
            _ => return false,
        }
    }
}

fn one_matches(collation: Collation, c: char, element: &Element) -> bool {
    match element {
        Element::Any | Element::One => true,
        Element::Literal(l) => c == *l || collation.fold(c) == collation.fold(*l),
        Element::Set { negated, ranges } => {
            let folded = collation.fold(c);
            let inside = |(low, high): &(char, char)| {
                if low == high {
                    return folded == collation.fold(*low);
                }
                let key = |c: char| collation.sort_key(c.encode_utf8(&mut [0; 4]));
                let key_of_c = key(c);
                key(*low) <= key_of_c && key_of_c <= key(*high)
            };
            ranges.iter().any(inside) != *negated
        }
    }
}

/// Weights of ASCII, 0x02 to 0x7F: controls, blanks and symbols, then digits from 0x40, then
/// letters from 0x50.
fn ascii_weight(b: u8) -> u8 {
    match b {
        b'0'..=b'9' => 0x40 + (b - b'0'),
        b'a'..=b'z' => 0x50 + (b - b'a'),
        b'A'..=b'Z' => 0x50 + (b - b'A'),
        // 0x01..=0x2F symbols keep their order, the other ASCII symbols follow them
        0..=0x2E => b + 1,
        b'/' => 0x30,
        b':'..=b'@' => 0x31 + (b - b':'),
        b'['..=b'`' => 0x38 + (b - b'['),
        // four symbols and DEL share what is left below the digits
        b'{' => 0x3E,
        b'|' => 0x3F,
        b'}' => 0x4A,
        b'~' => 0x4B,
        _ => 0x4C,
    }
}

/// A character's weight is one byte below 0x7F, an accent follows as 0xFF and the character; upper
/// case comes first where case counts.
fn dictionary_key(collation: Collation, text: &str, out: &mut Vec<u8>) {
    let info = collation.info();
    let mut cases = Vec::new();
    for c in text.chars() {
        let lowered = lower_in_page(info, c);
        cases.push(if c == lowered { 3 } else { 2 });
        let plain = std::iter::once(lowered).nfd().next().unwrap_or(lowered);
        if lowered.is_ascii() {
            out.push(ascii_weight(lowered as u8));
        } else if plain.is_ascii_alphabetic() {
            out.push(ascii_weight(plain as u8));
            if info.accent_sensitive {
                out.push(0xFF);
                out.extend_from_slice(&collation.encode(lowered.encode_utf8(&mut [0; 4])));
            }
        } else {
            out.push(if lowered.is_alphabetic() { 0x7E } else { 0x4D });
            out.extend_from_slice(&collation.encode(lowered.encode_utf8(&mut [0; 4])));
        }
    }
    if info.case_sensitive {
        out.push(1);
        out.extend_from_slice(&cases);
    }
}

/// Lower case where it is known that case does not count, or comes after.
fn lower_in_page(info: &CollationInfo, c: char) -> char {
    let added_by_windows =
        info.code_page == 1252 && !c.is_ascii() && !('\u{C0}'..='\u{FF}').contains(&c);
    if added_by_windows { c } else { lower(info, c) }
}

fn linguistic_key(info: &CollationInfo, text: &str, out: &mut Vec<u8>) {
    let mut accents = Vec::new();
    let mut cases = Vec::new();
    let turkish = info.lcid == 0x041F;
    for c in text.chars() {
        if c == '\0' || (info.version == 0 && c as u32 > 0xFFFF) {
            continue;
        }
        let narrowed = narrow(c);
        let wide = narrowed != c;
        let kana = hiragana(narrowed);
        let katakana = kana != narrowed;
        if let Some((weight, upper)) = tailored(info, kana) {
            out.extend_from_slice(&[0x6A, weight]);
            element(info, &mut accents, &mut cases, upper, katakana, wide);
            continue;
        }
        let expanded: &str = match kana {
            'ß' => "ss",
            'æ' => "ae",
            'Æ' => "AE",
            'œ' => "oe",
            'Œ' => "OE",
            _ => "",
        };
        if !expanded.is_empty() {
            for e in expanded.chars() {
                primary(info, e, out);
                element(info, &mut accents, &mut cases, e.is_uppercase(), false, wide);
            }
            continue;
        }
        if turkish && matches!(kana, 'i' | 'İ' | 'I' | 'ı') {
            // dotless before dotted, each with its own capital
            out.extend_from_slice(if matches!(kana, 'I' | 'ı') {
                &[0x57, 0xFF][..]
            } else {
                &[0x58][..]
            });
            element(info, &mut accents, &mut cases, matches!(kana, 'I' | 'İ'), katakana, wide);
            continue;
        }
        for part in std::iter::once(kana).nfd() {
            if unicode_normalization::char::is_combining_mark(part) {
                if info.accent_sensitive {
                    let [_, a, b, d] = (part as u32).to_be_bytes();
                    accents.extend_from_slice(&[3, a, b, d]);
                }
                continue;
            }
            primary(info, part, out);
            element(info, &mut accents, &mut cases, part.is_uppercase(), katakana, wide);
        }
    }
    while accents.last() == Some(&2) {
        accents.pop();
    }
    while cases.last() == Some(&2) {
        cases.pop();
    }
    if !accents.is_empty() || !cases.is_empty() {
        out.push(1);
        out.extend_from_slice(&accents);
        if !cases.is_empty() {
            out.push(1);
            out.extend_from_slice(&cases);
        }
    }
}

/// One letter's entries on the accent and case levels.
fn element(
    info: &CollationInfo,
    accents: &mut Vec<u8>,
    cases: &mut Vec<u8>,
    upper: bool,
    katakana: bool,
    wide: bool,
) {
    accents.push(2);
    // sort order 51 is documented as "uppercase preference"; the Windows sorts put lower case first
    let upper = info.case_sensitive && (upper != (info.sort_id == 51));
    let katakana = katakana && info.kana_sensitive;
    let wide = wide && info.width_sensitive;
    cases.push(2 + (u8::from(upper) | u8::from(katakana) << 1 | u8::from(wide) << 2));
}

fn primary(info: &CollationInfo, c: char, out: &mut Vec<u8>) {
    let folded = if c.is_ascii() { c } else { lower(info, c) };
    if folded.is_ascii() {
        out.push(ascii_weight(folded as u8));
        return;
    }
    let [_, a, b, d] = (folded as u32).to_be_bytes();
    let class = if folded.is_alphabetic() {
        0x80
    } else if folded.is_numeric() {
        0x4E
    } else {
        0x4D
    };
    out.extend_from_slice(&[class, a, b, d]);
}

/// Letters that a language puts after z: their place and whether they are capitals.
fn tailored(info: &CollationInfo, c: char) -> Option<(u8, bool)> {
    let order = match info.lcid {
        0x040B => ["åÅ", "äÄæÆ", "öÖøØ"],
        0x0406 => ["æÆäÄ", "øØöÖ", "åÅ"],
        _ => return None,
    };
    order
        .iter()
        .zip(1u8..)
        .find(|(letters, _)| letters.contains(c))
        .map(|(_, weight)| (weight, c.is_uppercase()))
}

fn lower(info: &CollationInfo, c: char) -> char {
    if info.lcid == 0x041F {
        match c {
            'I' => return 'ı',
            'İ' => return 'i',
            _ => {}
        }
    }
    let mut lowered = c.to_lowercase();
    match (lowered.next(), lowered.next()) {
        (Some('ς'), None) => 'σ',
        (Some(l), None) => l,
        _ => c,
    }
}

/// Full-width forms and half-width katakana to their ordinary forms.
fn narrow(c: char) -> char {
    if matches!(c, '\u{FF01}'..='\u{FFEE}' | '\u{3000}') {
        std::iter::once(c).nfkc().next().unwrap_or(c)
    } else {
        c
    }
}

fn hiragana(c: char) -> char {
    match c {
        '\u{30A1}'..='\u{30F6}' => char::from_u32(c as u32 - 0x60).unwrap_or(c),
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(name: &str) -> Collation {
        Collation::by_name(name).unwrap_or(Collation::DEFAULT)
    }

    #[test]
    fn sensitivities() {
        let ci = Collation::DEFAULT;
        assert!(ci.equal("Straße ", "STRASSE"));
        assert!(ci.equal("É", "é"));
        assert!(!ci.equal("é", "e"));
        assert!(by("Latin1_General_CI_AI").equal("É", "e"));
        assert!(!by("Latin1_General_CS_AS").equal("a", "A"));
        assert!(by("Latin1_General_CS_AS").compare("a", "A").is_lt());
        assert!(by("SQL_Latin1_General_CP1_CS_AS").compare("A", "a").is_lt());
        assert!(by("Japanese_CI_AS").equal("ア", "あ"));
        assert!(by("Japanese_CI_AS").equal("Ａ", "a"));
        assert!(!by("Japanese_CI_AS_KS").equal("ア", "あ"));
        assert!(!by("Japanese_CI_AS_WS").equal("Ａ", "a"));
        assert!(by("Turkish_CI_AS").equal("i", "İ"));
        assert!(!by("Turkish_CI_AS").equal("i", "I"));
        assert!(ci.equal("i", "I"));
        assert!(by("Greek_CI_AS").equal("Σας", "ΣΑΣ"));
    }

    /// dba.stackexchange.com/questions/335859: under one collation varchar 'ß' and 'ss' differ, and
    /// nvarchar N'ß' and N'ss' are equal.
    #[test]
    fn a_code_page_has_a_sort_order_under_the_sql_collations() {
        let unicode = Collation::DEFAULT;
        let page = unicode.in_code_page();
        assert!(unicode.equal("Straße", "strasse") && !page.equal("Straße", "strasse"));
        assert!(unicode.equal("œ", "OE") && !page.equal("œ", "OE"));
        assert!(page.equal("Ä ", "ä") && !page.equal("ä", "a") && page.equal("José", "JOSÉ"));
        for (a, b) in [("a", "à"), ("àz", "b"), ("ab", "àa"), ("z", "ß"), ("1", "a"), ("-", "1")]
        {
            assert!(page.compare(a, b).is_lt(), "{a} < {b}");
        }
        let insensitive = by("SQL_Latin1_General_CP1_CI_AI").in_code_page();
        assert!(insensitive.equal("José", "jose") && !insensitive.equal("ß", "ss"));
        let sensitive = by("SQL_Latin1_General_CP1_CS_AS").in_code_page();
        assert!(
            sensitive.compare("A", "a").is_lt()
                && sensitive.compare("a", "B").is_lt()
                && !sensitive.equal("ä", "Ä")
        );
        assert_eq!(by("Latin1_General_CI_AS").in_code_page(), by("Latin1_General_CI_AS"));
        assert_eq!(page.in_code_page(), page);
        assert_eq!(page.name(), unicode.name());
    }

    #[test]
    fn supplementary_characters_weigh_nothing_in_old_collations() {
        assert!(Collation::DEFAULT.equal("a😀", "a"));
        assert!(!Collation::LATIN1_100_CI_AS_SC.equal("a😀", "a"));
        assert!(!Collation::LATIN1_BIN2.equal("a😀", "a"));
    }

    #[test]
    fn order() {
        let ci = Collation::DEFAULT;
        for (a, b) in [
            ("a", "B"),
            ("a", "ab"),
            ("Z", "Ω"),
            ("1", "a"),
            ("_", "1"),
            ("e", "é"),
            ("éa", "eb"),
            ("resume", "résumé"),
        ] {
            assert!(ci.compare(a, b).is_lt(), "{a} < {b}");
        }
        assert!(by("Finnish_Swedish_CI_AS").compare("z", "ä").is_lt());
        assert!(ci.compare("ä", "z").is_lt());
        assert!(Collation::LATIN1_BIN2.compare("Z", "a").is_lt());
        assert!(ci.equal("a  ", "a"));
        assert!(!ci.equal(" a", "a"));
        let mut weights: Vec<u8> =
            (1..=127u8).filter(|b| !b.is_ascii_uppercase()).map(ascii_weight).collect();
        weights.sort_unstable();
        weights.dedup();
        assert_eq!(weights.len(), 101);
    }

    #[test]
    fn like() {
        let ci = Collation::DEFAULT;
        assert!(ci.like("Chai", "c%", None));
        assert!(ci.like("a%b", "a[%]b", None));
        assert!(!ci.like("axb", "a[%]b", None));
        assert!(ci.like("a_b", "a!_b", Some('!')));
        assert!(!ci.like("axb", "a!_b", Some('!')));
        assert!(ci.like("m", "[a-n]", None));
        assert!(!ci.like("m", "[^a-n]", None));
        assert!(ci.like("x]y", "x[]]y", None));
        assert!(ci.like("aXbXc", "a%b%c", None));
        assert!(!ci.like("abd", "a%c", None));
        assert!(!by("Latin1_General_CS_AS").like("Chai", "c%", None));
        assert!(!ci.like("abc", "abc[", None));
        assert!(ci.like("", "%", None));
    }
}
