//! Why a mapping cannot read changes now: some are lost, there is nothing to read yet, or the source
//! does not let this login read them.

use crate::model::lsn::Lsn;

/// Why changes are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The checkpoint is older than what the instance still holds (retention, or CDC disabled and
    /// enabled again).
    Retention { from: Lsn, min: Lsn },
    /// The two checkpoints differ: one of the two databases was restored or failed over alone.
    CheckpointMismatch { control: Option<Lsn>, dest_checkpoint: Option<Lsn> },
    /// The mapping was pointed at other tables, or its destination table was made anew.
    MappingChanged,
    /// The source's table is another one than the checkpoint was written for, under the same name.
    Replaced,
    /// The capture instance that was read is gone, or cannot be read any more, and another one of
    /// the table is there.
    InstanceGone { mark: String },
    /// The control table has an LSN that we did not write.
    UnknownCheckpoint { control: Lsn },
    /// The source went back in time.
    Behind { from: Lsn, max_lsn: Lsn },
    /// The source has another transaction, or none, at the checkpoint.
    History { from: Lsn },
}

impl Gap {
    /// What was lost, for error_logs.
    pub fn message(&self) -> String {
        let shown =
            |lsn: &Option<Lsn>| lsn.map_or_else(|| "NULL".to_owned(), |lsn| lsn.to_string());
        match self {
            Gap::Retention { from, min } => format!(
                "the changes after {from} and before {min} are no longer in the change table (cleanup passed them, or CDC was disabled and enabled again)"
            ),
            Gap::CheckpointMismatch { control, dest_checkpoint } => format!(
                "last_cdc_lsn is {}, but the destination database's own record says {}: one of the two databases was restored or failed over alone",
                shown(control),
                shown(dest_checkpoint)
            ),
            Gap::MappingChanged => {
                "last_cdc_lsn was written for other tables: the mapping was changed, or the destination table was dropped and made anew"
                    .to_owned()
            }
            Gap::Replaced => {
                "the source table is another one than the one that was followed, under the same name: it was dropped and made anew, or tables or databases were swapped or renamed"
                    .to_owned()
            }
            Gap::InstanceGone { mark } => {
                let name = mark.splitn(4, ' ').nth(3).unwrap_or(mark);
                format!(
                    "capture instance {name}, which was read, is gone or can no longer be read; another one of the table is there, but what it captured is not known to be the same"
                )
            }
            Gap::UnknownCheckpoint { control } => {
                format!("last_cdc_lsn {control} was not written by this service: the destination database has no record of it")
            }
            Gap::Behind { from, max_lsn } => {
                format!("the source's newest LSN {max_lsn} is below the checkpoint {from}: the source was restored to an earlier state")
            }
            Gap::History { from } => {
                format!("the source has another transaction at the checkpoint {from}, or none: it was restored to another history")
            }
        }
    }
}

/// Why there is nothing to do but wait; never an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Max LSN is NULL: the capture job has not run since CDC was enabled, or it does not run.
    NothingCaptured,
    /// The instance is newer than everything captured.
    JustEnabled,
    /// There are several instances, and they have not been compared yet.
    Uncompared,
    /// The readable secondary that answers has not redone what the checkpoint stands for.
    ReplicaBehind,
}

/// What cannot be read, and not because of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No capture instance for the table.
    NotCaptured,
    /// The low watermark is zero: this login is not in the gating role, or may not read the
    /// captured columns.
    Gated { instance: usize },
}
