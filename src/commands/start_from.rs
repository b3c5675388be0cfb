//! `start-from`: from where CDC goes on, for a destination that was made from a backup.
//!
//! A wrong place is expensive: beyond the source's newest LSN everything up to it would be skipped,
//! and before what the capture instance still has it is a gap, which copies the table. So the source
//! is asked first.

use crate::{
    app,
    config::Config,
    control,
    error::{Context, Error, Kind, Result},
    jobs::Env,
    model::{capture::Instance, id::MappingId, lsn::Lsn, mapping::Mapping, name::Ident},
    mssql::{
        client::{row::Param, session::Session},
        queries::cdc,
    },
    plan::time::SourceTime,
    say,
};

/// Sets the checkpoint of a mapping to an LSN, or to the newest one of a time, if the source can go
/// on from there.
pub async fn run(
    config: Config,
    mapping: i32,
    lsn: Option<Lsn>,
    time: Option<SourceTime>,
) -> Result<bool> {
    let dest = config.clone();
    app::with_env(config, async move |env| {
        let id = MappingId(mapping);
        let mapping = find(env, id).await?;
        if !mapping.cdc_enabled {
            return Err(Error::new(
                Kind::Config,
                format!("mapping {id} has cdc_enabled = 0, so no LSN means anything to it"),
            ));
        }
        let connections = env.source_connections(mapping.server, 1, "start-from").await?;
        let mut source =
            connections.checkout(&Ident::new(mapping.source.database.as_str())).await?;
        let lsn = match (lsn, time) {
            (Some(lsn), _) => lsn,
            (None, Some(time)) => newest_until(&mut source, time).await?,
            (None, None) => return Err(Error::new(Kind::Config, "give --lsn or --time")),
        };
        check(&mut source, &mapping, lsn).await?;
        control::start_from(&dest, id, lsn).await?;
        say!("mapping {id} goes on after {lsn}");
        Ok(true)
    })
    .await
}

async fn find(env: &Env, id: MappingId) -> Result<Mapping> {
    let loaded = env.control.load_also(Some(id)).await?;
    env.sources.update(&loaded.servers);
    if let Some(row) = loaded.rejected.into_iter().find(|row| row.mapping == id) {
        return Err(row.error);
    }
    loaded.mappings.into_iter().find(|mapping| mapping.id == id).ok_or_else(|| {
        Error::new(Kind::Config, format!("there is no mapping {id} of an enabled server"))
    })
}

/// The LSN of the newest transaction that was committed up to a time.
async fn newest_until(source: &mut Session, time: SourceTime) -> Result<Lsn> {
    let offset = cdc::max_lsn(source).await?.map_or(0, |max_lsn| max_lsn.utc_offset_minutes);
    let (seconds, thousandths) = time.local(offset);
    let row = source
        .row(
            include_str!("../../sql/cdc/lsn_of_time.sql"),
            &[Param::Int(seconds), Param::Int(thousandths)],
        )
        .await
        .context("read cdc.lsn_time_mapping")?;
    row.opt_lsn(0)?.ok_or_else(|| {
        Error::new(
            Kind::Config,
            "the source has no captured transaction that was committed at that time or before",
        )
        .with_hint("Give a later time, or request a full sync instead")
    })
}

/// Refuses what the source cannot go on from.
async fn check(source: &mut Session, mapping: &Mapping, lsn: Lsn) -> Result<()> {
    let (max_lsn, instances) = cdc::max_lsn_and_instances(source).await?;
    let same = |a: &Ident, b: &Ident| a.as_str().to_lowercase() == b.as_str().to_lowercase();
    let of_table = |instance: &&Instance| {
        same(&instance.source.schema, &mapping.source.schema)
            && same(&instance.source.table, &mapping.source.table)
    };
    let refused = |message: String, hint: &str| {
        Err(Error::new(Kind::Config, message).with_hint(hint.to_owned()))
    };
    let Some(oldest) = instances.iter().filter(of_table).map(|instance| instance.min).min() else {
        return refused(
            format!("{} has no capture instance, so no LSN means anything to it", mapping.source),
            "Enable CDC for it first: `dbaops-dataflow check` prints the statement",
        );
    };
    match max_lsn {
        Some(max_lsn) if lsn <= max_lsn.lsn => {}
        max_lsn => {
            let newest = max_lsn.map_or("none".to_owned(), |max_lsn| max_lsn.lsn.to_string());
            return refused(
                format!("{lsn} is beyond the newest captured LSN of the source, {newest}"),
                "Check the number. If it is right (a backup of a moment ago), wait until capture has passed it: five minutes at most while the capture job runs",
            );
        }
    }
    if lsn.next() < oldest {
        return refused(
            format!(
                "{lsn} is before the oldest change of {} that is left, {oldest}",
                mapping.source
            ),
            "Changes in between are lost: request a full sync instead",
        );
    }
    Ok(())
}
