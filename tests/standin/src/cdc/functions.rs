//! The functions: `sys.fn_cdc_*` and `cdc.fn_cdc_get_all_changes_…` /
//! `cdc.fn_cdc_get_net_changes_…`.

use super::{
    instances::{self, CaptureInstance},
    store::{self, lsn_of, lsn_value},
};
use crate::{
    engine::{
        instance::Work,
        log::Lsn,
        query::host::{Host, Row, SourceColumn, TableFunction},
        source::source_columns,
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
    value::{Length, SqlType, Value, order::compare},
};
use std::{collections::BTreeMap, sync::Arc};

const LSN: SqlType = SqlType::Binary(10);

/// The result type of a `sys.fn_cdc_*` scalar function (name in upper case, without the schema), or
/// None when there is none of that name.
pub fn scalar_type(name: &str) -> Option<SqlType> {
    Some(match name {
        "FN_CDC_GET_MIN_LSN" | "FN_CDC_GET_MAX_LSN" | "FN_CDC_MAP_TIME_TO_LSN" => LSN,
        "FN_CDC_MAP_LSN_TO_TIME" => SqlType::DateTime,
        _ => return None,
    })
}

/// Evaluates one. `name` is in upper case, without the schema.
pub fn scalar(
    work: &Work,
    login: &str,
    database: i32,
    name: &str,
    args: &[Value],
) -> SqlResult<Option<Value>> {
    let count = match name {
        "FN_CDC_GET_MAX_LSN" => 0,
        "FN_CDC_GET_MIN_LSN" | "FN_CDC_MAP_LSN_TO_TIME" => 1,
        "FN_CDC_MAP_TIME_TO_LSN" => 2,
        _ => return Ok(None),
    };
    if args.len() != count {
        return Err(insufficient(&format!("sys.{}", name.to_lowercase()), args.len() > count));
    }
    let text = |at: usize| match args.get(at) {
        Some(Value::Str(s)) => s.trim_end().to_string(),
        _ => String::new(),
    };
    let lsn = |at: usize| args.get(at).and_then(lsn_of);
    Ok(Some(match name {
        "FN_CDC_GET_MIN_LSN" => {
            // zero, never NULL, for what does not exist or may not be seen
            let found = instances::named(work, database, &text(0))?;
            let state = work.lock();
            lsn_value(
                &found
                    .filter(|i| instances::may_read(&state, login, database, i))
                    .map_or([0; 10], |i| i.start_lsn),
            )
        }
        "FN_CDC_GET_MAX_LSN" => max_lsn(work, database)?.map_or(Value::Null, |l| lsn_value(&l)),
        "FN_CDC_MAP_LSN_TO_TIME" => {
            let wanted = lsn(0);
            let entries = store::rows_of(work, database, "lsn_time_mapping")?;
            let entry =
                entries.iter().find(|r| wanted.is_some() && r.first().and_then(lsn_of) == wanted);
            entry.and_then(|r| r.get(2).cloned()).unwrap_or(Value::Null)
        }
        _ => {
            // the parameter is a datetime: text and the newer types become one
            let from = match &args[1] {
                Value::Str(_) => SqlType::nvarchar(100),
                Value::Date(_) => SqlType::Date,
                _ => SqlType::DateTime2(7),
            };
            let time = crate::value::convert::cast(
                &args[1],
                from,
                SqlType::DateTime,
                None,
                &Default::default(),
            )?;
            map_time(work, database, &text(0), &time)?
        }
    }))
}

/// Error 313 (too few) or 8144 (too many).
fn insufficient(function: &str, too_many: bool) -> SqlError {
    if too_many {
        return SqlError::new(
            8144,
            16,
            format!("Procedure or function {function} has too many arguments specified."),
        );
    }
    let mut error = SqlError::new(
        313,
        16,
        format!(
            "An insufficient number of arguments were supplied for the procedure or function {function}."
        ),
    );
    error.state = 3;
    error
}

fn max_lsn(work: &Work, database: i32) -> SqlResult<Option<Lsn>> {
    let mut state = work.lock();
    let Some(meta) = store::table(&state, database, "lsn_time_mapping") else { return Ok(None) };
    let txn = work.txn;
    let dirty = state.database(database)?.cdc.max_lsn_reads_dirty;
    let data = work.data(&mut state, (database, meta.object_id))?;
    Ok(data.and_then(|d| {
        d.rows.values().rev().find_map(|slot| {
            (if dirty { slot.dirty() } else { slot.visible(txn) })?.first().and_then(lsn_of)
        })
    }))
}

fn map_time(work: &Work, database: i32, operator: &str, time: &Value) -> SqlResult<Value> {
    let entries = store::rows_of(work, database, "lsn_time_mapping")?;
    let against = |row: &Row| row.get(2).map(|end| compare(end, time, SqlType::DateTime));
    let (last, test): (bool, fn(std::cmp::Ordering) -> bool) =
        match operator.to_ascii_lowercase().as_str() {
            "largest less than" => (true, std::cmp::Ordering::is_lt),
            "largest less than or equal" => (true, std::cmp::Ordering::is_le),
            "smallest greater than" => (false, std::cmp::Ordering::is_gt),
            "smallest greater than or equal" => (false, std::cmp::Ordering::is_ge),
            _ => return Ok(Value::Null),
        };
    let mut fitting =
        entries.iter().filter(|r| against(r).is_some_and(test)).filter_map(|r| r.first().cloned());
    Ok(if last { fitting.next_back() } else { fitting.next() }.unwrap_or(Value::Null))
}

/// `cdc.fn_cdc_get_all_changes_<instance>` or `cdc.fn_cdc_get_net_changes_<instance>`. None: no
/// such function (error 208 is the caller's).
pub fn table_function(
    work: &Work,
    login: &str,
    database: i32,
    name: &ObjectName,
) -> SqlResult<Option<Arc<dyn TableFunction>>> {
    if !name.schema.as_deref().is_some_and(|s| s.eq_ignore_ascii_case(store::SCHEMA)) {
        return Ok(None);
    }
    let lower = name.name.to_lowercase();
    let (net, instance) = match (
        lower.strip_prefix("fn_cdc_get_all_changes_"),
        lower.strip_prefix("fn_cdc_get_net_changes_"),
    ) {
        (Some(instance), _) => (false, instance),
        (_, Some(instance)) => (true, instance),
        _ => return Ok(None),
    };
    let found = instances::load_for(work, database)?
        .into_iter()
        .find(|i| i.name.to_lowercase() == instance);
    let Some(found) = found.filter(|i| !net || i.net_changes) else { return Ok(None) };
    let state = work.lock();
    let Some(ct) = state.database(database)?.catalog.table(found.object_id).cloned() else {
        return Ok(None);
    };
    let allowed = instances::may_read(&state, login, database, &found);
    let all = source_columns(&ct);
    let meta = |name: &str, ty: SqlType| SourceColumn::plain(name, ty, true);
    let mask = SqlType::VarBinary(Length::N(128));
    let mut columns = vec![meta("__$start_lsn", LSN)];
    if !net {
        columns.push(meta("__$seqval", LSN));
    }
    columns.extend([meta("__$operation", SqlType::Int), meta("__$update_mask", mask)]);
    columns.extend(all.iter().skip(5).take(found.columns.len()).cloned());
    let key = found
        .key
        .iter()
        .filter_map(|id| found.columns.iter().position(|c| c.column_id == *id))
        .collect();
    let types = all.iter().map(|c| c.ty).collect();
    Ok(Some(Arc::new(Changes {
        work: work.clone(),
        database,
        instance: found,
        net,
        allowed,
        columns,
        key,
        types,
    })))
}

struct Changes {
    work: Work,
    database: i32,
    instance: CaptureInstance,
    net: bool,
    allowed: bool,
    columns: Vec<SourceColumn>,
    /// the key's places among the captured columns
    key: Vec<usize>,
    types: Vec<SqlType>,
}

impl TableFunction for Changes {
    fn columns(&self) -> &[SourceColumn] {
        &self.columns
    }

    fn rows(&self, _host: &dyn Host, args: &[Value]) -> SqlResult<Vec<Row>> {
        let name = if self.net {
            "cdc.fn_cdc_get_net_changes_ ... "
        } else {
            "cdc.fn_cdc_get_all_changes_ ... "
        };
        let bad = || insufficient(name, false);
        let [from, to, filter] = args else { return Err(insufficient(name, args.len() > 3)) };
        let filter = match filter {
            Value::Str(s) => s.trim().to_lowercase(),
            _ => return Err(bad()),
        };
        let known = if self.net {
            ["all", "all with mask", "all with merge"]
        } else {
            ["all", "all update old", ""]
        };
        let (Some(from), Some(to)) = (lsn_of(from), lsn_of(to)) else { return Err(bad()) };
        if filter.is_empty() || !known.contains(&filter.as_str()) {
            return Err(bad());
        }
        if !self.allowed {
            return Ok(Vec::new());
        }
        // the low end may have moved since the name was resolved
        let current = instances::load_for(&self.work, self.database)?
            .into_iter()
            .find(|i| i.object_id == self.instance.object_id);
        let low = current.map(|i| i.start_lsn).ok_or_else(bad)?;
        let high = max_lsn(&self.work, self.database)?.ok_or_else(bad)?;
        if from < low || to > high || from > to {
            return Err(bad());
        }
        let rows = store::rows_of(&self.work, self.database, &self.instance.change_table())?;
        let within = rows
            .into_iter()
            .filter(|r| r.first().and_then(lsn_of).is_some_and(|lsn| (from..=to).contains(&lsn)));
        if self.net {
            return Ok(self.net_rows(within, &filter));
        }
        let captured = self.instance.columns.len();
        let old = filter == "all update old";
        Ok(within
            .filter(|r| old || r[3] != Value::Int(3))
            .map(|r| [&r[0..1], &r[2..5], &r[5..5 + captured]].concat())
            .collect())
    }
}

/// What the range did to one key.
struct Net {
    first: i64,
    last: Arc<Row>,
    mask: Vec<u8>,
}

impl Changes {
    fn net_rows(&self, rows: impl Iterator<Item = Arc<Row>>, filter: &str) -> Vec<Row> {
        let mut keys: BTreeMap<Vec<u8>, Net> = BTreeMap::new();
        for row in rows {
            let operation = operation(&row);
            if operation == 3 {
                continue;
            }
            let mut key = Vec::new();
            for place in &self.key {
                crate::value::order::write_key(
                    &row[5 + place],
                    self.types.get(5 + place).copied().unwrap_or(SqlType::varchar(1)),
                    &mut key,
                );
            }
            let mask = match &row[4] {
                Value::Bytes(b) => b.to_vec(),
                _ => Vec::new(),
            };
            let net = keys.entry(key).or_insert_with(|| Net {
                first: operation,
                last: row.clone(),
                mask: vec![0; mask.len()],
            });
            if operation == 4 {
                net.mask.iter_mut().zip(&mask).for_each(|(all, one)| *all |= one);
            }
            net.last = row;
        }
        let captured = self.instance.columns.len();
        let mut out: Vec<Row> = keys
            .into_values()
            .filter_map(|net| {
                let last = operation(&net.last);
                let (inserted, deleted) = (net.first == 2, last == 1);
                if inserted && deleted {
                    return None;
                }
                let kind = match (inserted, deleted) {
                    (_, true) => 1,
                    _ if filter == "all with merge" => 5,
                    (true, false) => 2,
                    (false, false) => 4,
                };
                let mask = if filter == "all with mask" && kind == 4 {
                    Value::Bytes(net.mask.into())
                } else {
                    Value::Null
                };
                let head = [net.last[0].clone(), Value::Int(kind), mask];
                Some(head.into_iter().chain(net.last[5..5 + captured].iter().cloned()).collect())
            })
            .collect();
        out.sort_by(|a, b| compare(&a[0], &b[0], LSN));
        out
    }
}

fn operation(row: &Row) -> i64 {
    match row.get(3) {
        Some(Value::Int(i)) => *i,
        _ => 0,
    }
}
