//! The statements this server knows. Expressions and queries are `sqlparser`'s; statements are
//! ours, because T-SQL's differ from every other dialect's in ways `sqlparser` lacks (hints on
//! INSERT, computed columns, TRY/CATCH, EXEC @rc = …, INSERT BULK, …).

use crate::value::SqlType;
use sqlparser::ast::{Expr, Query, SelectItem, TableWithJoins};

/// A batch: what stands between two GOs, or one sp_executesql text.
pub type Batch = Vec<Spanned>;

/// A statement and the line it starts on, from 1.
#[derive(Clone, Debug)]
pub struct Spanned {
    pub line: u32,
    pub statement: Statement,
    /// The statement's own text, for triggers, procedures, fault points and the log of statements.
    pub text: String,
}

/// `[server.]database.schema.name`, unquoted. A temp table's name starts with `#`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    pub database: Option<String>,
    pub schema: Option<String>,
    pub name: String,
}

#[derive(Clone, Debug)]
pub enum Statement {
    // queries and DML
    /// SELECT, with CTEs and set operations; SELECT … INTO is in the query's own `into`.
    Query(Box<Query>),
    /// SELECT @a = expr, @b = expr [FROM …]; the query's own select list has the expressions alone
    SelectAssign {
        assignments: Vec<(String, AssignOp, Expr)>,
        query: Box<Query>,
    },
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    Truncate {
        table: ObjectName,
    },
    /// INSERT BULK name (col type [COLLATE …], …) [WITH (options)]; rows follow in a bulk-load
    /// message
    InsertBulk(Box<InsertBulk>),

    // DDL
    CreateDatabase {
        name: String,
        collation: Option<String>,
    },
    DropDatabase {
        name: String,
        if_exists: bool,
    },
    AlterDatabase {
        name: Option<String>,
        action: AlterDatabase,
    },
    CreateSchema {
        name: String,
    },
    DropSchema {
        name: String,
        if_exists: bool,
    },
    CreateTable(Box<CreateTable>),
    AlterTable {
        table: ObjectName,
        action: Box<AlterTable>,
    },
    DropTable {
        tables: Vec<ObjectName>,
        if_exists: bool,
    },
    CreateIndex(Box<CreateIndex>),
    DropIndex {
        name: String,
        table: ObjectName,
        if_exists: bool,
    },
    AlterIndex {
        name: Option<String>,
        table: ObjectName,
        action: AlterIndex,
    },
    /// CREATE [OR ALTER] VIEW / ALTER VIEW
    CreateView {
        name: ObjectName,
        columns: Vec<String>,
        query: Box<Query>,
        alter: bool,
        create: bool,
        schemabinding: bool,
        text: String,
    },
    DropView {
        names: Vec<ObjectName>,
        if_exists: bool,
    },
    CreateProcedure {
        name: ObjectName,
        params: Vec<ProcParam>,
        body: Batch,
        alter: bool,
        text: String,
    },
    /// An inline table-valued function: known by name, so that a security policy can use it.
    CreateFunction {
        name: ObjectName,
    },
    CreateSecurityPolicy {
        name: ObjectName,
        predicates: Vec<SecurityPredicate>,
        enabled: bool,
    },
    DropProcedure {
        names: Vec<ObjectName>,
        if_exists: bool,
    },
    CreateTrigger(Box<CreateTrigger>),
    DropTrigger {
        names: Vec<ObjectName>,
        if_exists: bool,
    },
    DisableTrigger {
        names: Vec<String>,
        all: bool,
        table: ObjectName,
    },
    CreateType {
        name: ObjectName,
        base: DataType,
        nullable: bool,
    },
    CreateLogin {
        name: String,
        password: String,
    },
    CreateUser {
        name: String,
        login: Option<String>,
    },
    CreateRole {
        name: String,
    },
    DropLogin {
        name: String,
        if_exists: bool,
    },
    /// GRANT / DENY / REVOKE
    Permission {
        verb: PermissionVerb,
        permissions: Vec<String>,
        on: Option<PermissionTarget>,
        principals: Vec<String>,
        columns: Vec<String>,
    },
    /// ALTER ROLE r ADD MEMBER m
    AddRoleMember {
        role: String,
        member: String,
    },

    // control of flow
    Block(Batch),
    If {
        condition: Expr,
        then: Box<Spanned>,
        otherwise: Option<Box<Spanned>>,
    },
    While {
        condition: Expr,
        body: Box<Spanned>,
    },
    Break,
    Continue,
    TryCatch {
        body: Batch,
        handler: Batch,
    },
    Return(Option<Expr>),
    Throw(Option<(Expr, Expr, Expr)>),
    RaiseError {
        message: Expr,
        severity: Expr,
        state: Expr,
        args: Vec<Expr>,
        with_log: bool,
        with_nowait: bool,
    },
    Print(Expr),
    /// WAITFOR DELAY
    WaitForDelay(Expr),
    Use(String),

    // variables and settings
    Declare(Vec<Declare>),
    DeclareTable {
        name: String,
        table: Box<CreateTable>,
    },
    SetVariable {
        name: String,
        op: AssignOp,
        value: Expr,
    },
    /// SET option ON|OFF|value: name in upper case ("XACT_ABORT", "LOCK_TIMEOUT", "TRANSACTION
    /// ISOLATION LEVEL", …)
    SetOption {
        names: Vec<String>,
        value: OptionValue,
    },
    SetIdentityInsert {
        table: ObjectName,
        on: bool,
    },

    // transactions
    BeginTransaction {
        name: Option<String>,
    },
    Commit,
    Rollback {
        name: Option<String>,
    },
    SaveTransaction {
        name: String,
    },

    // procedures
    Execute(Box<Execute>),
    /// EXEC ('text')
    ExecuteText(Vec<Expr>),
    Dbcc {
        command: String,
        args: Vec<Expr>,
    },
    Kill(i64),
    Checkpoint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignOp {
    Set,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
}

#[derive(Clone, Debug)]
pub enum OptionValue {
    On,
    Off,
    Word(String),
    Expr(Box<Expr>),
}

#[derive(Clone, Debug)]
pub struct Declare {
    /// with the @
    pub name: String,
    pub ty: DataType,
    pub value: Option<Expr>,
}

/// A type as written: a built-in one, or an alias type's name to look up.
#[derive(Clone, Debug)]
pub enum DataType {
    /// A character type without COLLATE has the collation of the database: `explicit_collation` is
    /// false. `database_default`: COLLATE database_default, which matters in tempdb.
    Builtin { ty: SqlType, explicit_collation: bool, database_default: bool },
    /// sysname and user-defined alias types
    Named(ObjectName),
}

#[derive(Clone, Debug)]
pub struct ProcParam {
    pub name: String,
    pub ty: DataType,
    pub default: Option<Expr>,
    pub output: bool,
}

#[derive(Clone, Debug)]
pub struct Execute {
    /// EXEC @rc = …
    pub return_into: Option<String>,
    pub procedure: ObjectName,
    pub args: Vec<ExecuteArg>,
}

#[derive(Clone, Debug)]
pub struct ExecuteArg {
    pub name: Option<String>,
    /// None for DEFAULT
    pub value: Option<Expr>,
    pub output: bool,
}

#[derive(Clone, Debug)]
pub struct Top {
    pub count: Expr,
    pub percent: bool,
}

#[derive(Clone, Debug)]
pub struct Output {
    pub items: Vec<SelectItem>,
    /// OUTPUT … INTO @table|#table|table (columns)
    pub into: Option<(TargetName, Vec<String>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetName {
    Object(ObjectName),
    /// a table variable, with the @
    Variable(String),
    /// UPDATE/DELETE: an alias of the FROM clause. The parser cannot tell it from an object; the
    /// engine resolves a one-part `Object` name against the FROM clause's aliases first.
    Alias(String),
}

#[derive(Clone, Debug)]
pub struct Insert {
    pub ctes: Option<sqlparser::ast::With>,
    pub top: Option<Top>,
    pub target: TargetName,
    pub hints: Vec<String>,
    pub columns: Vec<String>,
    pub output: Option<Output>,
    pub source: InsertSource,
}

#[derive(Clone, Debug)]
pub enum InsertSource {
    /// VALUES rows; None stands for DEFAULT
    Values(Vec<Vec<Option<Expr>>>),
    Query(Box<Query>),
    Execute(Box<Execute>),
    ExecuteText(Vec<Expr>),
    DefaultValues,
}

#[derive(Clone, Debug)]
pub struct Update {
    pub ctes: Option<sqlparser::ast::With>,
    pub top: Option<Top>,
    pub target: TargetName,
    pub hints: Vec<String>,
    pub set: Vec<SetItem>,
    pub output: Option<Output>,
    pub from: Vec<TableWithJoins>,
    pub condition: Option<Expr>,
}

#[derive(Clone, Debug)]
pub enum SetItem {
    /// `value` is None for DEFAULT
    Column { name: String, op: AssignOp, value: Option<Expr> },
    /// SET column.WRITE(value, offset, length)
    Write { name: String, arguments: Box<[Expr; 3]> },
    /// SET @v = expr, or SET @v = column = expr
    Variable { name: String, op: AssignOp, column: Option<String>, value: Expr },
}

#[derive(Clone, Debug)]
pub struct Delete {
    pub ctes: Option<sqlparser::ast::With>,
    pub top: Option<Top>,
    pub target: TargetName,
    pub hints: Vec<String>,
    pub output: Option<Output>,
    pub from: Vec<TableWithJoins>,
    pub condition: Option<Expr>,
}

#[derive(Clone, Debug)]
pub struct InsertBulk {
    pub table: ObjectName,
    pub columns: Vec<(String, DataType)>,
    /// upper case: CHECK_CONSTRAINTS, FIRE_TRIGGERS, KEEP_NULLS, TABLOCK, …
    pub options: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct CreateTable {
    pub name: ObjectName,
    pub columns: Vec<ColumnDef>,
    pub constraints: Vec<TableConstraint>,
    pub indexes: Vec<CreateIndex>,
    /// PERIOD FOR SYSTEM_TIME (start, end)
    pub period: Option<(String, String)>,
    /// WITH (…): name in upper case and its text, e.g. SYSTEM_VERSIONING = ON (HISTORY_TABLE =
    /// dbo.h), MEMORY_OPTIMIZED = ON, LEDGER = ON
    pub options: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct ColumnDef {
    pub name: String,
    /// None for a computed column
    pub ty: Option<DataType>,
    /// None: not said
    pub nullable: Option<bool>,
    pub identity: Option<(i128, i128)>,
    pub default: Option<(Option<String>, Expr, String)>,
    pub computed: Option<Computed>,
    pub sparse: bool,
    pub rowguidcol: bool,
    pub hidden: bool,
    /// GENERATED ALWAYS AS ROW START|END
    pub generated: Option<Generated>,
    /// MASKED WITH (FUNCTION = '…')
    pub masked: Option<String>,
    /// ENCRYPTED WITH (…)
    pub encrypted: Option<Encryption>,
    /// COLUMN_SET FOR ALL_SPARSE_COLUMNS
    pub column_set: bool,
    /// ADD … DEFAULT … WITH VALUES
    pub with_values: bool,
    /// Constraints written on the column.
    pub constraints: Vec<TableConstraint>,
}

/// Always Encrypted's two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    Deterministic,
    Randomized,
}

/// A predicate of a security policy.
#[derive(Clone, Debug)]
pub struct SecurityPredicate {
    /// FILTER, as opposed to BLOCK
    pub filter: bool,
    pub function: ObjectName,
    /// `dbo.fn([column])`
    pub text: String,
    pub table: ObjectName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    RowStart,
    RowEnd,
}

#[derive(Clone, Debug)]
pub struct Computed {
    pub expr: Expr,
    pub text: String,
    pub persisted: bool,
}

#[derive(Clone, Debug)]
pub enum TableConstraint {
    PrimaryKey {
        name: Option<String>,
        clustered: Option<bool>,
        columns: Vec<IndexColumn>,
    },
    Unique {
        name: Option<String>,
        clustered: Option<bool>,
        columns: Vec<IndexColumn>,
    },
    ForeignKey {
        name: Option<String>,
        columns: Vec<String>,
        references: ObjectName,
        referenced_columns: Vec<String>,
        on_delete: ReferentialAction,
        on_update: ReferentialAction,
    },
    Check {
        name: Option<String>,
        expr: Expr,
        text: String,
    },
    /// ALTER TABLE … ADD CONSTRAINT n DEFAULT expr FOR column
    Default {
        name: Option<String>,
        expr: Expr,
        text: String,
        column: String,
        with_values: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferentialAction {
    NoAction,
    Cascade,
    SetNull,
    SetDefault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexColumn {
    pub name: String,
    pub descending: bool,
}

#[derive(Clone, Debug)]
pub struct CreateIndex {
    pub name: String,
    pub table: ObjectName,
    pub unique: bool,
    pub clustered: bool,
    pub columnstore: bool,
    pub columns: Vec<IndexColumn>,
    pub include: Vec<String>,
    pub filter: Option<(Expr, String)>,
    /// WITH (IGNORE_DUP_KEY = ON, DROP_EXISTING = ON, …)
    pub options: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlterIndex {
    Disable,
    Rebuild,
}

#[derive(Clone, Debug)]
pub enum AlterTable {
    /// ADD columns and constraints; `check`: None not said, Some(false) WITH NOCHECK
    Add {
        columns: Vec<ColumnDef>,
        constraints: Vec<TableConstraint>,
        check: Option<bool>,
    },
    AlterColumn {
        name: String,
        ty: DataType,
        nullable: Option<bool>,
    },
    DropColumns {
        names: Vec<String>,
        if_exists: bool,
    },
    DropConstraints {
        names: Vec<String>,
        if_exists: bool,
    },
    /// [WITH CHECK|NOCHECK] CHECK|NOCHECK CONSTRAINT ALL|names; `names` empty means ALL
    CheckConstraint {
        names: Vec<String>,
        enable: bool,
        with_check: bool,
    },
    SwitchTo {
        target: ObjectName,
    },
}

#[derive(Clone, Debug)]
pub enum AlterDatabase {
    /// SET option value, e.g. ALLOW_SNAPSHOT_ISOLATION ON; name in upper case
    /// `others`: what is done about sessions that are in the database.
    Set {
        name: String,
        value: String,
        others: Others,
    },
    Collate(String),
    ModifyName(String),
}

/// ALTER DATABASE … SET … WITH
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// nothing is said
    Wait,
    /// ROLLBACK IMMEDIATE, or after a while, which is at once here
    End,
    /// NO_WAIT
    Fail,
}

#[derive(Clone, Debug)]
pub struct CreateTrigger {
    pub name: ObjectName,
    pub table: ObjectName,
    pub instead_of: bool,
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    pub body: Batch,
    pub text: String,
    pub alter: bool,
    pub create: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionVerb {
    Grant,
    Deny,
    Revoke,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermissionTarget {
    Object(ObjectName),
    Schema(String),
    Database(String),
    Server,
}
