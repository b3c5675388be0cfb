//! How to say it: statements whose shape depends on a table. Pure text, made of [`Ident`](crate::model::name::Ident)s; each has a golden
//! test.

pub mod staging;
