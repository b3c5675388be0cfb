//! Whether a mapping's source and destination are one table.
//!
//! Copying a table to itself can empty it, so it has to be noticed whichever of a server's names
//! and addresses are used. What the catalogs say can prove that two tables differ, but not that
//! they are one: a cloned machine has its original's `@@SERVERNAME`, and its databases their dates
//! of creation and object ids. Where the catalogs cannot tell, an experiment does: an application
//! lock exists in one database of one running server, so a lock that the destination's session
//! takes is seen by the source's session if both are in the very same database. Every member of
//! `public` may take and test such locks, also in a database that is read-only.
//! <https://learn.microsoft.com/sql/t-sql/functions/applock-test-transact-sql>

use crate::{
    error::{Context, Result},
    model::table::{Database, Table},
    mssql::client::{row::Param, session::Session},
    plan::projection::{self, Identity},
};

pub async fn is_same_table(
    source: (&mut Session, &Table, &Database),
    dest: (&mut Session, &Table, &Database),
) -> Result<bool> {
    match projection::table_identity((source.1, source.2), (dest.1, dest.2)) {
        Identity::Same => Ok(true),
        Identity::Different => Ok(false),
        Identity::Unknown => is_same_database(source.0, dest.0)
            .await
            .context("look whether source and destination are the same database"),
    }
}

async fn is_same_database(source: &mut Session, dest: &mut Session) -> Result<bool> {
    let locked = dest.row(include_str!("../../sql/catalog/same_database_lock.sql"), &[]).await?;
    let (resource, granted) = (locked.text(0)?.to_owned(), locked.i32(1)? >= 0);
    let free = match source
        .row(include_str!("../../sql/catalog/same_database_test.sql"), &[Param::Text(&resource)])
        .await
    {
        Ok(row) => row.opt_i32(0),
        Err(error) => Err(error),
    };
    // A session that cannot give its lock back ends, and the lock with it.
    if granted
        && dest
            .execute(include_str!("../../sql/lease/release_lock.sql"), &[Param::Text(&resource)])
            .await
            .is_err()
    {
        dest.discard();
    }
    // Only a lock that was taken and is not seen proves that these are two databases.
    Ok(!(granted && free? == Some(1)))
}
