//! Packets and messages (2.2.3): an eight-byte header, and a message that is one or more packets,
//! the last of them marked.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

pub const HEADER_BYTES: usize = 8;
pub const PACKET_BYTES_MIN: usize = 512;
pub const PACKET_BYTES_MAX: usize = 32_767;
pub const PACKET_BYTES_DEFAULT: usize = 4096;

/// Packet types (2.2.3.1.1).
pub mod kind {
    pub const SQL_BATCH: u8 = 0x01;
    pub const OLD_LOGIN: u8 = 0x02;
    pub const RPC: u8 = 0x03;
    pub const REPLY: u8 = 0x04;
    pub const ATTENTION: u8 = 0x06;
    pub const BULK_LOAD: u8 = 0x07;
    pub const FEDAUTH_TOKEN: u8 = 0x08;
    pub const TRANSACTION: u8 = 0x0E;
    pub const LOGIN7: u8 = 0x10;
    pub const SSPI: u8 = 0x11;
    pub const PRELOGIN: u8 = 0x12;
}

/// Status bits (2.2.3.1.2).
pub mod status {
    pub const END_OF_MESSAGE: u8 = 0x01;
    pub const IGNORE: u8 = 0x02;
    pub const RESET_CONNECTION: u8 = 0x08;
    pub const RESET_CONNECTION_SKIP_TRAN: u8 = 0x10;
}

/// One packet without its header's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub kind: u8,
    pub status: u8,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn ends_message(&self) -> bool {
        self.status & status::END_OF_MESSAGE != 0
    }
}

/// Reads one packet; `None` when the peer closed the connection between two packets.
pub async fn read_packet(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Packet>> {
    let mut header = [0u8; HEADER_BYTES];
    if from.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..]).await?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if length < HEADER_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a packet of {length} bytes"),
        ));
    }
    let mut payload = vec![0u8; length - HEADER_BYTES];
    from.read_exact(&mut payload).await?;
    Ok(Some(Packet { kind: header[0], status: header[1], payload }))
}

/// Reads a whole message of at most `bytes_max`; `None` when the peer closed the connection.
pub async fn read_message(
    from: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> io::Result<Option<Packet>> {
    let Some(mut message) = read_packet(from).await? else { return Ok(None) };
    while !message.ends_message() {
        let Some(next) = read_packet(from).await? else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection closed inside a message",
            ));
        };
        if next.kind != message.kind || message.payload.len() + next.payload.len() > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "packets that are no message"));
        }
        message.payload.extend_from_slice(&next.payload);
        message.status |= next.status;
    }
    Ok(Some(message))
}

/// Cuts a message into packets as it grows, so that it need not be whole before its first bytes go
/// out.
#[derive(Debug)]
pub struct MessageWriter {
    kind: u8,
    spid: u16,
    packet_bytes: usize,
    next_id: u8,
    /// what has not been cut yet
    pub body: Vec<u8>,
}

impl MessageWriter {
    pub fn new(kind: u8, spid: u16, packet_bytes: usize) -> Self {
        Self { kind, spid, packet_bytes, next_id: 1, body: Vec::new() }
    }

    pub fn set_packet_bytes(&mut self, packet_bytes: usize) {
        self.packet_bytes = packet_bytes.clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX);
    }

    /// Full packets, when enough for a write of some size has come together. Always keeps a byte
    /// back: the last packet must not be empty.
    pub fn take_full(&mut self) -> Option<Vec<u8>> {
        const WRITE_BYTES: usize = 16 * 1024;
        if self.body.len() > WRITE_BYTES.max(self.packet_bytes) { self.cut() } else { None }
    }

    /// Every full packet there is.
    pub fn cut(&mut self) -> Option<Vec<u8>> {
        let payload = self.packet_bytes - HEADER_BYTES;
        let packets = self.body.len().saturating_sub(1) / payload;
        if packets == 0 {
            return None;
        }
        let mut out = Vec::with_capacity(packets * self.packet_bytes);
        for chunk in self.body[..packets * payload].chunks(payload) {
            push_packet(&mut out, self.kind, 0, self.spid, &mut self.next_id, chunk);
        }
        self.body.drain(..packets * payload);
        Some(out)
    }

    /// What there is, as a packet that does not end the message.
    pub fn cut_short(&mut self) -> Vec<u8> {
        let mut out = self.cut().unwrap_or_default();
        if !self.body.is_empty() {
            push_packet(&mut out, self.kind, 0, self.spid, &mut self.next_id, &self.body);
            self.body.clear();
        }
        out
    }

    /// The rest, ending the message; the writer is ready for the next one.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = self.cut().unwrap_or_default();
        push_packet(
            &mut out,
            self.kind,
            status::END_OF_MESSAGE,
            self.spid,
            &mut self.next_id,
            &self.body,
        );
        self.body.clear();
        self.next_id = 1;
        out
    }
}

fn push_packet(
    out: &mut Vec<u8>,
    kind: u8,
    status: u8,
    spid: u16,
    next_id: &mut u8,
    payload: &[u8],
) {
    // A payload is at most PACKET_BYTES_MAX - HEADER_BYTES long.
    let length = (payload.len() + HEADER_BYTES) as u16;
    out.extend_from_slice(&[kind, status]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&spid.to_be_bytes());
    out.extend_from_slice(&[*next_id, 0]);
    out.extend_from_slice(payload);
    *next_id = next_id.wrapping_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_survives_being_cut_at_any_packet_size() {
        for packet_bytes in [512, 513, 4096, 32_767] {
            for length in [0usize, 1, 503, 504, 505, 1008, 1009, 40_000] {
                let body: Vec<u8> = (0..length).map(|i| i as u8).collect();
                let mut writer = MessageWriter::new(kind::REPLY, 51, packet_bytes);
                let mut bytes = Vec::new();
                for piece in body.chunks(100) {
                    writer.body.extend_from_slice(piece);
                    bytes.extend(writer.take_full().unwrap_or_default());
                }
                bytes.extend(writer.finish());
                let message = read_message(&mut bytes.as_slice(), usize::MAX)
                    .await
                    .expect("packets")
                    .expect("a message");
                assert_eq!(message.payload, body, "{length} bytes in packets of {packet_bytes}");
                let mut rest = bytes.as_slice();
                while let Some(packet) = read_packet(&mut rest).await.expect("a packet") {
                    assert!(packet.payload.len() + HEADER_BYTES <= packet_bytes);
                    assert!(length == 0 || !packet.payload.is_empty());
                }
            }
        }
    }
}
