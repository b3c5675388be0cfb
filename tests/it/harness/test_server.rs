//! One of a scenario's two servers: the source or the destination.

use std::ops::Deref;

use dbaops_dataflow::mssql::connect::endpoint::{Encrypt, Endpoint, Trust};
use mssql_standin::server::Server;

use super::{client::Sql, servers::Servers};

pub const USER: &str = "sa";
/// Contains the characters that connection strings have to quote.
pub const PASSWORD: &str = "S3cret{;}'pw";

/// A stand-in in this process, or an external server. It derefs to the stand-in, for what only a
/// stand-in has.
pub enum TestServer {
    Standin(Box<Server>),
    External { servers: &'static Servers, endpoint: &'static Endpoint },
}

impl Deref for TestServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        match self {
            TestServer::Standin(server) => server,
            TestServer::External { .. } => {
                panic!("this scenario needs a stand-in: begin it with only_on_standins!(\"why\")")
            }
        }
    }
}

impl TestServer {
    pub async fn connect(&self, database: &str) -> Sql {
        match self {
            TestServer::Standin(server) => Sql::connect(server.addr(), USER, PASSWORD, database)
                .await
                .expect("connect to a stand-in"),
            TestServer::External { servers, endpoint } => servers.connect(endpoint, database).await,
        }
    }

    pub fn password(&self) -> &str {
        match self {
            TestServer::Standin(_) => PASSWORD,
            TestServer::External { endpoint, .. } => endpoint.password.reveal(),
        }
    }

    /// A connection string in the form that docs/setup.md shows, with the server's names.
    pub fn connection_string(&self, database: &str) -> String {
        let user = match self {
            TestServer::Standin(_) => USER,
            TestServer::External { endpoint, .. } => &endpoint.user,
        };
        self.connection_string_of(user, self.password(), database)
    }

    /// The same for a login that the scenario created.
    pub fn connection_string_of(&self, user: &str, password: &str, database: &str) -> String {
        let password = password.replace('"', "\"\"");
        match self {
            TestServer::Standin(server) => {
                let addr = server.addr();
                format!(
                    "server={};port={};user id={user};password=\"{password}\";database={database};encrypt=disable",
                    addr.ip(),
                    addr.port()
                )
            }
            TestServer::External { servers, endpoint } => {
                let (encrypt, trust) = encryption_of(endpoint);
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

    /// The daemon's variables when this server is its destination.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            TestServer::Standin(server) => vec![
                ("DEST_SERVER", format!("{},{}", server.addr().ip(), server.addr().port())),
                ("DEST_USER", USER.to_owned()),
                ("DEST_PASS", PASSWORD.to_owned()),
                ("DEST_ENCRYPT", "false".to_owned()),
            ],
            TestServer::External { endpoint, .. } => vec![
                ("DEST_SERVER", format!("{},{}", endpoint.host, endpoint.port)),
                ("DEST_USER", endpoint.user.clone()),
                ("DEST_PASS", endpoint.password.reveal().to_owned()),
                (
                    "DEST_ENCRYPT",
                    match encryption_of(endpoint).0 {
                        "disable" => "false",
                        encrypt => encrypt,
                    }
                    .to_owned(),
                ),
                ("DEST_TRUST_SERVER_CERTIFICATE", (endpoint.trust == Trust::Any).to_string()),
            ],
        }
    }
}

/// The value of `encrypt`, and further parameters about the certificate, of a connection string.
fn encryption_of(endpoint: &Endpoint) -> (&'static str, String) {
    let encrypt = match endpoint.encrypt {
        Encrypt::Off => "disable",
        Encrypt::LoginOnly => "false",
        Encrypt::Full => "true",
        Encrypt::Strict => "strict",
    };
    let trust = match &endpoint.trust {
        Trust::Any => ";TrustServerCertificate=true".to_owned(),
        Trust::Authority(path) => format!(";certificate={}", path.display()),
        Trust::System | Trust::SystemUnlessLoopback => String::new(),
    };
    (encrypt, trust)
}
