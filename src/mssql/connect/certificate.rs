//! Certificate files, with a limit: the path in a connection string or variable may also name an
//! endless device or a pipe without a writer.

use crate::error::{Error, Kind, Result};
use crate::mssql::connect::endpoint::{Endpoint, Trust};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// Four times the size of a bundle with all public authorities.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A regular file of at most [`FILE_BYTES_MAX`], whole.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Checked before the file is opened, because opening a pipe waits for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it is longer than {FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(bytes)
}

/// Checks before every login that the endpoint's authority certificate can be read, because the driver
/// reads the file without a limit.
pub fn check(endpoint: &Endpoint) -> Result<()> {
    let Trust::Authority(path) = &endpoint.trust else { return Ok(()) };
    read(path).map(drop).map_err(|error| {
        Error::new(Kind::Config, format!("certificate {} cannot be read: {error}", path.display()))
            .with_hint("Name a file (PEM or DER, 1 MiB at most) with the authority that signed the server's certificate")
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_sensible_size_are_read() {
        let folder =
            std::env::temp_dir().join(format!("dataflow-certificate-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (right, long, pipe) =
            (folder.join("right.pem"), folder.join("long.pem"), folder.join("pipe.pem"));
        fs::write(&right, vec![b'x'; 1024 * 1024]).unwrap();
        fs::write(&long, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let why = |path: &Path| read(path).unwrap_err().to_string();
        assert_eq!(read(&right).unwrap().len(), 1024 * 1024);
        assert!(why(&long).contains("longer than"));
        assert!(why(Path::new("/dev/zero")).contains("not a regular file"));
        assert!(why(&pipe).contains("not a regular file"));
        assert!(why(&folder).contains("not a regular file"));
        assert_eq!(read(&folder.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(&folder).unwrap();
    }
}
