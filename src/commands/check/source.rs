//! A source server: itself, its databases with their CDC, and every table that rows come from.

use super::{
    CheckedMapping, DatabaseSection, Section, ask, by_database, closed, create_user, database,
    failed, server as ask_server, table_rights, usable,
};
use crate::{
    error::Kind,
    jobs::{Env, instances, poll::STALL_AFTER},
    model::{
        capture::Instance,
        column_map::CarriedColumn,
        mapping::{Mapping, Server},
        name::Ident,
        table::{ColumnType, Table},
    },
    mssql::{
        client::{row::Param, session::Session},
        queries::{catalog, cdc},
    },
    plan::{
        diagnostics::{self, Finding, FixContext, FixTarget, Right},
        instances::Candidates,
        mask::{self, Uncaptured},
        projection::{self, same_name},
        schedule::TriggerCost,
    },
    tsql::{copied, poll as phrases, staging},
};
use std::collections::HashSet;

/// Who asks, in the session's context.
const WHO: &str = "check";

/// Everything of one server.
pub(super) async fn server(env: &Env, server: &Server, pairs: Vec<CheckedMapping>) -> Vec<Section> {
    let mut section = Section::new(format!("source {}", server.name));
    let row = format!(
        "UPDATE dbaops_dataflow.dbo.source_servers SET connection_string = N'…' WHERE server_id = {};",
        server.id
    );
    let house = match env.sources.connections(server.id) {
        Ok(house) => house,
        Err(error) => {
            section.add(
                Finding::bad("connection_string", error.to_string()).fix(&FixTarget::Dest, row),
            );
            return away(section, pairs);
        }
    };
    let place = FixTarget::Source(server.name.clone());
    let pools = house.pools();
    let mut sections = Vec::new();
    let mut told = false;
    let mut mapped = by_database(pairs, |mapping| mapping.source.database.clone());
    if mapped.is_empty() {
        // nothing is mapped yet: the server is asked all the same
        mapped.push((
            Ident::new(pools.endpoint().database.clone().unwrap_or_else(|| "master".to_owned())),
            Vec::new(),
        ));
    }
    for (name, pairs) in mapped {
        let mut of_database =
            Section::new(format!("source database {}.{}", server.name, name.as_str()));
        match pools.checkout(&name, WHO).await {
            Ok(mut session) => {
                if !told {
                    told = true;
                    let cures = [
                        &*format!("{row} -- with encrypt=true"),
                        &*format!(
                            "{row} -- with encrypt=true;certificate=file, with the authority of the server's certificate, and no trustservercertificate"
                        ),
                    ];
                    // its row is in the control database
                    ask_server(
                        &mut session,
                        pools.endpoint(),
                        &FixTarget::Dest,
                        cures,
                        &mut section,
                    )
                    .await;
                }
                if pairs.is_empty() {
                    continue;
                }
                let tables = SourceDatabaseCheck {
                    place: &place,
                    database: &name,
                    with_cdc: pairs.iter().any(|pair| pair.mapping.cdc_enabled),
                };
                let known = tables.database(&mut session, &mut of_database).await;
                sections.push(of_database);
                for mut pair in pairs {
                    if let Some(known) = &known {
                        tables.pair(&mut session, known, &mut pair).await;
                    }
                    sections.push(pair.section);
                }
            }
            Err(error) => {
                let opened = matches!(error.kind, Kind::Database | Kind::Missing);
                let state = if opened {
                    closed(pools.checkout(&Ident::new("master"), WHO).await, &name).await
                } else {
                    None
                };
                if let Some((why, fix)) = state {
                    of_database.add(
                        Finding::bad("connects", format!("{}: {why}", error.message()))
                            .fix(&place, fix),
                    );
                } else if opened {
                    of_database.add(
                        Finding::bad("connects", error.to_string())
                            .fix(&place, create_user(&name, &pools.endpoint().user))
                            .fix(
                                &FixTarget::Manual,
                                "or correct source_database in table_mappings",
                            ),
                    );
                } else if !told {
                    told = true;
                    let mut finding = failed("connects", &error, &FixTarget::Manual);
                    if error.kind == Kind::Login || error.kind == Kind::Connection {
                        finding = finding.fix(&FixTarget::Dest, row.clone());
                    }
                    section.add(finding);
                } else {
                    of_database.add(failed("connects", &error, &FixTarget::Manual));
                }
                sections.push(of_database);
                sections.extend(away(Section::new(""), pairs));
            }
        }
    }
    sections.insert(0, section);
    sections
}

/// What is said of a server's mappings when it cannot be asked: what the destination said.
fn away(section: Section, pairs: Vec<CheckedMapping>) -> Vec<Section> {
    let mut sections = vec![section];
    for mut pair in pairs {
        pair.section.add(Finding::unknown("source table", "the source cannot be reached"));
        sections.push(pair.section);
    }
    sections
}

/// One source database.
struct SourceDatabaseCheck<'a> {
    place: &'a FixTarget,
    database: &'a Ident,
    with_cdc: bool,
}

/// What is known of a database before its tables are looked at.
struct KnownDatabase {
    database: DatabaseSection,
    /// `None`: CDC cannot be asked.
    instances: Option<Vec<Instance>>,
    /// Tables that rows can be moved into or out of by partition, by object id.
    switchable: HashSet<i32>,
    /// `max text repl size`, in bytes.
    text_bytes: Result<i64, String>,
}

impl SourceDatabaseCheck<'_> {
    fn here(&self, statement: impl std::fmt::Display) -> String {
        format!("USE {}; {statement};", self.database)
    }

    async fn database(
        &self,
        session: &mut Session,
        section: &mut Section,
    ) -> Option<KnownDatabase> {
        let found = match database(session).await {
            Ok(found) => found,
            Err(why) => {
                section.add(Finding::unknown("database", &why));
                return None;
            }
        };
        let mut known = KnownDatabase {
            database: found,
            instances: None,
            switchable: HashSet::new(),
            text_bytes: Err("CDC is off".to_owned()),
        };
        let user = &known.database.user;
        if !known.database.writable {
            section.add(Finding::note(
                "writable",
                "the database is read-only here: trigger columns cannot be reset, only requests in table_mappings ask for full syncs",
            ));
        }
        if !self.with_cdc {
            section.add(Finding::good("CDC", "no mapping of this database follows changes"));
            return Some(known);
        }
        if !known.database.cdc {
            section.add(
                Finding::bad("CDC", "is not enabled for the database")
                    .fix(self.place, self.here("EXEC sys.sp_cdc_enable_db")),
            );
            return Some(known);
        }
        section.add(Finding::good("CDC", "is enabled for the database"));
        let cdc_right = Right {
            name: "SELECT on schema cdc".to_owned(),
            held: known.database.rights.get(7).copied().flatten(),
            grant: format!("GRANT SELECT ON SCHEMA::cdc TO {user}"),
        };
        section.add(diagnostics::rights(
            "CDC rights",
            &user.to_string(),
            vec![cdc_right],
            self.place,
            self.database,
        ));
        section.add(match known.database.rights.get(6).copied().flatten() {
            Some(true) => Finding::good("capture's state", "VIEW DATABASE STATE"),
            _ => Finding::note(
                "capture's state",
                "without VIEW DATABASE STATE full syncs of quiet databases take longer to finish",
            )
            .fix(self.place, self.here(format!("GRANT VIEW DATABASE STATE TO {user}"))),
        });
        known.text_bytes = ask(session, include_str!("../../../sql/check/text_size.sql"), &[])
            .await
            .and_then(|rows| {
                rows.first()
                    .and_then(|row| row.opt_i64(0).ok().flatten())
                    .ok_or_else(|| "the server does not say".to_owned())
            });
        known.instances = match cdc::instances(session).await {
            Ok(instances) => Some(instances),
            Err(error) => {
                usable(session).await;
                section.add(Finding::unknown("capture instances", &error.to_string()));
                None
            }
        };
        if known.instances.is_some() {
            match cdc::switchable(session).await {
                Ok(switchable) => known.switchable = switchable,
                Err(error) => {
                    usable(session).await;
                    section.add(Finding::unknown("partitions", &error.to_string()));
                }
            }
        }
        // the jobs are made with the first capture instance
        if known.instances.as_ref().is_some_and(|instances| !instances.is_empty()) {
            self.capture(session, section).await;
        }
        Some(known)
    }

    /// Agent, the jobs, and whether capture moves.
    async fn capture(&self, session: &mut Session, section: &mut Section) {
        match ask(session, include_str!("../../../sql/check/agent.sql"), &[]).await {
            Ok(rows) if rows.is_empty() => section
                .add(Finding::unknown("SQL Server Agent", "the server lists no such service")),
            Ok(rows) => {
                let state = rows
                    .first()
                    .and_then(|row| row.opt_text(0).ok().flatten())
                    .unwrap_or_default()
                    .to_owned();
                section.add(if state.eq_ignore_ascii_case("Running") {
                    Finding::good("SQL Server Agent", "runs")
                } else {
                    Finding::bad("SQL Server Agent", format!("is {state}")).fix(
                        &FixTarget::Manual,
                        "Start it: net start SQLSERVERAGENT, or mssql-conf set sqlagent.enabled true and restart the server",
                    )
                });
            }
            Err(why) => section.add(Finding::unknown("SQL Server Agent", &why)),
        }
        match ask(session, include_str!("../../../sql/check/jobs.sql"), &[]).await {
            Ok(rows) => {
                let job = |kind: &str| {
                    rows.iter().find(|row| {
                        row.opt_text(0).ok().flatten().is_some_and(|found| found.trim() == kind)
                    })
                };
                section.add(match job("capture") {
                    Some(_) => Finding::good("capture job", "is there"),
                    None => Finding::bad("capture job", "is missing: nothing is captured").fix(
                        self.place,
                        self.here("EXEC sys.sp_cdc_add_job @job_type = N'capture'"),
                    ),
                });
                section.add(
                    match job("cleanup").map(|row| row.opt_i64(1).ok().flatten().unwrap_or(0)) {
                        Some(minutes) => diagnostics::retention(minutes, self.place, self.database),
                        None => Finding::note(
                            "retention",
                            "there is no cleanup job: change tables grow without end",
                        )
                        .fix(
                            self.place,
                            self.here("EXEC sys.sp_cdc_add_job @job_type = N'cleanup'"),
                        ),
                    },
                );
            }
            Err(why) => section.add(Finding::unknown("capture job", &why)),
        }
        let start = self.here("EXEC sys.sp_cdc_start_job @job_type = N'capture'");
        match cdc::max_lsn(session).await {
            Ok(Some(upper)) => {
                let age = upper.age_s.unwrap_or(0);
                let moves = u64::try_from(age).unwrap_or(0) < STALL_AFTER.as_secs();
                section.add(if moves {
                    Finding::good("capture", format!("recorded a transaction {age} s ago"))
                } else {
                    Finding::bad("capture", format!("has recorded nothing for {} minutes", age / 60)).fix(self.place, start)
                });
            }
            Ok(None) => section.add(
                Finding::note("capture", "has recorded nothing yet: CDC was enabled just now, or the capture job does not run")
                    .fix(self.place, start),
            ),
            Err(error) => {
                usable(session).await;
                section.add(Finding::unknown("capture", &error.to_string()));
            }
        }
    }

    async fn pair(&self, session: &mut Session, known: &KnownDatabase, pair: &mut CheckedMapping) {
        let (mapping, section) = (&pair.mapping, &mut pair.section);
        let user = &known.database.user;
        let local = mapping.source.local();
        let held = match table_rights(session, &local, mapping.trigger_column.as_ref()).await {
            Ok(held) => held,
            Err(why) => return section.add(Finding::unknown("source rights", &why)),
        };
        let select = Right {
            name: "SELECT".to_owned(),
            held: held.first().copied().flatten(),
            grant: format!("GRANT SELECT ON {local} TO {user}"),
        };
        if select.held.is_none() {
            return section.add(
                Finding::bad(
                    "source table",
                    format!("{} does not exist, or user {user} has no right on it", mapping.source),
                )
                .fix(self.place, self.here(select.grant))
                .fix(&FixTarget::Manual, "or correct the names in table_mappings"),
            );
        }
        let readable = select.held == Some(true);
        section.add(diagnostics::rights(
            "source rights",
            &user.to_string(),
            vec![select],
            self.place,
            self.database,
        ));
        if !readable {
            return;
        }
        let source = match catalog::table(session, &mapping.source).await {
            Ok(Some(source)) => source,
            Ok(None) => {
                return section.add(Finding::bad(
                    "source table",
                    format!("{} is not a table", mapping.source),
                ));
            }
            Err(error) => {
                usable(session).await;
                return section.add(Finding::unknown("source table", &error.to_string()));
            }
        };
        self.shape(session, mapping, &source, pair.dest.as_ref(), user, section).await;
        if mapping.trigger_column.is_some() {
            self.trigger(session, mapping, &source, held.get(5).copied().flatten(), known, section)
                .await;
        }
        if mapping.cdc_enabled && known.database.cdc {
            self.captured(session, mapping, &source, pair.dest.as_ref(), known, section).await;
        }
    }

    /// Both shapes against each other.
    async fn shape(
        &self,
        session: &mut Session,
        mapping: &Mapping,
        source: &Table,
        dest: Option<&Table>,
        user: &Ident,
        section: &mut Section,
    ) {
        let Some(dest) = dest else {
            let create =
                diagnostics::create_table(source, &mapping.dest, &mapping.key, staging::type_name);
            return section.add(
                Finding::bad(
                    "destination table",
                    format!("{} does not exist, or this login has no right on it", mapping.dest),
                )
                .fix(&FixTarget::Dest, create),
            );
        };
        match projection::project(source, dest, &mapping.key) {
            Ok(carry) => {
                section.add(Finding::good(
                    "columns and key",
                    format!("{} columns are carried", carry.columns.len()),
                ));
                // triggers have a line of their own
                for warning in
                    carry.warnings.iter().filter(|warning| !warning.contains("'s trigger "))
                {
                    section.add(Finding::note("columns and key", warning.clone()));
                }
            }
            Err(mismatches) => {
                let words: Vec<_> = mismatches.iter().map(|mismatch| mismatch.0.as_str()).collect();
                let mut finding = Finding::bad("columns and key", words.join("; "));
                let mending = FixContext {
                    source,
                    dest,
                    key: &mapping.key,
                    source_user: user.clone(),
                    type_name: staging::type_name,
                };
                finding.fixes = mending.fixes(self.place);
                if source.row_filter {
                    let params = [Param::Int(source.object_id)];
                    for row in
                        ask(session, include_str!("../../../sql/check/policies.sql"), &params)
                            .await
                            .unwrap_or_default()
                    {
                        let name =
                            |at| Ident::new(row.opt_text(at).ok().flatten().unwrap_or_default());
                        let policy = format!(
                            "ALTER SECURITY POLICY {}.{} WITH (STATE = OFF)",
                            name(0),
                            name(1)
                        );
                        finding = finding.fix(self.place, self.here(policy));
                    }
                    finding = finding.fix(
                        &FixTarget::Manual,
                        "or let the policy's predicate function pass this login",
                    );
                }
                section.add(finding);
            }
        }
    }

    /// The trigger column: it is there, can be reset, and is cheap to ask.
    async fn trigger(
        &self,
        session: &mut Session,
        mapping: &Mapping,
        source: &Table,
        may_reset: Option<bool>,
        known: &KnownDatabase,
        section: &mut Section,
    ) {
        let Some(column) = &mapping.trigger_column else { return };
        let local = source.name.local();
        let Some(found) =
            source.columns.iter().find(|found| same_name(found.name.as_str(), column.as_str()))
        else {
            return section.add(
                Finding::bad("trigger column", format!("{column} is not in {}", mapping.source))
                    .fix(
                        self.place,
                        self.here(format!(
                            "ALTER TABLE {local} ADD {column} bit NOT NULL DEFAULT 0"
                        )),
                    ),
            );
        };
        let text = matches!(
            found.ty,
            ColumnType::Char(_)
                | ColumnType::VarChar(_)
                | ColumnType::NChar(_)
                | ColumnType::NVarChar(_)
        );
        let no_number = text
            && match ask(session, &phrases::has_non_numeric(&source.name, column), &[]).await {
                Ok(rows) => rows.first().is_some_and(|row| row.i64(0).is_ok_and(|found| found > 0)),
                Err(why) => {
                    section.add(Finding::unknown("trigger column", &why));
                    false
                }
            };
        let fix = self.here(phrases::clear_non_numeric(&source.name, column));
        if let Some(finding) =
            diagnostics::trigger_values(source, found, no_number, self.place, &fix)
        {
            section.add(finding);
        }
        let user = &known.database.user;
        let right = Right {
            name: format!("UPDATE on {column}"),
            held: may_reset,
            grant: format!("GRANT UPDATE ON {local} ({column}) TO {user}"),
        };
        section.add(diagnostics::rights(
            "trigger column",
            &user.to_string(),
            vec![right],
            self.place,
            self.database,
        ));
        let instance = known
            .instances
            .iter()
            .flatten()
            .find(|instance| instance.source_id == source.object_id);
        let change_table = instance.map(Instance::change_table).unwrap_or_default();
        let params =
            [Param::Text(&local), Param::Text(column.as_str()), Param::Text(&change_table)];
        match ask(session, &phrases::trigger_costs(1), &params).await.map(|mut rows| rows.pop()) {
            Ok(Some(row)) => {
                let number = |at| row.i64(at).unwrap_or(0);
                let captured = instance.is_some()
                    && row.i64(3).unwrap_or_else(|_| i64::from(row.bool(3).unwrap_or(false))) > 0;
                let cost = TriggerCost { rows: number(1), indexed: number(2) > 0 };
                section.add(if captured {
                    Finding::good(
                        "trigger index",
                        "not needed: the change stream shows the trigger",
                    )
                } else if cost.is_expensive() {
                    Finding::bad(
                        "trigger index",
                        format!(
                            "{} rows are read to look for the trigger, so it is asked seldom",
                            cost.rows
                        ),
                    )
                    .fix(self.place, self.here(phrases::trigger_index(&source.name, column)))
                } else {
                    Finding::good(
                        "trigger index",
                        if cost.indexed { "is there" } else { "not needed: the table is small" },
                    )
                });
            }
            Ok(None) => {}
            Err(why) => section.add(Finding::unknown("trigger index", &why)),
        }
    }

    /// The capture instance: it is there, can be read, has the key, and large values do not stop
    /// its writers.
    async fn captured(
        &self,
        session: &mut Session,
        mapping: &Mapping,
        source: &Table,
        dest: Option<&Table>,
        known: &KnownDatabase,
        section: &mut Section,
    ) {
        let Some(known_instances) = &known.instances else { return };
        let mut own: Vec<Instance> = known_instances
            .iter()
            .filter(|instance| instance.source_id == source.object_id)
            .cloned()
            .collect();
        own.sort_by(|a, b| a.age().cmp(&b.age()));
        let carry = dest.and_then(|dest| projection::project(source, dest, &mapping.key).ok());
        let coverage = match &carry {
            Some(carry) if own.len() > 1 => match instances::coverage(session, carry, &own).await {
                Ok(coverage) => Some(coverage),
                Err(error) => {
                    usable(session).await;
                    section.add(failed("captured columns", &error, &FixTarget::Manual));
                    None
                }
            },
            _ => None,
        };
        let candidates = Candidates { instances: &own, coverage: coverage.as_ref() };
        let best = candidates.best(&candidates.usable()).or(own.len().checked_sub(1));
        let Some((at, instance)) = best.and_then(|at| Some((at, own.get(at)?))) else {
            let enable = self.here(copied::enable_table(&source.name));
            return section.add(
                Finding::bad("capture instance", "there is none for this table")
                    .fix(self.place, enable),
            );
        };
        let name = instance.name.as_str();
        if instance.min.is_zero() {
            let finding = Finding::bad(
                "capture instance",
                format!("{name} cannot be read by user {}", known.database.user),
            );
            return section.add(match &instance.role {
                Some(role) => finding.fix(
                    self.place,
                    self.here(format!("ALTER ROLE {role} ADD MEMBER {}", known.database.user)),
                ),
                None => finding.fix(
                    self.place,
                    self.here(format!(
                        "GRANT SELECT ON {} TO {}",
                        source.name.local(),
                        known.database.user
                    )),
                ),
            });
        }
        section.add(Finding::good("capture instance", name));
        for (other, why) in candidates.passed_over(at) {
            let other = own.get(other).map_or("", |instance| instance.name.as_str());
            section.add(Finding::note(
                "capture instance",
                format!("{other} is newer, but it {}: it is not read", why.reason()),
            ));
        }
        if known.switchable.contains(&source.object_id) {
            section.add(Finding::note("partitions", "rows that ALTER TABLE … SWITCH moves in or out are in no change table").fix(
                &FixTarget::Manual,
                "Ask for a full sync after each switch, or make the capture instance with @allow_partition_switch = 0",
            ));
        }
        let Some(carry) = carry else { return };
        let capture = cdc::capture(session, instance.clone()).await;
        match capture.and_then(|capture| {
            mask::cover(&carry, &capture).map(|_| mask::uncaptured(&carry, &capture))
        }) {
            Ok(None) => section.add(Finding::good("captured columns", "all that are carried")),
            Ok(Some(Uncaptured { message, fix })) => {
                section
                    .add(Finding::bad("captured columns", message).fix(self.place, self.here(fix)));
            }
            Err(error) => {
                usable(session).await;
                section.add(failed("captured columns", &error, &FixTarget::Manual));
            }
        }
        if carry.columns.iter().any(CarriedColumn::is_lob) {
            section.add(match &known.text_bytes {
                Ok(bytes) => diagnostics::text_size(*bytes, self.place),
                Err(why) => Finding::unknown("max text repl size", why),
            });
        }
    }
}
