//! Sessions, requests, transactions, locks, configuration, availability groups.

use super::{Context, Spec, bit, int, opt, text};
use crate::{
    engine::instance::SessionInfo,
    exchange::connection::Isolation,
    value::{SqlType, Value},
};

pub(super) const VIEWS: &[Spec] = &[
    (
        "sys.dm_exec_sessions",
        "session_id smallint,login_time dt,host_name n128?,program_name n128?,host_process_id int?,client_version int?,\
         client_interface_name n32?,security_id vb85,login_name n128,nt_domain n128?,nt_user_name n128?,status n30,context_info vb128?,\
         cpu_time int,memory_usage int,total_scheduled_time int,total_elapsed_time int,endpoint_id int,last_request_start_time dt,\
         last_request_end_time dt?,reads bigint,writes bigint,logical_reads bigint,is_user_process bit,text_size int,language n128?,\
         date_format n3?,date_first smallint,quoted_identifier bit,arithabort bit,ansi_null_dflt_on bit,ansi_defaults bit,ansi_warnings bit,\
         ansi_padding bit,ansi_nulls bit,concat_null_yields_null bit,transaction_isolation_level smallint,lock_timeout int,\
         deadlock_priority int,row_count bigint,prev_error int,original_security_id vb85,original_login_name n128,\
         last_successful_logon dt?,database_id smallint,authenticating_database_id int?,open_transaction_count int,page_server_reads bigint",
        |cx, rows| {
            for s in sessions(cx) {
                rows.push([
                    ("session_id", int(s.spid)),
                    ("login_time", s.login_time.datetime()),
                    ("host_name", text(&s.host_name)),
                    ("program_name", text(&s.program_name)),
                    ("client_version", int(7)),
                    ("login_name", text(&s.login)),
                    ("original_login_name", text(&s.login)),
                    ("status", text(if s.running.is_some() { "running" } else { "sleeping" })),
                    ("context_info", Value::Bytes(s.context_info.as_slice().into())),
                    ("last_request_start_time", s.last_request_start.datetime()),
                    ("last_request_end_time", s.last_request_start.datetime()),
                    ("is_user_process", bit(true)),
                    ("language", text("us_english")),
                    ("date_format", text("mdy")),
                    ("date_first", int(7)),
                    ("quoted_identifier", bit(true)),
                    ("ansi_warnings", bit(true)),
                    ("ansi_padding", bit(true)),
                    ("ansi_nulls", bit(true)),
                    ("concat_null_yields_null", bit(true)),
                    ("transaction_isolation_level", int(isolation(s.isolation))),
                    ("lock_timeout", int(s.lock_timeout_ms)),
                    ("deadlock_priority", int(s.deadlock_priority)),
                    ("database_id", int(s.database)),
                    ("authenticating_database_id", int(1)),
                    ("open_transaction_count", int(i64::from(s.txn.is_some()))),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.dm_exec_connections",
        "session_id int?,most_recent_session_id int?,connect_time dt,net_transport n40,protocol_type n40?,protocol_version int?,\
         endpoint_id int?,encrypt_option n40,auth_scheme n40,node_affinity smallint,num_reads int?,num_writes int?,last_read dt?,last_write dt?,\
         net_packet_size int?,client_net_address v48?,client_tcp_port int?,local_net_address v48?,local_tcp_port int?,connection_id guid,\
         parent_connection_id guid?",
        |cx, rows| {
            cx.require_server_state()?;
            for s in cx.state.sessions.values() {
                rows.push([
                    ("session_id", int(s.spid)),
                    ("most_recent_session_id", int(s.spid)),
                    ("connect_time", s.login_time.datetime()),
                    ("net_transport", text("TCP")),
                    ("protocol_type", text("TSQL")),
                    ("protocol_version", int(0x7400_0004)),
                    ("encrypt_option", text(if s.encrypted { "TRUE" } else { "FALSE" })),
                    ("auth_scheme", text("SQL")),
                    ("net_packet_size", int(s.packet_size)),
                    ("client_net_address", text(&s.client_address)),
                    ("local_net_address", text("127.0.0.1")),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.dm_exec_requests",
        "session_id smallint,request_id int,start_time dt,status n30,command n32,sql_handle vb64?,database_id smallint,user_id int,\
         connection_id guid?,blocking_session_id smallint?,wait_type n60?,wait_time int,last_wait_type n60,wait_resource n256,\
         open_transaction_count int,open_resultset_count int,transaction_id bigint,percent_complete real,cpu_time int,total_elapsed_time int,\
         reads bigint,writes bigint,logical_reads bigint,transaction_isolation_level smallint,lock_timeout int,deadlock_priority int,\
         row_count bigint,prev_error int,nest_level int",
        |cx, rows| {
            for s in sessions(cx).filter(|s| s.running.is_some()) {
                let blocker = cx.state.locks.blocked_by(s.spid);
                rows.push([
                    ("session_id", int(s.spid)),
                    ("start_time", s.last_request_start.datetime()),
                    ("status", text(if blocker.is_some() { "suspended" } else { "running" })),
                    ("command", text("SELECT")),
                    ("database_id", int(s.database)),
                    ("user_id", int(1)),
                    ("blocking_session_id", int(blocker.unwrap_or(0))),
                    ("wait_type", if blocker.is_some() { text("LCK_M_X") } else { Value::Null }),
                    ("open_transaction_count", int(i64::from(s.txn.is_some()))),
                    ("transaction_id", int(i64::try_from(s.txn.unwrap_or(0)).unwrap_or(0))),
                    ("percent_complete", Value::Float(0.0)),
                    ("transaction_isolation_level", int(isolation(s.isolation))),
                    ("lock_timeout", int(s.lock_timeout_ms)),
                    ("deadlock_priority", int(s.deadlock_priority)),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.dm_tran_locks",
        "resource_type n60,resource_subtype n60,resource_database_id int,resource_description n256,resource_associated_entity_id bigint?,\
         resource_lock_partition int,request_mode n60,request_type n60,request_status n60,request_reference_count smallint,\
         request_session_id int,request_owner_type n60,request_owner_id bigint?",
        |cx, rows| {
            cx.require_server_state()?;
            for ((database, object), held) in &cx.state.locks.tables {
                for (txn, spid, mode) in held {
                    rows.push([
                        ("resource_type", text("OBJECT")),
                        ("resource_database_id", int(*database)),
                        ("resource_associated_entity_id", int(*object)),
                        ("request_mode", text(mode.name())),
                        ("request_type", text("LOCK")),
                        ("request_status", text("GRANT")),
                        ("request_session_id", int(*spid)),
                        ("request_owner_type", text("TRANSACTION")),
                        ("request_owner_id", int(i64::try_from(*txn).unwrap_or(0))),
                    ]);
                }
            }
            for ((database, resource), grants) in &cx.state.locks.apps {
                // only 32 characters of the name show, as the documentation of sp_getapplock says
                let shown: String = resource.chars().take(32).collect();
                for grant in grants {
                    rows.push([
                        ("resource_type", text("APPLICATION")),
                        ("resource_database_id", int(*database)),
                        ("resource_description", text(format!("0:[{shown}]:(00000000)"))),
                        ("request_mode", text(grant.mode.name())),
                        ("request_type", text("LOCK")),
                        ("request_status", text("GRANT")),
                        ("request_session_id", int(grant.owner.spid())),
                        (
                            "request_owner_type",
                            text(
                                if matches!(grant.owner, crate::engine::lock::AppOwner::Session(_))
                                {
                                    "SESSION"
                                } else {
                                    "TRANSACTION"
                                },
                            ),
                        ),
                    ]);
                }
            }
            Ok(())
        },
    ),
    (
        "sys.dm_tran_active_transactions",
        "transaction_id bigint,name n32,transaction_begin_time dt,transaction_type int,transaction_state int",
        |cx, rows| {
            cx.require_server_state()?;
            for t in cx.state.transactions.values() {
                rows.push([
                    ("transaction_id", int(i64::try_from(t.id).unwrap_or(0))),
                    ("name", text(if t.name.is_empty() { "user_transaction" } else { &t.name })),
                    ("transaction_begin_time", t.begin_time.datetime()),
                    ("transaction_type", int(1)),
                    ("transaction_state", int(2)),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.dm_tran_active_snapshot_database_transactions",
        "transaction_id bigint,transaction_sequence_num bigint,commit_sequence_num bigint?,is_snapshot bit?,session_id int?,\
         first_snapshot_sequence_num bigint?,max_version_chain_traversed int?,average_version_chain_traversed real?,elapsed_time_seconds bigint?",
        |cx, rows| {
            cx.require_server_state()?;
            for t in cx.state.transactions.values().filter(|t| t.snapshot.is_some()) {
                rows.push([
                    ("transaction_id", int(i64::try_from(t.id).unwrap_or(0))),
                    ("is_snapshot", bit(true)),
                    ("session_id", int(t.spid)),
                    (
                        "elapsed_time_seconds",
                        int((cx.instance.now().0 - t.begin_time.0) / 10_000_000),
                    ),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.configurations",
        "configuration_id int,name n35,value variant?,minimum variant?,maximum variant?,value_in_use variant?,description n255,is_dynamic bit,\
         is_advanced bit",
        |_, rows| {
            let all = [
                (115, "nested triggers", 1, 0, 1, "Allow triggers to be invoked within triggers"),
                (124, "default language", 0, 0, 9999, "default language"),
                (503, "max worker threads", 0, 128, 65535, "Maximum worker threads"),
                (505, "network packet size (B)", 4096, 512, 32767, "Network packet size"),
                (
                    1126,
                    "default full-text language",
                    1033,
                    0,
                    i32::MAX,
                    "default full-text language",
                ),
                (1127, "two digit year cutoff", 2049, 1753, 9999, "two digit year cutoff"),
                (1534, "user options", 0, 0, 32767, "user options"),
                (
                    1536,
                    "max text repl size (B)",
                    MAX_TEXT_REPL_SIZE,
                    -1,
                    i32::MAX,
                    "Maximum size of a text field in replication.",
                ),
                (
                    1538,
                    "cost threshold for parallelism",
                    5,
                    0,
                    32767,
                    "cost threshold for parallelism",
                ),
                (1539, "max degree of parallelism", 0, 0, 32767, "maximum degree of parallelism"),
                (
                    1544,
                    "max server memory (MB)",
                    i32::MAX,
                    128,
                    i32::MAX,
                    "Maximum size of server memory (MB)",
                ),
                (16384, "Agent XPs", 1, 0, 1, "Enable or disable Agent XPs"),
                (
                    16391,
                    "Ole Automation Procedures",
                    0,
                    0,
                    1,
                    "Enable or disable Ole Automation Procedures",
                ),
                (16390, "xp_cmdshell", 0, 0, 1, "Enable or disable command shell"),
                (1562, "clr enabled", 0, 0, 1, "CLR user code execution enabled in the server"),
            ];
            let number = |i: i32| Value::Variant(Box::new((SqlType::Int, int(i))));
            for (id, name, value, low, high, description) in all {
                rows.push([
                    ("configuration_id", int(id)),
                    ("name", text(name)),
                    ("value", number(value)),
                    ("minimum", number(low)),
                    ("maximum", number(high)),
                    ("value_in_use", number(value)),
                    ("description", text(description)),
                    ("is_dynamic", bit(true)),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.dm_server_services",
        "servicename n256,startup_type int?,startup_type_desc n256,status int?,status_desc n256,process_id int?,last_startup_time n30?,\
         service_account n256,filename n256,is_clustered n1,cluster_nodename n256?,instant_file_initialization_enabled n1",
        |cx, rows| {
            cx.require_server_state()?;
            for name in ["SQL Server (MSSQLSERVER)", "SQL Server Agent (MSSQLSERVER)"] {
                rows.push([
                    ("servicename", text(name)),
                    ("startup_type", int(2)),
                    ("startup_type_desc", text("Automatic")),
                    ("status", int(4)),
                    ("status_desc", text("Running")),
                    ("is_clustered", text("N")),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.dm_hadr_database_replica_states",
        "database_id int,group_id guid,replica_id guid,group_database_id guid,is_local bit?,is_primary_replica bit?,synchronization_state tinyint?,\
         synchronization_state_desc n60?,is_commit_participant bit?,synchronization_health tinyint?,synchronization_health_desc n60?,\
         database_state tinyint?,database_state_desc n60?,is_suspended bit?,last_commit_lsn d25.0?,last_commit_time dt?",
        |cx, _| cx.require_server_state(),
    ),
    (
        "sys.dm_hadr_availability_replica_states",
        "replica_id guid,group_id guid,is_local bit,role tinyint?,role_desc n60?,operational_state tinyint?,operational_state_desc n60?,\
         connected_state tinyint?,connected_state_desc n60?,synchronization_health tinyint?,synchronization_health_desc n60?",
        |cx, _| cx.require_server_state(),
    ),
    (
        "sys.availability_groups",
        "group_id guid,name sysname?,resource_id n40?,resource_group_id n40?,failure_condition_level int?,health_check_timeout int?,\
         automated_backup_preference tinyint?,automated_backup_preference_desc n60?,version smallint?,basic_features bit?,dtc_support bit?,\
         db_failover bit?,is_distributed bit?",
        |_, _| Ok(()),
    ),
    (
        "sys.availability_replicas",
        "replica_id guid?,group_id guid?,replica_metadata_id int?,replica_server_name n256?,endpoint_url n128?,availability_mode tinyint?,\
         availability_mode_desc n60?,failover_mode tinyint?,failover_mode_desc n60?",
        |_, _| Ok(()),
    ),
    (
        "sys.database_mirroring",
        "database_id int,mirroring_guid guid?,mirroring_state tinyint?,mirroring_state_desc n60?,mirroring_role tinyint?,\
         mirroring_role_desc n60?,mirroring_role_sequence int?,mirroring_safety_level tinyint?,mirroring_safety_level_desc n60?,\
         mirroring_safety_sequence int?,mirroring_partner_name n128?,mirroring_partner_instance n128?,mirroring_witness_name n128?",
        |cx, rows| {
            for db in cx.state.databases.values() {
                let of_mirror = |value: Value| opt(db.availability.mirroring_guid, |_| value);
                rows.push([
                    ("database_id", int(db.id)),
                    ("mirroring_guid", opt(db.availability.mirroring_guid, Value::Guid)),
                    ("mirroring_state", of_mirror(int(4))),
                    ("mirroring_state_desc", of_mirror(text("SYNCHRONIZED"))),
                    ("mirroring_role", of_mirror(int(1))),
                    ("mirroring_role_desc", of_mirror(text("PRINCIPAL"))),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.availability_databases_cluster",
        "group_id guid,group_database_id guid,database_name sysname?",
        |_, _| Ok(()),
    ),
];

/// `max text repl size (B)`: longer values in a tracked table are error 7139.
pub const MAX_TEXT_REPL_SIZE: i32 = 65_536;

/// All sessions with VIEW SERVER STATE, else one's own alone.
fn sessions<'a>(cx: &'a Context<'_>) -> impl Iterator<Item = &'a SessionInfo> {
    let all = cx.require_server_state().is_ok();
    cx.state.sessions.values().filter(move |s| all || s.spid == cx.viewer.spid)
}

fn isolation(level: Isolation) -> i64 {
    match level {
        Isolation::ReadUncommitted => 1,
        Isolation::ReadCommitted => 2,
        Isolation::RepeatableRead => 3,
        Isolation::Serializable => 4,
        Isolation::Snapshot => 5,
    }
}
