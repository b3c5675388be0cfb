//! What `status` says of all mappings, read from the control tables now and then, so that a scrape
//! never waits for a server.

use crate::{
    config::Config,
    control::StatusSnapshot,
    jobs::Env,
    metrics::ControlStates,
    model::id::MappingId,
    plan::status::{self, StatusRow},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Interval, MissedTickBehavior, timeout};

/// Between two reads, at least and at most: as often as the daemon looks for work, where that is
/// reasonable.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// A read that takes longer is given up: what was read before is too old to be shown.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) fn interval(config: &Config) -> Interval {
    let mut interval =
        tokio::time::interval(config.check_interval.clamp(INTERVAL_MIN, INTERVAL_MAX));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

pub(super) async fn read(env: Env) {
    match timeout(READ_TIME_MAX, env.control.status_snapshot()).await {
        Ok(Ok(snapshot)) => env.metrics.control_states(control_states(&snapshot)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the states of the mappings were not read");
            env.metrics.no_control_states();
        }
        Err(_) => env.metrics.no_control_states(),
    }
}

fn control_states(snapshot: &StatusSnapshot) -> ControlStates {
    // a state that no mapping is in is 0, so that an alert on it sees it end
    let mut counts: BTreeMap<&'static str, usize> =
        status::State::ALL.into_iter().map(|state| (state.as_str(), 0)).collect();
    for facts in &snapshot.mappings {
        *counts.entry(status::state(facts, &snapshot.daemon).as_str()).or_default() += 1;
    }
    let name = |facts: &StatusRow| {
        let names = (facts.server.clone(), facts.source.to_string());
        (MappingId(facts.mapping), names)
    };
    let mut servers = BTreeMap::new();
    for facts in snapshot.mappings.iter().filter(|facts| facts.enabled && facts.server_enabled) {
        let (_, is_up) =
            servers.entry(facts.server_id).or_insert_with(|| (facts.server.clone(), true));
        *is_up &= !facts.server_error.as_ref().is_some_and(status::ServerError::is_of_the_server);
    }
    ControlStates {
        are_read: true,
        counts,
        servers,
        names: Arc::new(snapshot.mappings.iter().map(name).collect()),
    }
}
