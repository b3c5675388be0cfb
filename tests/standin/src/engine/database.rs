//! One database: its catalog, its options, its counters and its log.

use crate::{
    engine::{
        catalog::{
            Catalog, DBO, GUEST_SCHEMA, INFORMATION_SCHEMA, ObjectId, Principal, PrincipalKind,
            SYS, SchemaMeta,
        },
        clock::Moment,
        log::{CommitLog, Lsn},
        snapshot::Snapshot,
    },
    value::Collation,
};
use std::{collections::HashMap, sync::Arc};

pub const MASTER: i32 = 1;
pub const TEMPDB: i32 = 2;
pub const MODEL: i32 = 3;
pub const MSDB: i32 = 4;

/// What ALTER DATABASE … SET changes. A new database has a fresh server's defaults.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    pub snapshot_isolation: bool,
    pub read_committed_snapshot: bool,
    /// FULL, SIMPLE or BULK_LOGGED
    pub recovery: &'static str,
    pub read_only: bool,
    pub offline: bool,
    pub single_user: bool,
    pub compatibility_level: u8,
    pub is_cdc_enabled: bool,
    pub is_broker_enabled: bool,
    pub is_encrypted: bool,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            snapshot_isolation: false,
            read_committed_snapshot: false,
            recovery: "FULL",
            read_only: false,
            offline: false,
            single_user: false,
            compatibility_level: 160,
            is_cdc_enabled: false,
            is_broker_enabled: false,
            is_encrypted: false,
        }
    }
}

/// A table's identity counter. It is not rolled back.
#[derive(Clone, Copy, Debug)]
pub struct IdentityState {
    pub last: Option<i128>,
    /// after DBCC CHECKIDENT … RESEED on a table without rows the next value is the reseed value
    /// itself
    pub next_is_last: bool,
}

/// A change of a tracked table's structure, for capture to put into cdc.ddl_history.
#[derive(Clone, Debug)]
pub struct DdlEvent {
    pub txn: u64,
    /// the LSN of its commit; None while its transaction is open
    pub committed: Option<Lsn>,
    pub table: ObjectId,
    pub text: String,
    pub time: Moment,
}

/// What a database is part of.
#[derive(Clone, Default)]
pub struct Availability {
    /// `sys.databases.replica_id`
    pub replica_id: Option<[u8; 16]>,
    /// `sys.database_mirroring.mirroring_guid`
    pub mirroring_guid: Option<[u8; 16]>,
    /// What readable secondaries have redone; `None` where that is everything.
    pub redone: Option<Snapshot>,
}

#[derive(Clone)]
pub struct Database {
    pub id: i32,
    pub name: String,
    pub collation: Collation,
    pub create_date: Moment,
    /// sys.databases.database_guid of its recovery fork
    pub recovery_fork: [u8; 16],
    pub options: DatabaseOptions,
    pub catalog: Catalog,
    pub log: CommitLog,
    pub ddl_events: Vec<DdlEvent>,
    pub identities: HashMap<ObjectId, IdentityState>,
    /// the last rowversion that was given
    pub rowversion: u64,
    /// change data capture's jobs, sessions and switches
    pub cdc: super::capture::CdcRuntime,
    /// the availability group or the mirror that it is part of
    pub availability: Availability,
    next_object: i32,
    next_principal: i32,
    next_type: i32,
}

impl Database {
    pub fn new(
        id: i32,
        name: &str,
        collation: Collation,
        now: Moment,
        recovery_fork: [u8; 16],
    ) -> Self {
        let mut catalog = Catalog::default();
        for (id, name) in [
            (DBO, "dbo"),
            (GUEST_SCHEMA, "guest"),
            (INFORMATION_SCHEMA, "INFORMATION_SCHEMA"),
            (SYS, "sys"),
        ] {
            catalog.schemas.insert(id, Arc::new(SchemaMeta { id, name: name.into(), owner: id }));
        }
        let user = |id, name: &str, login: Option<&str>| Principal {
            id,
            name: name.into(),
            kind: PrincipalKind::SqlUser,
            login: login.map(String::from),
            default_schema: if id == 2 { "guest".into() } else { "dbo".into() },
            fixed: true,
            member_of: if id == 1 { vec![16384] } else { Vec::new() },
        };
        let role = |id, name: &str| Principal {
            id,
            name: name.into(),
            kind: PrincipalKind::Role,
            login: None,
            default_schema: String::new(),
            fixed: id >= 16384,
            member_of: Vec::new(),
        };
        let users = [
            (1, "dbo", Some("sa")),
            (2, "guest", None),
            (3, "INFORMATION_SCHEMA", None),
            (4, "sys", None),
        ];
        for (id, name, login) in users {
            catalog.principals.insert(id, Arc::new(user(id, name, login)));
        }
        catalog.principals.insert(0, Arc::new(role(0, "public")));
        // ids as in every SQL Server database since 2005
        let fixed = [
            (16384, "db_owner"),
            (16385, "db_accessadmin"),
            (16386, "db_securityadmin"),
            (16387, "db_ddladmin"),
            (16389, "db_backupoperator"),
            (16390, "db_datareader"),
            (16391, "db_datawriter"),
            (16392, "db_denydatareader"),
            (16393, "db_denydatawriter"),
        ];
        for (id, name) in fixed {
            catalog.principals.insert(id, Arc::new(role(id, name)));
            catalog.schemas.insert(id, Arc::new(SchemaMeta { id, name: name.into(), owner: id }));
        }
        catalog.name_by(collation);
        Self {
            id,
            name: name.into(),
            collation,
            create_date: now,
            recovery_fork,
            options: DatabaseOptions::default(),
            catalog,
            log: CommitLog::default(),
            ddl_events: Vec::new(),
            identities: HashMap::new(),
            rowversion: 2000,
            cdc: super::capture::CdcRuntime::default(),
            availability: Availability::default(),
            next_object: 229_575_856,
            next_principal: 5,
            next_type: 257,
        }
    }

    pub fn is_user_database(&self) -> bool {
        self.id > MSDB
    }

    /// Object ids jump, as SQL Server's do, so that nobody relies on their order.
    pub fn new_object_id(&mut self) -> ObjectId {
        let next = i64::from(self.next_object) + 16_000_057;
        self.next_object =
            if next > 2_100_000_000 { (next - 1_999_900_000) as i32 } else { next as i32 };
        while self.catalog.objects.contains_key(&self.next_object) {
            self.next_object += 1;
        }
        self.next_object
    }

    pub fn new_schema_id(&self) -> i32 {
        (5..16384).find(|id| !self.catalog.schemas.contains_key(id)).unwrap_or(16_400)
    }

    pub fn new_principal_id(&mut self) -> i32 {
        self.next_principal += 1;
        self.next_principal - 1
    }

    pub fn new_type_id(&mut self) -> i32 {
        self.next_type += 1;
        self.next_type - 1
    }

    pub fn next_rowversion(&mut self) -> u64 {
        self.rowversion += 1;
        self.rowversion
    }
}
