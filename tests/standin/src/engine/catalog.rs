//! What a database knows of its objects: schemas, tables with their columns, keys and constraints,
//! views, procedures, triggers, alias types, principals and permissions.
//!
//! Everything is held by `Arc` in persistent maps: a statement that resolved a table keeps the
//! description it saw, and DDL replaces the description as a whole. Object ids are unique in a
//! database and never used again. Names are compared as the database's collation compares them
//! ([`fold`]); constraints share the name space of their schema with tables, views and procedures,
//! as in `sys.objects`.

use crate::{
    engine::clock::Moment,
    tsql::ast::{Batch, Encryption, Generated, ProcParam, ReferentialAction},
    value::{Collation, SqlType, Value},
};
use imbl::OrdMap;
use sqlparser::ast::{Expr, Query};
use std::{ops::ControlFlow, sync::Arc};

pub const DBO: i32 = 1;
pub const GUEST_SCHEMA: i32 = 2;
pub const INFORMATION_SCHEMA: i32 = 3;
pub const SYS: i32 = 4;

/// A name as it is compared where case does not matter. A database's catalog knows whether it does:
/// [`Catalog::key`].
pub fn fold(name: &str) -> String {
    name.to_lowercase()
}

pub type ColumnId = i32;
pub type ObjectId = i32;

#[derive(Clone, Debug)]
pub struct SchemaMeta {
    pub id: i32,
    pub name: String,
    /// database principal that owns it
    pub owner: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    User,
    /// `#name`, in tempdb
    Temp,
    /// `@name`, in tempdb; not rolled back with the transaction
    Variable,
    /// the `cdc` schema's, msdb's: `is_ms_shipped`
    System,
}

#[derive(Clone, Debug)]
pub struct IdentityMeta {
    pub seed: i128,
    pub increment: i128,
}

#[derive(Clone, Debug)]
pub struct DefaultMeta {
    pub object_id: ObjectId,
    pub name: String,
    pub system_named: bool,
    pub expr: Expr,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct ComputedMeta {
    pub expr: Expr,
    pub text: String,
    pub persisted: bool,
}

#[derive(Clone, Debug)]
pub struct ColumnMeta {
    /// stable: never reused in this table
    pub column_id: ColumnId,
    pub name: String,
    pub ty: SqlType,
    pub nullable: bool,
    pub identity: Option<IdentityMeta>,
    pub default: Option<Arc<DefaultMeta>>,
    pub computed: Option<Arc<ComputedMeta>>,
    pub sparse: bool,
    pub rowguidcol: bool,
    pub hidden: bool,
    pub generated: Option<Generated>,
    /// MASKED WITH (FUNCTION = '…')
    pub masked: Option<String>,
    pub encrypted: Option<Encryption>,
    pub column_set: bool,
    /// an alias type's user_type_id (or sysname's, 256)
    pub user_type_id: Option<i32>,
}

impl ColumnMeta {
    pub fn new(column_id: ColumnId, name: impl Into<String>, ty: SqlType, nullable: bool) -> Self {
        Self {
            column_id,
            name: name.into(),
            ty,
            nullable,
            identity: None,
            default: None,
            computed: None,
            sparse: false,
            rowguidcol: false,
            hidden: false,
            generated: None,
            masked: None,
            encrypted: None,
            column_set: false,
            user_type_id: None,
        }
    }

    pub fn is_rowversion(&self) -> bool {
        self.ty == SqlType::RowVersion
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    pub column_id: ColumnId,
    /// its place in a row: kept right by [`TableMeta::renumber`]
    pub ordinal: usize,
    pub descending: bool,
}

/// A filtered index's WHERE: what CREATE INDEX allows there is a conjunction of comparisons of
/// columns with constants.
#[derive(Clone, Debug)]
pub struct FilterMeta {
    pub text: String,
    pub tests: Vec<(ColumnId, FilterTest)>,
}

/// Constants have their column's type already.
#[derive(Clone, Debug)]
pub enum FilterTest {
    IsNull,
    IsNotNull,
    Compare(FilterOp, Value),
    In(Vec<Value>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterOp {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    Index,
    PrimaryKey,
    Unique,
}

#[derive(Clone, Debug)]
pub struct IndexMeta {
    /// 1 clustered, from 2 on the others (0, the heap, is not listed)
    pub index_id: i32,
    pub name: String,
    pub unique: bool,
    pub clustered: bool,
    pub kind: KeyKind,
    /// the key constraint's object id, for PRIMARY KEY and UNIQUE
    pub constraint_id: Option<ObjectId>,
    pub system_named: bool,
    pub key: Vec<KeyColumn>,
    pub include: Vec<ColumnId>,
    pub filter: Option<Arc<FilterMeta>>,
    pub ignore_dup_key: bool,
    pub disabled: bool,
    pub columnstore: bool,
}

#[derive(Clone, Debug)]
pub struct CheckMeta {
    pub object_id: ObjectId,
    pub name: String,
    pub system_named: bool,
    pub expr: Expr,
    pub text: String,
    /// the column it was written on
    pub column_id: Option<ColumnId>,
    pub disabled: bool,
    pub not_trusted: bool,
}

#[derive(Clone, Debug)]
pub struct ForeignKeyMeta {
    pub object_id: ObjectId,
    pub name: String,
    pub system_named: bool,
    pub columns: Vec<ColumnId>,
    pub referenced_table: ObjectId,
    pub referenced_columns: Vec<ColumnId>,
    /// the referenced table's index that makes the key unique
    pub key_index_id: i32,
    pub on_delete: ReferentialAction,
    pub on_update: ReferentialAction,
    pub disabled: bool,
    pub not_trusted: bool,
}

#[derive(Clone, Debug)]
pub struct TemporalMeta {
    pub start: ColumnId,
    pub end: ColumnId,
    /// Some while SYSTEM_VERSIONING is ON
    pub history: Option<ObjectId>,
}

#[derive(Clone, Debug)]
pub struct TableMeta {
    pub object_id: ObjectId,
    pub schema_id: i32,
    pub name: String,
    pub kind: TableKind,
    pub create_date: Moment,
    pub modify_date: Moment,
    /// by ordinal; a row's values stand in this order
    pub columns: Vec<ColumnMeta>,
    /// the highest column_id ever given
    pub last_column_id: ColumnId,
    pub indexes: Vec<Arc<IndexMeta>>,
    pub checks: Vec<Arc<CheckMeta>>,
    pub foreign_keys: Vec<Arc<ForeignKeyMeta>>,
    pub temporal: Option<TemporalMeta>,
    /// the table this one is the history of
    pub history_of: Option<ObjectId>,
    pub is_tracked_by_cdc: bool,
    pub memory_optimized: bool,
    /// More than one only where a test says so: partition schemes are refused. The rows are all in
    /// the first.
    pub partitions: i32,
    /// names of columns that differ in case only are different names: the database's collation is
    /// case-sensitive
    pub exact_names: bool,
    /// changes with every change of the columns or indexes: a snapshot taken before cannot read it
    /// any more (3961)
    pub version: u64,
}

impl TableMeta {
    pub fn clustered(&self) -> Option<&Arc<IndexMeta>> {
        self.indexes.iter().find(|i| i.clustered)
    }

    pub fn primary_key(&self) -> Option<&Arc<IndexMeta>> {
        self.indexes.iter().find(|i| i.kind == KeyKind::PrimaryKey)
    }

    pub fn index(&self, index_id: i32) -> Option<&Arc<IndexMeta>> {
        self.indexes.iter().find(|i| i.index_id == index_id)
    }

    pub fn index_named(&self, name: &str) -> Option<&Arc<IndexMeta>> {
        if self.exact_names {
            return self.indexes.iter().find(|i| i.name == name);
        }
        let name = fold(name);
        self.indexes.iter().find(|i| fold(&i.name) == name)
    }

    pub fn ordinal(&self, column_id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|c| c.column_id == column_id)
    }

    pub fn ordinal_named(&self, name: &str) -> Option<usize> {
        if self.exact_names {
            return self.columns.iter().position(|c| c.name == name);
        }
        let name = fold(name);
        self.columns.iter().position(|c| fold(&c.name) == name)
    }

    pub fn column_named(&self, name: &str) -> Option<&ColumnMeta> {
        self.ordinal_named(name).map(|i| &self.columns[i])
    }

    pub fn column(&self, column_id: ColumnId) -> Option<&ColumnMeta> {
        self.columns.iter().find(|c| c.column_id == column_id)
    }

    pub fn identity_ordinal(&self) -> Option<usize> {
        self.columns.iter().position(|c| c.identity.is_some())
    }

    pub fn rowversion_ordinal(&self) -> Option<usize> {
        self.columns.iter().position(ColumnMeta::is_rowversion)
    }

    pub fn is_temp(&self) -> bool {
        matches!(self.kind, TableKind::Temp | TableKind::Variable)
    }

    /// Recomputes the ordinals in the indexes after the columns have changed. Index columns that
    /// are gone are dropped from them.
    pub fn renumber(&mut self) {
        let places: Vec<ColumnId> = self.columns.iter().map(|c| c.column_id).collect();
        for index in &mut self.indexes {
            let index = Arc::make_mut(index);
            index.key.retain_mut(|k| match places.iter().position(|id| *id == k.column_id) {
                Some(ordinal) => {
                    k.ordinal = ordinal;
                    true
                }
                None => false,
            });
            index.include.retain(|id| places.contains(id));
        }
    }

    /// The constraint of this table with that name, if any.
    pub fn constraint_ids(&self) -> Vec<(ObjectId, &str)> {
        let keys = self.indexes.iter().filter_map(|i| Some((i.constraint_id?, i.name.as_str())));
        let defaults = self
            .columns
            .iter()
            .filter_map(|c| c.default.as_ref().map(|d| (d.object_id, d.name.as_str())));
        let checks = self.checks.iter().map(|c| (c.object_id, c.name.as_str()));
        let fks = self.foreign_keys.iter().map(|f| (f.object_id, f.name.as_str()));
        keys.chain(defaults).chain(checks).chain(fks).collect()
    }
}

#[derive(Clone, Debug)]
pub struct ViewMeta {
    pub object_id: ObjectId,
    pub schema_id: i32,
    pub name: String,
    /// names given in CREATE VIEW v (a, b), or empty
    pub column_names: Vec<String>,
    /// what the query gave when the view was made; `sys.columns` shows them
    pub columns: Vec<ColumnMeta>,
    pub query: Arc<Query>,
    pub text: String,
    pub schemabinding: bool,
    /// It has a unique clustered index, which forbids some things to its tables. The rows are still
    /// computed when asked for.
    pub indexed: bool,
    pub create_date: Moment,
    pub modify_date: Moment,
}

#[derive(Clone, Debug)]
pub struct ProcedureMeta {
    pub object_id: ObjectId,
    pub schema_id: i32,
    pub name: String,
    pub params: Vec<ProcParam>,
    pub body: Arc<Batch>,
    pub text: String,
    pub create_date: Moment,
    pub modify_date: Moment,
}

#[derive(Clone, Debug)]
pub struct TriggerMeta {
    pub object_id: ObjectId,
    pub schema_id: i32,
    pub name: String,
    /// the table it is on
    pub parent: ObjectId,
    pub instead_of: bool,
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    pub disabled: bool,
    pub body: Arc<Batch>,
    pub text: String,
    pub create_date: Moment,
    pub modify_date: Moment,
}

/// An alias type: CREATE TYPE n FROM base.
#[derive(Clone, Debug)]
pub struct AliasType {
    /// from 257 on; 256 is sysname
    pub user_type_id: i32,
    pub schema_id: i32,
    pub name: String,
    pub ty: SqlType,
    pub nullable: bool,
}

/// An object with an id of its own. Constraints live in their [`TableMeta`].
#[derive(Clone, Debug)]
pub enum Object {
    Table(Arc<TableMeta>),
    View(Arc<ViewMeta>),
    Procedure(Arc<ProcedureMeta>),
    Trigger(Arc<TriggerMeta>),
}

impl Object {
    pub fn object_id(&self) -> ObjectId {
        match self {
            Self::Table(t) => t.object_id,
            Self::View(v) => v.object_id,
            Self::Procedure(p) => p.object_id,
            Self::Trigger(t) => t.object_id,
        }
    }

    pub fn schema_id(&self) -> i32 {
        match self {
            Self::Table(t) => t.schema_id,
            Self::View(v) => v.schema_id,
            Self::Procedure(p) => p.schema_id,
            Self::Trigger(t) => t.schema_id,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Table(t) => &t.name,
            Self::View(v) => &v.name,
            Self::Procedure(p) => &p.name,
            Self::Trigger(t) => &t.name,
        }
    }

    pub fn as_table(&self) -> Option<&Arc<TableMeta>> {
        match self {
            Self::Table(t) => Some(t),
            Self::View(_) | Self::Procedure(_) | Self::Trigger(_) => None,
        }
    }

    /// Every (name, id) it puts into its schema's name space.
    fn names(&self) -> Vec<(&str, ObjectId)> {
        let mut names = vec![(self.name(), self.object_id())];
        if let Self::Table(t) = self {
            if t.kind == TableKind::Variable {
                return Vec::new();
            }
            names.extend(t.constraint_ids().into_iter().map(|(id, name)| (name, id)));
        }
        names
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// `S`
    SqlUser,
    /// `R`
    Role,
}

#[derive(Clone, Debug)]
pub struct Principal {
    pub id: i32,
    pub name: String,
    pub kind: PrincipalKind,
    /// the login's name it stands for
    pub login: Option<String>,
    pub default_schema: String,
    pub fixed: bool,
    /// the roles it is a member of
    pub member_of: Vec<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Securable {
    Database,
    Schema(i32),
    Object(ObjectId),
    Column(ObjectId, ColumnId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionMeta {
    pub securable: Securable,
    /// principal
    pub grantee: i32,
    /// upper case, e.g. `SELECT`, `VIEW DATABASE STATE`
    pub permission: String,
    /// false: GRANT
    pub deny: bool,
}

/// One database's objects.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub schemas: OrdMap<i32, Arc<SchemaMeta>>,
    pub objects: OrdMap<ObjectId, Object>,
    /// Names that differ in case only are different names: the database's collation is
    /// case-sensitive.
    exact_names: bool,
    /// (schema, [`Catalog::key`] of the name) → id, constraints included
    names: OrdMap<(i32, String), ObjectId>,
    /// constraint → its table
    owners: OrdMap<ObjectId, ObjectId>,
    pub types: OrdMap<i32, Arc<AliasType>>,
    pub principals: OrdMap<i32, Arc<Principal>>,
    pub permissions: Vec<PermissionMeta>,
    /// Inline table-valued functions, by (schema, folded name): nobody can call them here.
    pub functions: OrdMap<(i32, String), ()>,
    pub policies: Vec<PolicyMeta>,
}

/// A security policy.
#[derive(Clone, Debug)]
pub struct PolicyMeta {
    pub object_id: ObjectId,
    pub schema_id: i32,
    pub name: String,
    pub enabled: bool,
    pub create_date: Moment,
    /// is it a FILTER, its text, the table
    pub predicates: Vec<(bool, String, ObjectId)>,
}

impl Catalog {
    /// What of the table only the catalog knows here: its rows cannot be read or written as SQL
    /// Server would.
    pub fn beyond(&self, table: &TableMeta) -> Option<&'static str> {
        let secured = |p: &PolicyMeta| {
            p.enabled && p.predicates.iter().any(|(_, _, of)| *of == table.object_id)
        };
        if table.memory_optimized {
            Some("rows of a memory-optimized table")
        } else if table.columns.iter().any(|c| c.encrypted.is_some()) {
            Some("rows with encrypted columns")
        } else if self.policies.iter().any(secured) {
            Some("rows under a security policy")
        } else {
            None
        }
    }

    /// A name as this catalog compares it.
    pub fn key(&self, name: &str) -> String {
        if self.exact_names { name.to_owned() } else { fold(name) }
    }

    /// Compares names by a collation from now on. False where it would make two names one: nothing
    /// has changed then.
    pub fn name_by(&mut self, collation: Collation) -> bool {
        let exact = std::mem::replace(&mut self.exact_names, collation.is_case_sensitive());
        let names = self.objects.values().flat_map(|object| {
            object.names().into_iter().map(|(name, of)| (object.schema_id(), name, of))
        });
        let names: OrdMap<_, _> =
            names.map(|(schema, name, of)| ((schema, self.key(name)), of)).collect();
        if names.len() < self.names.len() {
            self.exact_names = exact;
            return false;
        }
        self.names = names;
        true
    }

    pub fn schema_named(&self, name: &str) -> Option<&Arc<SchemaMeta>> {
        let name = self.key(name);
        self.schemas.values().find(|s| self.key(&s.name) == name)
    }

    pub fn schema_name(&self, id: i32) -> &str {
        self.schemas.get(&id).map_or("", |s| s.name.as_str())
    }

    pub fn object(&self, id: ObjectId) -> Option<&Object> {
        self.objects.get(&id)
    }

    pub fn table(&self, id: ObjectId) -> Option<&Arc<TableMeta>> {
        self.objects.get(&id)?.as_table()
    }

    /// The id under a name, which may be a constraint's.
    pub fn id_of(&self, schema_id: i32, name: &str) -> Option<ObjectId> {
        self.names.get(&(schema_id, self.key(name))).copied()
    }

    pub fn find(&self, schema_id: i32, name: &str) -> Option<&Object> {
        self.objects.get(&self.id_of(schema_id, name)?)
    }

    /// The table a constraint belongs to.
    pub fn owner_of(&self, constraint: ObjectId) -> Option<&Arc<TableMeta>> {
        self.table(*self.owners.get(&constraint)?)
    }

    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.objects.values().filter_map(Object::as_table)
    }

    pub fn triggers_of(&self, table: ObjectId) -> Vec<Arc<TriggerMeta>> {
        self.objects
            .values()
            .filter_map(|o| match o {
                Object::Trigger(t) if t.parent == table => Some(t.clone()),
                Object::Trigger(_) | Object::Table(_) | Object::View(_) | Object::Procedure(_) => {
                    None
                }
            })
            .collect()
    }

    /// The indexed view that stands on a table, if one does. Schema-bound views name their tables
    /// in two parts.
    pub fn indexed_view_on(&self, table: &TableMeta) -> Option<&Arc<ViewMeta>> {
        let schema = self.key(self.schema_name(table.schema_id));
        let name = self.key(&table.name);
        self.objects.values().find_map(|object| match object {
            Object::View(view) if view.indexed => {
                let stands = sqlparser::ast::visit_relations(&*view.query, |relation| {
                    let parts: Vec<String> = relation
                        .0
                        .iter()
                        .filter_map(|part| part.as_ident())
                        .map(|ident| self.key(&ident.value))
                        .collect();
                    if parts == [schema.as_str(), name.as_str()] {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                stands.is_break().then_some(view)
            }
            _ => None,
        })
    }

    /// Foreign keys of other tables (and its own) that reference this one.
    pub fn references_to(&self, table: ObjectId) -> Vec<(Arc<TableMeta>, Arc<ForeignKeyMeta>)> {
        self.tables()
            .flat_map(|t| {
                t.foreign_keys
                    .iter()
                    .filter(|f| f.referenced_table == table)
                    .map(|f| (t.clone(), f.clone()))
            })
            .collect()
    }

    pub fn type_named(&self, schema_id: i32, name: &str) -> Option<&Arc<AliasType>> {
        let name = self.key(name);
        self.types.values().find(|t| t.schema_id == schema_id && self.key(&t.name) == name)
    }

    pub fn principal_named(&self, name: &str) -> Option<&Arc<Principal>> {
        let name = fold(name);
        self.principals.values().find(|p| fold(&p.name) == name)
    }

    /// Everything but the objects as it was in `before`.
    pub fn restore_parts(&mut self, before: Self) {
        self.schemas = before.schemas;
        self.types = before.types;
        self.principals = before.principals;
        self.permissions = before.permissions;
    }

    /// Puts an object in place of the one with its id (or takes it away) and returns what was
    /// there: what a rollback puts back.
    pub fn put(&mut self, id: ObjectId, object: Option<Object>) -> Option<Object> {
        let before = self.objects.get(&id).cloned();
        if let Some(old) = &before {
            for (name, of) in old.names() {
                let key = (old.schema_id(), self.key(name));
                if self.names.get(&key) == Some(&of) {
                    self.names.remove(&key);
                }
                self.owners.remove(&of);
            }
            self.objects.remove(&id);
        }
        if let Some(new) = object {
            for (name, of) in new.names() {
                self.names.insert((new.schema_id(), self.key(name)), of);
                if of != id {
                    self.owners.insert(of, id);
                }
            }
            self.objects.insert(id, new);
        }
        before
    }
}
