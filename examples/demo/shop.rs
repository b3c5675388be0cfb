//! The shop: its tables, their rows, and the writer that changes them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::client::{Grid, Sql, numbers};

pub const TABLES: &str = "
CREATE TABLE dbo.Customers (CustomerID INT IDENTITY(1,1) NOT NULL CONSTRAINT PK_Customers PRIMARY KEY, Name NVARCHAR(100) NOT NULL,
    Email VARCHAR(200) NULL, Since DATE NOT NULL, FullSyncTrigger BIT NOT NULL DEFAULT 0);
CREATE TABLE dbo.Products (ProductID INT NOT NULL CONSTRAINT PK_Products PRIMARY KEY, Title NVARCHAR(80) NOT NULL, Price MONEY NOT NULL,
    Weight DECIMAL(18,6) NULL, FullSyncTrigger BIT NOT NULL DEFAULT 0);
CREATE TABLE dbo.Orders (OrderID INT NOT NULL CONSTRAINT PK_Orders PRIMARY KEY, CustomerID INT NOT NULL, PlacedAt DATETIME2(7) NOT NULL,
    Status CHAR(8) NOT NULL, Note NVARCHAR(200) NULL, FullSyncTrigger BIT NOT NULL DEFAULT 0);
CREATE TABLE dbo.OrderLines (OrderID INT NOT NULL, Line INT NOT NULL, ProductID INT NOT NULL, Quantity SMALLINT NOT NULL,
    Price MONEY NOT NULL, FullSyncTrigger BIT NOT NULL DEFAULT 0, CONSTRAINT PK_OrderLines PRIMARY KEY (OrderID, Line));
CREATE TABLE dbo.Documents (DocumentID UNIQUEIDENTIFIER NOT NULL CONSTRAINT PK_Documents PRIMARY KEY, Title NVARCHAR(100) NOT NULL,
    Body NVARCHAR(MAX) NULL, Scan VARBINARY(MAX) NULL, Version INT NOT NULL, FullSyncTrigger BIT NOT NULL DEFAULT 0);
";

/// A mapped table, with its key as in `primary_key_column`.
pub struct Mapped {
    pub name: &'static str,
    key: &'static str,
    columns: &'static [&'static str],
}

pub const MAPPED: [Mapped; 5] = [
    Mapped {
        name: "Customers",
        key: "CustomerID",
        columns: &["CustomerID", "Name", "Email", "Since", "FullSyncTrigger"],
    },
    Mapped {
        name: "Products",
        key: "ProductID",
        columns: &[
            "ProductID",
            "Title",
            "CAST(Price AS decimal(19,4))",
            "Weight",
            "FullSyncTrigger",
        ],
    },
    Mapped {
        name: "Orders",
        key: "OrderID",
        columns: &["OrderID", "CustomerID", "PlacedAt", "Status", "Note", "FullSyncTrigger"],
    },
    Mapped {
        name: "OrderLines",
        key: "OrderID, Line",
        columns: &[
            "OrderID",
            "Line",
            "ProductID",
            "Quantity",
            "CAST(Price AS decimal(19,4))",
            "FullSyncTrigger",
        ],
    },
    Mapped {
        name: "Documents",
        key: "DocumentID",
        columns: &["DocumentID", "Title", "Body", "Scan", "Version", "FullSyncTrigger"],
    },
];

impl Mapped {
    /// The INSERT into table_mappings of docs/setup.md.
    pub fn register(&self) -> String {
        format!(
            "INSERT INTO table_mappings (server_id, source_database, source_schema, source_table, dest_database, dest_schema, dest_table, \
             primary_key_column, full_sync_trigger_column, is_enabled, cdc_enabled) \
             VALUES (1, 'SourceDB', 'dbo', '{0}', 'DestDB', 'dbo', '{0}', '{1}', 'FullSyncTrigger', 1, 1)",
            self.name, self.key
        )
    }

    pub fn enable_cdc(&self) -> String {
        format!(
            "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{}', @role_name = NULL",
            self.name
        )
    }

    pub async fn rows(&self, sql: &mut Sql) -> Grid {
        sql.rows_of(&format!("dbo.{}", self.name), self.columns, self.key).await
    }
}

/// The INSERT into source_servers of docs/setup.md.
pub fn register_server(addr: SocketAddr, user: &str, password: &str) -> String {
    format!(
        "INSERT INTO source_servers (server_name, connection_string, is_enabled) VALUES ('SourceServer1', \
         'server={};port={};user id={user};password={password};database=master;encrypt=disable', 1)",
        addr.ip(),
        addr.port()
    )
}

/// Inserts more than 50,000 rows.
pub async fn fill(sql: &mut Sql) {
    sql.run(&format!(
        "INSERT INTO dbo.Customers (Name, Email, Since) SELECT N'Customer ' + CAST(n AS nvarchar(10)) + N' Ünïcödé 🚚', \
         'c' + CAST(n AS varchar(10)) + '@example.com', DATEADD(day, n % 5000, '2010-01-01') FROM {}",
        numbers(8_000)
    ))
    .await;
    sql.run(&format!(
        "INSERT INTO dbo.Products (ProductID, Title, Price, Weight) SELECT n, N'Product ' + CAST(n AS nvarchar(10)), n * 1.0101, n / 7.0 FROM {}",
        numbers(2_000)
    ))
    .await;
    sql.run(&format!(
        "INSERT INTO dbo.Orders (OrderID, CustomerID, PlacedAt, Status, Note) SELECT n, n % 8000 + 1, \
         DATEADD(second, n, CAST('2024-01-01T00:00:00.1234567' AS datetime2(7))), 'OPEN', CASE WHEN n % 3 = 0 THEN N'call first' END FROM {}",
        numbers(12_000)
    ))
    .await;
    sql.run(&format!(
        "INSERT INTO dbo.OrderLines (OrderID, Line, ProductID, Quantity, Price) SELECT n / 3 + 1, n % 3 + 1, n % 2000 + 1, n % 10 + 1, n * 0.0101 FROM {}",
        numbers(30_000)
    ))
    .await;
    sql.run(&format!(
        "INSERT INTO dbo.Documents (DocumentID, Title, Body, Scan, Version) SELECT NEWID(), N'Document ' + CAST(n AS nvarchar(10)), \
         REPLICATE(CAST(N'words and more words ' AS nvarchar(max)), n % 400), CAST(REPLICATE(CAST('scan' AS varchar(max)), n % 500) AS varbinary(max)), 1 FROM {}",
        numbers(500)
    ))
    .await;
}

/// Commits and rolls back transactions of a shop for `duration`; returns their number.
pub async fn write(sql: &mut Sql, duration: Duration) -> u64 {
    let start = Instant::now();
    let mut transactions = 0;
    while start.elapsed() < duration {
        let n = transactions;
        let statement = match n % 8 {
            0 => format!(
                "INSERT INTO dbo.Customers (Name, Email, Since) VALUES (N'New customer {n}', NULL, '2026-01-01')"
            ),
            1 => format!(
                "UPDATE dbo.Products SET Price = Price + 0.0001, Title = Title + N'.' WHERE ProductID = {}",
                n % 2_000 + 1
            ),
            2 => format!(
                "BEGIN TRAN; INSERT INTO dbo.Orders (OrderID, CustomerID, PlacedAt, Status) VALUES ({id}, 1, SYSUTCDATETIME(), 'OPEN'); \
                 INSERT INTO dbo.OrderLines (OrderID, Line, ProductID, Quantity, Price) VALUES ({id}, 1, 1, 1, 9.99), ({id}, 2, 2, 5, 1.25); COMMIT",
                id = 100_000 + n
            ),
            3 => format!(
                "UPDATE dbo.Orders SET Status = 'SHIPPED', Note = NULL WHERE OrderID % 1000 = {}",
                n % 1000
            ),
            4 => format!("DELETE dbo.OrderLines WHERE OrderID = {}", n % 10_000 + 1),
            // An update that does not touch the large columns, which must keep their values.
            5 => "UPDATE dbo.Documents SET Version = Version + 1".to_owned(),
            6 => format!(
                "UPDATE TOP (3) dbo.Documents SET Body = N'rewritten {n}', Scan = 0x{:08X} WHERE Version % 2 = 0",
                n
            ),
            _ => format!(
                "BEGIN TRAN; UPDATE dbo.Customers SET Email = 'lost' WHERE CustomerID < 100 + {n} % 7; ROLLBACK"
            ),
        };
        sql.run(&statement).await;
        transactions += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    transactions
}
