//! A database's capture instances by their tables: a thousand mappings look up one among a
//! thousand.

use crate::model::{
    capture::Instance,
    name::{Ident, TableName},
};
use std::{cell::OnceCell, collections::HashMap};

pub(super) struct InstancesByTable<'a> {
    all: &'a [Instance],
    by_name: HashMap<(&'a Ident, &'a Ident), Vec<&'a Instance>>,
    /// By name in lower case; built for the first name that is not found as written.
    by_folded_name: OnceCell<HashMap<(String, String), Vec<&'a Instance>>>,
}

impl<'a> InstancesByTable<'a> {
    pub fn new(all: &'a [Instance]) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::with_capacity(all.len());
        for instance in all {
            by_name
                .entry((&instance.source.schema, &instance.source.table))
                .or_default()
                .push(instance);
        }
        InstancesByTable { all, by_name, by_folded_name: OnceCell::new() }
    }

    fn by_folded_name(&self) -> &HashMap<(String, String), Vec<&'a Instance>> {
        self.by_folded_name.get_or_init(|| {
            let mut by_folded_name: HashMap<_, Vec<_>> = HashMap::with_capacity(self.all.len());
            for instance in self.all {
                by_folded_name
                    .entry((folded(&instance.source.schema), folded(&instance.source.table)))
                    .or_default()
                    .push(instance);
            }
            by_folded_name
        })
    }

    /// The instances of a table: of the name as written, else without case.
    pub fn instances(&self, table: &TableName) -> Vec<Instance> {
        let found = self
            .by_name
            .get(&(&table.schema, &table.table))
            .or_else(|| self.by_folded_name().get(&(folded(&table.schema), folded(&table.table))));
        found.into_iter().flatten().copied().cloned().collect()
    }
}

fn folded(name: &Ident) -> String {
    name.as_str().to_lowercase()
}
