//! Log sequence numbers.
//!
//! An LSN is BINARY(10) end to end: it is compared as bytes, never as text, and its order means
//! something only within one database and one restore history. Both bounds of a CDC window are
//! inclusive, so "after this LSN" is `> lsn`, or `>= lsn.next()`.
//! <https://learn.microsoft.com/sql/relational-databases/system-functions/sys-fn-cdc-increment-lsn-transact-sql>

use std::{fmt, str::FromStr};

/// A transaction's commit LSN as in `__$start_lsn` and `last_cdc_lsn`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn([u8; 10]);

impl Lsn {
    pub const LEN: usize = 10;
    /// What `sys.fn_cdc_get_min_lsn` says when the instance does not exist or may not be read:
    /// never a position.
    pub const ZERO: Lsn = Lsn([0; 10]);
    pub const MAX: Lsn = Lsn([0xff; 10]);

    pub const fn new(bytes: [u8; 10]) -> Self {
        Lsn(bytes)
    }

    /// `None` unless there are exactly ten bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Lsn)
    }

    pub fn as_bytes(&self) -> &[u8; 10] {
        &self.0
    }

    pub fn is_zero(&self) -> bool {
        *self == Lsn::ZERO
    }

    /// The next possible LSN, as `sys.fn_cdc_increment_lsn`: plain arithmetic, the result need not
    /// exist. Saturates at the top.
    pub fn next(self) -> Self {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (sum, carried) = byte.overflowing_add(1);
            *byte = sum;
            if !carried {
                return Lsn(bytes);
            }
        }
        Lsn::MAX
    }

    /// The possible LSN before this one, as `sys.fn_cdc_decrement_lsn`. Saturates at zero.
    pub fn prev(self) -> Self {
        let mut bytes = self.0;
        for byte in bytes.iter_mut().rev() {
            let (difference, borrowed) = byte.overflowing_sub(1);
            *byte = difference;
            if !borrowed {
                return Lsn(bytes);
            }
        }
        Lsn::ZERO
    }
}

impl Lsn {
    /// From the numeric(25,0) of backup headers: the virtual log file's number, ten digits for the
    /// log block, and five for the slot.
    /// <https://learn.microsoft.com/sql/t-sql/statements/restore-statements-headeronly-transact-sql>
    fn from_decimal(digits: &str) -> Option<Lsn> {
        const SLOTS: u128 = 100_000;
        const BLOCKS: u128 = 10_000_000_000;
        let number: u128 = digits.parse().ok()?;
        let slot = u16::try_from(number % SLOTS).ok()?;
        let block = u32::try_from(number / SLOTS % BLOCKS).ok()?;
        let file = u32::try_from(number / SLOTS / BLOCKS).ok()?;
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&file.to_be_bytes());
        bytes[4..8].copy_from_slice(&block.to_be_bytes());
        bytes[8..].copy_from_slice(&slot.to_be_bytes());
        Some(Lsn(bytes))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not an LSN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an LSN is 0x followed by 20 hexadecimal digits, as SQL Server prints BINARY(10), or a decimal number as RESTORE HEADERONLY prints it"
)]
pub struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Lsn::from_decimal(text).ok_or(NotAnLsn);
        }
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or(NotAnLsn)?;
        if digits.len() != 2 * Self::LEN || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotAnLsn);
        }
        let mut bytes = [0; 10];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| NotAnLsn)?;
        }
        Ok(Lsn(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_sql_servers() {
        let lsn: Lsn = "0x0000002D000000A80003".parse().unwrap();
        assert_eq!(lsn.to_string(), "0x0000002D000000A80003");
        for bad in [
            "",
            "0x",
            "0000002D000000A80003",
            "45000000016800003x",
            "99999",
            "0x0000002D000000A8000",
            "0x0000002D000000A8000G",
            "0x+000002D000000A80003",
        ] {
            assert_eq!(bad.parse::<Lsn>(), Err(NotAnLsn), "{bad}");
        }
    }

    #[test]
    fn decimal_form_is_that_of_backup_headers() {
        let lsn: Lsn = "45000000016800003".parse().unwrap();
        assert_eq!(lsn.to_string(), "0x0000002D000000A80003");
        let most: Lsn = "4294967295429496729565535".parse().unwrap();
        assert_eq!(most, Lsn::MAX);
        assert_eq!("4294967296000000000000000".parse::<Lsn>(), Err(NotAnLsn));
    }

    #[test]
    fn next_and_prev_carry_and_saturate() {
        let lsn = Lsn::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]);
        assert_eq!(lsn.next().as_bytes(), &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(lsn.next().prev(), lsn);
        assert_eq!(Lsn::MAX.next(), Lsn::MAX);
        assert_eq!(Lsn::ZERO.prev(), Lsn::ZERO);
    }
}
