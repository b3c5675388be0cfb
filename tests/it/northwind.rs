//! Microsoft's sample database Northwind: 13 tables with identity keys, composite keys, image, ntext,
//! money and names with spaces.

use std::path::PathBuf;

use crate::harness::{World, eventually};

fn script() -> Option<String> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/northwind/instnwnd.sql");
    let bytes = std::fs::read(path).ok()?;
    Some(bytes.into_iter().map(char::from).collect())
}

/// The script's batches, without its views and procedures.
fn tables_and_rows(script: &str) -> impl Iterator<Item = String> {
    let mut batches = vec![String::new()];
    for line in script.lines() {
        if line.trim().eq_ignore_ascii_case("GO") {
            batches.push(String::new());
        } else if let Some(batch) = batches.last_mut() {
            batch.push_str(line);
            batch.push('\n');
        }
    }
    batches.into_iter().filter(|batch| {
        let lower = batch.trim_start().to_lowercase();
        !lower.is_empty()
            && !lower.starts_with("create view")
            && !lower.starts_with("create procedure")
            && !lower.contains("exec sp_dboption")
    })
}

/// The same without its rows: batches that insert are left out. One batch creates a table and then
/// inserts; it is cut before its first INSERT.
fn tables_alone(script: &str) -> impl Iterator<Item = String> {
    let inserts = |line: &str| line.trim_start().to_lowercase().starts_with("insert");
    tables_and_rows(script).filter_map(move |batch| {
        let lower = batch.to_lowercase();
        match (lower.contains("insert"), lower.contains("create table")) {
            (true, true) => {
                Some(batch.lines().take_while(|line| !inserts(line)).collect::<Vec<_>>().join("\n"))
            }
            (true, false) => None,
            (false, _) => Some(batch),
        }
    })
}

/// Table, `primary_key_column` of the mapping, key for ORDER BY.
const TABLES: [(&str, &str, &str); 13] = [
    ("Employees", "EmployeeID", "EmployeeID"),
    ("Categories", "CategoryID", "CategoryID"),
    ("Customers", "CustomerID", "CustomerID"),
    ("Shippers", "ShipperID", "ShipperID"),
    ("Suppliers", "SupplierID", "SupplierID"),
    ("Orders", "OrderID", "OrderID"),
    ("Products", "ProductID", "ProductID"),
    ("Order Details", "OrderID, ProductID", "OrderID, ProductID"),
    ("CustomerCustomerDemo", "CustomerID,CustomerTypeID", "CustomerID, CustomerTypeID"),
    ("CustomerDemographics", "CustomerTypeID", "CustomerTypeID"),
    ("Region", "RegionID", "RegionID"),
    ("Territories", "TerritoryID", "TerritoryID"),
    ("EmployeeTerritories", "EmployeeID,TerritoryID", "EmployeeID, TerritoryID"),
];

#[tokio::test(flavor = "multi_thread")]
async fn northwind_syncs_exactly_and_follows() {
    let Some(script) = script() else {
        eprintln!("skipped: instnwnd.sql does not exist");
        return;
    };
    let world = World::new().await;
    let mut shop = world.shop().await;
    for batch in tables_and_rows(&script) {
        shop.run(&batch).await;
    }
    assert_eq!(shop.scalar("SELECT COUNT(*) FROM [Order Details]").await, "2155");
    // The destination has the same tables, empty.
    let mut copy = world.copy().await;
    for batch in tables_alone(&script) {
        copy.run(&batch).await;
    }
    shop.run(
        "INSERT INTO CustomerDemographics VALUES (N'vip', N'very important'); INSERT INTO CustomerCustomerDemo VALUES (N'ALFKI', N'vip')",
    )
    .await;

    let names: Vec<&str> = TABLES.iter().map(|(table, _, _)| *table).collect();
    world.enable_cdc(&names).await;
    let mut mappings = Vec::new();
    for (table, key, _) in TABLES {
        let mapping = world.map(table, key, None, true).await;
        world.request_full_sync(mapping).await;
        mappings.push(mapping);
    }
    let _daemon = world.daemon();
    for (&mapping, (table, _, order)) in mappings.iter().zip(TABLES) {
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
        let (source, dest) = world.both_tables(&format!("[{table}]"), order).await;
        assert_eq!(source, dest, "{table}");
    }

    // Changes in every table.
    shop.script(
        "UPDATE Employees SET Notes = N'changed', Title = N'Boss' WHERE EmployeeID = 2
UPDATE Employees SET Extension = '9' WHERE EmployeeID = 3
UPDATE Categories SET Description = N'other' WHERE CategoryID = 1
UPDATE Categories SET CategoryName = N'Drinks' WHERE CategoryID = 1
UPDATE Customers SET ContactName = N'Ärger & Söhne' WHERE CustomerID = N'ALFKI'
INSERT INTO Shippers (CompanyName, Phone) VALUES (N'New', NULL)
UPDATE Suppliers SET HomePage = NULL WHERE SupplierID = 3
UPDATE Orders SET Freight = Freight + 0.0001 WHERE OrderID % 2 = 0
UPDATE Products SET UnitPrice = UnitPrice * 1.1
DELETE [Order Details] WHERE OrderID = 10248
INSERT INTO [Order Details] VALUES (10248, 1, 922337203685477.5807, 3, 0.25)
UPDATE CustomerDemographics SET CustomerDesc = N'longer' WHERE CustomerTypeID = N'vip'
DELETE CustomerCustomerDemo
INSERT INTO Region VALUES (5, N'Overseas')
UPDATE Territories SET TerritoryDescription = N'Elsewhere' WHERE TerritoryID = N'01581'
DELETE EmployeeTerritories WHERE EmployeeID = 1",
    )
    .await;
    for (table, _, order) in TABLES {
        world.in_sync(&format!("[{table}]"), order).await;
    }
    let mut control = world.control().await;
    for mapping in mappings {
        eventually("a verification", async || {
            let status = control
                .query(&format!(
                    "SELECT TOP (1) verification_status FROM verification_logs WHERE mapping_id = {mapping} ORDER BY verification_id DESC"
                ))
                .await;
            if status.rows.is_empty() { Err("none".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    let failed = control.query("SELECT mapping_id, verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(failed.rows.is_empty(), "{failed}");
}
