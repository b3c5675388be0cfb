//! Locks: who holds what, who waits for whom.
//!
//! A row's exclusive lock is its pending image in storage; this table holds the rest: locks on
//! tables, update locks on row keys and application locks. A waiter is a session (SPID). Before it
//! sleeps it writes down whom it waits for; if that closes a circle, the session of the circle with
//! the lowest DEADLOCK_PRIORITY (on a tie, the one that asked last) gets error 1205.

use crate::engine::{
    catalog::ObjectId,
    storage::{RowKey, TxnId},
};
use std::collections::{BTreeMap, HashMap, HashSet};

pub type Spid = u16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableMode {
    /// row writers
    IntentExclusive,
    /// REPEATABLE READ and SERIALIZABLE readers, TABLOCK
    Shared,
    /// UPDLOCK with HOLDLOCK
    Update,
    /// TABLOCKX
    Exclusive,
    /// DDL: not even NOLOCK readers pass
    Schema,
}

impl TableMode {
    /// Shared and IntentExclusive by two transactions do not go together; Intent with Intent does.
    fn compatible(self, other: Self) -> bool {
        use TableMode::*;
        match (self, other) {
            (IntentExclusive, IntentExclusive)
            | (Shared, Shared)
            | (Shared, Update)
            | (Update, Shared) => true,
            (IntentExclusive, Shared | Update | Exclusive | Schema)
            | (Shared, IntentExclusive | Exclusive | Schema)
            | (Update, IntentExclusive | Update | Exclusive | Schema)
            | (Exclusive | Schema, IntentExclusive | Shared | Update | Exclusive | Schema) => false,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::IntentExclusive => "IX",
            Self::Shared => "S",
            Self::Update => "U",
            Self::Exclusive => "X",
            Self::Schema => "Sch-M",
        }
    }
}

/// Modes of sp_getapplock, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AppMode {
    IntentShared,
    Shared,
    Update,
    IntentExclusive,
    Exclusive,
}

impl AppMode {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "intentshared" => Self::IntentShared,
            "shared" => Self::Shared,
            "update" => Self::Update,
            "intentexclusive" => Self::IntentExclusive,
            "exclusive" => Self::Exclusive,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::IntentShared => "IntentShared",
            Self::Shared => "Shared",
            Self::Update => "Update",
            Self::IntentExclusive => "IntentExclusive",
            Self::Exclusive => "Exclusive",
        }
    }

    fn compatible(self, other: Self) -> bool {
        use AppMode::*;
        match (self, other) {
            (Exclusive, _) | (_, Exclusive) => false,
            (IntentShared, _) | (_, IntentShared) => true,
            (Shared, Shared | Update) | (Update, Shared) | (IntentExclusive, IntentExclusive) => {
                true
            }
            (Shared, IntentExclusive)
            | (Update, Update | IntentExclusive)
            | (IntentExclusive, Shared | Update) => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppOwner {
    Session(Spid),
    Transaction(TxnId, Spid),
}

impl AppOwner {
    pub fn spid(self) -> Spid {
        match self {
            Self::Session(spid) | Self::Transaction(_, spid) => spid,
        }
    }
}

#[derive(Clone, Debug)]
pub struct AppGrant {
    pub owner: AppOwner,
    pub mode: AppMode,
    /// how often it was taken; released as often
    pub count: u32,
}

/// A table, by database.
pub type TableId = (i32, ObjectId);

#[derive(Debug, Default)]
pub struct LockTable {
    pub tables: HashMap<TableId, Vec<(TxnId, Spid, TableMode)>>,
    /// update locks on row keys
    pub keys: HashMap<(TableId, RowKey), (TxnId, Spid)>,
    /// (database, resource) → grants
    pub apps: HashMap<(i32, String), Vec<AppGrant>>,
    waits: BTreeMap<Spid, Vec<Spid>>,
    victims: HashSet<Spid>,
    /// what each transaction holds, so that ending it is not a search
    held_tables: HashMap<TxnId, Vec<TableId>>,
    held_keys: HashMap<TxnId, Vec<(TableId, RowKey)>>,
    held_apps: HashMap<TxnId, Vec<(i32, String)>>,
}

impl LockTable {
    /// Sessions whose table locks stand in the way of this one.
    pub fn table_blockers(&self, table: TableId, txn: TxnId, mode: TableMode) -> Vec<Spid> {
        self.tables.get(&table).map_or_else(Vec::new, |held| {
            held.iter()
                .filter(|(t, _, m)| *t != txn && !mode.compatible(*m))
                .map(|(_, spid, _)| *spid)
                .collect()
        })
    }

    /// Sessions a plain reader must wait for: TABLOCKX and DDL.
    pub fn reader_blockers(&self, table: TableId, txn: TxnId, nolock: bool) -> Vec<Spid> {
        self.tables.get(&table).map_or_else(Vec::new, |held| {
            held.iter()
                .filter(|(t, _, m)| {
                    *t != txn
                        && (*m == TableMode::Schema || (*m == TableMode::Exclusive && !nolock))
                })
                .map(|(_, spid, _)| *spid)
                .collect()
        })
    }

    pub fn grant_table(&mut self, table: TableId, txn: TxnId, spid: Spid, mode: TableMode) {
        let held = self.tables.entry(table).or_default();
        if !held.iter().any(|(t, _, m)| *t == txn && *m == mode) {
            held.push((txn, spid, mode));
            self.held_tables.entry(txn).or_default().push(table);
        }
    }

    pub fn holds_table(&self, table: TableId, txn: TxnId, mode: TableMode) -> bool {
        self.tables
            .get(&table)
            .is_some_and(|held| held.iter().any(|(t, _, m)| *t == txn && *m == mode))
    }

    /// The other session that has an update lock on a key.
    pub fn key_blocker(&self, table: TableId, key: &RowKey, txn: TxnId) -> Option<Spid> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.get(&(table, key.clone())).filter(|(t, _)| *t != txn).map(|(_, spid)| *spid)
    }

    pub fn grant_key(&mut self, table: TableId, key: RowKey, txn: TxnId, spid: Spid) {
        if self.keys.insert((table, key.clone()), (txn, spid)).is_none() {
            self.held_keys.entry(txn).or_default().push((table, key));
        }
    }

    /// Everything a transaction holds, at its end.
    pub fn release(&mut self, txn: TxnId) {
        for table in self.held_tables.remove(&txn).unwrap_or_default() {
            if let Some(held) = self.tables.get_mut(&table) {
                held.retain(|(t, _, _)| *t != txn);
                if held.is_empty() {
                    self.tables.remove(&table);
                }
            }
        }
        for key in self.held_keys.remove(&txn).unwrap_or_default() {
            self.keys.remove(&key);
        }
        for resource in self.held_apps.remove(&txn).unwrap_or_default() {
            if let Some(grants) = self.apps.get_mut(&resource) {
                grants.retain(|g| !matches!(g.owner, AppOwner::Transaction(t, _) if t == txn));
                if grants.is_empty() {
                    self.apps.remove(&resource);
                }
            }
        }
    }

    pub fn release_session(&mut self, spid: Spid) {
        self.apps.retain(|_, grants| {
            grants.retain(|g| g.owner.spid() != spid);
            !grants.is_empty()
        });
        self.waits.remove(&spid);
        self.victims.remove(&spid);
    }

    pub fn app_blockers(
        &self,
        resource: &(i32, String),
        owner: AppOwner,
        mode: AppMode,
    ) -> Vec<Spid> {
        self.apps.get(resource).map_or_else(Vec::new, |grants| {
            grants
                .iter()
                .filter(|g| g.owner.spid() != owner.spid() && !mode.compatible(g.mode))
                .map(|g| g.owner.spid())
                .collect()
        })
    }

    pub fn grant_app(&mut self, resource: (i32, String), owner: AppOwner, mode: AppMode) {
        if let AppOwner::Transaction(txn, _) = owner {
            self.held_apps.entry(txn).or_default().push(resource.clone());
        }
        let grants = self.apps.entry(resource).or_default();
        match grants.iter_mut().find(|g| g.owner == owner && g.mode == mode) {
            Some(grant) => grant.count += 1,
            None => grants.push(AppGrant { owner, mode, count: 1 }),
        }
    }

    /// Releases one grant; false when the owner holds none.
    pub fn release_app(&mut self, resource: &(i32, String), owner: AppOwner) -> bool {
        let Some(grants) = self.apps.get_mut(resource) else { return false };
        let Some(at) = grants.iter().position(|g| g.owner == owner) else { return false };
        grants[at].count -= 1;
        if grants[at].count == 0 {
            grants.remove(at);
        }
        if grants.is_empty() {
            self.apps.remove(resource);
        }
        true
    }

    /// Writes down a wait. Some(victim) when it closes a circle: the victim may be the caller
    /// itself.
    pub fn start_wait(
        &mut self,
        spid: Spid,
        blockers: Vec<Spid>,
        priority: impl Fn(Spid) -> i32,
    ) -> Option<Spid> {
        self.waits.insert(spid, blockers);
        let circle = self.circle(spid)?;
        let mut victim = spid;
        for other in circle {
            if priority(other) < priority(victim) {
                victim = other;
            }
        }
        if victim != spid {
            self.victims.insert(victim);
        }
        Some(victim)
    }

    pub fn end_wait(&mut self, spid: Spid) {
        self.waits.remove(&spid);
    }

    pub fn has_waiters(&self) -> bool {
        !self.waits.is_empty()
    }

    /// Was this session chosen while it slept?
    pub fn take_victim(&mut self, spid: Spid) -> bool {
        self.victims.remove(&spid)
    }

    /// Whom a session waits for now (sys.dm_exec_requests.blocking_session_id).
    pub fn blocked_by(&self, spid: Spid) -> Option<Spid> {
        self.waits.get(&spid)?.first().copied()
    }

    fn circle(&self, start: Spid) -> Option<Vec<Spid>> {
        let mut path = vec![start];
        let mut seen = HashSet::new();
        self.walk(start, start, &mut path, &mut seen).then_some(path)
    }

    fn walk(&self, at: Spid, start: Spid, path: &mut Vec<Spid>, seen: &mut HashSet<Spid>) -> bool {
        for next in self.waits.get(&at).into_iter().flatten() {
            if *next == start {
                return true;
            }
            if !self.victims.contains(next) && seen.insert(*next) {
                path.push(*next);
                if self.walk(*next, start, path, seen) {
                    return true;
                }
                path.pop();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_has_one_victim() {
        let mut locks = LockTable::default();
        assert_eq!(locks.start_wait(51, vec![52], |_| 0), None);
        assert_eq!(locks.start_wait(53, vec![51], |_| 0), None);
        assert_eq!(
            locks.start_wait(52, vec![53], |spid| if spid == 51 { -5 } else { 0 }),
            Some(51)
        );
        assert!(locks.take_victim(51));
        assert!(!locks.take_victim(51));
    }

    #[test]
    fn app_locks_are_counted() {
        let mut locks = LockTable::default();
        let resource = (5, "r".to_string());
        let me = AppOwner::Session(51);
        locks.grant_app(resource.clone(), me, AppMode::Exclusive);
        locks.grant_app(resource.clone(), me, AppMode::Exclusive);
        assert_eq!(locks.app_blockers(&resource, AppOwner::Session(52), AppMode::Shared), vec![51]);
        assert!(locks.release_app(&resource, me));
        assert_eq!(locks.app_blockers(&resource, AppOwner::Session(52), AppMode::Shared), vec![51]);
        assert!(locks.release_app(&resource, me));
        assert!(!locks.release_app(&resource, me));
        assert!(locks.app_blockers(&resource, AppOwner::Session(52), AppMode::Shared).is_empty());
    }
}
