//! HASHBYTES.

use crate::error::{SqlError, SqlResult};
use md5::{Digest, Md5};
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};

pub fn digest(algorithm: &str, bytes: &[u8]) -> SqlResult<Vec<u8>> {
    let of = |algorithm| digest::digest(algorithm, bytes).as_ref().to_vec();
    Ok(match algorithm.to_ascii_uppercase().as_str() {
        "MD5" => Md5::digest(bytes).to_vec(),
        "SHA" | "SHA1" => of(&SHA1_FOR_LEGACY_USE_ONLY),
        "SHA2_256" => of(&SHA256),
        "SHA2_512" => of(&SHA512),
        "MD2" | "MD4" => return Err(SqlError::unsupported(format!("HASHBYTES with {algorithm}"))),
        _ => {
            return Err(SqlError::new(
                8116,
                16,
                "Argument data type varchar is invalid for argument 1 of hashbytes function.",
            ));
        }
    })
}
