//! PRELOGIN (2.2.6.5): version and encryption are agreed upon before anything secret is said.

/// Option tokens.
mod option {
    pub const VERSION: u8 = 0x00;
    pub const ENCRYPTION: u8 = 0x01;
    pub const INSTANCE: u8 = 0x02;
    pub const THREAD_ID: u8 = 0x03;
    pub const MARS: u8 = 0x04;
    pub const TRACE_ID: u8 = 0x05;
    pub const FED_AUTH_REQUIRED: u8 = 0x06;
    pub const NONCE: u8 = 0x07;
    pub const TERMINATOR: u8 = 0xFF;
}

/// What a side says about encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypt {
    /// available, and only the login needs it
    Off,
    On,
    NotSupported,
    Required,
}

impl Encrypt {
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::On => 1,
            Self::NotSupported => 2,
            Self::Required => 3,
        }
    }

    /// The high bits ask for a client certificate, which this server has no use for.
    fn from_byte(byte: u8) -> Option<Self> {
        match byte & 0x1F {
            0 => Some(Self::Off),
            1 => Some(Self::On),
            2 => Some(Self::NotSupported),
            3 => Some(Self::Required),
            _ => None,
        }
    }
}

/// How a connection goes on after PRELOGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    Plain,
    LoginOnly,
    Full,
    /// One side insists on what the other does not have.
    Refuse,
}

/// What the server answers, and what follows: the table of 2.2.6.5 (ENCRYPTION).
pub fn agree(client: Encrypt, server: Encrypt) -> (Encrypt, Agreement) {
    use Encrypt::{NotSupported, Off, On, Required};
    match (client, server) {
        (Off, Off) => (Off, Agreement::LoginOnly),
        (On | Required, Off | On) => (On, Agreement::Full),
        (Off, On | Required) => (Required, Agreement::Full),
        (On | Required, Required) => (On, Agreement::Full),
        (NotSupported, Off | NotSupported) => (NotSupported, Agreement::Plain),
        (NotSupported, On | Required) => (Required, Agreement::Refuse),
        (Off, NotSupported) => (NotSupported, Agreement::Plain),
        (On | Required, NotSupported) => (NotSupported, Agreement::Refuse),
    }
}

/// A client's PRELOGIN, as far as anything depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prelogin {
    pub encryption: Encrypt,
    pub instance: String,
    pub mars: bool,
    pub fed_auth_required: bool,
    pub has_nonce: bool,
}

impl Prelogin {
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut seen = Self {
            encryption: Encrypt::NotSupported,
            instance: String::new(),
            mars: false,
            fed_auth_required: false,
            has_nonce: false,
        };
        let mut at = 0;
        loop {
            let token = *payload.get(at)?;
            if token == option::TERMINATOR {
                return Some(seen);
            }
            let head = payload.get(at + 1..at + 5)?;
            let offset = usize::from(u16::from_be_bytes([head[0], head[1]]));
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let data = payload.get(offset..offset + length)?;
            at += 5;
            match token {
                option::ENCRYPTION => seen.encryption = Encrypt::from_byte(*data.first()?)?,
                option::INSTANCE => {
                    seen.instance = String::from_utf8_lossy(data).trim_end_matches('\0').to_owned()
                }
                option::MARS => seen.mars = data.first() == Some(&1),
                option::FED_AUTH_REQUIRED => seen.fed_auth_required = data.first() == Some(&1),
                option::NONCE => seen.has_nonce = true,
                // VERSION, THREADID and TRACEID are for logs; an option a server does not know is
                // skipped (2.2.6.5).
                option::VERSION | option::THREAD_ID | option::TRACE_ID => {}
                _ => {}
            }
        }
    }
}

/// The server's answer. MARS is always declined; FEDAUTHREQUIRED is answered only when asked for,
/// with "not required".
pub fn answer(client: &Prelogin, encryption: Encrypt, version: [u8; 6]) -> Vec<u8> {
    let mut options: Vec<(u8, Vec<u8>)> = vec![
        (option::VERSION, version.to_vec()),
        (option::ENCRYPTION, vec![encryption.to_byte()]),
        (option::INSTANCE, vec![0]),
        (option::THREAD_ID, Vec::new()),
        (option::MARS, vec![0]),
    ];
    if client.fed_auth_required {
        options.push((option::FED_AUTH_REQUIRED, vec![0]));
    }
    let mut offset = options.len() * 5 + 1;
    let mut out = Vec::new();
    for (token, data) in &options {
        out.push(*token);
        out.extend_from_slice(&(offset as u16).to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        offset += data.len();
    }
    out.push(option::TERMINATOR);
    for (_, data) in options {
        out.extend_from_slice(&data);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prelogin_reads_back() {
        let asked = Prelogin {
            encryption: Encrypt::Off,
            instance: String::new(),
            mars: false,
            fed_auth_required: true,
            has_nonce: false,
        };
        let bytes = answer(&asked, Encrypt::Required, [16, 0, 0x10, 0x27, 0, 0]);
        let read = Prelogin::parse(&bytes).expect("our own PRELOGIN");
        assert_eq!(read.encryption, Encrypt::Required);
        assert!(!read.fed_auth_required && !read.mars);
        for cut in 0..bytes.len() {
            // No prefix may make the parser panic.
            let _ = Prelogin::parse(&bytes[..cut]);
        }
    }

    #[test]
    fn nobody_talks_in_the_clear_to_a_server_that_requires_encryption() {
        for client in [Encrypt::Off, Encrypt::On, Encrypt::NotSupported, Encrypt::Required] {
            assert!(!matches!(
                agree(client, Encrypt::Required).1,
                Agreement::Plain | Agreement::LoginOnly
            ));
        }
    }
}
