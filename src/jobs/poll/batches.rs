//! One statement about many tables, then one by one where one of the tables makes it fail.

use super::state::{MappingFacts, PollState};
use crate::{
    error::{Error, Kind, Result},
    mssql::session::Session,
};
use std::collections::VecDeque;

/// The places in a poll's list of mappings that one statement asks about, batch by batch.
pub(super) struct Batches(VecDeque<Vec<usize>>);

impl Batches {
    /// At most `size` places in a batch. A place whose trigger column could not be asked at the
    /// last poll is alone: it would fail the others at every poll.
    pub fn new(
        places: Vec<usize>,
        mappings: &[MappingFacts<'_>],
        state: &PollState,
        size: usize,
    ) -> Batches {
        let faulty = |place: &usize| {
            state.triggers.get(&mappings[*place].mapping.id).is_some_and(|trigger| trigger.faulty)
        };
        let (alone, together): (Vec<usize>, Vec<usize>) = places.into_iter().partition(faulty);
        let batches = together.chunks(size).map(<[usize]>::to_vec);
        Batches(batches.chain(alone.into_iter().map(|place| vec![place])).collect())
    }

    pub fn next(&mut self) -> Option<Vec<usize>> {
        self.0.pop_front()
    }

    /// What the failure of a batch's statement means: the places follow one by one (`None`), or it
    /// is the error of the batch's only place. `Err`: the session or the database failed.
    pub async fn failed(
        &mut self,
        session: &mut Session,
        batch: &[usize],
        error: Error,
    ) -> Result<Option<(usize, Error)>> {
        if !is_of_one_table(&error) || session.is_broken() {
            return Err(error);
        }
        session.recover().await?;
        if let [place] = batch {
            return Ok(Some((*place, error)));
        }
        for &place in batch.iter().rev() {
            self.0.push_front(vec![place]);
        }
        Ok(None)
    }
}

/// Whether a statement about many tables failed because of one of them.
pub(super) fn is_of_one_table(error: &Error) -> bool {
    matches!(error.kind, Kind::Missing | Kind::Permission | Kind::Schema | Kind::Data)
}
