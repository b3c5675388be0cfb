//! `retry`: what is parked or waits after a failure is tried at once.
//!
//! The daemon that owns a mapping may run anywhere, so it is asked through the control database: it
//! reads the rows at each tick, and tries what failed when its row was touched.

use crate::{
    app,
    config::Config,
    error::{Error, Kind, Result},
    model::id::MappingId,
    say,
};

/// Asks for one mapping, or for all.
pub async fn run(config: Config, mapping: Option<i32>) -> Result<bool> {
    app::with_env(config, async move |env| {
        let (mappings, servers) = env.control.request_retry(mapping.map(MappingId)).await?;
        match mapping {
            Some(id) if mappings == 0 => Err(Error::new(
                Kind::Config,
                format!("there is no mapping {id} that is enabled, on a server that is"),
            )),
            Some(id) => {
                say!("mapping {id} and its server are tried at the daemon's next tick");
                Ok(true)
            }
            None => {
                say!("mappings: {mappings}, servers: {servers}; those that wait after a failure are tried at the daemons' next tick");
                Ok(true)
            }
        }
    })
    .await
}
