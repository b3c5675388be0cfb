//! How to say it: statements whose shape depends on a table. Pure text, made of
//! [`Ident`](crate::model::name::Ident)s; each has a golden test.

pub mod apply;
pub mod changes;
pub mod checkpoint;
pub mod copied;
pub mod large;
pub mod lookup;
pub mod netting;
pub mod poll;
pub mod repair;
pub mod staging;
pub mod swap;
#[cfg(test)]
pub mod testing;
