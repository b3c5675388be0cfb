//! Reads rows to compare, and asks which of them have changed meanwhile.

use super::{SUSPECTS_MAX, limit::Limit};
use crate::{
    error::{Context, Result},
    jobs::{JobConnections, shape::Shape},
    model::{
        capture::Capture,
        column_map::ColumnMap,
        lsn::Lsn,
        mapping::{Mapping, SyncType},
        name::TableName,
        value::{Value, ValueRef},
    },
    mssql::{
        client::{row::Param, session::Session},
        queries::cdc,
        tds::TdsConnection,
    },
    plan::{
        digest::Encoding,
        fit,
        verify::{HashedRow, RowSet, Suspects, pairs},
    },
    tsql::lookup::{self, TableSide},
};
use std::collections::HashSet;
use tracing::warn;

/// A part of the table that was read.
pub(super) struct ReadRange {
    pub rows: usize,
    /// The key after which the next range begins; `None`: this was the last one.
    pub next: Option<Vec<Value>>,
}

/// How rows are read and hashed.
pub(super) struct RowReader<'a> {
    pub shape: &'a Shape,
    pub encoding: Encoding,
    mapping: &'a Mapping,
    /// The copy lane's connections, where many rows are read through them.
    copy_lane: Option<ConnectionPair>,
}

struct ConnectionPair {
    source: TdsConnection,
    dest: TdsConnection,
}

impl<'a> RowReader<'a> {
    pub fn new(mapping: &'a Mapping, shape: &'a Shape) -> Self {
        RowReader { shape, encoding: Encoding::new(&shape.map), mapping, copy_lane: None }
    }

    /// From here on many rows are read through the copy lane, on two more connections, if
    /// they can be opened.
    pub async fn open_copy_lane(&mut self, connections: &JobConnections) {
        match connections.copy_lane(self.mapping).await {
            Ok((source, dest)) => self.copy_lane = Some(ConnectionPair { source, dest }),
            // the driver reports the same error if the server refuses both
            Err(error) => self.read_by_driver(&error.to_string()),
        }
    }

    fn read_by_driver(&mut self, why: &str) {
        self.copy_lane = None;
        warn!(
            mapping_id = self.mapping.id.0,
            server_id = self.mapping.server.0,
            sync_type = SyncType::Verification.as_str(),
            "{} is read by the driver, which is slower: {why}",
            self.mapping.source
        );
    }

    /// Closes the copy lane's connections.
    pub async fn close(self) {
        if let Some(ConnectionPair { source, dest }) = self.copy_lane {
            source.close().await;
            dest.close().await;
        }
    }

    fn table(&self, end: TableSide) -> &TableName {
        match end {
            TableSide::Source => &self.shape.source.name,
            TableSide::Dest => &self.shape.dest.name,
        }
    }

    /// Sets both sessions to read without waiting for writers, where the databases allow it. The
    /// prologue of the next checkout resets that.
    pub async fn set_isolation(&mut self, source: &mut Session, dest: &mut Session) -> Result<()> {
        const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL SNAPSHOT";
        let (source_line, dest_line) = self
            .copy_lane
            .as_mut()
            .map(|copy_lane| (&mut copy_lane.source, &mut copy_lane.dest))
            .unzip();
        for (snapshot, session, line) in [
            (self.shape.source_snapshot(), source, source_line),
            (self.shape.dest_database.snapshot, dest, dest_line),
        ] {
            if snapshot {
                session.batch(SNAPSHOT).await?;
                if let Some(line) = line {
                    line.batch(SNAPSHOT).await?;
                }
            }
        }
        Ok(())
    }

    /// The newest rows by key.
    pub async fn newest(
        &mut self,
        end: TableSide,
        session: &mut Session,
        rows_max: usize,
    ) -> Result<RowSet> {
        let sql = lookup::newest(end, self.table(end), &self.shape.map, rows_max);
        let mut side = RowSet::new();
        self.read_many(end, session, &sql, &[], &mut side).await?;
        Ok(side)
    }

    /// The next rows after a key, in the source's order: the rows that both sides have there, and
    /// the key of the last one (`None`: the table's end was reached).
    pub async fn range(
        &mut self,
        source: &mut Session,
        dest: &mut Session,
        after: Option<&[Value]>,
        rows_max: usize,
        seen: (&mut RowSet, &mut RowSet),
    ) -> Result<ReadRange> {
        let map = &self.shape.map;
        let mut params: Vec<&Value> = after.unwrap_or_default().iter().collect();
        let sql = lookup::range(
            TableSide::Source,
            self.table(TableSide::Source),
            map,
            (after.is_some(), false),
            rows_max,
        );
        let (rows, last) = self
            .read_many(TableSide::Source, source, &sql, &params, seen.0)
            .await
            .context("read a range of source rows")?;
        let next = if rows < rows_max { None } else { last };
        params.extend(next.iter().flatten());
        // more rows than this would be more differences than are confirmed; the next pass reads the
        // rest
        let sql = lookup::range(
            TableSide::Dest,
            self.table(TableSide::Dest),
            map,
            (after.is_some(), next.is_some()),
            rows_max + SUSPECTS_MAX + 1,
        );
        self.read_many(TableSide::Dest, dest, &sql, &params, seen.1)
            .await
            .context("read a range of destination rows")?;
        Ok(ReadRange { rows, next })
    }

    /// The rows with exactly these keys: a key that only the server's comparison takes for equal
    /// (another spelling) is left out.
    pub async fn by_keys(
        &self,
        end: TableSide,
        session: &mut Session,
        keys: &[Vec<Value>],
        limit: &Limit<'_>,
    ) -> Result<RowSet> {
        let mut side = RowSet::new();
        let keys: Vec<_> = keys.iter().filter(|key| self.can_hold_key(end, key)).collect();
        for keys in keys.chunks(lookup::keys_max(&self.shape.map)) {
            limit.check().await?;
            let asked: HashSet<Vec<u8>> =
                keys.iter().map(|key| self.encoding.key_of(key)).collect();
            let (params, slots) = slots(keys, lookup::keys_max(&self.shape.map));
            let sql = lookup::by_keys(end, self.table(end), &self.shape.map, slots);
            self.read(session, &sql, &params, &mut side, |key| asked.contains(key)).await?;
        }
        Ok(side)
    }

    /// Whether a side's types can hold such a key.
    pub fn can_hold_key(&self, end: TableSide, key: &[Value]) -> bool {
        let columns = self.shape.map.key_columns();
        columns.zip(key).all(|(column, value)| {
            fit::can_hold(
                value,
                if end == TableSide::Source { &column.source.ty } else { &column.dest.ty },
            )
        })
    }

    /// Reads many rows into `side`, through the lane where there is one: how many there were, and
    /// the last one's key.
    async fn read_many(
        &mut self,
        end: TableSide,
        session: &mut Session,
        sql: &str,
        params: &[&Value],
        side: &mut RowSet,
    ) -> Result<(usize, Option<Vec<Value>>)> {
        if let Some(copy_lane) = &mut self.copy_lane {
            let line =
                if end == TableSide::Source { &mut copy_lane.source } else { &mut copy_lane.dest };
            match line.rows(sql, params).await? {
                Ok(mut rows) => {
                    let mut collector = RowCollector::new(&self.shape.map, &self.encoding, side);
                    while rows.next().await? {
                        collector.take(|i| rows.value_ref(i), |_| true)?;
                    }
                    return Ok(collector.done());
                }
                Err(why) => self.read_by_driver(&why),
            }
        }
        let params: Vec<_> = params.iter().map(|value| Param::Value(value)).collect();
        self.read(session, sql, &params, side, |_| true).await
    }

    /// Reads the rows that are `wanted` by their encoded keys into `side`; how many there were, and
    /// the last one's key.
    async fn read(
        &self,
        session: &mut Session,
        sql: &str,
        params: &[Param<'_>],
        side: &mut RowSet,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<(usize, Option<Vec<Value>>)> {
        let mut collector = RowCollector::new(&self.shape.map, &self.encoding, side);
        let mut stream = session.stream(sql, params).await?;
        while let Some(row) = stream.next().await? {
            let row = row.into_cells();
            collector.take(|i| row.value_ref(i), &wanted)?;
        }
        Ok(collector.done())
    }

    /// Looks up every key that only one side's range has at the other side.
    pub async fn complete(
        &self,
        source: &mut Session,
        dest: &mut Session,
        left: &mut RowSet,
        right: &mut RowSet,
        limit: &Limit<'_>,
    ) -> Result<()> {
        let (mut only_left, mut only_right) = (Vec::new(), Vec::new());
        for (_, one, other) in pairs(left, right) {
            match (one, other) {
                (Some(row), None) => only_left.push(row.key.clone()),
                (None, Some(row)) => only_right.push(row.key.clone()),
                _ => {}
            }
        }
        if only_left.len() + only_right.len() > SUSPECTS_MAX {
            return Ok(());
        }
        let more_right = self
            .by_keys(TableSide::Dest, dest, &only_left, limit)
            .await
            .context("look up keys at the destination")?;
        let more_left = self
            .by_keys(TableSide::Source, source, &only_right, limit)
            .await
            .context("look up keys at the source")?;
        right.extend(more_right);
        left.extend(more_left);
        Ok(())
    }

    /// Parts suspects into those whose key may have a change in (`low`, `high`] and those whose key
    /// has none.
    pub async fn partition_changed(
        &self,
        capture: &Capture,
        low: Lsn,
        high: Lsn,
        suspects: Suspects,
        source: &mut Session,
        limit: &Limit<'_>,
    ) -> Result<(Suspects, Suspects)> {
        let captured = |column: &crate::model::column_map::CarriedColumn| {
            capture.column(&column.source.name, column.source.column_id).is_some()
        };
        if !self.shape.map.key_columns().all(captured) {
            return Ok((suspects, Suspects::new()));
        }
        // this session cannot see changes that it has not seen captured
        if !suspects.is_empty()
            && cdc::bounds(source, &capture.instance).await?.visible_up_to() < high
        {
            return Ok((suspects, Suspects::new()));
        }
        let (mut changed, mut certain) = (Suspects::new(), Suspects::new());
        // a key that the source's types cannot hold was never changed there
        let (there, nowhere): (Vec<_>, Vec<_>) = suspects
            .into_iter()
            .partition(|(_, (_, key))| self.can_hold_key(TableSide::Source, key));
        certain.extend(nowhere);
        let keys_max = lookup::keys_max(&self.shape.map);
        for chunk in there.chunks(keys_max) {
            limit.check().await?;
            let keys: Vec<_> = chunk.iter().map(|(_, (_, key))| key).collect();
            let (keys, slots) = slots(&keys, keys_max);
            let sql = lookup::changed_keys(&capture.instance.change_table, &self.shape.map, slots);
            let mut params = vec![Param::Lsn(low), Param::Lsn(high)];
            params.extend(keys);
            let rows = source.rows(&sql, &params).await.context("look for changes of suspects")?;
            // the source compares by its own collation, so a row may be another spelling of a key;
            // then nothing is certain in this chunk
            let mut cells = Vec::new();
            let mut touched = HashSet::new();
            for row in rows {
                row.into_cells().values_into(&mut cells)?;
                touched.insert(self.encoding.key_of(&cells));
            }
            let asked: HashSet<&Vec<u8>> = chunk.iter().map(|(suspect, _)| suspect).collect();
            let exact = touched.iter().all(|key| asked.contains(key));
            for (key, suspect) in chunk {
                if !exact || touched.contains(key) {
                    changed.insert(key.clone(), suspect.clone());
                } else {
                    certain.insert(key.clone(), suspect.clone());
                }
            }
        }
        // the answer counts only if the instance had everything after `low`, and still has it
        if !certain.is_empty() && cdc::bounds(source, &capture.instance).await?.min > low.next() {
            changed.append(&mut certain);
        }
        Ok((changed, certain))
    }
}

/// Collects rows into a side.
struct RowCollector<'a> {
    map: &'a ColumnMap,
    encoding: &'a Encoding,
    side: &'a mut RowSet,
    rows: usize,
    last: Vec<u8>,
    scratch: Vec<u8>,
}

impl<'a> RowCollector<'a> {
    fn new(map: &'a ColumnMap, encoding: &'a Encoding, side: &'a mut RowSet) -> Self {
        RowCollector { map, encoding, side, rows: 0, last: Vec::new(), scratch: Vec::new() }
    }

    /// Adds a row, whose cells `seen` returns, if its encoded key is `wanted`.
    fn take<'c>(
        &mut self,
        seen: impl Fn(usize) -> Result<ValueRef<'c>>,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        self.rows += 1;
        let key = self.encoding.key(&seen)?;
        if !wanted(&key) {
            return Ok(());
        }
        let hash = self.encoding.hash(&seen, &mut self.scratch)?;
        let named = self.map.key.iter().map(|&i| Ok(seen(i)?.to_value())).collect::<Result<_>>()?;
        self.last.clone_from(&key);
        self.side.insert(key, HashedRow { key: named, hash });
        Ok(())
    }

    /// How many rows there were, and the key of the last one that was taken.
    fn done(self) -> (usize, Option<Vec<Value>>) {
        (self.rows, self.side.get(&self.last).map(|row| row.key.clone()))
    }
}

/// The keys' values as parameters, filled up with the last key to a power of two: few shapes of a
/// statement, so that servers can keep their plans. Also the number of keys that this makes.
pub(super) fn slots<'k>(keys: &[&'k Vec<Value>], keys_max: usize) -> (Vec<Param<'k>>, usize) {
    let slots = if keys.is_empty() {
        0
    } else {
        keys.len().next_power_of_two().min(keys_max).max(keys.len())
    };
    let filled = keys.iter().copied().chain(keys.last().copied().into_iter().cycle()).take(slots);
    (filled.flatten().map(Param::Value).collect(), slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_few_shapes() {
        let keys: Vec<Vec<Value>> = (0..100).map(|i| vec![Value::Int(i), Value::Int(-i)]).collect();
        for (asked, made) in
            [(0, 0), (1, 1), (2, 2), (3, 4), (33, 64), (65, 80), (80, 80), (100, 100)]
        {
            let keys: Vec<&Vec<Value>> = keys.iter().take(asked).collect();
            let (params, slots) = slots(&keys, 80);
            assert_eq!((slots, params.len()), (made, 2 * made), "{asked}");
        }
    }
}
