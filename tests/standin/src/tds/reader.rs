//! Reads a client's message while its packets still arrive, so that a bulk load of any size needs
//! no more memory than a packet.

use super::packet::{Packet, kind, status};

/// Why a message could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The client is gone.
    Closed,
    /// The client broke the message off: the IGNORE bit, or an attention in the middle of it.
    Abandoned { attention: bool },
    /// The bytes make no sense. The connection cannot go on.
    Malformed(String),
    /// Understood, and refused by name. The message can be skipped.
    Unsupported(String),
}

pub type WireResult<T> = Result<T, WireError>;

pub fn malformed<T>(what: impl Into<String>) -> WireResult<T> {
    Err(WireError::Malformed(what.into()))
}

/// Where packets come from: a connection's channel, or a test's bytes.
pub trait PacketSource {
    fn next_packet(&mut self) -> Option<Packet>;
}

/// A cursor over one message.
pub struct MessageReader<'a> {
    source: &'a mut dyn PacketSource,
    kind: u8,
    current: Vec<u8>,
    at: usize,
    last: bool,
    /// how many bytes this message may have kept in memory at once (one value)
    value_bytes_max: usize,
}

impl<'a> MessageReader<'a> {
    pub fn new(
        first: Packet,
        source: &'a mut dyn PacketSource,
        value_bytes_max: usize,
    ) -> WireResult<Self> {
        if first.ends_message() && first.status & status::IGNORE != 0 {
            return Err(WireError::Abandoned { attention: false });
        }
        Ok(Self {
            source,
            kind: first.kind,
            last: first.ends_message(),
            current: first.payload,
            at: 0,
            value_bytes_max,
        })
    }

    /// Makes at least one byte available; false at the end of the message.
    fn fill(&mut self) -> WireResult<bool> {
        while self.at == self.current.len() {
            if self.last {
                return Ok(false);
            }
            let Some(packet) = self.source.next_packet() else { return Err(WireError::Closed) };
            if packet.kind == kind::ATTENTION {
                self.last = true;
                return Err(WireError::Abandoned { attention: true });
            }
            if packet.kind != self.kind {
                return malformed(format!(
                    "a packet of type {:#04x} inside a message of type {:#04x}",
                    packet.kind, self.kind
                ));
            }
            self.last = packet.ends_message();
            if self.last && packet.status & status::IGNORE != 0 {
                self.current.clear();
                self.at = 0;
                return Err(WireError::Abandoned { attention: false });
            }
            self.current = packet.payload;
            self.at = 0;
        }
        Ok(true)
    }

    pub fn at_end(&mut self) -> WireResult<bool> {
        Ok(!self.fill()?)
    }

    pub fn exact<const N: usize>(&mut self) -> WireResult<[u8; N]> {
        let mut out = [0u8; N];
        if let Some(bytes) = self.current.get(self.at..self.at + N) {
            out.copy_from_slice(bytes);
            self.at += N;
            return Ok(out);
        }
        for byte in &mut out {
            if !self.fill()? {
                return malformed("the message ends too early");
            }
            *byte = self.current[self.at];
            self.at += 1;
        }
        Ok(out)
    }

    pub fn bytes(&mut self, length: usize) -> WireResult<Vec<u8>> {
        let mut out = Vec::new();
        self.append(&mut out, length)?;
        Ok(out)
    }

    pub fn append(&mut self, out: &mut Vec<u8>, mut length: usize) -> WireResult<()> {
        if length.saturating_add(out.len()) > self.value_bytes_max {
            return malformed(format!("a value of {length} bytes"));
        }
        while length > 0 {
            if !self.fill()? {
                return malformed("the message ends inside a value");
            }
            let take = length.min(self.current.len() - self.at);
            out.extend_from_slice(&self.current[self.at..self.at + take]);
            self.at += take;
            length -= take;
        }
        Ok(())
    }

    /// Everything that is left of the message.
    pub fn rest(&mut self) -> WireResult<Vec<u8>> {
        let mut out = Vec::new();
        while self.fill()? {
            let take = self.current.len() - self.at;
            self.append(&mut out, take)?;
        }
        Ok(out)
    }

    /// Reads on to the end of the message, keeping nothing.
    pub fn skip_rest(&mut self) -> WireResult<()> {
        while self.fill()? {
            self.at = self.current.len();
        }
        Ok(())
    }

    pub fn u8(&mut self) -> WireResult<u8> {
        Ok(self.exact::<1>()?[0])
    }
    pub fn peek_u8(&mut self) -> WireResult<Option<u8>> {
        Ok(if self.fill()? { Some(self.current[self.at]) } else { None })
    }
    pub fn u16(&mut self) -> WireResult<u16> {
        Ok(u16::from_le_bytes(self.exact()?))
    }
    pub fn u32(&mut self) -> WireResult<u32> {
        Ok(u32::from_le_bytes(self.exact()?))
    }
    pub fn u64(&mut self) -> WireResult<u64> {
        Ok(u64::from_le_bytes(self.exact()?))
    }

    /// B_VARCHAR: a count of UTF-16 units in a byte, then the units.
    pub fn b_varchar(&mut self) -> WireResult<String> {
        let units = usize::from(self.u8()?);
        Ok(utf16(&self.bytes(units * 2)?))
    }

    /// US_VARCHAR: a count of UTF-16 units in two bytes, then the units.
    pub fn us_varchar(&mut self) -> WireResult<String> {
        let units = usize::from(self.u16()?);
        Ok(utf16(&self.bytes(units * 2)?))
    }
}

/// Text of UTF-16, least significant byte first. A lone surrogate becomes U+FFFD: a cell's text is
/// UTF-8 here.
pub fn utf16(bytes: &[u8]) -> String {
    if bytes.chunks_exact(2).all(|unit| unit[1] == 0 && unit[0] < 0x80) {
        return bytes.chunks_exact(2).map(|unit| char::from(unit[0])).collect();
    }
    char::decode_utf16(bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// A message that is all there already.
pub struct NoMore;

impl PacketSource for NoMore {
    fn next_packet(&mut self) -> Option<Packet> {
        None
    }
}
