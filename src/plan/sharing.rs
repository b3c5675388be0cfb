//! Several enabled mappings with one destination table: each would undo the others' work, so at most
//! one of them runs. A new mapping never stops one that has synced.

use crate::{
    error::{Error, Kind},
    model::{id::MappingId, name::TableName},
};

/// One of the mappings with the same destination table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharer {
    pub mapping: MappingId,
    /// It has a checkpoint, or a full sync of it has completed.
    pub has_synced: bool,
}

/// The mapping that runs: the one that has synced, or the oldest where none has. `None`: several
/// have, and going on from an old checkpoint of one would undo what another one wrote since.
fn running(sharers: &[Sharer]) -> Option<MappingId> {
    let mut synced = sharers.iter().filter(|sharer| sharer.has_synced);
    match (synced.next(), synced.next()) {
        (Some(only), None) => Some(only.mapping),
        (Some(_), Some(_)) => None,
        (None, _) => sharers.iter().map(|sharer| sharer.mapping).min(),
    }
}

/// Why `mapping` is not the one of them that runs, if it is not.
pub fn refusal(mapping: MappingId, sharers: &[Sharer], dest: &TableName) -> Option<Error> {
    let disable = |which: &str| {
        format!(
            "UPDATE dbaops_dataflow.dbo.table_mappings SET is_enabled = 0 WHERE mapping_id = {which}"
        )
    };
    match running(sharers) {
        Some(running) if running == mapping => None,
        Some(running) => {
            let message = format!(
                "mappings {running} and {mapping} have one destination table, {dest}: \
                 mapping {running} goes on, and mapping {mapping} is left out"
            );
            Some(Error::new(Kind::Config, message).with_hint(disable(&mapping.to_string())))
        }
        None => {
            let all: Vec<String> =
                sharers.iter().map(|sharer| sharer.mapping.to_string()).collect();
            let message = format!(
                "mappings {} have one destination table, {dest}, and more than one of them has \
                 synced: none of them runs",
                all.join(" and ")
            );
            let hint = format!("Disable all but one of them: {}", disable("…"));
            Some(Error::new(Kind::Config, message).with_hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sharers: &[(i32, bool)]) -> Vec<i32> {
        let sharers: Vec<Sharer> = sharers
            .iter()
            .map(|&(id, has_synced)| Sharer { mapping: MappingId(id), has_synced })
            .collect();
        let dest = TableName::new("D", "dbo", "T");
        let ids = sharers.iter().map(|sharer| sharer.mapping);
        ids.filter(|id| refusal(*id, &sharers, &dest).is_some()).map(|id| id.0).collect()
    }

    #[test]
    fn the_one_that_has_synced_goes_on() {
        assert_eq!(refused(&[(1, true)]), [0; 0]);
        assert_eq!(refused(&[(1, true), (2, false), (3, false)]), [2, 3]);
        assert_eq!(refused(&[(1, false), (2, true)]), [1]);
        assert_eq!(refused(&[(2, false), (1, false)]), [2], "the oldest, where none has");
        assert_eq!(refused(&[(1, true), (2, true), (3, false)]), [1, 2, 3]);
    }

    #[test]
    fn the_error_names_both_and_the_statement() {
        let [one, two] = [(1, true), (2, false)]
            .map(|(id, has_synced)| Sharer { mapping: MappingId(id), has_synced });
        let error = refusal(two.mapping, &[one, two], &TableName::new("D", "dbo", "T"));
        let error = error.expect("the newer one is refused").to_string();
        for part in ["mappings 1 and 2", "D.dbo.T", "SET is_enabled = 0 WHERE mapping_id = 2"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
