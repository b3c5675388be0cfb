//! LOGIN7 (2.2.6.4).

use super::reader::utf16;

/// What a client says of itself when it logs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login7 {
    pub tds_version: u32,
    pub packet_bytes: u32,
    pub client_pid: u32,
    /// OptionFlags2.fIntSecurity: SSPI instead of a password
    pub integrated_security: bool,
    /// TypeFlags.fReadOnlyIntent
    pub read_only_intent: bool,
    pub client_time_zone_minutes: i32,
    pub client_lcid: u32,
    pub host_name: String,
    pub user_name: String,
    pub password: String,
    pub app_name: String,
    pub server_name: String,
    pub library: String,
    pub language: String,
    pub database: String,
    pub attach_db_file: String,
    pub change_password: String,
    /// FeatureExt: id and data
    pub features: Vec<(u8, Vec<u8>)>,
}

/// FeatureExt ids (2.2.6.4).
pub mod feature {
    pub const SESSION_RECOVERY: u8 = 0x01;
    pub const FED_AUTH: u8 = 0x02;
    pub const COLUMN_ENCRYPTION: u8 = 0x04;
    pub const UTF8_SUPPORT: u8 = 0x0A;
    pub const TERMINATOR: u8 = 0xFF;
}

/// The fixed part of 7.2 and later; before, the last field was ibAtchDBFile.
const FIXED_BYTES: usize = 94;

impl Login7 {
    /// `None` when the bytes are no LOGIN7.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u16_at = |at: usize| {
            Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
        };
        if bytes.len() < FIXED_BYTES || u32_at(0)? as usize > bytes.len() {
            return None;
        }
        let raw = |at: usize| {
            let (offset, units) = (u16_at(at)?, u16_at(at + 2)?);
            if units == 0 { Some(&[][..]) } else { bytes.get(offset..offset + units * 2) }
        };
        let text = |at: usize| raw(at).map(utf16);
        Some(Self {
            tds_version: u32_at(4)?,
            packet_bytes: u32_at(8)?,
            client_pid: u32_at(16)?,
            integrated_security: bytes[25] & 0x80 != 0,
            read_only_intent: bytes[26] & 0x20 != 0,
            client_time_zone_minutes: u32_at(28)? as i32,
            client_lcid: u32_at(32)?,
            host_name: text(36)?,
            user_name: text(40)?,
            password: utf16(&plain(raw(44)?)),
            app_name: text(48)?,
            server_name: text(52)?,
            library: text(60)?,
            language: text(64)?,
            database: text(68)?,
            attach_db_file: text(82)?,
            change_password: utf16(&plain(raw(86)?)),
            // fExtension: ibExtension holds the offset of a DWORD that holds the offset of the
            // features.
            features: if bytes[27] & 0x10 != 0 {
                features(bytes, u32_at(u16_at(56)?)? as usize)?
            } else {
                Vec::new()
            },
        })
    }

    pub fn feature(&self, id: u8) -> Option<&[u8]> {
        self.features.iter().find(|(f, _)| *f == id).map(|(_, data)| data.as_slice())
    }
}

fn features(bytes: &[u8], mut at: usize) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut found = Vec::new();
    loop {
        let id = *bytes.get(at)?;
        if id == feature::TERMINATOR {
            return Some(found);
        }
        let length = u32::from_le_bytes(bytes.get(at + 1..at + 5)?.try_into().ok()?) as usize;
        let start = at + 5;
        let end = start.checked_add(length)?;
        found.push((id, bytes.get(start..end)?.to_vec()));
        at = end;
    }
}

/// Undoes what hides a password from a casual look: on the way out, nibbles are swapped, then each
/// byte is XORed with 0xA5.
fn plain(hidden: &[u8]) -> Vec<u8> {
    hidden.iter().map(|&b| (b ^ 0xA5).rotate_left(4)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login7() -> Vec<u8> {
        let mut bytes = vec![0u8; FIXED_BYTES];
        bytes[4..8].copy_from_slice(&0x7400_0004u32.to_le_bytes());
        bytes[8..12].copy_from_slice(&8000u32.to_le_bytes());
        bytes[27] = 0x10;
        let mut put = |at: usize, text: &str, hide: bool| {
            let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let offset = bytes.len() as u16;
            bytes[at..at + 2].copy_from_slice(&offset.to_le_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&((units.len() / 2) as u16).to_le_bytes());
            bytes.extend(units.into_iter().map(|b| if hide { b.rotate_left(4) ^ 0xA5 } else { b }));
        };
        put(36, "host", false);
        put(40, "sa", false);
        put(44, "Pässword!1", true);
        put(48, "app", false);
        put(68, "master", false);
        let pointer = bytes.len() as u16;
        bytes[56..58].copy_from_slice(&pointer.to_le_bytes());
        bytes[58..60].copy_from_slice(&4u16.to_le_bytes());
        bytes.extend_from_slice(&(u32::from(pointer) + 4).to_le_bytes());
        bytes.extend_from_slice(&[
            feature::UTF8_SUPPORT,
            0,
            0,
            0,
            0,
            feature::COLUMN_ENCRYPTION,
            1,
            0,
            0,
            0,
            1,
            feature::TERMINATOR,
        ]);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    #[test]
    fn a_login_is_read_in_full() {
        let login = Login7::parse(&login7()).expect("a LOGIN7");
        assert_eq!((login.user_name.as_str(), login.password.as_str()), ("sa", "Pässword!1"));
        assert_eq!(
            (login.host_name.as_str(), login.app_name.as_str(), login.database.as_str()),
            ("host", "app", "master")
        );
        assert_eq!(login.packet_bytes, 8000);
        assert_eq!(
            login.features,
            [(feature::UTF8_SUPPORT, vec![]), (feature::COLUMN_ENCRYPTION, vec![1])]
        );
    }

    #[test]
    fn a_broken_login_is_refused_not_a_panic() {
        let bytes = login7();
        for cut in 0..bytes.len() {
            assert_eq!(Login7::parse(&bytes[..cut]), None, "{cut} bytes of {}", bytes.len());
        }
    }
}
