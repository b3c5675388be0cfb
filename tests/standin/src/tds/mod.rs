//! The wire: MS-TDS 7.2 to 7.4, and 8.0's way of starting with TLS.
//!
//! Written from Microsoft's [MS-TDS]; section numbers in these modules are that document's. From
//! the outside in: [`packet`] (headers and messages), [`prelogin`] and [`tls`] (before a login),
//! [`login`], [`request`] (what a client asks), [`token`] (what a server answers) and [`types`]
//! (columns and values, both ways). Nothing here knows SQL or keeps state between two messages.

pub mod login;
pub mod packet;
pub mod prelogin;
pub mod reader;
pub mod request;
pub mod tls;
pub mod token;
pub mod types;

/// The version a client logged in with (2.2.7.14), as it comes in LOGIN7. Types and tokens depend
/// on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TdsVersion(pub u32);

impl TdsVersion {
    pub const V7_2: Self = Self(0x7209_0002);
    pub const V7_3A: Self = Self(0x730A_0003);
    pub const V7_3B: Self = Self(0x730B_0003);
    pub const V7_4: Self = Self(0x7400_0004);
    pub const V8_0: Self = Self(0x0800_0000);

    /// The version both sides speak from now on; `None` for one older than this server's oldest.
    pub fn negotiate(asked: u32) -> Option<Self> {
        match asked {
            0x0800_0000 => Some(Self::V8_0),
            v if v >= Self::V7_4.0 => Some(Self::V7_4),
            v if v >= Self::V7_3B.0 => Some(Self::V7_3B),
            v if v >= Self::V7_3A.0 => Some(Self::V7_3A),
            v if v >= Self::V7_2.0 => Some(Self::V7_2),
            _ => None,
        }
    }

    /// NBCROW tokens exist.
    pub fn has_nbcrow(self) -> bool {
        self == Self::V8_0 || self >= Self::V7_3B
    }
}
