//! One statement about many tables, then one by one where one of the tables makes it fail.

use super::state::MappingFacts;
use crate::{
    error::{Error, Kind, Result},
    model::id::MappingId,
    mssql::client::session::Session,
};
use std::collections::VecDeque;

/// Tables that a poll waits for, each for [`crate::tsql::poll::LOCK_TIMEOUT_ALONE_MS`] (5 s in
/// all). Where more are locked (a restore of a schema, an index build), the rest of the tables is
/// asked by the next poll.
const LOCK_WAITS_MAX: usize = 50;

/// The places in a poll's list of mappings that one statement asks about, batch by batch.
pub(super) struct Batches {
    waiting: VecDeque<Vec<usize>>,
    lock_waits: usize,
}

/// What the failure of a batch's statement means.
#[derive(Debug)]
pub(super) struct FailedBatch {
    /// It is the error of this place; `None`: the batch's places follow one by one.
    pub place: Option<(usize, Error)>,
    /// Places that this poll asks no more, because too many others are locked.
    pub unasked: Vec<usize>,
}

impl Batches {
    /// At most `size` places in a batch. A place that is `alone` (it could not be asked at the last
    /// poll) would make the others fail at every poll, so it has a batch of its own, behind them.
    pub fn new(
        places: Vec<usize>,
        mappings: &[MappingFacts<'_>],
        size: usize,
        alone: impl Fn(MappingId) -> bool,
    ) -> Batches {
        let (apart, together): (Vec<usize>, Vec<usize>) =
            places.into_iter().partition(|&place| alone(mappings[place].mapping.id));
        let batches = together.chunks(size).map(<[usize]>::to_vec);
        let waiting = batches.chain(apart.into_iter().map(|place| vec![place])).collect();
        Batches { waiting, lock_waits: 0 }
    }

    pub fn next(&mut self) -> Option<Vec<usize>> {
        self.waiting.pop_front()
    }

    /// What the failure of a batch's statement means. `Err`: the session or the database failed.
    pub async fn failed(
        &mut self,
        session: &mut Session,
        batch: &[usize],
        error: Error,
    ) -> Result<FailedBatch> {
        if !is_of_one_table(&error) || session.is_broken() {
            return Err(error);
        }
        session.recover().await?;
        if let [place] = batch {
            self.lock_waits += usize::from(error.kind == Kind::LockTimeout);
            let unasked = if self.lock_waits >= LOCK_WAITS_MAX {
                self.waiting.drain(..).flatten().collect()
            } else {
                Vec::new()
            };
            return Ok(FailedBatch { place: Some((*place, error)), unasked });
        }
        for &place in batch.iter().rev() {
            self.waiting.push_front(vec![place]);
        }
        Ok(FailedBatch { place: None, unasked: Vec::new() })
    }
}

/// Whether a statement about many tables failed because of one of them.
pub(super) fn is_of_one_table(error: &Error) -> bool {
    matches!(
        error.kind,
        Kind::Missing
            | Kind::Permission
            | Kind::Schema
            | Kind::Data
            | Kind::LockTimeout
            | Kind::TooLarge
    )
}
