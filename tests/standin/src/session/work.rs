//! A connection's thread: the login, and then one request after the other until the client goes.

use super::{Out, reply::Reply};
use crate::{
    error::SqlError,
    exchange::{
        connection::{CancelFlag, EngineConnection, LoginInfo, TransactionRequest},
        sink::{Cancelled, DoneKind, EnvChange, Sink},
    },
    fault::Fault,
    server::shared::{PROGRAM_VERSION, Shared},
    tds::{
        TdsVersion,
        login::{Login7, feature},
        packet::{PACKET_BYTES_DEFAULT, PACKET_BYTES_MAX, PACKET_BYTES_MIN, Packet, kind, status},
        reader::{MessageReader, PacketSource, WireError},
        request::{self, RpcCall},
        token,
    },
};
use tokio::sync::mpsc;

/// The largest value a request may carry: SQL Server's is 2 GiB, and no test needs that.
const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Rows of a bulk load handed to the engine at once.
const BULK_ROWS: usize = 500;

/// What a login and a bulk load are called, where requests go by their text.
const LOGIN: &str = "LOGIN";
const BULK_LOAD: &str = "BULK LOAD";

struct Packets(mpsc::Receiver<Packet>);

impl PacketSource for Packets {
    fn next_packet(&mut self) -> Option<Packet> {
        self.0.blocking_recv()
    }
}

/// A session from its login to its end.
pub(super) fn session(
    shared: &Shared,
    login: &Login7,
    info: LoginInfo,
    packets: mpsc::Receiver<Packet>,
    out: mpsc::Sender<Out>,
) {
    let cancel = info.cancel.clone();
    let spid = info.spid;
    let mut reply = Reply::new(
        out,
        spid,
        cancel.clone(),
        shared.faults.clone(),
        &login.app_name,
        &shared.server_name,
        shared.compress_rows,
    );
    reply.time_scale = shared.time_scale;
    let Ok(Some(engine)) = log_in(shared, login, info, &mut reply) else { return };
    let mut session = Session {
        shared,
        spid,
        application: login.app_name.clone(),
        cancel,
        packets: Packets(packets),
        reply,
        engine,
    };
    // It ends when the client goes, or when the reply has nobody to go to.
    while let Some(first) = session.packets.next_packet() {
        if session.request(first).is_err() || session.cancel.is_killed() || session.reply.fatal {
            return;
        }
    }
}

type Started = Option<Box<dyn EngineConnection>>;

fn log_in(
    shared: &Shared,
    login: &Login7,
    info: LoginInfo,
    reply: &mut Reply,
) -> Result<Started, Cancelled> {
    let fault = shared.faults.at_login(&login.app_name);
    if let Some(fault) = &fault
        && let Some(error) = reply.fault_before(fault, LOGIN)?
    {
        return refuse(reply, &error);
    }
    let version = match admit(login) {
        Ok(version) => version,
        Err(error) => return refuse(reply, &error),
    };
    let packet_bytes = match info.packet_size as usize {
        0 => PACKET_BYTES_DEFAULT,
        asked => asked.clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX),
    };
    let user = info.user.clone();
    let engine = match shared.engine.login(LoginInfo {
        packet_size: packet_bytes as u32,
        tds_version: version.0,
        ..info
    }) {
        Ok(engine) => engine,
        Err(error) => {
            let failed = crate::exchange::connection::login_failed(&user);
            let cannot_open = error.number == 4060;
            reply.message(&error)?;
            return if cannot_open {
                refuse(reply, &failed)
            } else {
                reply.finish().map(|()| None)
            };
        }
    };
    let info = |number: i32, state: u8, text: String| {
        SqlError { state, ..SqlError::new(number, 0, text) }.at(1)
    };
    let database = engine.database();
    reply.env(&EnvChange::Database { new: database.clone(), old: "master".into() })?;
    reply.message(&info(5701, 2, format!("Changed database context to '{database}'.")))?;
    reply.env(&EnvChange::Collation(engine.collation()))?;
    reply.env(&EnvChange::Language { new: "us_english".into(), old: String::new() })?;
    reply.message(&info(5703, 1, "Changed language setting to us_english.".into()))?;
    reply.raw(|out| {
        token::login_ack(out, version, "Microsoft SQL Server", PROGRAM_VERSION);
        token::env_packet_size(out, packet_bytes, PACKET_BYTES_DEFAULT);
        if login.feature(feature::UTF8_SUPPORT).is_some() {
            token::feature_ext_ack(out, &[(feature::UTF8_SUPPORT, &[1])]);
        }
    });
    let elsewhere = shared.redirect();
    if let Some((host, port)) = &elsewhere {
        reply.raw(|out| token::env_routing(out, host, *port));
    }
    if let Some(fault) = &fault
        && let Some(error) = reply.fault_after(fault, LOGIN)?
    {
        return refuse(reply, &error);
    }
    reply.finish()?;
    if elsewhere.is_some() {
        return Ok(None);
    }
    reply.agree(version, packet_bytes);
    Ok(Some(engine))
}

fn refuse(reply: &mut Reply, error: &SqlError) -> Result<Started, Cancelled> {
    reply.message(error)?;
    reply.finish()?;
    Ok(None)
}

/// Refuses what this server does not know, before anybody asks for a password.
fn admit(login: &Login7) -> Result<TdsVersion, SqlError> {
    let Some(version) = TdsVersion::negotiate(login.tds_version) else {
        return Err(SqlError::unsupported(format!(
            "TDS {:#010x}, older than 7.2",
            login.tds_version
        )));
    };
    if login.integrated_security {
        return Err(SqlError::unsupported("integrated authentication (SSPI)"));
    }
    if login.feature(feature::FED_AUTH).is_some() {
        return Err(SqlError::unsupported("federated authentication"));
    }
    if !login.change_password.is_empty() {
        return Err(SqlError::unsupported("a change of password at login"));
    }
    if !login.attach_db_file.is_empty() {
        return Err(SqlError::unsupported("attaching a database file at login"));
    }
    if !matches!(login.language.to_ascii_lowercase().as_str(), "" | "us_english" | "english") {
        return Err(SqlError::unsupported(format!("the language {}", login.language)));
    }
    Ok(version)
}

struct Session<'a> {
    shared: &'a Shared,
    spid: u16,
    application: String,
    cancel: CancelFlag,
    packets: Packets,
    reply: Reply,
    engine: Box<dyn EngineConnection>,
}

/// How a request ended, when it did not end the session.
enum Outcome {
    Answered,
    /// An attention broke it off while it ran.
    Interrupted,
    /// The client broke it off while it sent it.
    Abandoned {
        attention: bool,
    },
    /// Refused: its message has been read to the end or cannot be.
    Refused(SqlError),
}

impl From<WireError> for Outcome {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Closed => Self::Interrupted,
            WireError::Abandoned { attention } => Self::Abandoned { attention },
            WireError::Unsupported(what) => Self::Refused(SqlError::unsupported(what)),
            WireError::Malformed(what) => Self::Refused(SqlError::new(
                4002,
                20,
                format!(
                    "The incoming tabular data stream (TDS) protocol stream is incorrect. The stream ended unexpectedly. ({what})"
                ),
            )),
        }
    }
}

impl From<Cancelled> for Outcome {
    fn from(_: Cancelled) -> Self {
        Self::Interrupted
    }
}

impl Session<'_> {
    /// One message and its answer. `Err` when the connection is over.
    fn request(&mut self, first: Packet) -> Result<(), Cancelled> {
        if first.kind == kind::ATTENTION {
            // The request it was meant for had ended already; the client waits for this answer all
            // the same.
            self.cancel.clear();
            return self.reply.finish_attention();
        }
        if first.status & (status::RESET_CONNECTION | status::RESET_CONNECTION_SKIP_TRAN) != 0 {
            self.engine.reset(first.status & status::RESET_CONNECTION_SKIP_TRAN != 0);
            self.reply.raw(token::env_reset_ack);
        }
        let outcome = match first.kind {
            kind::SQL_BATCH => self.batch(first),
            kind::RPC => self.rpc(first),
            kind::TRANSACTION => self.transaction(first),
            kind::BULK_LOAD => self.bulk_load(first),
            kind::SSPI | kind::FEDAUTH_TOKEN | kind::LOGIN7 | kind::OLD_LOGIN | kind::PRELOGIN => {
                Outcome::Refused(SqlError::new(
                    4002,
                    20,
                    format!("A message of type {:#04x} after the login.", first.kind),
                ))
            }
            other => Outcome::Refused(SqlError::new(
                4002,
                20,
                format!("A message of the unknown type {other:#04x}."),
            )),
        };
        match outcome {
            Outcome::Refused(error) => {
                self.reply.message(&error)?;
                self.reply.finish()
            }
            Outcome::Abandoned { attention: true } => self.answer_attention(),
            // The attention that follows is what gets the answer.
            Outcome::Abandoned { attention: false } => Ok(()),
            Outcome::Answered if !self.cancel.is_cancelled() => self.reply.finish(),
            Outcome::Interrupted if self.reply.fatal => self.reply.finish(),
            Outcome::Answered | Outcome::Interrupted => {
                // The flag is set before the packet comes; whatever is before the packet was sent
                // before it.
                while !self.cancel.is_killed() {
                    match self.packets.next_packet() {
                        Some(packet) if packet.kind == kind::ATTENTION => {
                            self.reply.break_off()?;
                            return self.answer_attention();
                        }
                        Some(_) => {}
                        None => break,
                    }
                }
                Err(Cancelled)
            }
        }
    }

    fn answer_attention(&mut self) -> Result<(), Cancelled> {
        self.cancel.clear();
        self.reply.finish_attention()
    }

    fn batch(&mut self, first: Packet) -> Outcome {
        let text = match read(first, &mut self.packets, request::sql_batch) {
            Ok(text) => text,
            Err(outcome) => return outcome,
        };
        self.write_down(&text);
        self.faulty(&text, 0, |engine, reply| engine.batch(&text, reply))
            .unwrap_or_else(Outcome::from)
    }

    fn rpc(&mut self, first: Packet) -> Outcome {
        let calls = match read(first, &mut self.packets, request::rpc) {
            Ok(calls) => calls,
            Err(outcome) => return outcome,
        };
        for call in &calls {
            if let Err(Cancelled) = self.call(call) {
                return Outcome::Interrupted;
            }
        }
        Outcome::Answered
    }

    fn call(&mut self, call: &RpcCall) -> Result<(), Cancelled> {
        self.reply.begin_rpc(call.params.iter().map(|param| param.name.clone()).collect());
        if call.procedure.to_ascii_lowercase().starts_with("sp_cursor") {
            self.reply
                .message(&SqlError::unsupported(format!("server cursors ({})", call.procedure)))?;
        } else {
            let text = request::text_of(call);
            if text != call.procedure {
                self.write_down(&text);
            }
            self.faulty(&text, call.params.len(), |engine, reply| {
                engine.rpc(&call.procedure, &call.params, reply)
            })?;
        }
        self.reply.end_rpc();
        Ok(())
    }

    fn transaction(&mut self, first: Packet) -> Outcome {
        let request = match read(first, &mut self.packets, request::transaction) {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        let text = match &request {
            TransactionRequest::Begin { .. } => "BEGIN TRANSACTION",
            TransactionRequest::Commit { .. } => "COMMIT TRANSACTION",
            TransactionRequest::Rollback { .. } => "ROLLBACK TRANSACTION",
            TransactionRequest::Save { .. } => "SAVE TRANSACTION",
        };
        self.faulty(text, 0, |engine, reply| engine.transaction(&request, reply))
            .unwrap_or_else(Outcome::from)
    }

    fn write_down(&self, text: &str) {
        if let Some(files) = &self.shared.statement_files {
            files.write(&self.application, text);
        }
    }

    /// Has the engine run one request, between its faults.
    fn faulty(
        &mut self,
        text: &str,
        params: usize,
        run: impl FnOnce(&mut dyn EngineConnection, &mut Reply) -> Result<(), Cancelled>,
    ) -> Result<Outcome, Cancelled> {
        self.shared.registry.log(self.spid, &self.application, text, params);
        let fault = self.request_fault(text);
        if let Some(fault) = &fault
            && let Some(error) = self.reply.fault_before(fault, text)?
        {
            self.reply.message(&error)?;
            return Ok(Outcome::Answered);
        }
        run(self.engine.as_mut(), &mut self.reply)?;
        if let Some(fault) = &fault
            && let Some(error) = self.reply.fault_after(fault, text)?
        {
            self.reply.message(&error)?;
        }
        Ok(Outcome::Answered)
    }

    fn request_fault(&self, text: &str) -> Option<Fault> {
        if self.shared.faults.none() {
            None
        } else {
            self.shared.faults.at_request(&self.application, text)
        }
    }

    fn bulk_load(&mut self, first: Packet) -> Outcome {
        self.shared.registry.log(self.spid, &self.application, BULK_LOAD, 0);
        let fault = self.request_fault(BULK_LOAD);
        let mut injected = None;
        if let Some(fault) = &fault {
            match self.reply.fault_before(fault, BULK_LOAD) {
                Ok(error) => injected = error,
                Err(Cancelled) => return Outcome::Interrupted,
            }
        }
        let mut from = match MessageReader::new(first, &mut self.packets, VALUE_BYTES_MAX) {
            Ok(from) => from,
            Err(error) => return error.into(),
        };
        let mut load = BulkLoad {
            engine: self.engine.as_mut(),
            reply: &mut self.reply,
            shared: self.shared,
            application: &self.application,
            cancel: &self.cancel,
        };
        let mut outcome = match injected {
            Some(error) => {
                load.engine.bulk_abort();
                BulkEnd::Failed(error)
            }
            None => load.run(&mut from),
        };
        // After an error of class 20 and more the connection ends, whatever is still on its way.
        if let BulkEnd::Failed(error) = &outcome
            && error.class < 20
            && let Err(error) = from.skip_rest()
        {
            outcome = BulkEnd::Broken(error);
        }
        match outcome {
            BulkEnd::Rows(rows) => {
                let injected =
                    fault.map_or(Ok(None), |fault| self.reply.fault_after(&fault, BULK_LOAD));
                let ended = injected.and_then(|error| match error {
                    Some(error) => self.reply.message(&error),
                    None => self.reply.done(DoneKind::Insert, Some(rows)),
                });
                if ended.is_ok() { Outcome::Answered } else { Outcome::Interrupted }
            }
            BulkEnd::Failed(error) => match self.reply.message(&error) {
                Ok(()) => Outcome::Answered,
                Err(Cancelled) => Outcome::Interrupted,
            },
            BulkEnd::Cancelled => Outcome::Interrupted,
            BulkEnd::Broken(error) => error.into(),
        }
    }
}

/// Reads a whole message; one that is refused by name is read to its end first, so that the
/// connection can go on.
fn read<T>(
    first: Packet,
    packets: &mut Packets,
    parse: impl FnOnce(&mut MessageReader<'_>) -> Result<T, WireError>,
) -> Result<T, Outcome> {
    let mut from = MessageReader::new(first, packets, VALUE_BYTES_MAX)?;
    match parse(&mut from) {
        Ok(read) => Ok(read),
        Err(error) => {
            if matches!(error, WireError::Unsupported(_)) {
                from.skip_rest()?;
            }
            Err(error.into())
        }
    }
}

enum BulkEnd {
    Rows(u64),
    /// The rest of the message is still to be read.
    Failed(SqlError),
    Cancelled,
    Broken(WireError),
}

struct BulkLoad<'a> {
    engine: &'a mut dyn EngineConnection,
    reply: &'a mut Reply,
    shared: &'a Shared,
    application: &'a str,
    cancel: &'a CancelFlag,
}

impl BulkLoad<'_> {
    fn run(&mut self, from: &mut MessageReader<'_>) -> BulkEnd {
        let mut columns = match request::bulk_columns(from) {
            Ok(columns) => columns,
            Err(error) => return self.broken(error),
        };
        match self.engine.bulk_begin(&columns.columns, self.reply) {
            Ok(declared) => columns.read_as(&declared),
            Err(error) => return BulkEnd::Failed(error),
        }
        let mut count = 0u64;
        loop {
            let mut rows = Vec::with_capacity(BULK_ROWS);
            while rows.len() < BULK_ROWS {
                match request::bulk_row(from, &columns) {
                    Ok(Some(row)) => rows.push(row),
                    Ok(None) => break,
                    Err(error) => return self.broken(error),
                }
            }
            if self.cancel.is_cancelled() {
                self.engine.bulk_abort();
                return BulkEnd::Cancelled;
            }
            let last = rows.len() < BULK_ROWS;
            let before = count;
            count += rows.len() as u64;
            if let Some(end) = self.fault_at(before, count, last) {
                return end;
            }
            if !rows.is_empty()
                && let Err(error) = self.engine.bulk_rows(rows, self.reply)
            {
                return BulkEnd::Failed(error);
            }
            if last {
                return match self.engine.bulk_end(self.reply) {
                    Ok(rows) => BulkEnd::Rows(rows),
                    Err(error) => BulkEnd::Failed(error),
                };
            }
        }
    }

    /// The fault that waits for one of these rows, if any.
    fn fault_at(&mut self, before: u64, count: u64, last: bool) -> Option<BulkEnd> {
        if self.shared.faults.none() {
            return None;
        }
        // The last page's end counts as passed: "after n rows" of n rows fires.
        let fault =
            self.shared.faults.at_bulk_rows(self.application, before, count + u64::from(last))?;
        match self.reply.fault_before(&fault, BULK_LOAD) {
            Ok(None) => None,
            Ok(Some(error)) => {
                self.engine.bulk_abort();
                Some(BulkEnd::Failed(error))
            }
            Err(Cancelled) => {
                self.engine.bulk_abort();
                Some(BulkEnd::Cancelled)
            }
        }
    }

    fn broken(&mut self, error: WireError) -> BulkEnd {
        self.engine.bulk_abort();
        match error {
            // Understood and refused: the rest can be skipped.
            WireError::Unsupported(what) => BulkEnd::Failed(SqlError::unsupported(what)),
            error => BulkEnd::Broken(error),
        }
    }
}
