//! Which of a table's capture instances is read.
//!
//! A table has up to two: while columns are added the operator makes a second one, but it may as
//! well be somebody else's, with other columns or behind a role of their own. So:
//!
//! - They are ordered by `create_date`, which never moves; `start_lsn` is moved by cleanup, of each
//!   instance for itself.
//! - The one that is read is remembered with the checkpoint. From there only a newer one is ever
//!   moved to, and only one that captures every carried column which the present one captures.
//! - One that this login may not read, or that lacks the key, is as good as not there.

use crate::model::{capture::Instance, name::Ident};

/// What each instance of a table captures of the columns that are carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceCoverage {
    /// The carried columns.
    pub columns: Vec<Ident>,
    /// By the change table's id: which of `columns` are captured; `None` where the key is not.
    pub captured: Vec<(i32, Option<Vec<bool>>)>,
}

/// Why an instance is not read, although it is newer than the one that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassedOver {
    /// This login may not read it.
    Unreadable,
    LacksKey,
    /// It lacks these columns, which the present one has.
    Lacks(Vec<Ident>),
}

/// A table's instances, with what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    pub instances: &'a [Instance],
    /// Wanted where there are several.
    pub coverage: Option<&'a InstanceCoverage>,
}

impl<'a> Candidates<'a> {
    fn captured(&self, at: usize) -> Option<&'a [bool]> {
        let (coverage, instance) = (self.coverage?, self.instances.get(at)?);
        coverage.captured.iter().find(|(id, _)| *id == instance.change_table_id)?.1.as_deref()
    }

    /// Whether there are several and they have not been compared.
    pub fn are_unknown(&self) -> bool {
        self.instances.len() > 1 && self.coverage.is_none()
    }

    /// The instances that can be read, the oldest first. One that lacks the key is among them only
    /// where all do, so that the error is about that.
    pub fn usable(&self) -> Vec<usize> {
        let mut readable: Vec<usize> =
            (0..self.instances.len()).filter(|&i| self.instances[i].is_readable()).collect();
        readable.sort_by_key(|&i| self.instances[i].age());
        let keyed: Vec<usize> =
            readable.iter().copied().filter(|&i| self.captured(i).is_some()).collect();
        if keyed.is_empty() { readable } else { keyed }
    }

    /// The one that captures most; of equal ones the newest. `among`: oldest first.
    pub fn best(&self, among: &[usize]) -> Option<usize> {
        let columns = |&i: &usize| {
            self.captured(i).map_or(0, |captured| captured.iter().filter(|has| **has).count())
        };
        among.iter().copied().max_by_key(columns)
    }

    /// The carried columns that `of` captures and `other` does not; `None` where that is not known,
    /// or `other` lacks the key.
    fn lacking(&self, other: usize, of: usize) -> Option<Vec<usize>> {
        let (other, of) = (self.captured(other)?, self.captured(of)?);
        Some(
            of.iter()
                .zip(other)
                .enumerate()
                .filter(|(_, (of, other))| **of && !**other)
                .map(|(i, _)| i)
                .collect(),
        )
    }

    /// Whether `other` can be read, and captures every carried column that `of` does.
    pub fn replaces(&self, other: usize, of: usize) -> bool {
        self.instances[other].is_readable()
            && self.lacking(other, of).is_some_and(|lacking| lacking.is_empty())
    }

    fn newer(&self, than: usize) -> impl Iterator<Item = usize> {
        (0..self.instances.len())
            .filter(move |&i| self.instances[i].age() > self.instances[than].age())
    }

    /// The newest instance that takes over from `current`.
    pub fn successor(&self, current: usize) -> Option<usize> {
        self.newer(current)
            .filter(|&i| self.replaces(i, current))
            .max_by_key(|&i| self.instances[i].age())
    }

    /// The instances newer than `current` that do not take over from it, and why; nothing of those
    /// that nobody knows.
    pub fn passed_over(&self, current: usize) -> Vec<(usize, PassedOver)> {
        let Some(coverage) = self.coverage else { return Vec::new() };
        let why = |i: usize| {
            if !self.instances[i].is_readable() {
                return Some(PassedOver::Unreadable);
            }
            let own = self.captured(current)?;
            let Some(other) = self.captured(i) else { return Some(PassedOver::LacksKey) };
            let lacks: Vec<Ident> = coverage
                .columns
                .iter()
                .zip(own.iter().zip(other))
                .filter(|(_, (own, other))| **own && !**other)
                .map(|(name, _)| name.clone())
                .collect();
            (!lacks.is_empty()).then_some(PassedOver::Lacks(lacks))
        };
        self.newer(current).filter_map(|i| Some((i, why(i)?))).collect()
    }
}

impl PassedOver {
    /// For a sentence that begins with the instance's name.
    pub fn reason(&self) -> String {
        match self {
            PassedOver::Unreadable => "may not be read by this login".to_owned(),
            PassedOver::LacksKey => "does not capture the key".to_owned(),
            PassedOver::Lacks(columns) => {
                let columns: Vec<_> = columns.iter().map(Ident::to_string).collect();
                format!("does not capture {}", columns.join(", "))
            }
        }
    }
}
