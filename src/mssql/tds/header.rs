//! Messages and the headers of their packets.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/7af53667-1b72-4703-8258-7984e838f746>

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Message {
    Batch = 0x01,
    Call = 0x03,
    BulkLoad = 0x07,
    Login = 0x10,
    PreLogin = 0x12,
}

/// The type of every message of a server.
pub(super) const ANSWER: u8 = 0x04;
pub(super) const HEADER_BYTES: usize = 8;
/// The status of a message's last packet.
pub(super) const END_OF_MESSAGE: u8 = 0x01;
/// The size of packets before a login has agreed on another.
pub(super) const PACKET_BYTES_FIRST: usize = 4096;
