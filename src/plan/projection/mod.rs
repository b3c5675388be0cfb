//! Source shape × destination shape → the columns to carry, or every reason why not.
//!
//! A sync that starts must end with equal rows, so everything that could make it end otherwise is
//! refused here, before anything is touched, by name and all at once: an operator mends a table
//! once, not once per run.
//!
//! Names match as written first, then without case: which names are one name is the server's
//! catalog collation's business
//! (<https://learn.microsoft.com/sql/relational-databases/databases/database-identifiers>), and
//! Unicode's lower case is the nearest that can be said without asking it. What types fit is in
//! [`convert`].

mod identity;
mod key;

pub use identity::{Identity, check_destination, table_identity};

use std::fmt;

use super::{convert, row_size};
use crate::{
    error::{Error, Kind},
    model::{
        column_map::{self, CarriedColumn, ColumnMap, KEY_COLLATION},
        name::{Ident, TableName},
        table::{Column, ColumnType, Table},
    },
};
use key::{map_key, merges_source_keys, same_set};

/// One reason why rows cannot be carried, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(pub String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All of them as one error.
pub fn mismatch_error(source: &TableName, dest: &TableName, mismatches: &[Mismatch]) -> Error {
    let reasons: Vec<_> = mismatches.iter().map(|mismatch| mismatch.0.as_str()).collect();
    Error::new(
        Kind::Schema,
        format!("{source} cannot be carried to {dest}: {}", reasons.join("; ")),
    )
}

/// Names are one name as the server's catalog sees them, nearly (see the module's first lines).
pub fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

/// The one of `columns` that `name` means: as written, else without case if that leaves one.
pub fn find<'a>(columns: &'a [Column], name: &Ident) -> Option<&'a Column> {
    columns.iter().find(|column| column.name == *name).or_else(|| {
        let mut alike =
            columns.iter().filter(|column| same_name(column.name.as_str(), name.as_str()));
        match (alike.next(), alike.next()) {
            (Some(column), None) => Some(column),
            _ => None,
        }
    })
}

/// The source column that destination column `to` takes its values from: the one of that name as
/// written, else the only one without case. A column of that name as written at the destination has
/// it for itself: where names differ in case only, case decides.
fn source_of<'a>(to: &Column, source: &'a Table, dest: &Table) -> Option<&'a Column> {
    let from = find(&source.columns, &to.name)?;
    let alike = |column: &&Column| same_name(column.name.as_str(), to.name.as_str());
    (from.name == to.name || dest.columns.iter().filter(alike).count() == 1).then_some(from)
}

/// The columns to carry from `source` to `dest` and the key that matches their rows, or everything
/// that is in the way.
pub fn project(source: &Table, dest: &Table, key: &[Ident]) -> Result<ColumnMap, Vec<Mismatch>> {
    let mut refused = Vec::new();
    let mut warnings = Vec::new();
    check_tables(source, dest, &mut refused, &mut warnings);

    let mut columns = Vec::new();
    for to in &dest.columns {
        let from = source_of(to, source, dest);
        match map_column(from, to, columns.len(), &mut warnings) {
            Ok(Some(carried)) => columns.push(carried),
            Ok(None) => {}
            Err(reason) => refused.push(Mismatch(reason)),
        }
    }
    for from in &source.columns {
        if dest
            .columns
            .iter()
            .any(|to| source_of(to, source, dest).is_some_and(|column| column.name == from.name))
        {
            continue;
        }
        match dest.columns.iter().find(|to| same_name(to.name.as_str(), from.name.as_str())) {
            None => warnings.push(format!("source column {} is left out: the destination has none of that name", from.name)),
            Some(to) => refused.push(Mismatch(format!(
                "source column {} and others differ in case only, and the destination has {}: give it a column of each name as written, \
                 which wants a database with a case-sensitive collation",
                from.name, to.name
            ))),
        }
    }
    let key = map_key(source, dest, &columns, key, &mut refused, &mut warnings);
    check_row_size(&mut columns, &key, dest.database_code_page, &mut refused, &mut warnings);
    if !refused.is_empty() {
        return Err(refused);
    }
    let key_names: Vec<_> = key
        .iter()
        .filter_map(|&i| columns.get(i))
        .map(|column: &CarriedColumn| column.dest.name.clone())
        .collect();
    let other_unique_keys = dest
        .unique_keys
        .iter()
        .filter(|unique| !same_set(&unique.columns, &key_names))
        .cloned()
        .collect();
    let identity = columns.iter().any(|column| column.dest.identity);
    let merges_keys = key.iter().filter_map(|&i| columns.get(i)).any(merges_source_keys);
    for &i in &key {
        if let Some(column) = columns.get_mut(i).filter(|column| column.collation.is_some()) {
            column.collation = Some(KEY_COLLATION.into());
        }
    }
    Ok(ColumnMap { columns, key, merges_keys, identity, warnings, other_unique_keys })
}

/// Whether a staged row has room in a table.
fn check_row_size(
    columns: &mut [CarriedColumn],
    key: &[usize],
    dest_page: Option<i32>,
    refused: &mut Vec<Mismatch>,
    warnings: &mut Vec<String>,
) {
    row_size::narrow(columns, key, dest_page);
    let row_size::RowBytes { least, most } = row_size::row_bytes(columns);
    let max = row_size::ROW_BYTES_MAX;
    if columns.len() > row_size::COLUMNS_MAX {
        refused.push(Mismatch(format!(
            "{} columns are carried, and the staging table can have {}",
            columns.len(),
            row_size::COLUMNS_MAX
        )));
    }
    if least > max {
        refused.push(Mismatch(format!(
            "a row takes at least {least} bytes in the tables it is staged in, and SQL Server has room for {max}: text in a code page \
             other than the destination database's travels as Unicode, twice as wide, and times and money with all their digits (leave \
             columns out at the destination, or give its database a collation of that code page)"
        )));
    } else if most > max {
        warnings.push(format!(
            "a row may take up to {most} bytes in the tables it is staged in, and SQL Server has room for {max}: one that takes more stops \
             the table (Msg 511)"
        ));
    }
}

fn check_tables(
    source: &Table,
    dest: &Table,
    refused: &mut Vec<Mismatch>,
    warnings: &mut Vec<String>,
) {
    let mut refuse = |yes: bool, reason: &str| {
        if yes {
            refused.push(Mismatch(reason.into()));
        }
    };
    refuse(
        source.row_filter,
        "row-level security filters the source: this login would copy a part of the rows and take it for the whole",
    );
    refuse(
        dest.row_filter,
        "row-level security filters the destination: this login cannot see the rows it would have to change",
    );
    refuse(
        dest.memory_optimized,
        "the destination is memory-optimized: its rows cannot join the checkpoint's transaction",
    );
    refuse(
        dest.append_only,
        "the destination is an append-only ledger table: rows cannot be changed or deleted there",
    );
    refuse(dest.history, "the destination is the history table of another: the server fills it");
    if !source.sees_policies {
        warnings.push(
            "this login cannot see whether row-level security filters the source (GRANT VIEW DEFINITION to it): rows that are filtered would \
             be missing at the destination, and nobody would notice"
                .into(),
        );
    }
    for trigger in &dest.instead_of_triggers {
        refuse(
            true,
            &format!("the destination's INSTEAD OF trigger {trigger} would take the rows"),
        );
    }
    for trigger in &dest.after_triggers {
        warnings
            .push(format!("the destination's trigger {trigger} fires on every row that changes"));
    }
}

/// What becomes of destination column `to`: carried at `place`, left alone, or a reason to refuse.
fn map_column(
    from: Option<&Column>,
    to: &Column,
    place: usize,
    warnings: &mut Vec<String>,
) -> Result<Option<CarriedColumn>, String> {
    let filled_by_server = to.computed || to.generated || to.ty == ColumnType::RowVersion;
    if filled_by_server {
        return Ok(None);
    }
    let supplied = to.nullable || to.has_default || to.identity;
    let Some(from) = from else {
        return if supplied {
            Ok(None)
        } else {
            Err(format!(
                "destination column {} is NOT NULL without a default, and the source has none",
                to.name
            ))
        };
    };
    if from.masked {
        return Err(format!(
            "source column {} is masked for this login (GRANT UNMASK), its values would be copied wrong",
            from.name
        ));
    }
    if from.encrypted || to.encrypted {
        return Err(format!("column {} is encrypted with Always Encrypted", from.name));
    }
    if from.column_set || to.column_set {
        return Err(format!("column {} is a column set", from.name));
    }
    if from.computed {
        // change tables have NULL for it always, so it cannot be kept right
        if !supplied {
            return Err(format!(
                "source column {} is computed, and the destination's is NOT NULL without a default",
                from.name
            ));
        }
        warnings.push(format!("source column {} is computed and not carried", from.name));
        return Ok(None);
    }
    if from.nullable && !to.nullable {
        return Err(format!(
            "column {} may be NULL at the source and not at the destination",
            from.name
        ));
    }
    let staged =
        convert::staged(from, to).map_err(|reason| format!("column {}: {reason}", from.name))?;
    let collation = to.collation.clone().or_else(|| from.collation.clone());
    Ok(Some(CarriedColumn {
        source: from.clone(),
        dest: to.clone(),
        staged_name: column_map::staged_name(place),
        staged,
        collation,
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        model::table::{Database, Length, UniqueKey},
        tsql::testing::column as nullable,
    };

    fn column(name: &str, ty: ColumnType) -> Column {
        Column { nullable: false, ..nullable(name, ty) }
    }

    pub(in crate::plan) fn table(columns: Vec<Column>, key: &[&str]) -> Table {
        let unique = UniqueKey {
            name: Ident::new("PK"),
            primary: true,
            columns: key.iter().map(|name| Ident::new(*name)).collect(),
        };
        Table {
            name: TableName::new("db", "dbo", "t"),
            object_id: 1,
            columns,
            unique_keys: vec![unique],
            memory_optimized: false,
            system_versioned: false,
            ledger: false,
            append_only: false,
            history: false,
            instead_of_triggers: vec![],
            after_triggers: vec![],
            sees_policies: true,
            row_filter: false,
            database_code_page: Some(1252),
        }
    }

    fn simple() -> Table {
        table(
            vec![
                column("id", ColumnType::Int),
                nullable("name", ColumnType::NVarChar(Length::N(50))),
            ],
            &["id"],
        )
    }

    fn id() -> Vec<Ident> {
        vec![Ident::new("id")]
    }

    fn reasons(source: &Table, dest: &Table, key: &[Ident]) -> Vec<String> {
        project(source, dest, key).map_or_else(
            |refused| refused.into_iter().map(|mismatch| mismatch.0).collect(),
            |_| vec![],
        )
    }

    #[test]
    fn equal_tables_are_carried_whole() {
        let map = project(&simple(), &simple(), &id()).unwrap();
        assert_eq!(map.columns.len(), 2);
        assert_eq!(map.key, [0]);
        assert_eq!((map.warnings.len(), map.other_unique_keys.len(), map.identity), (0, 0, false));
    }

    #[test]
    fn names_match_as_written_then_without_case() {
        let mut dest = simple();
        dest.columns[0].name = Ident::new("ID");
        dest.unique_keys[0].columns = vec![Ident::new("ID")];
        assert_eq!(project(&simple(), &dest, &[Ident::new("Id")]).unwrap().columns.len(), 2);
    }

    #[test]
    fn names_that_differ_in_case_only_are_each_a_column_of_their_own() {
        let mut both = simple();
        both.columns.push(nullable("NAME", ColumnType::Bit));
        let map = project(&both, &both, &id()).unwrap();
        assert!(map.columns.iter().all(|column| column.source.name == column.dest.name));
        assert_eq!((map.columns.len(), map.warnings.len()), (3, 0));
        // one of the two has nowhere to go, and the other none of its own
        for name in ["name", "Name"] {
            let mut dest = simple();
            dest.columns[1].name = Ident::new(name);
            let refused = reasons(&both, &dest, &id()).join("; ");
            assert!(
                refused.contains("source column [NAME] and others differ in case only"),
                "{refused}"
            );
        }
        // the other way about, one of the two is the destination's own, and never a copy of the
        // other's values
        let map = project(&simple(), &both, &id()).unwrap();
        assert_eq!(
            map.columns.iter().map(|column| column.name().as_str()).collect::<Vec<_>>(),
            ["id", "name"]
        );
        both.columns[2].nullable = false;
        assert!(
            reasons(&simple(), &both, &id())
                .join("")
                .contains("destination column [NAME] is NOT NULL without a default")
        );
    }

    #[test]
    fn a_row_that_has_no_room_is_refused_or_warned_of_before_anything_moves() {
        let with = |ty: &ColumnType, nullable| {
            let mut table = simple();
            table.columns.extend(
                (0..400).map(|i| Column { nullable, ..column(&format!("t{i}"), ty.clone()) }),
            );
            table
        };
        let padded = with(&ColumnType::Char(10), false);
        let map = project(&padded, &padded, &id()).unwrap();
        assert_eq!(
            (&map.columns[2].staged, map.warnings.len()),
            (&ColumnType::VarBinary(Length::N(10)), 0)
        );
        let elsewhere = Table { database_code_page: Some(1251), ..padded.clone() };
        assert!(
            reasons(&padded, &elsewhere, &id()).join("").contains("a row takes at least 89"),
            "{:?}",
            reasons(&padded, &elsewhere, &id())
        );
        let short = with(&ColumnType::VarChar(Length::N(10)), true);
        let elsewhere = Table { database_code_page: None, ..short.clone() };
        assert!(
            project(&short, &elsewhere, &id())
                .unwrap()
                .warnings
                .join("")
                .contains("a row may take up to 89")
        );
        let mut wide = simple();
        wide.columns.extend((0..1023).map(|i| nullable(&format!("t{i}"), ColumnType::Bit)));
        assert!(
            reasons(&wide, &wide, &id())
                .join("")
                .contains("1025 columns are carried, and the staging table can have 1024")
        );
    }

    #[test]
    fn staged_columns_have_names_of_ours() {
        let mut table = simple();
        for name in ["c0", "__$operation", "__$order", "a\tb", "x]y", "'; --", &"ä".repeat(128)] {
            table.columns.push(nullable(name, ColumnType::Int));
        }
        let map = project(&table, &table, &id()).unwrap();
        let staged: Vec<_> =
            map.columns.iter().map(|column| column.staged_name.as_str().to_owned()).collect();
        assert_eq!(staged, (0..table.columns.len()).map(|i| format!("c{i}")).collect::<Vec<_>>());
    }

    #[test]
    fn an_identity_that_may_change_at_the_source_is_refused_where_it_is_no_key() {
        let with = |identity| {
            let mut table = simple();
            table.columns.push(Column { identity, ..column("n", ColumnType::Int) });
            table
        };
        assert!(
            reasons(&with(false), &with(true), &id())
                .join("")
                .contains("identity at the destination and not at the source")
        );
        assert!(project(&with(true), &with(true), &id()).is_ok());
        assert!(project(&with(true), &with(false), &id()).is_ok());
        let mut dest = simple();
        dest.columns[0].identity = true;
        assert!(
            project(&simple(), &dest, &id()).is_ok(),
            "a key moves as a row that goes and one that comes"
        );
    }

    #[test]
    fn a_key_that_the_destination_compares_otherwise_is_a_warning() {
        let with = |collation: &str| {
            let key = Column {
                collation: Some(collation.into()),
                code_page: Some(1252),
                ..column("code", ColumnType::NVarChar(Length::N(9)))
            };
            table(vec![key], &["code"])
        };
        let told = |from: &Table, to: &Table| {
            let map = project(from, to, &[Ident::new("code")]).unwrap();
            assert_eq!(map.columns[0].collation.as_deref(), Some(KEY_COLLATION));
            assert_eq!(map.warnings.len(), usize::from(map.merges_keys), "{:?}", map.warnings);
            map.merges_keys
        };
        let warned = |from, to| told(&with(from), &with(to));
        assert!(warned("Latin1_General_CS_AS", "Latin1_General_CI_AS"));
        assert!(!warned("Latin1_General_CI_AS", "latin1_general_ci_as"));
        assert!(!warned("Latin1_General_CI_AS", "Latin1_General_BIN2"));
        // a code page's own rules, or Unicode's
        let narrow = |collation: &str| {
            let mut table = with(collation);
            table.columns[0].ty = ColumnType::VarChar(Length::N(9));
            table
        };
        assert!(told(
            &narrow("SQL_Latin1_General_CP1_CI_AS"),
            &with("SQL_Latin1_General_CP1_CI_AS")
        ));
        assert!(!told(
            &narrow("SQL_Latin1_General_CP1_CI_AS"),
            &narrow("SQL_Latin1_General_CP1_CI_AS")
        ));
        assert!(!told(&narrow("Latin1_General_CI_AS"), &with("Latin1_General_CI_AS")));
    }

    #[test]
    fn everything_is_named_at_once() {
        let mut source = simple();
        source.columns.push(column("age", ColumnType::BigInt));
        source.columns.push(Column { masked: true, ..column("iban", ColumnType::Int) });
        source.columns.push(column("v", ColumnType::SqlVariant));
        source.row_filter = true;
        let mut dest = simple();
        dest.columns[1].ty = ColumnType::NVarChar(Length::N(20));
        dest.columns.push(column("age", ColumnType::Int));
        dest.columns.push(column("iban", ColumnType::Int));
        dest.columns.push(column("v", ColumnType::SqlVariant));
        dest.columns.push(column("must", ColumnType::Int));
        dest.memory_optimized = true;
        dest.instead_of_triggers = vec![Ident::new("tr")];
        dest.unique_keys.clear();
        let refused = reasons(&source, &dest, &id()).join("\n");
        for part in [
            "row-level security",
            "memory-optimized",
            "INSTEAD OF trigger [tr]",
            "nvarchar(50) does not fit",
            "bigint does not fit into int",
            "masked",
            "sql_variant",
            "destination column [must]",
        ] {
            assert!(refused.contains(part), "{part} in:\n{refused}");
        }
        assert!(
            reasons(
                &simple(),
                &{
                    let mut t = simple();
                    t.unique_keys.clear();
                    t
                },
                &id()
            )[0]
            .contains("the destination has no primary key")
        );
    }

    #[test]
    fn keys_exist_are_unique_and_never_null() {
        assert!(
            reasons(&simple(), &simple(), &[Ident::new("nope")])[0].contains("not in the source")
        );
        assert!(reasons(&simple(), &simple(), &[Ident::new("name")])[0].contains("may be NULL"));
        assert!(reasons(&simple(), &simple(), &[])[0].contains("no key column"));
        assert!(reasons(&simple(), &simple(), &[id(), id()].concat())[0].contains("twice"));
        let mut source = simple();
        source.columns[1].nullable = false;
        let mut dest = source.clone();
        assert_eq!(
            reasons(&source, &dest, &[id(), vec![Ident::new("name")]].concat()),
            Vec::<String>::new(),
            "a part of the key is unique"
        );
        dest.unique_keys[0].columns = vec![Ident::new("id"), Ident::new("name")];
        assert!(reasons(&source, &dest, &id())[0].contains("destination has no primary key"));
    }

    #[test]
    fn columns_that_the_server_fills_are_left_to_it() {
        let mut source = simple();
        for name in ["rv", "sum", "from"] {
            source.columns.push(column(name, ColumnType::Int));
        }
        let mut dest = simple();
        dest.columns.push(column("rv", ColumnType::RowVersion));
        dest.columns.push(Column { computed: true, ..column("sum", ColumnType::Int) });
        dest.columns.push(Column { generated: true, ..column("from", ColumnType::DateTime2(7)) });
        dest.columns.push(nullable("extra", ColumnType::Int));
        dest.columns.push(Column { has_default: true, ..column("since", ColumnType::Int) });
        assert_eq!(project(&source, &dest, &id()).unwrap().columns.len(), 2);
    }

    #[test]
    fn null_needs_a_place_to_go() {
        let mut dest = simple();
        dest.columns[1].nullable = false;
        assert!(reasons(&simple(), &dest, &id())[0].contains("may be NULL at the source"));
    }

    #[test]
    fn places_that_are_refused() {
        let mut dest = simple();
        assert_eq!(check_destination(&dest, true).len(), 1);
        assert_eq!(check_destination(&dest, false).len(), 0);
        for database in ["master", "MSDB", "dbaops_dataflow"] {
            dest.name.database = Ident::new(database);
            assert_eq!(check_destination(&dest, false).len(), 1, "{database}");
        }
    }

    #[test]
    fn one_table_is_told_from_two_where_the_catalogs_can() {
        let table = simple();
        let other = Table { object_id: table.object_id + 1, ..simple() };
        let here = Database {
            server: "DB1".into(),
            name: Ident::new("Shop"),
            created: "2026-01-02 03:04:05.678".into(),
            group_id: None,
            snapshot: false,
            read_only: false,
        };
        let dest_checkpoint = Database { name: Ident::new("SHOP"), ..here.clone() };
        assert_eq!(
            table_identity((&table, &here), (&table, &dest_checkpoint)),
            Identity::Unknown,
            "a clone looks so, too"
        );
        assert_eq!(table_identity((&table, &here), (&other, &here)), Identity::Different);
        for different in [
            Database { server: "DB2".into(), ..here.clone() },
            Database { name: Ident::new("Shop2"), ..here.clone() },
            Database { created: "2026-01-02 03:04:05.681".into(), ..here.clone() },
        ] {
            assert_eq!(
                table_identity((&table, &here), (&table, &different)),
                Identity::Different,
                "{different:?}"
            );
        }
        let replica = |server: &str| Database {
            server: server.into(),
            group_id: Some("A1".into()),
            ..here.clone()
        };
        assert_eq!(
            table_identity((&table, &replica("DB1")), (&table, &replica("DB2"))),
            Identity::Same,
            "another replica has the same rows"
        );
        assert_eq!(
            table_identity((&table, &replica("DB1")), (&other, &replica("DB2"))),
            Identity::Different
        );
    }
}
