//! Applying a pass's window: again with new columns when a table is altered, and with other groups
//! when a constraint refuses one.

use super::{
    CdcPass,
    constraints::{ForeignKeys, foreign_keys, with_constraint_hint},
};
use crate::{
    error::{Error, Kind, Result},
    jobs::{
        Env,
        apply::{self, Applied, ApplyEnd, ApplyRequest, ApplyTarget, BatchPolicy, CheckpointMove},
        shape,
    },
    model::{
        capture::{Capture, Instance},
        column_map::ColumnMap,
        mapping::{Mapping, SyncType},
    },
    mssql::{client::session::Session, queries::cdc},
    plan::window::Gap,
    tsql::apply::StatementOrder,
};

pub(super) use crate::jobs::apply::ApplyEnd as WindowEnd;

pub(super) async fn apply_window(
    env: &Env,
    mapping: &Mapping,
    pass: &CdcPass,
    applied: &mut Applied,
) -> Result<WindowEnd> {
    let connections = env.connections(mapping, 1, 1).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    // netting and writing a large transaction are long statements
    dest.set_timeout(env.config.long_statement_timeout);
    let mut restarts = shape::Restarts::new(mapping, SyncType::Cdc);
    loop {
        let result =
            with_current_columns(env, mapping, pass, applied, (&mut source, &mut dest)).await;
        let usable = !source.is_broken() && !dest.is_broken();
        if !usable || !restarts.again(result.as_ref().err()) {
            return result;
        }
    }
}

/// Applies what is left of the window, by the columns that the tables have now.
async fn with_current_columns(
    env: &Env,
    mapping: &Mapping,
    pass: &CdcPass,
    applied: &mut Applied,
    (source, dest): (&mut Session, &mut Session),
) -> Result<WindowEnd> {
    let shape = shape::gather(source, dest, mapping).await?;
    if shape.source.object_id != pass.instance.source_id {
        return Err(Error::new(Kind::Gap, Gap::Replaced.message()));
    }
    let capture = cdc::capture(source, pass.instance.clone()).await?;
    env.uncaptured.report(&env.control, mapping, &shape.map, &capture).await;
    let resync = match &pass.switch_to {
        Some(next) => {
            captures_more(&shape.map, &capture, &cdc::capture(source, next.clone()).await?)
        }
        None => false,
    };
    let keys = foreign_keys(dest, &shape.dest.name.local()).await?;
    let checkpoint = CheckpointMove {
        mapping: mapping.id,
        stored: pass.stored,
        transaction: pass.transaction.clone(),
        resync,
        next_instance: pass.switch_to.as_ref().map(Instance::mark),
    };
    let rows_max = env.config.batch_rows;
    let request = ApplyRequest {
        map: &shape.map,
        source: &shape.source,
        capture: &capture,
        from: pass.from,
        to: pass.to,
        target: ApplyTarget::Dest {
            table: &shape.dest.name,
            checkpoint,
            order: StatementOrder::UniqueFirst,
        },
        batch_policy: BatchPolicy::Batches(rows_max),
        cancel: &env.cancel,
    };
    let result = GroupAttempts { request, keys, rows_max, applied }.run(source, dest).await;
    let result = result.map_err(|error| match error.kind {
        Kind::TooLarge => error.context(format!("CDC of {}", mapping.source)),
        _ => with_constraint_hint(error, keys),
    });
    if resync && matches!(result, Ok(ApplyEnd::Complete)) {
        tracing::warn!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Cdc.as_str(),
            "{}: the new capture instance has columns that the old one lacked; a full sync brings their values",
            mapping.source
        );
    }
    result
}

/// The attempts to apply one window with groups of several sizes.
struct GroupAttempts<'a> {
    request: ApplyRequest<'a>,
    keys: ForeignKeys,
    /// The rows of a batch.
    rows_max: usize,
    applied: &'a mut Applied,
}

impl GroupAttempts<'_> {
    /// First in batches. What a foreign key refuses then: from single transactions on, as far as
    /// they go, and after that everything that is left in one group.
    async fn run(mut self, source: &mut Session, dest: &mut Session) -> Result<ApplyEnd> {
        let rows_max = self.rows_max;
        let mut result = self.attempt(BatchPolicy::Batches(rows_max), source, dest).await;
        for policy in [BatchPolicy::Growing(rows_max), BatchPolicy::Whole] {
            while let Err(error) = &result
                && self.may_help(policy, error)
                && !source.is_broken()
                && !dest.is_broken()
            {
                let before = self.applied.reached;
                result = self.attempt(policy, source, dest).await;
                // a group that had grown too large may go further when it starts small again
                if policy == BatchPolicy::Whole || self.applied.reached == before {
                    break;
                }
            }
        }
        result
    }

    /// Whether `policy` may apply what failed with `error`.
    fn may_help(&self, policy: BatchPolicy, error: &Error) -> bool {
        match error.kind {
            // Everything that is left may be a lot. A pass that got somewhere before another
            // table's rows were missing is continued when that table has moved on.
            Kind::ForeignKey => {
                policy != BatchPolicy::Whole
                    || self.applied.reached.is_none()
                    || self.keys.self_referencing
            }
            Kind::Duplicate => policy == BatchPolicy::Whole,
            _ => false,
        }
    }

    /// Applies what is left of the window.
    async fn attempt(
        &mut self,
        policy: BatchPolicy,
        source: &mut Session,
        dest: &mut Session,
    ) -> Result<ApplyEnd> {
        if let Some(reached) = self.applied.reached {
            self.request.from = reached;
        }
        if let ApplyTarget::Dest { checkpoint, order, .. } = &mut self.request.target {
            checkpoint.stored = self.applied.reached.or(checkpoint.stored);
            // one group of a table that references itself is tried in the other order
            let references_first = self.keys.self_referencing && policy != BatchPolicy::Whole;
            *order = if references_first {
                StatementOrder::ReferencesFirst
            } else {
                StatementOrder::UniqueFirst
            };
        }
        self.request.batch_policy = policy;
        let applied = &mut *self.applied;
        apply::apply_changes(source, dest, &self.request, &mut |group| applied.add(group)).await
    }
}

/// Whether `new` captures a mapped column that `old` does not.
fn captures_more(map: &ColumnMap, old: &Capture, new: &Capture) -> bool {
    map.columns.iter().any(|mapped| {
        let (name, id) = (&mapped.source.name, mapped.source.column_id);
        old.column(name, id).is_none() && new.column(name, id).is_some()
    })
}
