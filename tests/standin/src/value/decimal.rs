//! Exact decimals: decimal, numeric, money and smallmoney.
//!
//! Result precision and scale follow "Precision, scale, and length" of the Transact-SQL reference;
//! rounding is half away from zero (what the server does everywhere a scale shrinks), except that
//! division truncates at the result's scale.

use std::{cmp::Ordering, fmt};

use super::Decimal;
use crate::error::{SqlError, SqlResult};

/// 10^0 to 10^38.
pub(crate) fn power_of_ten(exponent: u32) -> Option<i128> {
    if exponent > 38 { None } else { 10i128.checked_pow(exponent) }
}

/// Error 8115.
pub fn overflow(what: &str, target: &str) -> SqlError {
    SqlError::new(
        8115,
        16,
        format!("Arithmetic overflow error converting {what} to data type {target}."),
    )
}

/// Error 8134.
pub fn divide_by_zero() -> SqlError {
    SqlError::new(8134, 16, "Divide by zero error encountered.")
}

/// The arithmetic operations that have a result type of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// The precision and scale of a result, of operands given as (precision, scale).
pub fn result_type(op: Operation, (p1, s1): (u8, u8), (p2, s2): (u8, u8)) -> (u8, u8) {
    let (p1, s1, p2, s2) = (i32::from(p1), i32::from(s1), i32::from(p2), i32::from(s2));
    let (mut precision, mut scale) = match op {
        Operation::Add | Operation::Subtract => {
            (s1.max(s2) + (p1 - s1).max(p2 - s2) + 1, s1.max(s2))
        }
        Operation::Multiply => (p1 + p2 + 1, s1 + s2),
        Operation::Divide => {
            let scale = 6.max(s1 + p2 + 1);
            (p1 - s1 + s2 + scale, scale)
        }
        Operation::Modulo => ((p1 - s1).min(p2 - s2) + s1.max(s2), s1.max(s2)),
    };
    if precision > 38 {
        let integral = precision - scale;
        scale = match op {
            // the documented reduction: keep the integral part, but no fewer than min(scale, 6)
            // decimals
            Operation::Multiply | Operation::Divide => {
                if integral < 32 {
                    scale.min(38 - integral)
                } else {
                    scale.min(6)
                }
            }
            _ => scale.min(38 - (integral - 1).min(38)).max(0),
        };
        precision = 38;
    }
    (u8::try_from(precision.max(1)).unwrap_or(38), u8::try_from(scale.max(0)).unwrap_or(0))
}

impl Decimal {
    pub const ZERO: Self = Self { mantissa: 0, scale: 0 };

    pub fn new(mantissa: i128, scale: u8) -> Self {
        Self { mantissa, scale }
    }

    /// A literal or a cast string: sign, digits, one point. No exponent (an error for decimals), no
    /// thousands separator.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mut mantissa, mut scale, mut any, mut point) = (0i128, 0u8, false, false);
        for b in digits.bytes() {
            match b {
                b'0'..=b'9' => {
                    any = true;
                    if point && scale == 38 {
                        continue;
                    }
                    mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(b - b'0'))?;
                    if point {
                        scale += 1;
                    }
                }
                b'.' if !point => point = true,
                _ => return None,
            }
        }
        any.then_some(Self { mantissa: if negative { -mantissa } else { mantissa }, scale })
    }

    /// Digits before and after the point, at least one.
    pub fn precision(self) -> u8 {
        let mut digits = 1u8;
        let mut rest = self.mantissa.unsigned_abs() / 10;
        while rest > 0 {
            digits += 1;
            rest /= 10;
        }
        digits.max(self.scale)
    }

    /// Rounded half away from zero to a scale; None when it does not fit in 38 digits.
    pub fn rescale(self, scale: u8) -> Option<Self> {
        let mantissa = match scale.cmp(&self.scale) {
            Ordering::Equal => self.mantissa,
            Ordering::Greater => {
                self.mantissa.checked_mul(power_of_ten(u32::from(scale - self.scale))?)?
            }
            Ordering::Less => match power_of_ten(u32::from(self.scale - scale)) {
                Some(divisor) => div_round(self.mantissa, divisor),
                None => 0,
            },
        };
        (mantissa.unsigned_abs() < 10u128.pow(38)).then_some(Self { mantissa, scale })
    }

    /// Cut (not rounded) to a scale.
    pub fn truncate(self, scale: u8) -> Self {
        if scale >= self.scale {
            return self;
        }
        let mantissa = power_of_ten(u32::from(self.scale - scale))
            .map_or(0, |divisor| self.mantissa / divisor);
        Self { mantissa, scale }
    }

    /// As decimal(precision, scale), or None on overflow.
    pub fn fit(self, precision: u8, scale: u8) -> Option<Self> {
        let fitted = self.rescale(scale)?;
        let limit = power_of_ten(u32::from(precision))?;
        (fitted.mantissa.abs() < limit).then_some(fitted)
    }

    pub fn to_f64(self) -> f64 {
        // the text route rounds once and correctly; a float division of a large mantissa would
        // round twice
        self.to_string().parse().unwrap_or(0.0)
    }

    /// A float as a decimal of a scale, as CAST does it: from its 17 significant digits, rounded
    /// half away from zero.
    pub fn from_f64(value: f64, scale: u8) -> Option<Self> {
        if !value.is_finite() || value.abs() >= 1e38 {
            return None;
        }
        let text = format!("{value:.16e}");
        let (digits, exponent) = text.split_once('e')?;
        let exponent: i32 = exponent.parse().ok()?;
        let parsed = Self::parse(digits)?;
        let shift = exponent + i32::from(scale) - i32::from(parsed.scale);
        let mantissa = if shift >= 0 {
            parsed.mantissa.checked_mul(power_of_ten(u32::try_from(shift).ok()?)?)?
        } else {
            power_of_ten(shift.unsigned_abs())
                .map_or(0, |divisor| div_round(parsed.mantissa, divisor))
        };
        Some(Self { mantissa, scale })
    }

    /// The whole part, towards zero.
    pub fn trunc(self) -> i128 {
        self.truncate(0).mantissa
    }

    fn aligned(self, other: Self) -> Option<(i128, i128, u8)> {
        let scale = self.scale.max(other.scale);
        let up = |d: Self| d.mantissa.checked_mul(power_of_ten(u32::from(scale - d.scale))?);
        Some((up(self)?, up(other)?, scale))
    }

    /// An operation on operands of declared types; the result has the documented type.
    pub fn operate(
        op: Operation,
        a: Self,
        a_type: (u8, u8),
        b: Self,
        b_type: (u8, u8),
    ) -> SqlResult<Self> {
        let (precision, scale) = result_type(op, a_type, b_type);
        let raw = match op {
            Operation::Add => {
                a.aligned(b).and_then(|(x, y, s)| Some(Self::new(x.checked_add(y)?, s)))
            }
            Operation::Subtract => {
                a.aligned(b).and_then(|(x, y, s)| Some(Self::new(x.checked_sub(y)?, s)))
            }
            Operation::Multiply => multiply(a, b, scale),
            Operation::Divide | Operation::Modulo if b.mantissa == 0 => {
                return Err(divide_by_zero());
            }
            Operation::Divide => divide(a, b, scale),
            Operation::Modulo => a.aligned(b).map(|(x, y, s)| Self::new(x % y, s)),
        };
        raw.and_then(|d| d.fit(precision, scale)).ok_or_else(|| overflow("expression", "numeric"))
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    /// By value; equal values of unequal scales are told apart by scale, so that this agrees with
    /// `Eq`. Use [`Decimal::compare`] for SQL's comparison.
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare(*other).then(self.scale.cmp(&other.scale))
    }
}

impl Decimal {
    pub fn compare(self, other: Self) -> Ordering {
        if self.scale == other.scale {
            return self.mantissa.cmp(&other.mantissa);
        }
        match self.aligned(other) {
            Some((a, b, _)) => a.cmp(&b),
            // too far apart to align: whole parts decide, they cannot be equal and both large
            None => self
                .trunc()
                .cmp(&other.trunc())
                .then_with(|| self.to_f64().total_cmp(&other.to_f64())),
        }
    }
}

fn div_round(mantissa: i128, divisor: i128) -> i128 {
    let quotient = mantissa / divisor;
    let rest = (mantissa % divisor).unsigned_abs();
    if rest >= divisor.unsigned_abs().div_ceil(2) {
        quotient + mantissa.signum() * divisor.signum()
    } else {
        quotient
    }
}

/// A product of 76 digits can be asked for; it is formed in two halves and rounded to `scale`.
fn multiply(a: Decimal, b: Decimal, scale: u8) -> Option<Decimal> {
    let full = a.scale + b.scale;
    if let Some(mantissa) = a.mantissa.checked_mul(b.mantissa) {
        if full <= scale {
            return Decimal { mantissa, scale: full }.rescale(scale);
        }
        let mantissa = power_of_ten(u32::from(full - scale)).map_or(0, |d| div_round(mantissa, d));
        return Some(Decimal { mantissa, scale });
    }
    let negative = (a.mantissa < 0) != (b.mantissa < 0);
    let mut wide = wide_multiply(a.mantissa.unsigned_abs(), b.mantissa.unsigned_abs());
    for step in (scale..full).rev() {
        let rest = wide_divide_small(&mut wide, 10);
        if step == scale && rest >= 5 {
            wide_add_small(&mut wide, 1);
        }
    }
    wide_to_i128(&wide).map(|m| Decimal { mantissa: if negative { -m } else { m }, scale })
}

/// Truncates at `scale`, as the server does.
fn divide(a: Decimal, b: Decimal, scale: u8) -> Option<Decimal> {
    let negative = (a.mantissa < 0) != (b.mantissa < 0);
    let divisor = b.mantissa.unsigned_abs();
    // a.m/10^a.s / (b.m/10^b.s) * 10^scale = a.m * 10^(scale + b.s - a.s) / b.m, digit by digit
    let shift = i32::from(scale) + i32::from(b.scale) - i32::from(a.scale);
    let mut numerator = a.mantissa.unsigned_abs();
    if shift < 0 {
        numerator /= u128::try_from(power_of_ten(shift.unsigned_abs())?).ok()?;
    }
    let mut quotient = numerator / divisor;
    let mut rest = numerator % divisor;
    for _ in 0..shift.max(0) {
        // rest < divisor < 10^38, so rest*10 may pass 2^128: divide in two steps of at most 5
        let twice = rest.checked_mul(2)?;
        let (q1, r1) = (twice / divisor, twice % divisor);
        let (mut digit, mut carry) = (q1 * 5, 0u128);
        for _ in 0..5 {
            carry += r1;
            if carry >= divisor {
                carry -= divisor;
                digit += 1;
            }
        }
        rest = carry;
        quotient = quotient.checked_mul(10)?.checked_add(digit)?;
    }
    let mantissa = i128::try_from(quotient).ok()?;
    Some(Decimal { mantissa: if negative { -mantissa } else { mantissa }, scale })
}

fn wide_multiply(a: u128, b: u128) -> [u64; 4] {
    let limbs = |v: u128| [v as u64, (v >> 64) as u64];
    let mut out = [0u64; 4];
    for (i, x) in limbs(a).into_iter().enumerate() {
        let mut carry = 0u128;
        for (j, y) in limbs(b).into_iter().enumerate() {
            let sum = u128::from(x) * u128::from(y) + u128::from(out[i + j]) + carry;
            out[i + j] = sum as u64;
            carry = sum >> 64;
        }
        out[i + 2] = carry as u64;
    }
    out
}

fn wide_divide_small(wide: &mut [u64; 4], divisor: u64) -> u64 {
    let mut rest = 0u128;
    for limb in wide.iter_mut().rev() {
        let value = rest << 64 | u128::from(*limb);
        *limb = (value / u128::from(divisor)) as u64;
        rest = value % u128::from(divisor);
    }
    rest as u64
}

fn wide_add_small(wide: &mut [u64; 4], add: u64) {
    let mut carry = add;
    for limb in wide {
        let (sum, over) = limb.overflowing_add(carry);
        *limb = sum;
        carry = u64::from(over);
    }
}

fn wide_to_i128(wide: &[u64; 4]) -> Option<i128> {
    if wide[2] != 0 || wide[3] != 0 {
        return None;
    }
    i128::try_from(u128::from(wide[1]) << 64 | u128::from(wide[0])).ok()
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        if fraction.is_empty() {
            write!(f, "{sign}{whole}")
        } else {
            write!(f, "{sign}{whole}.{fraction}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or(Decimal::ZERO)
    }

    #[test]
    fn text_and_scale() {
        for text in [
            "0",
            "-1.50",
            "0.001",
            "99999999999999999999999999999999999999",
            "-0.00000000000000000000000000000000000001",
        ] {
            assert_eq!(d(text).to_string(), text);
        }
        assert_eq!(d(".5").to_string(), "0.5");
        assert!(Decimal::parse("1e3").is_none());
        assert!(Decimal::parse("").is_none());
        assert_eq!(d("2.5").rescale(0), Some(Decimal::new(3, 0)));
        assert_eq!(d("-2.5").rescale(0), Some(Decimal::new(-3, 0)));
        assert_eq!(d("2.449").rescale(1), Some(Decimal::new(24, 1)));
        assert_eq!(d("123.456").fit(4, 2), None);
        assert_eq!(Decimal::from_f64(0.1 + 0.2, 4), Some(Decimal::new(3000, 4)));
        assert_eq!(
            Decimal::from_f64(1e20, 2).map(|d| d.to_string()).as_deref(),
            Some("100000000000000000000.00")
        );
        assert_eq!(d("1.0").compare(d("1.00")), Ordering::Equal);
    }

    #[test]
    fn result_types() {
        assert_eq!(result_type(Operation::Add, (10, 2), (5, 4)), (13, 4));
        assert_eq!(result_type(Operation::Multiply, (10, 2), (10, 2)), (21, 4));
        assert_eq!(result_type(Operation::Divide, (10, 2), (10, 2)), (23, 13));
        assert_eq!(result_type(Operation::Multiply, (38, 10), (38, 10)), (38, 6));
        assert_eq!(result_type(Operation::Divide, (38, 10), (38, 10)), (38, 6));
        assert_eq!(result_type(Operation::Add, (38, 10), (38, 10)), (38, 10));
    }

    #[test]
    fn arithmetic() {
        let op = |o, a: &str, ta, b: &str, tb| {
            Decimal::operate(o, d(a), ta, d(b), tb).map(|r| r.to_string())
        };
        assert_eq!(
            op(Operation::Divide, "1", (1, 0), "3", (1, 0)).ok().as_deref(),
            Some("0.333333")
        );
        assert_eq!(
            op(Operation::Divide, "2.00", (10, 2), "3.00", (10, 2)).ok().as_deref(),
            Some("0.6666666666666")
        );
        assert_eq!(
            op(Operation::Multiply, "1.25", (10, 2), "-2.00", (10, 2)).ok().as_deref(),
            Some("-2.5000")
        );
        assert_eq!(op(Operation::Modulo, "7.5", (3, 1), "2", (1, 0)).ok().as_deref(), Some("1.5"));
        assert_eq!(
            op(
                Operation::Multiply,
                "1234567890123456789012345.678",
                (38, 3),
                "100000000.001",
                (38, 3)
            )
            .map_err(|e| e.number),
            Err(8115)
        );
        assert_eq!(
            op(
                Operation::Multiply,
                "12345678901234567890.12345678",
                (38, 8),
                "1.00000001",
                (38, 8)
            )
            .ok()
            .as_deref(),
            Some("12345679024691356902.469136")
        );
        assert_eq!(
            op(Operation::Divide, "1", (1, 0), "0", (1, 0)).map_err(|e| e.number),
            Err(8134)
        );
        let big = "99999999999999999999999999999999999999";
        assert_eq!(op(Operation::Add, big, (38, 0), "1", (1, 0)).map_err(|e| e.number), Err(8115));
    }
}
