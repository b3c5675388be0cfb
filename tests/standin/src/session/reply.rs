//! Results as tokens: the [`Sink`] of a connection.
//!
//! The last DONE of a message is the one without the MORE bit, and only the next token (or none)
//! tells which one that is; so a DONE is held back until then. DONE_INXACT is never set: SQL Server
//! does not set it either (MS-TDS, product behavior notes to 2.2.7.6).

use super::Out;
use crate::{
    error::SqlError,
    exchange::{
        connection::CancelFlag,
        sink::{Cancelled, Column, DoneKind, EnvChange, Sink},
    },
    fault::{Fault, Faults, Phase, Then},
    tds::{
        TdsVersion,
        packet::{MessageWriter, PACKET_BYTES_DEFAULT, kind},
        token::{self, Done, DoneToken, done_status},
        types::fixed::Misfit,
    },
    value::{SqlType, Value},
};
use std::time::Duration;
use tokio::sync::mpsc;

/// A fault's silence ends after this: longer than clients wait for a statement by default
/// (`DATAFLOW_STATEMENT_TIMEOUT`, 30 s).
const HANG_MAX: Duration = Duration::from_secs(90);

/// CurCmd of an executed procedure.
const EXECUTE: u16 = 0xE0;
/// CurCmd of the answer to an attention
const ATTENTION: u16 = 0xFD;

pub(crate) struct Reply {
    writer: MessageWriter,
    out: mpsc::Sender<Out>,
    cancel: CancelFlag,
    faults: Faults,
    application: String,
    server_name: String,
    compress_rows: bool,
    /// The scale that times are described with, whatever it is.
    pub(super) time_scale: Option<u8>,

    // one message's state
    columns: Vec<Column>,
    pending: Option<Done>,
    /// an error came since the last DONE
    failed: bool,
    /// an error came since the RPC's call began
    call_failed: bool,
    /// inside procedures, this deep
    depth: u32,
    /// the names of the RPC's parameters, for the ordinals of output parameters
    rpc: Option<Vec<String>>,
    /// faults that wait for the end of their statement, innermost last
    after: Vec<(String, Fault)>,
    pause: Option<Duration>,
    truncate: Option<usize>,
    garbage: bool,

    /// an error of class 20 or more was sent: the connection ends with this message
    pub(crate) fatal: bool,
    ended: bool,
}

impl Reply {
    pub(crate) fn new(
        out: mpsc::Sender<Out>,
        spid: u16,
        cancel: CancelFlag,
        faults: Faults,
        application: &str,
        server_name: &str,
        compress_rows: bool,
    ) -> Self {
        Self {
            writer: MessageWriter::new(kind::REPLY, spid, PACKET_BYTES_DEFAULT),
            out,
            cancel,
            faults,
            application: application.to_owned(),
            server_name: server_name.to_owned(),
            compress_rows,
            time_scale: None,
            columns: Vec::new(),
            pending: None,
            failed: false,
            call_failed: false,
            depth: 0,
            rpc: None,
            after: Vec::new(),
            pause: None,
            truncate: None,
            garbage: false,
            fatal: false,
            ended: false,
        }
    }

    /// What LOGIN7 agreed upon holds from the next message on.
    pub(crate) fn agree(&mut self, version: TdsVersion, packet_bytes: usize) {
        self.compress_rows &= version.has_nbcrow();
        self.writer.set_packet_bytes(packet_bytes);
    }

    /// Writes tokens that are none of the engine's business.
    pub(crate) fn raw(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.write_pending();
        write(&mut self.writer.body);
    }

    /// The next call of an RPC message.
    pub(crate) fn begin_rpc(&mut self, params: Vec<String>) {
        self.rpc = Some(params);
        self.call_failed = false;
    }

    /// The end of an RPC's call: its DONEPROC.
    pub(crate) fn end_rpc(&mut self) {
        self.write_pending();
        let status = if self.call_failed { done_status::ERROR } else { 0 };
        self.failed = false;
        self.pending = Some(Done { token: DoneToken::Proc, status, command: EXECUTE, rows: 0 });
        self.rpc = None;
    }

    /// The end of the message.
    pub(crate) fn finish(&mut self) -> Result<(), Cancelled> {
        if self.failed || self.pending.is_none() {
            self.write_pending();
            let status = if self.failed { done_status::ERROR } else { 0 };
            self.pending = Some(Done { token: DoneToken::Done, status, command: 0, rows: 0 });
        }
        self.end_message()
    }

    /// The end of a message that an attention broke off. The answer to the attention is a message
    /// of its own: tedious waits for two. (SQL Server 2022's bytes are in dotnet/SqlClient's pull
    /// request 2714: `FD 02 00 …` ends the one, `FD 20 00 FD 00 …` is the other.)
    pub(crate) fn break_off(&mut self) -> Result<(), Cancelled> {
        self.failed = true;
        self.finish()
    }

    /// A message that answers nothing but the attention.
    pub(crate) fn finish_attention(&mut self) -> Result<(), Cancelled> {
        self.write_pending();
        self.pending = Some(Done {
            token: DoneToken::Done,
            status: done_status::ATTENTION,
            command: ATTENTION,
            rows: 0,
        });
        self.end_message()
    }

    fn end_message(&mut self) -> Result<(), Cancelled> {
        if let Some(done) = self.pending.take() {
            token::done(&mut self.writer.body, done);
        }
        let bytes = self.writer.finish();
        let sent = self.send(bytes);
        self.columns.clear();
        self.failed = false;
        self.depth = 0;
        self.rpc = None;
        self.after.clear();
        self.pause = None;
        sent
    }

    fn write_pending(&mut self) {
        if let Some(mut done) = self.pending.take() {
            done.status |= done_status::MORE;
            token::done(&mut self.writer.body, done);
        }
    }

    fn send(&mut self, mut bytes: Vec<u8>) -> Result<(), Cancelled> {
        if self.ended {
            return Err(Cancelled);
        }
        if self.garbage {
            self.ended = true;
            self.put(Out::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()))?;
            return self.close(false);
        }
        let ends_here = match &mut self.truncate {
            Some(left) if *left <= bytes.len() => {
                bytes.truncate(*left);
                true
            }
            Some(left) => {
                *left -= bytes.len();
                false
            }
            None => false,
        };
        if let Some(pause) = self.pause {
            for packet in bytes.chunks(PACKET_BYTES_DEFAULT) {
                self.put(Out::Pause(pause))?;
                self.put(Out::Bytes(packet.to_vec()))?;
            }
        } else {
            self.put(Out::Bytes(bytes))?;
        }
        if ends_here { self.close(false) } else { Ok(()) }
    }

    fn put(&self, out: Out) -> Result<(), Cancelled> {
        self.out.blocking_send(out).map_err(|_| Cancelled)
    }

    /// Ends the connection at once. Always `Err`, for nothing can follow.
    fn close(&mut self, reset: bool) -> Result<(), Cancelled> {
        self.ended = true;
        // The task may be gone already.
        let _ = self.put(Out::Close { reset });
        self.cancel.kill();
        Err(Cancelled)
    }

    /// What a fault does before the effect; `Some` is the error that is to take the effect's place.
    pub(crate) fn fault_before(
        &mut self,
        fault: &Fault,
        text: &str,
    ) -> Result<Option<SqlError>, Cancelled> {
        match fault {
            Fault::CloseBefore => self.close(false)?,
            Fault::ResetBefore => self.close(true)?,
            Fault::HangBefore => self.hang()?,
            Fault::ErrorBefore(error) => return Ok(Some(error.clone())),
            Fault::Delay(delay) => {
                self.cancel.sleep(*delay);
                self.cancel.check()?;
            }
            Fault::SlowReply(pause) => self.pause = Some(*pause),
            Fault::TruncateReply(bytes) => self.truncate = Some(*bytes),
            Fault::GarbageReply => self.garbage = true,
            Fault::Call(hook) => match hook.call(text, Phase::Before) {
                Then::GoOn => {}
                Then::Reset => self.close(true)?,
            },
            Fault::CloseAfter | Fault::ResetAfter | Fault::HangAfter | Fault::ErrorAfter(_) => {}
        }
        Ok(None)
    }

    /// What it does after the effect.
    pub(crate) fn fault_after(
        &mut self,
        fault: &Fault,
        text: &str,
    ) -> Result<Option<SqlError>, Cancelled> {
        match fault {
            Fault::CloseAfter => self.close(false)?,
            Fault::ResetAfter => self.close(true)?,
            Fault::HangAfter => self.hang()?,
            Fault::ErrorAfter(error) => return Ok(Some(error.clone())),
            Fault::Call(hook) => match hook.call(text, Phase::After) {
                Then::GoOn => {}
                Then::Reset => self.close(true)?,
            },
            Fault::CloseBefore
            | Fault::ResetBefore
            | Fault::HangBefore
            | Fault::ErrorBefore(_)
            | Fault::Delay(_)
            | Fault::SlowReply(_)
            | Fault::TruncateReply(_)
            | Fault::GarbageReply => {}
        }
        Ok(None)
    }

    /// Silence until the client has gone; whatever the engine holds, it holds. Who reads nothing
    /// does not see a client go whose last bytes are still on their way: then it ends by itself.
    fn hang(&mut self) -> Result<(), Cancelled> {
        self.cancel.wait_for_kill(HANG_MAX);
        self.ended = true;
        Err(Cancelled)
    }

    /// A value the engine should not have produced.
    fn misfit(&mut self, what: &str) -> Result<(), Cancelled> {
        let error = SqlError::new(40_001, 20, format!("mssql-standin: the engine produced {what}"));
        token::message(&mut self.writer.body, &error, &self.server_name);
        self.failed = true;
        self.fatal = true;
        Err(Cancelled)
    }

    fn send_full(&mut self) -> Result<(), Cancelled> {
        match self.writer.take_full() {
            Some(bytes) => self.send(bytes),
            None => Ok(()),
        }
    }
}

impl Sink for Reply {
    fn columns(&mut self, columns: &[Column]) -> Result<(), Cancelled> {
        self.cancel.check()?;
        self.write_pending();
        self.columns = columns.to_vec();
        if let Some(scale) = self.time_scale {
            for column in &mut self.columns {
                column.ty = match column.ty {
                    SqlType::Time(_) => SqlType::Time(scale),
                    SqlType::DateTime2(_) => SqlType::DateTime2(scale),
                    SqlType::DateTimeOffset(_) => SqlType::DateTimeOffset(scale),
                    other => other,
                };
            }
        }
        token::column_metadata(&mut self.writer.body, &self.columns);
        self.send_full()
    }

    fn order(&mut self, columns: &[u16]) -> Result<(), Cancelled> {
        token::order(&mut self.writer.body, columns);
        Ok(())
    }

    fn row(&mut self, row: &[Value]) -> Result<(), Cancelled> {
        self.cancel.check()?;
        if let Err(Misfit(what)) =
            token::row(&mut self.writer.body, &self.columns, row, self.compress_rows)
        {
            return self.misfit(&what);
        }
        self.send_full()
    }

    fn done(&mut self, kind: DoneKind, rows: Option<u64>) -> Result<(), Cancelled> {
        self.cancel.check()?;
        self.write_pending();
        let token =
            if self.depth > 0 || self.rpc.is_some() { DoneToken::InProc } else { DoneToken::Done };
        let mut status = 0;
        if std::mem::take(&mut self.failed) {
            status |= done_status::ERROR;
        }
        if rows.is_some() {
            status |= done_status::COUNT;
        }
        self.pending =
            Some(Done { token, status, command: token::command(kind), rows: rows.unwrap_or(0) });
        self.send_full()
    }

    fn message(&mut self, message: &SqlError) -> Result<(), Cancelled> {
        self.write_pending();
        token::message(&mut self.writer.body, message, &self.server_name);
        self.failed |= message.class > 10;
        self.call_failed |= message.class > 10;
        self.fatal |= message.class >= 20;
        self.send_full()
    }

    fn env(&mut self, change: &EnvChange) -> Result<(), Cancelled> {
        self.write_pending();
        token::env_change(&mut self.writer.body, change);
        self.send_full()
    }

    fn return_value(&mut self, name: &str, ty: SqlType, value: &Value) -> Result<(), Cancelled> {
        self.write_pending();
        let ordinal = self
            .rpc
            .as_ref()
            .and_then(|names| names.iter().position(|n| n.eq_ignore_ascii_case(name)))
            .unwrap_or(0);
        let start = self.writer.body.len();
        if let Err(Misfit(what)) =
            token::return_value(&mut self.writer.body, ordinal as u16, name, ty, value)
        {
            self.writer.body.truncate(start);
            return self.misfit(&what);
        }
        self.send_full()
    }

    fn return_status(&mut self, status: i32) -> Result<(), Cancelled> {
        self.write_pending();
        token::return_status(&mut self.writer.body, status);
        self.send_full()
    }

    fn enter_procedure(&mut self) {
        self.depth += 1;
    }

    fn leave_procedure(&mut self) -> Result<(), Cancelled> {
        self.depth = self.depth.saturating_sub(1);
        self.write_pending();
        // Procedures inside an RPC's procedure, and inside one another, end like other statements
        // in it.
        let token =
            if self.depth > 0 || self.rpc.is_some() { DoneToken::InProc } else { DoneToken::Proc };
        let status = if std::mem::take(&mut self.failed) { done_status::ERROR } else { 0 };
        self.pending = Some(Done { token, status, command: EXECUTE, rows: 0 });
        self.send_full()
    }

    fn flush(&mut self) -> Result<(), Cancelled> {
        self.write_pending();
        let bytes = self.writer.cut_short();
        if bytes.is_empty() { Ok(()) } else { self.send(bytes) }
    }

    fn before_statement(&mut self, text: &str) -> Result<Option<SqlError>, Cancelled> {
        if self.faults.none() {
            return Ok(None);
        }
        let Some(fault) = self.faults.at_statement(&self.application, text) else {
            return Ok(None);
        };
        let instead = self.fault_before(&fault, text)?;
        if instead.is_none() {
            self.after.push((text.to_owned(), fault));
        }
        Ok(instead)
    }

    fn after_statement(&mut self, text: &str) -> Result<Option<SqlError>, Cancelled> {
        // A statement that failed has no after: what it left here is passed over.
        let Some(at) = self.after.iter().rposition(|(waiting, _)| waiting == text) else {
            return Ok(None);
        };
        let (_, fault) = self.after.remove(at);
        self.fault_after(&fault, text)
    }
}
