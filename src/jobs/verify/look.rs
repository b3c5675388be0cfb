//! Reading rows to compare, and asking what changed meanwhile.

use super::{SUSPECTS_MAX, Suspects};
use crate::{
    error::{Context, Result},
    jobs::shape::Shape,
    model::{capture::Capture, lsn::Lsn, value::Value},
    mssql::{
        row::{Param, RowData},
        session::Session,
    },
    plan::{
        digest::Encoding,
        verify::{Row, Side},
    },
    tsql::lookup::{self, Side as End},
};

/// A part of the table that was read.
pub(super) struct Range {
    pub rows: usize,
    /// The key after which the next range begins; `None`: this was the last one.
    pub next: Option<Vec<Value>>,
}

/// How rows are read and hashed.
pub(super) struct Look<'a> {
    pub shape: &'a Shape,
    pub encoding: Encoding,
}

impl Look<'_> {
    fn table(&self, end: End) -> &crate::model::name::TableName {
        match end {
            End::Source => &self.shape.source.name,
            End::Dest => &self.shape.dest.name,
        }
    }

    fn snapshot(&self, end: End) -> bool {
        match end {
            End::Source => self.shape.source_database.snapshot,
            End::Dest => self.shape.dest_database.snapshot,
        }
    }

    /// The newest rows by key.
    pub async fn newest(&self, end: End, session: &mut Session, rows_max: usize) -> Result<Side> {
        let sql = lookup::newest(end, self.table(end), &self.shape.carry, rows_max);
        if self.snapshot(end) {
            session.batch("SET TRANSACTION ISOLATION LEVEL SNAPSHOT").await?;
        }
        let mut side = Side::new();
        self.read(session, &sql, &[], &mut side).await?;
        if self.snapshot(end) {
            session.batch("SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
        }
        Ok(side)
    }

    /// The next rows after a key, in the source's order: the rows that both sides have there, and the key of the last one (`None`: the
    /// table's end was reached).
    pub async fn range(
        &self,
        source: &mut Session,
        dest: &mut Session,
        after: Option<&[Value]>,
        rows_max: usize,
        seen: (&mut Side, &mut Side),
    ) -> Result<Range> {
        let carry = &self.shape.carry;
        let mut params: Vec<Param<'_>> = after.unwrap_or_default().iter().map(Param::Value).collect();
        let sql = lookup::range(End::Source, self.table(End::Source), carry, (after.is_some(), false), rows_max);
        let (rows, last) = self.read(source, &sql, &params, seen.0).await.context("read a range of source rows")?;
        let next = if rows < rows_max { None } else { last };
        params.extend(next.iter().flatten().map(Param::Value));
        // more rows than this are more differences than are looked at, and the next pass will see those behind them
        let sql = lookup::range(End::Dest, self.table(End::Dest), carry, (after.is_some(), next.is_some()), rows_max + SUSPECTS_MAX + 1);
        self.read(dest, &sql, &params, seen.1).await.context("read a range of destination rows")?;
        Ok(Range { rows, next })
    }

    /// The rows with these keys.
    pub async fn by_keys(&self, end: End, session: &mut Session, keys: &[Vec<Value>]) -> Result<Side> {
        let mut side = Side::new();
        for keys in keys.chunks(lookup::keys_max(&self.shape.carry)) {
            let sql = lookup::by_keys(end, self.table(end), &self.shape.carry, keys.len());
            let params: Vec<Param<'_>> = keys.iter().flatten().map(Param::Value).collect();
            self.read(session, &sql, &params, &mut side).await?;
        }
        Ok(side)
    }

    /// Reads rows into `side`; how many, and the last one's key.
    async fn read(&self, session: &mut Session, sql: &str, params: &[Param<'_>], side: &mut Side) -> Result<(usize, Option<Vec<Value>>)> {
        let (mut rows, mut last) = (0, None);
        let mut stream = session.stream(sql, params).await?;
        while let Some(row) = stream.next().await? {
            let cells = values(&row.into_cells())?;
            let hash = self.encoding.hash(&cells);
            let key = self.encoding.key(&cells);
            let named: Vec<Value> = self.shape.carry.key.iter().filter_map(|&i| cells.get(i).cloned()).collect();
            rows += 1;
            last = Some(named.clone());
            side.insert(key, Row { key: named, hash });
        }
        Ok((rows, last))
    }

    /// Looks up every key that only one side's range has at the other side.
    pub async fn complete(&self, source: &mut Session, dest: &mut Session, left: &mut Side, right: &mut Side) -> Result<()> {
        let only = |one: &Side, other: &Side| -> Vec<Vec<Value>> {
            one.iter().filter(|(key, _)| !other.contains_key(*key)).map(|(_, row)| row.key.clone()).collect()
        };
        let (only_left, only_right) = (only(left, right), only(right, left));
        if only_left.len() + only_right.len() > SUSPECTS_MAX {
            return Ok(());
        }
        let more_right = self.by_keys(End::Dest, dest, &only_left).await.context("look up keys at the destination")?;
        let more_left = self.by_keys(End::Source, source, &only_right).await.context("look up keys at the source")?;
        right.extend(more_right);
        left.extend(more_left);
        Ok(())
    }

    /// Parts suspects by whether their key has a change in (`low`, `high`].
    pub async fn changed(
        &self,
        capture: &Capture,
        low: Lsn,
        high: Lsn,
        suspects: Suspects,
        source: &mut Session,
    ) -> Result<(Suspects, Suspects)> {
        let captured = |column: &crate::model::carry::Carried| capture.column(&column.source.name, column.source.column_id).is_some();
        if !self.shape.carry.key_columns().all(captured) || low >= high && high == Lsn::ZERO {
            return Ok((suspects, Suspects::new()));
        }
        let (mut changed, mut certain) = (Suspects::new(), Suspects::new());
        let all: Vec<_> = suspects.into_iter().collect();
        for chunk in all.chunks(lookup::keys_max(&self.shape.carry)) {
            let sql = lookup::changed_keys(&capture.instance.change_table, &self.shape.carry, chunk.len());
            let mut params = vec![Param::Lsn(low), Param::Lsn(high)];
            params.extend(chunk.iter().flat_map(|(_, (_, key))| key.iter().map(Param::Value)));
            let rows = source.rows(&sql, &params).await.context("look for changes of suspects")?;
            // the comparison is the source's: a row may be another spelling of a key; then nothing is certain in this chunk
            let spelled = self.key_only();
            let touched = rows.into_iter().map(|row| Ok(spelled.key(&values(&row.into_cells())?))).collect::<Result<Vec<_>>>()?;
            let exact = touched.iter().all(|key| chunk.iter().any(|(suspect, _)| suspect == key));
            for (key, suspect) in chunk {
                if !exact || touched.contains(key) {
                    changed.insert(key.clone(), suspect.clone());
                } else {
                    certain.insert(key.clone(), suspect.clone());
                }
            }
        }
        Ok((changed, certain))
    }

    /// The encoding of rows that have the key columns alone.
    fn key_only(&self) -> Encoding {
        let mut carry = self.shape.carry.clone();
        carry.columns = self.shape.carry.key_columns().cloned().collect();
        carry.key = (0..carry.columns.len()).collect();
        Encoding::new(&carry)
    }
}

fn values(row: &RowData) -> Result<Vec<Value>> {
    (0..row.len()).map(|i| row.value(i)).collect()
}
