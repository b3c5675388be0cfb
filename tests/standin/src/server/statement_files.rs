//! The statements a server is sent, as files: one for each distinct text, named by its hash, so
//! that servers, processes and runs that write to one folder write each statement once. An
//! independent parser reads them afterwards.

use md5::{Digest, Md5};
use std::{
    collections::HashSet,
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// How many distinct statements a server writes; a client that puts values into its texts would
/// fill the disk.
const STATEMENTS_MAX: usize = 5_000;
/// A longer statement is not written.
const STATEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Where to write, and whose statements.
#[derive(Debug)]
pub(crate) struct StatementFiles {
    folder: PathBuf,
    /// of the application's name
    prefix: String,
    seen: Mutex<HashSet<[u8; 16]>>,
}

impl StatementFiles {
    pub(crate) fn new(folder: PathBuf, prefix: &str) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, prefix: prefix.to_owned(), seen: Mutex::default() })
    }

    /// Writes a statement that is new. A disk that fails makes no request fail: whoever reads the
    /// files misses them.
    pub(crate) fn write(&self, application: &str, text: &str) {
        if !application.starts_with(&self.prefix) || text.len() > STATEMENT_BYTES_MAX {
            return;
        }
        let hash: [u8; 16] = Md5::digest(text.as_bytes()).into();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() == STATEMENTS_MAX || !seen.insert(hash) {
                return;
            }
        }
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = fs::write(self.folder.join(name).with_extension("sql"), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_written_once_and_others_not_at_all() {
        let folder = std::env::temp_dir().join(format!("statement-files-{}", std::process::id()));
        let files = StatementFiles::new(folder.clone(), "ours").expect("a folder");
        for (application, text) in
            [("ours", "SELECT 1"), ("ours 2", "SELECT 1"), ("theirs", "SELECT 2")]
        {
            files.write(application, text);
        }
        let written: Vec<String> = fs::read_dir(&folder)
            .expect("the folder")
            .map(|f| fs::read_to_string(f.expect("a file").path()).expect("its text"))
            .collect();
        fs::remove_dir_all(&folder).expect("the folder goes");
        assert_eq!(written, ["SELECT 1"]);
    }
}
