//! A full sync of one mapping.

use super::{Done, Env};
use crate::{
    error::{Error, Kind, Result},
    model::mapping::Mapping,
};

/// Claims the request and makes the destination equal to the source; leaves its row in sync_status, failed or not.
pub async fn run(_env: &Env, _mapping: &Mapping, _trigger: bool) -> Result<Done> {
    Err(Error::new(Kind::Other, "full sync is not built yet"))
}
