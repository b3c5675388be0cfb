//! What verification remembers between its runs.

use super::Control;
use crate::{
    error::{Context, Kind, Result},
    model::{id::MappingId, value::Value},
    mssql::client::row::Param,
    plan::key,
};

/// A row of `verification_progress`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SweepProgress {
    /// The sweep goes on after this key; `None`: it begins.
    pub sweep_after: Option<Vec<Value>>,
    /// Rows that this sweep has compared so far.
    pub sweep_rows: i64,
    /// Every row has been compared at least once.
    pub completed_before: bool,
    /// Keys to be looked at again, wherever they are in the table.
    pub carried: Vec<Vec<Value>>,
}

impl Control {
    /// Where a mapping's verification stands. Without the table (`init` was not run again after an
    /// update) it stands at the beginning.
    pub async fn verification_progress(&self, mapping: MappingId) -> Result<SweepProgress> {
        let mut session = self.session().await?;
        let row = match session
            .opt_row(
                include_str!("../../sql/control/verification_progress.sql"),
                &[Param::Int(mapping.0)],
            )
            .await
        {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(SweepProgress::default()),
            Err(error) if error.kind == Kind::Missing => {
                session.recover().await?;
                return Ok(SweepProgress::default());
            }
            Err(error) => return Err(error).context("read verification_progress"),
        };
        // what cannot be read back (it was written by another version) is begun anew
        let sweep_after =
            row.opt_bytes(0)?.and_then(key::decode_keys).and_then(|mut keys| keys.pop());
        let carried = row.opt_bytes(2)?.and_then(key::decode_keys).unwrap_or_default();
        let sweep_rows = if sweep_after.is_some() { row.i64(1)? } else { 0 };
        Ok(SweepProgress { sweep_rows, sweep_after, completed_before: row.bool(3)?, carried })
    }

    /// Remembers it; `completed`: the sweep has come to the table's end.
    pub async fn save_verification_progress(
        &self,
        mapping: MappingId,
        progress: &SweepProgress,
        completed: bool,
    ) -> Result<()> {
        let sweep_after =
            progress.sweep_after.as_ref().map(|after| key::encode_keys(std::iter::once(after)));
        let carried = if progress.carried.is_empty() {
            None
        } else {
            Some(key::encode_keys(progress.carried.iter()))
        };
        let mut session = self.session().await?;
        let params = [
            Param::Int(mapping.0),
            Param::OptBinary(sweep_after.as_deref()),
            Param::BigInt(progress.sweep_rows),
            Param::OptBinary(carried.as_deref()),
            Param::Bit(completed),
        ];
        match session
            .execute(include_str!("../../sql/control/verification_progress_save.sql"), &params)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::Missing => {
                session.recover().await?;
                tracing::warn!(
                    "verification begins at the first row after each start, as the control database has no table for its progress: run `dbaops-dataflow init` to bring the control database up to date"
                );
                Ok(())
            }
            Err(error) => Err(error).context("write verification_progress"),
        }
    }
}
