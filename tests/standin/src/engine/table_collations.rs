//! sp_tablecollations_100: the collation of each column, as SqlBulkCopy and Microsoft's other bulk
//! loaders ask for it before they write text. It is not documented; what it answers is what they
//! read of it: colid, name, tds_collation_100 and collation_100 (dotnet/SqlClient's SqlBulkCopy,
//! mssql-tds' metadata_retriever).

use crate::{
    engine::{
        context::Session,
        procedures::{Argument, Arguments},
        scope::find_table,
    },
    error::{SqlError, SqlResult},
    exchange::sink::{Column, DoneKind, Sink},
    tsql::parse_name,
    value::{Length, SqlType, Value},
};

pub fn table_collations(
    session: &mut Session,
    arguments: &mut [Argument],
    sink: &mut dyn Sink,
) -> SqlResult<i32> {
    let args = Arguments::new("sp_tablecollations_100", &["@object"], arguments)?;
    let Value::Str(object) = &args.required("@object")?.value else { return Ok(0) };
    let name = parse_name(object)?;
    let table = {
        let state = session.instance.lock();
        find_table(session, &state, &name)?.table
    };
    let column = |name: &str, ty: SqlType, nullable: bool| Column {
        name: name.into(),
        ty,
        nullable,
        identity: false,
        computed: false,
    };
    let columns = [
        column("colid", SqlType::Int, false),
        column("name", SqlType::SYSNAME, true),
        column("tds_collation_100", SqlType::VarBinary(Length::N(5)), true),
        column("collation_100", SqlType::SYSNAME, true),
    ];
    let mut send = || {
        sink.columns(&columns)?;
        for column in &table.columns {
            let (wire, name) = match column.ty.collation() {
                Some(collation) => (
                    Value::Bytes(collation.wire().as_slice().into()),
                    Value::Str(collation.name().into()),
                ),
                None => (Value::Null, Value::Null),
            };
            sink.row(&[
                Value::Int(column.column_id.into()),
                Value::Str(column.name.as_str().into()),
                wire,
                name,
            ])?;
        }
        sink.done(DoneKind::Select, Some(table.columns.len() as u64))
    };
    send().map_err(|_| SqlError::cancelled())?;
    Ok(0)
}
