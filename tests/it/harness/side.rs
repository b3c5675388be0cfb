//! One of a scenario's two servers.

use std::ops::Deref;

use dbaops_dataflow::mssql::endpoint::{Encrypt, Endpoint, Trust};
use mssql_standin::server::Server;

use super::{Sql, servers::Servers, world};

/// A stand-in in this process, or a server that was there before. It derefs to the stand-in, with
/// all that only a stand-in can do.
pub enum Side {
    Standin(Box<Server>),
    Server { servers: &'static Servers, endpoint: &'static Endpoint },
}

impl Deref for Side {
    type Target = Server;

    fn deref(&self) -> &Server {
        match self {
            Side::Standin(server) => server,
            Side::Server { .. } => {
                panic!(
                    "this scenario asks for what only a stand-in can do: let it begin with only_on_standins!(\"why\")"
                )
            }
        }
    }
}

impl Side {
    pub async fn connect(&self, database: &str) -> Sql {
        match self {
            Side::Standin(server) => {
                Sql::connect(server.addr(), world::USER, world::PASSWORD, database)
                    .await
                    .expect("connect to a stand-in")
            }
            Side::Server { servers, endpoint } => servers.connect(endpoint, database).await,
        }
    }

    pub fn password(&self) -> &str {
        match self {
            Side::Standin(_) => world::PASSWORD,
            Side::Server { endpoint, .. } => endpoint.password.reveal(),
        }
    }

    /// In the form that docs/setup.md shows; the names in it are the server's.
    pub fn connection_string(&self, database: &str) -> String {
        let user = match self {
            Side::Standin(_) => world::USER,
            Side::Server { endpoint, .. } => &endpoint.user,
        };
        self.connection_string_of(user, self.password(), database)
    }

    /// The same for a login that the scenario made.
    pub fn connection_string_of(&self, user: &str, password: &str, database: &str) -> String {
        let password = password.replace('"', "\"\"");
        match self {
            Side::Standin(server) => {
                let addr = server.addr();
                format!(
                    "server={};port={};user id={user};password=\"{password}\";database={database};encrypt=disable",
                    addr.ip(),
                    addr.port()
                )
            }
            Side::Server { servers, endpoint } => {
                let (encrypt, trust) = said(endpoint);
                format!(
                    "server={};port={};user id={};password=\"{password}\";database={};encrypt={encrypt}{trust}",
                    endpoint.host,
                    endpoint.port,
                    user,
                    servers.names.server_name(database)
                )
            }
        }
    }

    /// The daemon's variables for a destination here.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Side::Standin(server) => vec![
                ("DEST_SERVER", format!("{},{}", server.addr().ip(), server.addr().port())),
                ("DEST_USER", world::USER.to_owned()),
                ("DEST_PASS", world::PASSWORD.to_owned()),
                ("DEST_ENCRYPT", "false".to_owned()),
            ],
            Side::Server { endpoint, .. } => vec![
                ("DEST_SERVER", format!("{},{}", endpoint.host, endpoint.port)),
                ("DEST_USER", endpoint.user.clone()),
                ("DEST_PASS", endpoint.password.reveal().to_owned()),
                (
                    "DEST_ENCRYPT",
                    if said(endpoint).0 == "disable" { "false" } else { said(endpoint).0 }
                        .to_owned(),
                ),
                ("DEST_TRUST_SERVER_CERTIFICATE", (endpoint.trust == Trust::Anything).to_string()),
            ],
        }
    }
}

/// Encryption and trust as a connection string says them.
fn said(endpoint: &Endpoint) -> (&'static str, String) {
    let encrypt = match endpoint.encrypt {
        Encrypt::Off => "disable",
        Encrypt::LoginOnly => "false",
        Encrypt::Full => "true",
        Encrypt::Strict => "strict",
    };
    let trust = match &endpoint.trust {
        Trust::Anything => ";TrustServerCertificate=true".to_owned(),
        Trust::Authority(path) => format!(";certificate={}", path.display()),
        Trust::System | Trust::SystemUnlessLoopback => String::new(),
    };
    (encrypt, trust)
}
