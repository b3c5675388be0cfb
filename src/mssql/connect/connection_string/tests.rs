use super::{
    parse,
    server_name::{ServerName, parse_server},
};
use crate::mssql::connect::endpoint::{Encrypt, Endpoint, Trust};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn ok(text: &str) -> Endpoint {
    let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(parsed.warnings.is_empty(), "{text}: {:?}", parsed.warnings);
    parsed.endpoint
}

#[test]
fn the_readmes_form() {
    let e =
        ok("server=source1.example.com;user id=sa;password=pass;database=master;encrypt=disable");
    assert_eq!(
        (e.host.as_str(), e.port, e.user.as_str(), e.password.reveal()),
        ("source1.example.com", 1433, "sa", "pass")
    );
    assert_eq!((e.database.as_deref(), e.encrypt), (Some("master"), Encrypt::Off));

    let e = ok(
        "server=10.0.0.5;port=14330;user id=sync;password=p=w d;encrypt=false;app name=Flow;dial timeout=5;connection timeout=0",
    );
    assert_eq!(
        (e.server_name().as_str(), e.password.reveal(), e.application.as_str()),
        ("10.0.0.5,14330", "p=w d", "Flow")
    );
    assert_eq!(
        (e.encrypt, e.trust, e.connect_timeout.as_secs()),
        (Encrypt::LoginOnly, Trust::Any, 5)
    );
}

#[test]
fn ado_net() {
    let e = ok(
        "Data Source=tcp:db.example.com,1500;Initial Catalog=Shop;User ID=app;Pwd=\"a;b\"\"c\";Encrypt=Mandatory;\
         TrustServerCertificate=True;ApplicationIntent=ReadOnly;MultiSubnetFailover=yes;Connect Timeout=30;Pooling=false",
    );
    assert_eq!((e.host.as_str(), e.port, e.password.reveal()), ("db.example.com", 1500, "a;b\"c"));
    assert_eq!(
        (e.encrypt, e.trust.clone(), e.read_only_intent, e.multi_subnet_failover),
        (Encrypt::Full, Trust::Any, true, true)
    );
    assert_eq!(
        ok("Server=h\\INST,1444;UID=u;PWD={x}};y};Encrypt=Strict").password.reveal(),
        "x};y"
    );
    assert_eq!(ok("Server=h;UID=u;PWD='it''s'").password.reveal(), "it's");
    let silent = ok("Server=h;UID=u;PWD=p");
    assert_eq!((silent.encrypt, silent.trust), (Encrypt::Full, Trust::System));
    assert_eq!(
        ok("server=h;uid=u;pwd=p;encrypt=optional;trust server certificate=false").trust,
        Trust::System
    );
}

#[test]
fn urls() {
    let e = ok(
        "sqlserver://sa:p%40ss%3Aw%2Frd@db.example.com:1434?database=master&encrypt=disable&app+name=My+App",
    );
    assert_eq!(
        (e.host.as_str(), e.port, e.user.as_str(), e.password.reveal()),
        ("db.example.com", 1434, "sa", "p@ss:w/rd")
    );
    assert_eq!((e.application.as_str(), e.encrypt), ("My App", Encrypt::Off));
    assert_eq!(ok("sqlserver://u:p@h:1433/INST?database=d").port, 1433);
    assert_eq!(ok("sqlserver://u:p@[::1]:1435").server_name(), "::1,1435");
    let e = ok(
        "jdbc:sqlserver://h\\SQL:1439;databaseName=d;user=u;password={a;b};encrypt=true;trustServerCertificate=true",
    );
    assert_eq!((e.host.as_str(), e.port, e.password.reveal()), ("h", 1439, "a;b"));
    assert_eq!(
        ok("jdbc:sqlserver://;serverName=h;portNumber=2;user=u;password=p").server_name(),
        "h,2"
    );
    assert_eq!(ok("odbc:server=h;user id=u;password={p;}").password.reveal(), "p;");
}

#[test]
fn a_question_mark_in_a_password_makes_no_piece_of_it_a_host() {
    let error =
        parse("sqlserver://sa:one@two?three@h:1433/?encrypt=disable").unwrap_err().to_string();
    assert!(
        error.contains("%3F") && !["one", "two", "three"].iter().any(|piece| error.contains(piece)),
        "{error}"
    );
    assert_eq!(
        ok("sqlserver://sa:one%40two%3Fthree@h?app+name=a%40b").password.reveal(),
        "one@two?three"
    );
}

#[test]
fn servers() {
    for (text, host, port) in [
        ("localhost", "localhost", None),
        (".", "localhost", None),
        ("(local),1500", "localhost", Some(1500)),
        ("h:1500", "h", Some(1500)),
        ("tcp:h , 1500", "h", Some(1500)),
        ("::1", "::1", None),
        ("[fe80::1]", "fe80::1", None),
        ("[::1]:99", "::1", Some(99)),
        ("::1,99", "::1", Some(99)),
        ("h\\MSSQLSERVER", "h", None),
    ] {
        assert_eq!(
            parse_server(text),
            Ok(ServerName { host: host.into(), instance: None, port }),
            "{text}"
        );
    }
    assert_eq!(parse_server("h\\I").unwrap().instance.as_deref(), Some("I"));
    for (text, place) in [
        ("server=h\\I;user id=u;password=p", "h\\I"),
        ("server=h\\I,1499;user id=u;password=p", "h,1499"),
        ("sqlserver://u:p@h/I", "h\\I"),
        ("jdbc:sqlserver://h;instanceName=I;user=u;password=p", "h\\I"),
        ("jdbc:sqlserver://h\\I:1499;user=u;password=p", "h,1499"),
    ] {
        assert_eq!(ok(text).server_name(), place, "{text}");
    }
    for text in
        ["", ",1", "h:0", "h,x", "np:\\\\h\\pipe", "(localdb)\\v11", "a b", "1:2:3", "[::1]x"]
    {
        assert!(parse_server(text).is_err(), "{text}");
    }
}

#[test]
fn errors_say_where_and_what_without_values() {
    for (text, says) in [
        ("", "empty"),
        ("user id=u;password=p", "no server"),
        ("server=h;password=p", "no user"),
        ("server=h;user id=u;password=p;encrypt=maybe", "encrypt at character 31"),
        ("server=h;user id=u;password=se;cret", "at character 32"),
        ("server=h;user id=u;password=\"secret", "begins at character 29 and never ends"),
        ("server=h;=x", "without a key at character 10"),
        ("server=h;user id=u;Integrated Security=SSPI", "Windows authentication"),
        ("server=h;user id=u;password=p;port=0", "port at character 31"),
        ("postgres://u:secret@h/d", "another kind"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(
            error.contains(says) && !error.contains("secret") && !error.contains("cret"),
            "{text}: {error}"
        );
    }
}

#[test]
fn unknown_keys_are_named_unless_they_may_be_a_piece_of_a_password() {
    let parsed = parse("server=h;colour=blue;user id=u;password=p").unwrap();
    assert_eq!(parsed.warnings, ["unknown key colour at character 10 of the connection string"]);
    let parsed = parse("server=h;user id=u;password=se;cret=1;database=d").unwrap();
    assert!(
        parsed.warnings[0].contains("after the password") && !parsed.warnings[0].contains("cret"),
        "{:?}",
        parsed.warnings
    );
}

/// Random strings around a password that cannot be mistaken for anything else: no output shows
/// it, whatever is wrong around it.
#[test]
fn no_output_ever_shows_the_password() {
    const SECRET: &str = "Zq7vXk2pLw9";
    let pieces = [
        "server=h",
        "server=",
        "port=x",
        "user id=u",
        ";",
        ";;",
        "=",
        "\"",
        "'",
        "{",
        "}",
        "encrypt=maybe",
        "encrypt=disable",
        "app name=x",
        "sqlserver://",
        "jdbc:sqlserver://h",
        "://",
        "@",
        "?",
        "&",
        "%",
        "%zz",
        "\\",
        " ",
        "é",
        "timeout=1",
        "Data Source=tcp:x,1",
    ];
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let mut text = String::new();
        let secret_at = random.random_range(0..6);
        for i in 0..6 {
            if i == secret_at {
                text.push_str(
                    ["password=", "PWD=", "pwd={", "password=\"", "user:"]
                        [random.random_range(0..5)],
                );
                text.push_str(SECRET);
            }
            text.push_str(pieces[random.random_range(0..pieces.len())]);
            if random.random_bool(0.5) {
                text.push(';');
            }
        }
        let output = match parse(&text) {
            Ok(parsed) => {
                let shown_on_purpose =
                    [&parsed.endpoint.host, &parsed.endpoint.user, &parsed.endpoint.application]
                        .iter()
                        .any(|field| field.contains(SECRET));
                if shown_on_purpose {
                    continue;
                }
                format!(
                    "{parsed:?} {:?}",
                    parsed.endpoint.driver_config(&crate::model::name::Ident::new("d"), false)
                )
            }
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!output.contains(SECRET), "{text}\n{output}");
    }
}

/// A misspelled key, and a password with a ; in it: what follows may be a piece of the
/// password.
#[test]
fn no_piece_of_a_password_is_named_behind_a_misspelled_key() {
    for key in ["pasword", "Passwrd", "pw", "user secret"] {
        let parsed =
            parse(&format!("server=h;password=x;user id=u;{key}=abc;def=ghi;tail=1")).unwrap();
        let warnings = parsed.warnings.join("\n");
        assert!(
            warnings.contains(&format!("unknown key {key}"))
                && !warnings.contains("def")
                && !warnings.contains("tail"),
            "{warnings}"
        );
    }
    let warnings = parse("server=h;user id=u;password=x;database=d;colour=red;shape=round")
        .unwrap()
        .warnings
        .join("\n");
    assert!(
        warnings.contains("unknown key colour") && warnings.contains("unknown key shape"),
        "{warnings}"
    );
}
