//! The agent: a thread that runs delayed captures, scans of idle logs, idle entries and nothing
//! else. It ends with the instance.

use super::{CaptureMode, capture};
use crate::engine::{
    clock::Moment,
    instance::{Instance, State},
};
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// Idle databases get an entry in `cdc.lsn_time_mapping` about every five minutes.
const IDLE: i64 = 300 * 10_000_000;
const TICK: Duration = Duration::from_millis(5);

/// Starts the thread. It holds the instance weakly.
pub fn start(instance: &Arc<Instance>) -> std::io::Result<()> {
    let weak: Weak<Instance> = Arc::downgrade(instance);
    std::thread::Builder::new().name("agent".into()).spawn(move || {
        while let Some(instance) = weak.upgrade() {
            if tick(&mut instance.lock(), instance.now()) {
                instance.notify();
            }
            drop(instance);
            std::thread::sleep(TICK);
        }
    })?;
    Ok(())
}

/// One look at every database: true when something was captured.
pub fn tick(state: &mut State, now: Moment) -> bool {
    let mut captured = false;
    let ids: Vec<i32> = state
        .databases
        .values()
        .filter(|d| d.options.is_cdc_enabled && d.cdc.running)
        .map(|d| d.id)
        .collect();
    for id in ids {
        let Some(db) = state.databases.get(&id) else { continue };
        if db.cdc.mode == CaptureMode::Manual {
            continue;
        }
        let polls =
            db.cdc.due.is_none() && db.cdc.scanned.is_none_or(|last| last.elapsed() >= db.cdc.poll);
        if polls || db.cdc.due.is_some_and(|due| due <= Instant::now()) {
            captured |= capture::scan(state, id, now, usize::MAX) > 0;
        }
        let Some(db) = state.databases.get(&id) else { continue };
        // What is committed and not scanned yet makes a log that is not idle: an entry's LSN is
        // never above a commit that comes later.
        if (db.log.records.is_empty() || db.cdc.unhardened)
            && db.cdc.last_entry.is_some_and(|last| now.0 - last.0 >= IDLE)
        {
            capture::dummy(state, id, now);
            captured = true;
        }
    }
    captured
}
