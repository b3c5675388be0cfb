//! The destination: the control database, and every database and table that rows go to.

use super::{
    CheckedMapping, Section, ask, by_database, closed, create_user, database, failed, server,
    table_rights, usable,
};
use crate::{
    control::{self, ControlSnapshot},
    error::Kind,
    jobs::Env,
    model::{
        mapping::{FullSyncMode, Mapping},
        name::Ident,
        table::Table,
    },
    mssql::{client::session::Session, queries::catalog},
    plan::diagnostics::{self, AvailabilityGroup, Finding, FixTarget, Right},
    tsql::copied::copyable,
};

/// Who asks, in the session's context.
const WHO: &str = "check";

const ENCRYPTION_CURES: [&str; 2] = [
    "DEST_ENCRYPT=true (and DEST_CA_CERT=file, where the server's certificate is not from a known authority)",
    "DEST_ENCRYPT=true DEST_CA_CERT=file, with the authority of the server's certificate, and no DEST_TRUST_SERVER_CERTIFICATE",
];

/// The destination server and the control database; the control tables, where they can be read.
pub(super) async fn control(env: &Env) -> (Vec<Section>, Option<ControlSnapshot>) {
    let pools = env.dest.pools();
    let mut section = Section::new(format!("destination {}", pools.endpoint().server_name()));
    let name = Ident::new(control::DATABASE);
    let mut session = match pools.checkout(&name, WHO).await {
        Ok(session) => session,
        Err(error) => {
            let absent = error.kind == Kind::Database && matches!(error.number, Some(4060 | 4064));
            section.add(if absent {
                let words = format!(
                    "the database {} cannot be opened: {}",
                    control::DATABASE,
                    error.message()
                );
                Finding::bad("control database", words)
                    .fix(&FixTarget::Service, "dbaops-dataflow init")
            } else {
                failed("connects", &error, &FixTarget::Service)
            });
            return (vec![section], None);
        }
    };
    server(&mut session, pools.endpoint(), &FixTarget::Service, ENCRYPTION_CURES, &mut section)
        .await;
    match database(&mut session).await {
        Ok(found) if found.writable => {
            let names = ["SELECT", "INSERT", "UPDATE", "DELETE"];
            let rights = names.iter().zip(found.rights.get(2..6).unwrap_or_default()).map(
                |(right, held)| Right {
                    name: format!("{right} in {}", control::DATABASE),
                    held: *held,
                    grant: format!("GRANT {right} ON SCHEMA::dbo TO {}", found.user),
                },
            );
            section.add(diagnostics::rights(
                "control rights",
                &found.user.to_string(),
                rights.collect(),
                &FixTarget::Dest,
                &name,
            ));
        }
        Ok(_) => section.add(read_only(&name)),
        Err(why) => section.add(Finding::unknown("control rights", &why)),
    }
    drop(session);
    let loaded = match env.control.load().await {
        Ok(loaded) => {
            let words = format!(
                "{} servers and {} mappings are enabled",
                loaded.servers.len(),
                loaded.mappings.len() + loaded.rejected.len()
            );
            section.add(Finding::good("control tables", words));
            Some(loaded)
        }
        Err(error) => {
            section.add(failed("control tables", &error, &FixTarget::Service));
            None
        }
    };
    (vec![section], loaded)
}

fn read_only(database: &Ident) -> Finding {
    Finding::bad("writable", format!("{} is read-only", database.as_str()))
        .fix(&FixTarget::Dest, format!("ALTER DATABASE {database} SET READ_WRITE;"))
}

/// Every destination database, and every table of it.
pub(super) async fn databases(
    env: &Env,
    mappings: Vec<Mapping>,
    sections: &mut Vec<Section>,
) -> Vec<CheckedMapping> {
    let pairs = mappings.into_iter().map(|mapping| {
        let section =
            Section::new(format!("mapping {}: {} -> {}", mapping.id, mapping.source, mapping.dest));
        CheckedMapping { mapping, dest: None, section }
    });
    let mut done = Vec::new();
    for (name, mut pairs) in by_database(pairs.collect(), |mapping| mapping.dest.database.clone()) {
        let mut section = Section::new(format!("destination database {}", name.as_str()));
        match env.dest.pools().checkout(&name, WHO).await {
            Ok(mut session) => {
                let user = one(&mut session, &name, &mut section).await;
                for pair in &mut pairs {
                    table(&mut session, &user, pair).await;
                }
            }
            Err(error) if matches!(error.kind, Kind::Database | Kind::Missing) => {
                let asking = env.dest.pools().checkout(&Ident::new(control::DATABASE), WHO).await;
                section.add(match closed(asking, &name).await {
                    Some((why, fix)) => {
                        Finding::bad("connects", format!("{}: {why}", error.message()))
                            .fix(&FixTarget::Dest, fix)
                    }
                    None => Finding::bad("connects", error.to_string())
                        .fix(&FixTarget::Dest, format!("CREATE DATABASE {name};"))
                        .fix(
                            &FixTarget::Manual,
                            format!(
                                "or, where it is there: {}",
                                copyable(&create_user(&name, &env.config.dest.user))
                            ),
                        ),
                });
            }
            Err(error) => section.add(failed("connects", &error, &FixTarget::Service)),
        }
        sections.push(section);
        done.extend(pairs);
    }
    done
}

/// The database itself; the user that this login is there.
async fn one(session: &mut Session, name: &Ident, section: &mut Section) -> Ident {
    let found = match database(session).await {
        Ok(found) => found,
        Err(why) => {
            section.add(Finding::unknown("rights", &why));
            return Ident::new("dbo");
        }
    };
    if !found.writable {
        section.add(read_only(name));
    }
    let user = found.user;
    // staging tables and the table of checkpoints are made in dbo, filled, read and dropped
    let wanted = [
        ("CREATE TABLE", format!("GRANT CREATE TABLE TO {user}")),
        ("ALTER on schema dbo", format!("GRANT ALTER ON SCHEMA::dbo TO {user}")),
        ("SELECT on schema dbo", format!("GRANT SELECT ON SCHEMA::dbo TO {user}")),
        ("INSERT on schema dbo", format!("GRANT INSERT ON SCHEMA::dbo TO {user}")),
        ("UPDATE on schema dbo", format!("GRANT UPDATE ON SCHEMA::dbo TO {user}")),
        ("DELETE on schema dbo", format!("GRANT DELETE ON SCHEMA::dbo TO {user}")),
    ];
    let rights = wanted.into_iter().zip(&found.rights).map(|((right, grant), held)| Right {
        name: right.to_owned(),
        held: *held,
        grant,
    });
    section.add(diagnostics::rights(
        "rights",
        &user.to_string(),
        rights.collect(),
        &FixTarget::Dest,
        name,
    ));
    match ask(session, include_str!("../../../sql/check/groups.sql"), &[]).await {
        Ok(rows) => {
            let mut groups = (None, None);
            for row in rows {
                let text = |at| row.opt_text(at).ok().flatten().map(str::to_owned);
                let group = text(1).map(|id| AvailabilityGroup {
                    id,
                    name: Ident::new(text(2).unwrap_or_default()),
                    dtc: row.opt_i32(3).ok().flatten().unwrap_or(0) > 0,
                });
                let is_control =
                    text(0).is_some_and(|name| name.eq_ignore_ascii_case(control::DATABASE));
                *(if is_control { &mut groups.1 } else { &mut groups.0 }) = group;
            }
            section.add(diagnostics::groups(name, groups.0.as_ref(), groups.1.as_ref()));
        }
        Err(why) => section.add(Finding::unknown("availability group", &why)),
    }
    user
}

/// A destination table: what this login may do with it, and what else happens there when rows
/// change.
async fn table(session: &mut Session, user: &Ident, pair: &mut CheckedMapping) {
    let (mapping, section) = (&pair.mapping, &mut pair.section);
    let found = match catalog::table(session, &mapping.dest).await {
        Ok(Some(found)) => found,
        // the source's columns will say how to make it
        Ok(None) => return,
        Err(error) => {
            usable(session).await;
            section.add(Finding::unknown("destination table", &error.to_string()));
            return;
        }
    };
    let local = found.name.local();
    match table_rights(session, &local, None).await {
        Ok(held) => {
            // ALTER for IDENTITY_INSERT and TRUNCATE
            let alter = found.columns.iter().any(|column| column.identity)
                || mapping.mode == FullSyncMode::Direct;
            let wanted = ["SELECT", "INSERT", "UPDATE", "DELETE", "ALTER"]
                .into_iter()
                .take(if alter { 5 } else { 4 });
            let rights = wanted.zip(held).map(|(right, held)| Right {
                name: right.to_owned(),
                held,
                grant: format!("GRANT {right} ON {local} TO {user}"),
            });
            section.add(diagnostics::rights(
                "destination rights",
                &user.to_string(),
                rights.collect(),
                &FixTarget::Dest,
                &mapping.dest.database,
            ));
        }
        Err(why) => section.add(Finding::unknown("destination rights", &why)),
    }
    triggers(&found, section);
    foreign_keys(session, &found, section).await;
    pair.dest = Some(found);
}

fn triggers(found: &Table, section: &mut Section) {
    if !found.after_triggers.is_empty() {
        let names: Vec<_> = found.after_triggers.iter().map(Ident::to_string).collect();
        section.add(Finding::note(
            "triggers",
            format!("{} fires on every row that changes at the destination", names.join(", ")),
        ));
    }
}

async fn foreign_keys(session: &mut Session, found: &Table, section: &mut Section) {
    let keys = match catalog::foreign_keys(session, found).await {
        Ok(keys) => keys,
        Err(error) => return section.add(Finding::unknown("foreign keys", &error.to_string())),
    };
    if keys.is_empty() {
        return section.add(Finding::good("foreign keys", "none at the destination"));
    }
    let listed: Vec<_> = keys
        .iter()
        .map(|key| {
            format!(
                "{} ({} -> {})",
                key.name.as_str(),
                key.child.table.as_str(),
                key.parent.table.as_str()
            )
        })
        .collect();
    section.add(Finding::note(
        "foreign keys",
        format!("{}: rows wait for the rows they refer to", listed.join(", ")),
    ));
    for key in keys.iter().filter(|key| key.acts_on_delete && key.parent_id == found.object_id) {
        section.add(Finding::bad("foreign keys", key.cascade_warning()).fix(
            &FixTarget::Dest,
            format!("USE {}; {}", found.name.database, key.without_cascade()),
        ));
    }
}
