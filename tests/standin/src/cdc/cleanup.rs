//! Cleanup: the low end of an instance's validity interval moves first, then rows go, as
//! sys.sp_cdc_cleanup_change_table documents.

use super::{instances, store};
use crate::{
    engine::{clock::Moment, instance::State, log::Lsn},
    error::{SqlError, SqlResult},
    value::Value,
};

/// Moves an instance's low end to `water_mark` and deletes what is before it. 22964 when no entry
/// of lsn_time_mapping has that LSN, 22957 when it is before the instance's present low end. Of
/// entries with the same commit time the first one's LSN is taken, and the low end never moves
/// down.
pub fn change_table(
    state: &mut State,
    database: i32,
    instance: &str,
    water_mark: &Lsn,
    now: Moment,
) -> SqlResult<u64> {
    let entries = store::rows(state, database, "lsn_time_mapping", 0);
    let named = entries
        .iter()
        .find(|(_, r)| r.first().and_then(store::lsn_of) == Some(*water_mark))
        .and_then(|(_, r)| r.get(2));
    let Some(committed) = named else {
        return Err(SqlError::new(
            22964,
            16,
            format!(
                "LSN {}, specified as the new low end point for change table cleanup must represent the start_lsn value of a current entry in \
                 the cdc.lsn_time_mapping table. Choose an LSN value that satisfies this requirement.",
                super::lsn_text(water_mark)
            ),
        ));
    };
    let of_that_time = entries
        .iter()
        .filter(|(_, r)| r.get(2) == Some(committed))
        .filter_map(|(_, r)| r.first().and_then(store::lsn_of));
    let first = of_that_time.min().unwrap_or(*water_mark);
    let found = instances::load(state, database, 0)
        .into_iter()
        .find(|i| i.name.eq_ignore_ascii_case(instance));
    let Some(found) = found else { return Err(no_instance(state, database, instance)) };
    if *water_mark < found.start_lsn {
        return Err(SqlError::new(
            22957,
            16,
            format!(
                "LSN {}, specified as the new low end point for the change table associated with capture instance '{instance}', is not within \
                 the Change Data Capture timeline [{}, {}].",
                super::lsn_text(water_mark),
                super::lsn_text(&found.start_lsn),
                super::lsn_text(&max_lsn(state, database).unwrap_or_default())
            ),
        ));
    }
    let low_end = first.max(found.start_lsn);
    let txn = state.begin(0, false, "cdc_cleanup", now);
    store::change(state, txn, database, "change_tables", |row| {
        let own = matches!(row.first(), Some(Value::Int(id)) if *id == i64::from(found.object_id));
        own.then(|| {
            let mut row = row.clone();
            row[4] = store::lsn_value(&low_end);
            Some(row)
        })
    });
    let deleted = store::change(state, txn, database, &found.change_table(), |row| {
        row.first().and_then(store::lsn_of).is_some_and(|lsn| lsn < low_end).then_some(None)
    });
    state.commit(txn, now);
    trim_mapping(state, database, now);
    Ok(deleted)
}

/// The cleanup job: everything older than the retention goes from every instance.
pub fn retention(state: &mut State, database: i32, now: Moment) -> SqlResult<()> {
    let Some(job) = state.databases.get(&database).and_then(|d| d.cdc.cleanup_job) else {
        return Ok(());
    };
    let limit = Moment(now.0 - job.retention * 600_000_000).datetime();
    let kept = |row: &crate::engine::storage::Row| {
        row.get(2).is_some_and(|end| {
            crate::value::order::compare(end, &limit, crate::value::SqlType::DateTime).is_ge()
        })
    };
    let all = store::rows(state, database, "lsn_time_mapping", 0);
    // the first entry kept, or the last of all: the mapping is never emptied by its own low end
    let mark = all
        .iter()
        .find(|(_, r)| kept(r))
        .or(all.last())
        .and_then(|(_, r)| r.first())
        .and_then(store::lsn_of);
    let Some(mark) = mark else { return Ok(()) };
    for instance in instances::load(state, database, 0) {
        if instance.start_lsn < mark {
            change_table(state, database, &instance.name, &mark, now)?;
        }
    }
    Ok(())
}

/// Entries before every instance's low end serve nobody.
fn trim_mapping(state: &mut State, database: i32, now: Moment) {
    let Some(low) = instances::load(state, database, 0).iter().map(|i| i.start_lsn).min() else {
        return;
    };
    let txn = state.begin(0, false, "cdc_cleanup", now);
    store::change(state, txn, database, "lsn_time_mapping", |row| {
        row.first().and_then(store::lsn_of).is_some_and(|lsn| lsn < low).then_some(None)
    });
    state.commit(txn, now);
}

pub fn max_lsn(state: &State, database: i32) -> Option<Lsn> {
    store::rows(state, database, "lsn_time_mapping", 0)
        .last()
        .and_then(|(_, row)| store::lsn_of(row.first()?))
}

/// Error 22920.
pub fn no_instance(state: &State, database: i32, instance: &str) -> SqlError {
    let name = state.databases.get(&database).map_or("", |d| d.name.as_str());
    SqlError::new(
        22920,
        16,
        format!("The named capture instance {instance} does not exist for database {name}."),
    )
}
