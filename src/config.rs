//! The environment, checked: raw words in, meaning out, every problem at once and each by the name
//! of its variable.

use crate::{
    model::secret::Secret,
    mssql::connect::{
        certificate, connection_string,
        endpoint::{Encrypt, Endpoint, INTEGRATED_AUTH, PORT, Trust},
    },
    supervisor::Supervisor,
};
use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};
use variables::Permitted;
pub use variables::VARIABLES;

pub mod variables;

/// What to do when changes between the checkpoint and what the source still has are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCdcGap {
    /// Full sync of that table alone, at most once an hour.
    FullSync,
    /// Park the mapping until someone asks for a full sync.
    Error,
}

/// How a full sync's rows travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyLane {
    /// As they are on the wire.
    Wire,
    /// Decoded and encoded by the driver.
    Driver,
}

/// How stdout looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    /// Nothing on stdout: the log tables alone.
    Off,
}

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub dest: Endpoint,
    pub check_interval: Duration,
    pub verify_interval: Duration,
    pub verify_rows: usize,
    /// Rows of the sweep over the whole table that each verification compares beside the newest; 0:
    /// no sweep.
    pub verify_sweep_rows: usize,
    /// Between two looks at row counts and columns; zero: never.
    pub verify_structure_interval: Duration,
    /// Verifications that run at the same time.
    /// Tables with more rows are counted by the catalog alone.
    pub verify_count_rows: usize,
    pub verify_concurrency: usize,
    /// Longest wait for replication to pass what a verification saw.
    pub verify_wait: Duration,
    /// Rows that verification found to differ are mended.
    pub repair: bool,
    pub batch_rows: usize,
    /// Bytes that one batch of rows may hold in memory, beside `batch_rows`.
    pub batch_bytes: usize,
    pub copy_lane: CopyLane,
    pub dest_connections_max: usize,
    pub source_connections_max: usize,
    /// Full syncs and CDC passes that run at the same time.
    pub tasks_max: usize,
    pub retry_attempts: u32,
    pub retry_delay: Duration,
    /// Between two tries of a mapping that waits for somebody to mend something.
    pub parked_interval: Duration,
    pub on_cdc_gap: OnCdcGap,
    /// Mappings that have never synced are loaded first where their destination table is empty.
    pub initial_sync: bool,
    pub shutdown_timeout: Duration,
    /// 0: no limit
    pub log_rows_per_day: u32,
    pub log_retention: Duration,
    pub log_format: LogFormat,
    /// Longest wait for one answer.
    pub statement_timeout: Duration,
    /// Longest wait for the long statements: a swap, emptying a table, a bulk load's last answer.
    pub long_statement_timeout: Duration,
    pub lock_timeout: Duration,
    /// Where health and metrics are told; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Who wants to hear that the service runs.
    pub supervisor: Supervisor,
    /// What was set but means nothing, for the log.
    pub warnings: Vec<String>,
}

/// Why the environment cannot be used: every reason, each naming its variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// The variables that were set, and what is wrong with them so far.
struct RawConfig {
    set: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl RawConfig {
    /// The value, where there is one; an empty one counts as not set.
    fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(variables::find(name).is_some(), "{name} is not in the table of variables");
        self.set.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The value or its documented default, read by `read`, whose error completes "NAME …".
    fn read<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let default = variables::find(name).map_or("", |variable| variable.default);
        match read(self.get(name).unwrap_or(default)) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.problems.push(format!("{name} {reason}"));
                None
            }
        }
    }

    fn duration(&mut self, name: &str) -> Duration {
        let Some(Permitted::Duration(range)) =
            variables::find(name).map(|variable| &variable.permitted)
        else {
            self.problems.push(format!("{name} has no range of times in the table of variables"));
            return Duration::ZERO;
        };
        self.read(name, |text| {
            let value = duration(text).ok_or("must be a time such as 10s, 5m, 100ms, 2h or 30d")?;
            if range.contains(&value) {
                Ok(value)
            } else {
                Err(format!(
                    "must be from {} to {}",
                    spelled(*range.start()),
                    spelled(*range.end())
                ))
            }
        })
        .unwrap_or(*range.start())
    }

    fn count(&mut self, name: &str) -> usize {
        let Some(Permitted::Count(range)) =
            variables::find(name).map(|variable| &variable.permitted)
        else {
            self.problems.push(format!("{name} has no range of numbers in the table of variables"));
            return 0;
        };
        self.read(name, |text| {
            text.parse::<usize>().ok().filter(|value| range.contains(value)).ok_or_else(|| {
                format!("must be a number from {} to {}", range.start(), range.end())
            })
        })
        .unwrap_or(*range.start())
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)], otherwise: T) -> T {
        self.read(name, |text| {
            words
                .iter()
                .find(|(word, _)| word.eq_ignore_ascii_case(text))
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| {
                    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                    format!("must be one of {}", known.join(", "))
                })
        })
        .unwrap_or(otherwise)
    }

    fn dest(&mut self) -> Endpoint {
        let server = self.read("DEST_SERVER", |text| {
            // Whoever pastes a whole connection string here has pasted a password.
            if text.contains(['=', ';', '@']) {
                return Err(
                    "is a host, not a connection string: host, host,port or host\\instance; the login goes into DEST_USER and DEST_PASS"
                        .to_owned(),
                );
            }
            connection_string::parse_server(text).map_err(|reason| format!("({text}) {reason}"))
        });
        let (host, port, instance) = server.map_or((String::new(), None, None), |server| {
            (server.host, server.port, server.instance)
        });
        let user = self.get("DEST_USER").unwrap_or("sa").to_owned();
        // Taken as it stands: a password may begin or end with spaces. Taken out, too: no copy is
        // left here. (The process's environment keeps its own for as long as it runs.)
        let password = Secret::new(self.set.remove("DEST_PASS").unwrap_or_default());
        let integrated = self.word("DEST_AUTH", &[("sql", false), ("integrated", true)], false);
        if integrated && !INTEGRATED_AUTH {
            self.problems.push(
                "DEST_AUTH=integrated is not in this build: build with --features integrated-auth"
                    .to_owned(),
            );
        }
        if password.is_empty() && !integrated {
            self.problems
                .push("DEST_PASS is required: the password of DEST_USER at DEST_SERVER".to_owned());
        }
        let mut dest = Endpoint::new(host, port.unwrap_or(PORT), user, password);
        dest.integrated = integrated;
        // A port needs no name looked up.
        dest.instance = instance.filter(|_| port.is_none());
        dest.encrypt = self.word(
            "DEST_ENCRYPT",
            &[
                ("true", Encrypt::Full),
                ("strict", Encrypt::Strict),
                ("false", Encrypt::LoginOnly),
                ("mandatory", Encrypt::Full),
                ("optional", Encrypt::LoginOnly),
                ("disable", Encrypt::Off),
            ],
            Encrypt::Full,
        );
        let trust = match self.get("DEST_TRUST_SERVER_CERTIFICATE") {
            None => None,
            Some(text) => {
                let trust = connection_string::flag(text);
                if trust.is_none() {
                    self.problems
                        .push("DEST_TRUST_SERVER_CERTIFICATE must be true or false".to_owned());
                }
                trust
            }
        };
        let authority = self.get("DEST_CA_CERT").map(PathBuf::from);
        if trust == Some(true) && authority.is_some() {
            self.problems.push(
                "DEST_CA_CERT and DEST_TRUST_SERVER_CERTIFICATE=true exclude each other".to_owned(),
            );
        }
        if let Some(path) = &authority {
            if let Err(error) = certificate::read(path) {
                self.problems
                    .push(format!("DEST_CA_CERT ({}) cannot be read: {error}", path.display()));
            }
            let extension = path
                .extension()
                .and_then(|extension| extension.to_str())
                .unwrap_or_default()
                .to_lowercase();
            if !matches!(extension.as_str(), "pem" | "crt" | "cer" | "der") {
                self.problems.push(format!(
                    "DEST_CA_CERT ({}) must be a .pem, .crt or .der file",
                    path.display()
                ));
            }
        }
        dest.trust = match (trust, authority) {
            (Some(true), _) => Trust::Any,
            (_, Some(path)) => Trust::Authority(path),
            (None, None) if dest.encrypt == Encrypt::LoginOnly => Trust::Any,
            // Nobody sits between a process and its own machine, and a fresh SQL Server's
            // certificate is self-signed.
            (None, None) => Trust::SystemUnlessLoopback,
            (Some(false), None) => Trust::System,
        };
        dest
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `10s`, `5m`, `100ms`, `2h`, `30d`, or plain seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u32 = number.parse().ok()?;
    let unit = match unit.trim() {
        "ms" => MILLISECOND,
        "" | "s" | "sec" => SECOND,
        "m" | "min" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return None,
    };
    unit.checked_mul(number)
}

/// A duration as these variables write it.
pub fn spelled(duration: Duration) -> String {
    for (unit, name) in [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")] {
        if !duration.is_zero() && duration.as_millis().is_multiple_of(unit.as_millis()) {
            return format!("{}{name}", duration.as_millis() / unit.as_millis());
        }
    }
    if duration.is_zero() { "0".to_owned() } else { format!("{}ms", duration.as_millis()) }
}

/// The variables that are read; a service manager sets the last ones.
pub fn is_ours(name: &str) -> bool {
    name.starts_with("DEST_")
        || name.starts_with("DATAFLOW_")
        || matches!(name, "NOTIFY_SOCKET" | "WATCHDOG_USEC" | "WATCHDOG_PID")
}

/// `127.0.0.1:9464`, `[::1]:9464`, `localhost:9464`, or nothing.
fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    literal.parse().map(Some).map_err(|_| {
        format!("({text}) must be an IP address of this machine and a port, such as 127.0.0.1:9464")
    })
}

impl Config {
    /// Reads the variables that are ours out of `vars` (an environment). Every problem is reported.
    pub fn from_vars<K: Into<String>, V: Into<String>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Config, Problems> {
        let set = vars
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(name, _)| is_ours(name))
            .collect();
        let mut raw = RawConfig { set, problems: Vec::new() };
        let dest = raw.dest();
        let set = |name: &str| raw.set.get(name).map(String::as_str);
        let supervisor =
            Supervisor::from_vars(set("NOTIFY_SOCKET"), set("WATCHDOG_USEC"), set("WATCHDOG_PID"));
        let config = Config {
            dest,
            check_interval: raw.duration("DATAFLOW_CHECK_INTERVAL"),
            verify_interval: raw.duration("DATAFLOW_VERIFY_INTERVAL"),
            verify_rows: raw.count("DATAFLOW_VERIFY_ROWS"),
            verify_sweep_rows: raw.count("DATAFLOW_VERIFY_SWEEP_ROWS"),
            verify_structure_interval: raw.duration("DATAFLOW_VERIFY_STRUCTURE_INTERVAL"),
            verify_count_rows: raw.count("DATAFLOW_VERIFY_COUNT_ROWS"),
            verify_concurrency: raw.count("DATAFLOW_VERIFY_CONCURRENCY"),
            verify_wait: raw.duration("DATAFLOW_VERIFY_WAIT"),
            repair: raw.word("DATAFLOW_REPAIR", &[("on", true), ("off", false)], false),
            batch_rows: raw.count("DATAFLOW_BATCH_SIZE"),
            batch_bytes: raw.count("DATAFLOW_BATCH_BYTES"),
            copy_lane: raw.word(
                "DATAFLOW_COPY_LANE",
                &[("wire", CopyLane::Wire), ("driver", CopyLane::Driver)],
                CopyLane::Wire,
            ),
            dest_connections_max: raw.count("DATAFLOW_MAX_CONNECTIONS"),
            source_connections_max: raw.count("DATAFLOW_SOURCE_CONNECTIONS"),
            tasks_max: raw.count("DATAFLOW_MAX_TASKS"),
            retry_attempts: u32::try_from(raw.count("DATAFLOW_RETRY_ATTEMPTS")).unwrap_or(1),
            retry_delay: raw.duration("DATAFLOW_RETRY_DELAY"),
            parked_interval: raw.duration("DATAFLOW_PARKED_INTERVAL"),
            on_cdc_gap: raw.word(
                "DATAFLOW_ON_CDC_GAP",
                &[("full_sync", OnCdcGap::FullSync), ("error", OnCdcGap::Error)],
                OnCdcGap::FullSync,
            ),
            initial_sync: raw.word(
                "DATAFLOW_INITIAL_SYNC",
                &[("auto", true), ("never", false)],
                true,
            ),
            shutdown_timeout: raw.duration("DATAFLOW_SHUTDOWN_TIMEOUT"),
            log_rows_per_day: u32::try_from(raw.count("DATAFLOW_LOG_ROWS_PER_DAY"))
                .unwrap_or(u32::MAX),
            log_retention: raw.duration("DATAFLOW_LOG_RETENTION"),
            log_format: raw.word(
                "DATAFLOW_LOG_FORMAT",
                &[("text", LogFormat::Text), ("json", LogFormat::Json), ("off", LogFormat::Off)],
                LogFormat::Text,
            ),
            statement_timeout: raw.duration("DATAFLOW_STATEMENT_TIMEOUT"),
            long_statement_timeout: raw.duration("DATAFLOW_LONG_STATEMENT_TIMEOUT"),
            lock_timeout: raw.duration("DATAFLOW_LOCK_TIMEOUT"),
            http: raw.read("DATAFLOW_HTTP", address).flatten(),
            supervisor,
            warnings: raw
                .set
                .keys()
                .filter(|name| {
                    name.starts_with("DATAFLOW_")
                        && !VARIABLES.iter().any(|variable| variable.name == name.as_str())
                })
                // The scenario suite's own settings, not the daemon's.
                .filter(|name| !name.starts_with("DATAFLOW_TEST_"))
                .map(|name| format!("{name} is set, but there is no such variable"))
                .collect(),
        };
        if raw.problems.is_empty() { Ok(config) } else { Err(Problems(raw.problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Result<Config, Problems> {
        Config::from_vars(vars.iter().copied())
    }

    #[test]
    fn an_address_that_cannot_be_is_named() {
        let http = |value| {
            from(&[("DEST_PASS", "x"), ("DATAFLOW_HTTP", value)])
                .map(|config| config.http.map(|address| address.to_string()))
        };
        assert_eq!(http("").unwrap(), None);
        assert_eq!(http("127.0.0.1:9464").unwrap().as_deref(), Some("127.0.0.1:9464"));
        assert_eq!(http("localhost:9464").unwrap().as_deref(), Some("127.0.0.1:9464"));
        assert_eq!(http("[::1]:0").unwrap().as_deref(), Some("[::1]:0"));
        for bad in ["9464", "127.0.0.1", "127.0.0.1:99999", "metrics.example.com:9464"] {
            let problem = http(bad).unwrap_err().to_string();
            assert!(problem.starts_with(&format!("DATAFLOW_HTTP ({bad}) must be")), "{problem}");
        }
    }

    #[test]
    fn a_connection_string_in_the_servers_place_is_not_echoed() {
        for pasted in ["server=h;user id=sa;password=S3cret", "sqlserver://sa:S3cret@h:1433"] {
            let problem =
                from(&[("DEST_PASS", "x"), ("DEST_SERVER", pasted)]).unwrap_err().to_string();
            assert!(
                problem.contains("DEST_SERVER is a host") && !problem.contains("S3cret"),
                "{problem}"
            );
        }
    }

    #[test]
    fn defaults_are_the_promised_ones() {
        let config = from(&[("DEST_PASS", "x")]).unwrap();
        assert_eq!(
            (config.dest.host.as_str(), config.dest.port, config.dest.user.as_str()),
            ("localhost", 1433, "sa")
        );
        assert_eq!(
            (config.dest.encrypt, &config.dest.trust),
            (Encrypt::Full, &Trust::SystemUnlessLoopback)
        );
        assert_eq!((config.check_interval, config.verify_interval), (10 * SECOND, 5 * MINUTE));
        assert_eq!((config.batch_rows, config.verify_rows), (1000, 10_000));
        assert_eq!((config.verify_wait, config.repair), (MINUTE, false));
        assert_eq!((config.dest_connections_max, config.source_connections_max), (50, 10));
        assert_eq!((config.retry_attempts, config.retry_delay), (3, 30 * SECOND));
        assert_eq!((config.log_retention, config.shutdown_timeout), (30 * DAY, 30 * SECOND));
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn every_problem_is_reported_at_once_and_by_name() {
        let problems = from(&[
            ("DEST_SERVER", "h,INST"),
            ("DEST_ENCRYPT", "maybe"),
            ("DATAFLOW_CHECK_INTERVAL", "soon"),
            ("DATAFLOW_BATCH_SIZE", "0"),
            ("DATAFLOW_ON_CDC_GAP", "shrug"),
            ("DATAFLOW_INITIAL_SYNC", "sometimes"),
            ("DEST_CA_CERT", "/nowhere/ca.pem"),
        ])
        .unwrap_err()
        .0;
        for name in [
            "DEST_SERVER",
            "DEST_PASS",
            "DEST_ENCRYPT",
            "DEST_CA_CERT",
            "DATAFLOW_CHECK_INTERVAL",
            "DATAFLOW_BATCH_SIZE",
            "DATAFLOW_INITIAL_SYNC",
            "DATAFLOW_ON_CDC_GAP",
        ] {
            assert_eq!(
                problems.iter().filter(|problem| problem.starts_with(name)).count(),
                1,
                "{name}: {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 8, "{problems:#?}");
    }

    #[test]
    fn secrets_do_not_print_and_keep_their_spaces() {
        let config = from(&[("DEST_PASS", " hunter2 ")]).unwrap();
        assert_eq!(config.dest.password.reveal(), " hunter2 ");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn certificates_are_checked_unless_the_server_is_this_machine() {
        let trust =
            from(&[("DEST_PASS", "x"), ("DEST_SERVER", "127.0.0.1,1444")]).unwrap().dest.trust;
        assert!(
            trust.trusts_any_certificate(true) && !trust.trusts_any_certificate(false),
            "it may redirect to another machine"
        );
        let strict =
            from(&[("DEST_PASS", "x"), ("DEST_TRUST_SERVER_CERTIFICATE", "false")]).unwrap();
        assert_eq!(strict.dest.trust, Trust::System);
    }

    #[test]
    fn unknown_variables_are_warned_about() {
        let config =
            from(&[("DEST_PASS", "x"), ("DATAFLOW_CHEK_INTERVAL", "1s"), ("PATH", "/bin")])
                .unwrap();
        assert_eq!(
            config.warnings,
            ["DATAFLOW_CHEK_INTERVAL is set, but there is no such variable"]
        );
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("10s", 10_000),
            ("5m", 300_000),
            ("100ms", 100),
            ("7", 7_000),
            ("2 h", 7_200_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "10 parsecs", "99999999999s"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(
            (spelled(90 * SECOND), spelled(5 * MINUTE), spelled(15 * MILLISECOND)),
            ("90s".into(), "5m".into(), "15ms".into())
        );
    }
}
