//! The pages for people agree with the repository: links lead somewhere, paths exist, and tables
//! that follow the code name all of it. (`docs/configuration.md` is compared in
//! `src/config/variables.rs`.)

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Markdown page of the repository that is for people.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "benches", "packaging"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The page without its blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    page.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            code ^= fence;
            !code && !fence
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// What a heading is called in links, as GitHub makes it.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn has_anchor(page: &str, wanted: &str) -> bool {
    page.contains(&format!("<a id=\"{wanted}\">"))
        || page.lines().any(|line| {
            line.starts_with('#') && anchor(line.trim_start_matches('#').trim()) == wanted
        })
}

/// Everything between `open` and the next `close`.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for path in pages() {
        let page = prose(&read(&path));
        for link in between(&page, "](", ')').filter(|link| !link.contains("://")) {
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            if !target.exists() {
                broken.push(format!("{}: {link}: no such file", path.display()));
            } else if !wanted.is_empty() && !has_anchor(&prose(&read(&target)), wanted) {
                broken.push(format!("{}: {link}: no such heading", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn paths_that_are_named_exist() {
    let mut missing = Vec::new();
    for path in pages().iter().filter(|path| !path.ends_with("CHANGELOG.md")) {
        for quoted in between(&prose(&read(path)), "`", '`') {
            let is_path = ["src/", "sql/", "tests/", "examples/", "packaging/", ".ci/"]
                .iter()
                .any(|folder| quoted.starts_with(folder))
                && !quoted.contains([' ', '*']);
            if is_path && !root().join(quoted).exists() {
                missing.push(format!("{}: {quoted}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn errors_names_every_kind() {
    let source = read(&root().join("src/error.rs"));
    let page = read(&root().join("docs/errors.md"));
    let kinds = source.split("pub enum Kind {").nth(1).unwrap().split("\n}").next().unwrap();
    let kinds: Vec<&str> = kinds
        .lines()
        .map(|line| line.trim().trim_end_matches(','))
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .collect();
    assert!(kinds.len() > 10, "{kinds:?}");
    for kind in kinds {
        assert!(page.contains(&format!("`{kind}`")), "docs/errors.md does not name {kind}");
    }
}

#[test]
fn operations_names_every_metric() {
    let source = read(&root().join("src/http/metrics.rs"));
    let page = read(&root().join("docs/operations.md"));
    let metrics: Vec<&str> = between(&source, "\"dataflow_", '"').collect();
    assert!(metrics.len() > 10, "{metrics:?}");
    for metric in metrics {
        let name = format!("dataflow_{metric}");
        assert!(page.contains(&name), "docs/operations.md does not name {name}");
    }
}

#[test]
fn control_database_names_every_column() {
    let script = read(&root().join("sql/schema-dataflow.sql"));
    let page = read(&root().join("docs/control-database.md"));
    let types = ["NVARCHAR", "VARBINARY", "BINARY", "DATETIME2", "BIGINT", "INT", "BIT"];
    let columns: Vec<&str> = script
        .lines()
        .map(|line| line.trim().rsplit_once(" ADD ").map_or(line.trim(), |(_, added)| added))
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, rest)| types.iter().any(|name| rest.starts_with(name)))
        .map(|(column, _)| column)
        .collect();
    assert!(columns.len() > 60, "{columns:?}");
    for column in columns {
        let named = page.contains(&format!("`{column}`"));
        assert!(named, "docs/control-database.md does not name {column}");
    }
}
