//! What a refresh does in its task: it reads the control tables and takes this daemon's share of the
//! mappings. What follows from the result is in [`super::refresh`].

use super::failure::is_unreachable;
use crate::{
    control::{ControlSnapshot, Lease},
    error::{Error, Result},
    jobs::{
        Env,
        ownership::{self, OwnedMappings},
    },
    plan::assignment::Holding,
};

/// The result of a refresh.
pub(super) struct ControlRefresh {
    /// The lease that the task was given, or a new one; `None` when it is lost.
    pub lease: Option<Lease>,
    pub result: std::result::Result<(ControlSnapshot, OwnedMappings), RefreshError>,
}

/// Why a refresh failed.
pub(super) enum RefreshError {
    /// The control tables cannot be read. The mappings are still owned.
    Tables(Error),
    /// The lease is lost, or cannot be acquired: no mapping is owned.
    Lease(Error),
}

/// What a refresh needs to know.
pub(super) struct RefreshRequest {
    /// `None`: a new one is acquired.
    pub lease: Option<Lease>,
    /// The daemon takes a place among the daemons and shares the mappings with them.
    pub member: bool,
    /// The daemon does what one of all daemons has to do.
    pub leads: bool,
    pub holding: Holding,
}

impl ControlRefresh {
    pub fn lost(error: Error) -> Self {
        ControlRefresh { lease: None, result: Err(RefreshError::Lease(error)) }
    }

    pub async fn run(env: &Env, request: RefreshRequest) -> Self {
        let RefreshRequest { lease, member, leads, holding } = request;
        let lease = match lease {
            Some(lease) => Ok(lease),
            None => env.control.lease(member).await,
        };
        let mut lease = match lease {
            Ok(lease) => lease,
            Err(error) => return ControlRefresh::lost(error),
        };
        let loaded = match load(env, leads).await {
            Ok(loaded) => loaded,
            Err(error) => {
                return match lease.renew().await {
                    Ok(_) => ControlRefresh {
                        lease: Some(lease),
                        result: Err(RefreshError::Tables(error)),
                    },
                    Err(lost) => ControlRefresh::lost(lost),
                };
            }
        };
        env.control.write_pending_completions().await;
        match ownership::refresh(env, &mut lease, &loaded, &holding).await {
            Ok(owned) => ControlRefresh { lease: Some(lease), result: Ok((loaded, owned)) },
            Err(error) => ControlRefresh::lost(error),
        }
    }
}

/// Resolves errors of disabled rows *before* loading: in the other order, a row disabled in between
/// would lose its error while the daemon still saw it enabled.
async fn load(env: &Env, leads: bool) -> Result<ControlSnapshot> {
    if leads && let Err(error) = env.control.resolve_abandoned().await {
        if is_unreachable(&error) {
            env.metrics.control(Err(error.to_string()));
            return Err(error);
        }
        tracing::warn!(
            %error,
            "errors of deleted and disabled rows were not resolved: tried again at the next refresh"
        );
    }
    env.control.load().await
}
