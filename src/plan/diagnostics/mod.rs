//! What `check` reports: facts in, findings out, each ✗ with the statement or setting that fixes it.

mod fixes;

pub use fixes::{FixContext, create_table};

use crate::model::{
    name::Ident,
    table::{Column, ColumnType, Table},
};
use std::fmt;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad,
    /// It could not be asked, or is worth knowing and no fault.
    Note,
}

/// Where a fix is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FixTarget {
    /// Statements for the source server of that name.
    Source(String),
    /// Statements for the destination server.
    Dest,
    /// Variables of the service, or a command to run where it runs.
    Service,
    /// Nothing that a statement can do.
    Manual,
}

impl fmt::Display for FixTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FixTarget::Source(name) => write!(f, "run at the source {name}"),
            FixTarget::Dest => f.write_str("run at the destination"),
            FixTarget::Service => f.write_str("set for the service"),
            FixTarget::Manual => f.write_str("by hand"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub verdict: Verdict,
    pub check: &'static str,
    pub message: String,
    pub fixes: Vec<(FixTarget, String)>,
}

impl Finding {
    pub fn good(check: &'static str, message: impl Into<String>) -> Self {
        Finding { verdict: Verdict::Good, check, message: message.into(), fixes: Vec::new() }
    }

    pub fn bad(check: &'static str, message: impl Into<String>) -> Self {
        Finding { verdict: Verdict::Bad, ..Finding::good(check, message) }
    }

    pub fn note(check: &'static str, message: impl Into<String>) -> Self {
        Finding { verdict: Verdict::Note, ..Finding::good(check, message) }
    }

    /// What could not be asked.
    pub fn unknown(check: &'static str, why: &str) -> Self {
        Finding::note(check, format!("cannot be asked: {why}"))
    }

    #[must_use]
    pub fn fix(mut self, place: &FixTarget, fix: impl Into<String>) -> Self {
        self.fixes.push((place.clone(), fix.into()));
        self
    }
}

/// `SERVERPROPERTY('EngineEdition')`
const AZURE_SQL_DATABASE: i32 = 5;
const MANAGED_INSTANCE: i32 = 8;
/// SQL Server 2016
const MAJOR_MIN: u32 = 13;

/// Is the server one that the service is made for?
pub fn version(product: &str, engine: i32, edition: &str) -> Finding {
    let message = format!("{product}, {edition}");
    let major: Option<u32> = product.split('.').next().and_then(|major| major.parse().ok());
    match (engine, major) {
        (MANAGED_INSTANCE, _) => Finding::good("version", message),
        (AZURE_SQL_DATABASE, _) => Finding::bad(
            "version",
            format!("{message}: Azure SQL Database has no transactions over databases"),
        )
        .fix(&FixTarget::Manual, "Use SQL Server 2016 or newer, or a Managed Instance"),
        (_, Some(major)) if major >= MAJOR_MIN => Finding::good("version", message),
        _ => Finding::bad("version", format!("{message} is older than SQL Server 2016"))
            .fix(&FixTarget::Manual, "Use SQL Server 2016 or newer, or a Managed Instance"),
    }
}

/// Clocks that differ by more make the times in logs and the lag misleading.
pub const SKEW_MAX_MS: i64 = 30_000;

/// `ahead_ms`: the server's clock less this machine's.
pub fn clock(ahead_ms: i64) -> Finding {
    let seconds = |ms: i64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let message = match ahead_ms {
        0.. => format!("{} ahead of this machine's", seconds(ahead_ms)),
        _ => format!("{} behind this machine's", seconds(ahead_ms.saturating_neg())),
    };
    if ahead_ms.saturating_abs() <= SKEW_MAX_MS {
        Finding::good("clock", message)
    } else {
        Finding::bad("clock", message).fix(
            &FixTarget::Manual,
            "Synchronise both machines' clocks (w32tm /resync, chronyc makestep)",
        )
    }
}

/// Whether others on the network can read along, or be taken for the server. `required`: we would
/// not have connected otherwise; `encrypted`: what the server says; `trusts_any`: any certificate is
/// believed. The first of `fixes` is for a conversation in the clear, the other for that.
pub fn encryption(
    required: bool,
    encrypted: Result<bool, String>,
    loopback: bool,
    trusts_any: bool,
    place: &FixTarget,
    [plain_fix, trust_fix]: [&str; 2],
) -> Finding {
    match (required, encrypted) {
        (true, _) | (false, Ok(true)) if trusts_any && !loopback => {
            let message = "everything is encrypted, for whoever answers: any certificate is believed, and somebody on the network can be the server";
            Finding::bad("encryption", message).fix(place, trust_fix)
        }
        (true, _) => Finding::good("encryption", "everything is encrypted"),
        (false, Ok(true)) => {
            Finding::good("encryption", "everything is encrypted: the server demands it")
        }
        (false, _) if loopback => Finding::good(
            "encryption",
            "the conversation is not encrypted, and stays on this machine",
        ),
        (false, Ok(false)) => Finding::bad(
            "encryption",
            "the conversation is not encrypted: rows can be read on the network",
        )
        .fix(place, plain_fix),
        (false, Err(why)) => Finding::unknown("encryption", &why),
    }
}

/// Minutes that changes should be kept at least: a night and a day off for the service.
pub const RETENTION_MIN_MINUTES: i64 = 1440;

pub fn retention(minutes: i64, place: &FixTarget, database: &Ident) -> Finding {
    let message = format!("changes are kept for {minutes} minutes");
    if minutes >= RETENTION_MIN_MINUTES {
        return Finding::good("retention", message);
    }
    Finding::bad("retention", format!("{message}: a service that is down for longer loses some, and the tables are synced in full again"))
        .fix(place, format!("USE {database}; EXEC sys.sp_cdc_change_job @job_type = N'cleanup', @retention = 4320;"))
}

/// Large values that are longer than this are refused by tables under CDC: the writer's statement
/// fails (Msg 7139).
pub fn text_size(bytes: i64, place: &FixTarget) -> Finding {
    if bytes == -1 {
        return Finding::good("max text repl size", "unlimited");
    }
    Finding::bad(
        "max text repl size",
        format!("{bytes} bytes: writing a longer value into a captured column fails with Msg 7139"),
    )
    .fix(place, "EXEC sys.sp_configure N'max text repl size', -1; RECONFIGURE;")
}

/// A database's availability group, as the catalog says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailabilityGroup {
    pub id: String,
    pub name: Ident,
    /// `dtc_support`: 1 or 2 allow transactions over databases.
    pub dtc: bool,
}

/// One transaction spans `database` and the control database: they fail over together or not at
/// all.
pub fn groups(
    database: &Ident,
    own: Option<&AvailabilityGroup>,
    control: Option<&AvailabilityGroup>,
) -> Finding {
    let check = "availability group";
    match (own, control) {
        (None, None) => Finding::good(check, "in none"),
        (Some(own), Some(control)) if own.id == control.id && own.dtc => {
            Finding::good(check, format!("{}, with the control database", own.name))
        }
        (Some(own), Some(control)) if own.id == control.id => Finding::bad(
            check,
            format!("{} does not keep transactions over databases whole (DTC_SUPPORT)", own.name),
        )
        .fix(
            &FixTarget::Dest,
            format!("ALTER AVAILABILITY GROUP {} SET (DTC_SUPPORT = PER_DB);", own.name),
        ),
        (_, Some(control)) => Finding::bad(
            check,
            format!("the control database is in {}, and this one is not", control.name),
        )
        .fix(
            &FixTarget::Dest,
            format!("ALTER AVAILABILITY GROUP {} ADD DATABASE {database};", control.name),
        ),
        (Some(own), None) => Finding::bad(
            check,
            format!("this database is in {}, and the control database is not", own.name),
        )
        .fix(
            &FixTarget::Dest,
            format!("ALTER AVAILABILITY GROUP {} ADD DATABASE [dbaops_dataflow];", own.name),
        ),
    }
}

/// A right, whether the login has it (`None`: it cannot see the thing), and the statement that
/// gives it.
pub struct Right {
    pub name: String,
    pub held: Option<bool>,
    pub grant: String,
}

/// All rights in one finding: those that lack are named, and what gives them.
pub fn rights(
    check: &'static str,
    user: &str,
    rights: Vec<Right>,
    place: &FixTarget,
    database: &Ident,
) -> Finding {
    let (held, lacking): (Vec<_>, Vec<_>) =
        rights.into_iter().partition(|right| right.held == Some(true));
    if lacking.is_empty() {
        let names: Vec<_> = held.iter().map(|right| right.name.as_str()).collect();
        return Finding::good(check, names.join(", "));
    }
    let names: Vec<_> = lacking.iter().map(|right| right.name.as_str()).collect();
    let mut finding = Finding::bad(check, format!("user {user} lacks {}", names.join(", ")));
    for right in &lacking {
        finding = finding.fix(place, format!("USE {database}; {};", right.grant));
    }
    finding
}

/// What opens a database that is there and cannot be opened, by its state and access in
/// `sys.databases`; `None` where these are not the reason.
pub fn why_closed(database: &Ident, state: &str, access: &str) -> Option<(String, String)> {
    let word = |expected: &str| state.eq_ignore_ascii_case(expected);
    Some(if word("OFFLINE") {
        ("it is offline".to_owned(), format!("ALTER DATABASE {database} SET ONLINE;"))
    } else if word("RESTORING") {
        (
            "it is being restored".to_owned(),
            format!(
                "RESTORE DATABASE {database} WITH RECOVERY; -- after the last backup was restored"
            ),
        )
    } else if word("ONLINE") && !access.eq_ignore_ascii_case("MULTI_USER") {
        (format!("it is {access}"), format!("ALTER DATABASE {database} SET MULTI_USER;"))
    } else if word("EMERGENCY") {
        (
            "it is in emergency state".to_owned(),
            format!("DBCC CHECKDB ({database}); ALTER DATABASE {database} SET ONLINE;"),
        )
    } else if word("ONLINE") {
        return None;
    } else {
        (format!("it is {state}"), "-- the server's error log says why".to_owned())
    })
}

/// Whether the trigger column can be asked. `has_non_numeric`: a row holds text that is none.
pub fn trigger_values(
    table: &Table,
    column: &Column,
    has_non_numeric: bool,
    place: &FixTarget,
    fix: &str,
) -> Option<Finding> {
    use ColumnType as T;
    let name = &column.name;
    match &column.ty {
        T::Char(_) | T::VarChar(_) | T::NChar(_) | T::NVarChar(_) => has_non_numeric.then(|| {
            Finding::bad(
                "trigger column",
                format!("{name} holds text that is no number in some row: such a row never asks for a full sync"),
            )
            .fix(place, fix)
        }),
        T::Date
        | T::Time(_)
        | T::DateTime2(_)
        | T::DateTimeOffset(_)
        | T::UniqueIdentifier
        | T::Xml
        | T::Text
        | T::NText
        | T::Image
        | T::RowVersion
        | T::HierarchyId
        | T::Geometry
        | T::Geography
        | T::Other(_) => {
            let add = format!("ALTER TABLE {} ADD dataflow_full_sync bit NOT NULL DEFAULT 0;", table.name.local());
            Some(
                Finding::bad("trigger column", format!("{name} has a type that cannot be compared with 1: it is never taken for set"))
                    .fix(place, format!("USE {}; {add}", table.name.database))
                    .fix(&FixTarget::Manual, "and name that column in full_sync_trigger_column"),
            )
        }
        T::Bit
        | T::TinyInt
        | T::SmallInt
        | T::Int
        | T::BigInt
        | T::Decimal { .. }
        | T::Money
        | T::SmallMoney
        | T::Real
        | T::Float
        | T::DateTime
        | T::SmallDateTime
        | T::Binary(_)
        | T::VarBinary(_)
        | T::SqlVariant => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::Length;

    #[test]
    fn versions() {
        let verdict = |product, engine| version(product, engine, "Developer Edition").verdict;
        assert_eq!(verdict("13.0.5026.0", 3), Verdict::Good);
        assert_eq!(verdict("16.0.4105.2", 3), Verdict::Good);
        assert_eq!(verdict("12.0.2000.8", 8), Verdict::Good, "a Managed Instance calls itself 12");
        assert_eq!(verdict("12.0.2000.8", 5), Verdict::Bad);
        assert_eq!(verdict("11.0.7001.0", 3), Verdict::Bad);
        assert_eq!(verdict("", 3), Verdict::Bad);
    }

    #[test]
    fn clocks_that_differ_are_told_with_their_sign() {
        assert_eq!(clock(1_250).message, "1.2 s ahead of this machine's");
        assert_eq!(
            (clock(-90_000).message.as_str(), clock(-90_000).verdict),
            ("90.0 s behind this machine's", Verdict::Bad)
        );
        assert_eq!(clock(i64::MIN).verdict, Verdict::Bad);
    }

    #[test]
    fn plain_conversations_are_a_fault_unless_they_stay_here() {
        let verdict = |required, encrypted, loopback| {
            encryption(
                required,
                encrypted,
                loopback,
                false,
                &FixTarget::Service,
                ["plain", "blind"],
            )
            .verdict
        };
        assert_eq!(verdict(true, Err("no".into()), false), Verdict::Good);
        assert_eq!(verdict(false, Ok(true), false), Verdict::Good);
        assert_eq!(verdict(false, Ok(false), true), Verdict::Good);
        assert_eq!(verdict(false, Ok(false), false), Verdict::Bad);
        assert_eq!(verdict(false, Err("no".into()), false), Verdict::Note);
    }

    #[test]
    fn encryption_for_whoever_answers_is_a_fault_unless_it_stays_here() {
        let found = |required, encrypted, loopback| {
            encryption(required, encrypted, loopback, true, &FixTarget::Service, ["plain", "blind"])
        };
        for finding in [
            found(true, Err("no".into()), false),
            found(true, Ok(true), false),
            found(false, Ok(true), false),
        ] {
            assert_eq!(
                (finding.verdict, &finding.fixes[..]),
                (Verdict::Bad, &[(FixTarget::Service, "blind".to_owned())][..])
            );
        }
        assert_eq!(
            found(false, Ok(false), false).fixes,
            [(FixTarget::Service, "plain".to_owned())]
        );
        assert_eq!(found(true, Ok(true), true).verdict, Verdict::Good);
    }

    #[test]
    fn databases_of_one_transaction_fail_over_together() {
        let group = |id: &str, dtc| AvailabilityGroup { id: id.into(), name: Ident::new(id), dtc };
        let (a, b, plain) = (group("a", true), group("b", true), group("a", false));
        let database = Ident::new("Copy");
        let found = |own: Option<&AvailabilityGroup>, control: Option<&AvailabilityGroup>| {
            groups(&database, own, control)
        };
        assert_eq!(found(None, None).verdict, Verdict::Good);
        assert_eq!(found(Some(&a), Some(&a)).verdict, Verdict::Good);
        assert!(
            found(Some(&plain), Some(&plain)).fixes[0].1.contains("SET (DTC_SUPPORT = PER_DB)")
        );
        assert!(found(Some(&b), Some(&a)).fixes[0].1.contains("[a] ADD DATABASE [Copy]"));
        assert!(found(None, Some(&a)).fixes[0].1.contains("[a] ADD DATABASE [Copy]"));
        assert!(found(Some(&a), None).fixes[0].1.contains("[a] ADD DATABASE [dbaops_dataflow]"));
    }

    /// A server that lies about its collations puts no statement of its own into one that is copied
    /// from here.
    #[test]
    fn a_cure_is_made_of_names_in_brackets_and_plain_words() {
        let hostile = "X);DROP DATABASE Dst;--";
        let text = |name: &str, nullable| Column {
            collation: Some(hostile.into()),
            nullable,
            ..crate::tsql::testing::column(name, ColumnType::NVarChar(Length::N(9)))
        };
        let table = |columns| crate::plan::projection::tests::table(columns, &[]);
        let source = table(vec![text("a]b", true)]);
        let dest = table(vec![text("a]b", false), text("c", false)]);
        let create = create_table(
            &source,
            &dest.name,
            &[Ident::new("a]b")],
            crate::tsql::staging::type_name,
        );
        assert!(create.ends_with("([a]]b] nvarchar(9) NULL, PRIMARY KEY ([a]]b]));"), "{create}");
        let context = FixContext {
            source: &source,
            dest: &dest,
            key: &[],
            source_user: Ident::new("u"),
            type_name: crate::tsql::staging::type_name,
        };
        let fixes: Vec<String> =
            context.fixes(&FixTarget::Dest).into_iter().map(|(_, fix)| fix).collect();
        assert_eq!(fixes.len(), 2, "{fixes:?}");
        assert!(
            fixes.iter().all(|fix| fix.contains("ALTER COLUMN") && !fix.contains("DROP DATABASE")),
            "{fixes:?}"
        );
        let known = Column {
            collation: Some("Latin1_General_100_CI_AS_SC_UTF8".into()),
            ..text("a", true)
        };
        let create =
            create_table(&table(vec![known]), &dest.name, &[], crate::tsql::staging::type_name);
        assert!(
            create.contains("[a] nvarchar(9) COLLATE Latin1_General_100_CI_AS_SC_UTF8 NULL"),
            "{create}"
        );
    }

    #[test]
    fn what_is_kept_and_what_is_cut() {
        let place = FixTarget::Source("S".into());
        assert_eq!(retention(4320, &place, &Ident::new("Shop")).verdict, Verdict::Good);
        assert!(
            retention(60, &place, &Ident::new("Shop")).fixes[0]
                .1
                .starts_with("USE [Shop]; EXEC sys.sp_cdc_change_job")
        );
        assert_eq!(text_size(-1, &place).verdict, Verdict::Good);
        assert!(
            text_size(65_536, &place).fixes[0].1.contains("'max text repl size', -1; RECONFIGURE")
        );
    }
}
