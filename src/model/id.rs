//! Keys of the control tables, typed so that one cannot stand in for another.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// `source_servers.server_id`
    ServerId(i32)
);
id!(
    /// `table_mappings.mapping_id`
    MappingId(i32)
);
id!(
    /// `sync_status.status_id`
    StatusId(i64)
);
