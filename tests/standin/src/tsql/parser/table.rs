//! CREATE TABLE and ALTER TABLE.

use super::cursor::Cursor;
use crate::{error::SqlResult, tsql::ast::*};
use sqlparser::tokenizer::Token;

impl Cursor<'_> {
    /// `( columns, constraints, indexes ) [ON …] [WITH (…)]`
    pub fn table_body(&mut self, name: ObjectName) -> SqlResult<CreateTable> {
        let mut table = CreateTable {
            name,
            columns: vec![],
            constraints: vec![],
            indexes: vec![],
            period: None,
            options: vec![],
        };
        self.expect_mark(&Token::LParen)?;
        loop {
            self.table_element(&mut table)?;
            if !self.comma() || self.is(&Token::RParen) {
                break;
            }
        }
        self.expect_mark(&Token::RParen)?;
        if table.name.name.starts_with('@') {
            return Ok(table);
        }
        if self.at("AS") {
            return self.refuse("CREATE TABLE … AS");
        }
        self.file_group()?;
        table.options = self.with_options()?;
        Ok(table)
    }

    fn table_element(&mut self, table: &mut CreateTable) -> SqlResult<()> {
        if self.at_seq(&["PERIOD", "FOR", "SYSTEM_TIME"]) {
            table.period = Some(self.period()?);
        } else if self.at_constraint() {
            let constraint = self.table_constraint()?;
            table.constraints.push(constraint);
        } else if self.at("INDEX") {
            let index = self.inline_index(table.name.clone(), None)?;
            table.indexes.push(index);
        } else {
            let column = self.column(&table.name.clone(), &mut table.indexes)?;
            table.columns.push(column);
        }
        Ok(())
    }

    fn at_constraint(&self) -> bool {
        self.at_any(&["CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "CHECK"])
    }

    fn period(&mut self) -> SqlResult<(String, String)> {
        self.expect_seq(&["PERIOD", "FOR", "SYSTEM_TIME"])?;
        self.expect_mark(&Token::LParen)?;
        let start = self.name()?;
        self.expect_mark(&Token::Comma)?;
        let end = self.name()?;
        self.expect_mark(&Token::RParen)?;
        Ok((start, end))
    }

    /// `INDEX name [UNIQUE] [CLUSTERED] (columns) …`; on a column, without columns.
    fn inline_index(&mut self, table: ObjectName, column: Option<&str>) -> SqlResult<CreateIndex> {
        self.expect("INDEX")?;
        let name = self.name()?;
        let unique = self.accept("UNIQUE");
        let clustered = self.accept("CLUSTERED");
        if !clustered {
            self.accept("NONCLUSTERED");
        }
        let columnstore = self.accept("COLUMNSTORE");
        let columns = match column {
            Some(name) if !self.is(&Token::LParen) => {
                vec![IndexColumn { name: name.to_owned(), descending: false }]
            }
            _ if columnstore && !self.is(&Token::LParen) => vec![],
            _ => self.in_parentheses(Self::index_column)?,
        };
        let mut index = CreateIndex {
            name,
            table,
            unique,
            clustered,
            columnstore,
            columns,
            include: vec![],
            filter: None,
            options: vec![],
        };
        self.index_tail(&mut index)?;
        Ok(index)
    }

    fn column(
        &mut self,
        table: &ObjectName,
        indexes: &mut Vec<CreateIndex>,
    ) -> SqlResult<ColumnDef> {
        let name = self.name()?;
        let mut column = ColumnDef {
            name,
            ty: None,
            nullable: None,
            identity: None,
            default: None,
            computed: None,
            sparse: false,
            rowguidcol: false,
            hidden: false,
            generated: None,
            masked: None,
            encrypted: None,
            column_set: false,
            with_values: false,
            constraints: vec![],
        };
        if self.accept("AS") {
            let (expr, text) = self.expr_text()?;
            let persisted = self.accept("PERSISTED");
            column.computed = Some(Computed { expr, text, persisted });
        } else if column.name.eq_ignore_ascii_case("timestamp")
            && matches!(self.peek(), Token::Comma | Token::RParen)
        {
            // a column may be called by its type alone, this type's only
            column.ty = Some(DataType::Builtin {
                ty: crate::value::SqlType::RowVersion,
                explicit_collation: false,
                database_default: false,
            });
        } else {
            column.ty = Some(self.data_type()?);
        }
        while self.column_option(&mut column, table, indexes)? {}
        Ok(column)
    }

    /// One of the things that follow a column's type, in any order.
    fn column_option(
        &mut self,
        column: &mut ColumnDef,
        table: &ObjectName,
        indexes: &mut Vec<CreateIndex>,
    ) -> SqlResult<bool> {
        if self.accept_seq(&["NOT", "NULL"]) {
            column.nullable = Some(false);
        } else if self.accept_seq(&["NOT", "FOR", "REPLICATION"]) || self.accept_any(&["PERSISTED"])
        {
        } else if self.accept("NULL") {
            column.nullable = Some(true);
        } else if self.accept("IDENTITY") {
            column.identity = Some(if self.is(&Token::LParen) {
                let numbers = self.in_parentheses(Self::integer)?;
                let [seed, increment] = numbers[..] else { return Err(self.error()) };
                (seed, increment)
            } else {
                (1, 1)
            });
        } else if self.accept("ROWGUIDCOL") {
            column.rowguidcol = true;
        } else if self.accept("SPARSE") {
            column.sparse = true;
        } else if self.accept("HIDDEN") {
            column.hidden = true;
        } else if self.at("FILESTREAM") {
            return self.refuse("FILESTREAM columns");
        } else if self.accept_seq(&["ENCRYPTED", "WITH"]) {
            column.encrypted = Some(self.encryption()?);
        } else if self.accept("MASKED") {
            column.masked = Some(self.mask_function()?);
        } else if self.accept_seq(&["COLUMN_SET", "FOR", "ALL_SPARSE_COLUMNS"]) {
            column.column_set = true;
        } else if self.accept_seq(&["GENERATED", "ALWAYS", "AS"]) {
            self.expect("ROW")?;
            column.generated = Some(if self.accept("START") {
                Generated::RowStart
            } else {
                self.expect("END")?;
                Generated::RowEnd
            });
        } else if self.at("INDEX") {
            let index = self.inline_index(table.clone(), Some(&column.name.clone()))?;
            indexes.push(index);
        } else if self.at("COLLATE") && column.computed.is_none() {
            return self.late_collation(column);
        } else {
            return self.column_constraint(column);
        }
        Ok(true)
    }

    /// COLLATE after other options.
    fn late_collation(&mut self, column: &mut ColumnDef) -> SqlResult<bool> {
        let Some(DataType::Builtin { ty, explicit_collation, database_default }) = &mut column.ty
        else {
            return Err(self.error());
        };
        let line = self.line();
        self.advance();
        if self.accept("DATABASE_DEFAULT") {
            *database_default = true;
            return Ok(true);
        }
        let name = self.name()?;
        let Some(collation) = crate::value::Collation::by_name(&name) else {
            return Err(crate::error::SqlError::new(
                448,
                16,
                format!("Invalid collation '{name}'."),
            )
            .at(line));
        };
        *ty = crate::tsql::datatype::with_collation(*ty, collation);
        *explicit_collation = true;
        Ok(true)
    }

    /// `(COLUMN_ENCRYPTION_KEY = k, ENCRYPTION_TYPE = DETERMINISTIC, ALGORITHM = '…')`, in any
    /// order.
    fn encryption(&mut self) -> SqlResult<Encryption> {
        let kinds = self.in_parentheses(|c| {
            let option = c.any_word()?;
            c.expect_mark(&Token::Eq)?;
            Ok(match option.as_str() {
                "ALGORITHM" => c.string().map(|_| None)?,
                "COLUMN_ENCRYPTION_KEY" => c.name().map(|_| None)?,
                "ENCRYPTION_TYPE" if c.accept("DETERMINISTIC") => Some(Encryption::Deterministic),
                "ENCRYPTION_TYPE" if c.accept("RANDOMIZED") => Some(Encryption::Randomized),
                _ => return Err(c.error()),
            })
        })?;
        kinds.into_iter().flatten().next().ok_or_else(|| self.error())
    }

    fn mask_function(&mut self) -> SqlResult<String> {
        self.expect("WITH")?;
        self.expect_mark(&Token::LParen)?;
        self.expect("FUNCTION")?;
        self.expect_mark(&Token::Eq)?;
        let function = self.string()?;
        self.expect_mark(&Token::RParen)?;
        Ok(function)
    }

    fn column_constraint(&mut self, column: &mut ColumnDef) -> SqlResult<bool> {
        let name = if self.accept("CONSTRAINT") { Some(self.name()?) } else { None };
        if self.accept("DEFAULT") {
            let (expr, text) = self.expr_text()?;
            column.with_values |= self.accept_seq(&["WITH", "VALUES"]);
            column.default = Some((name, expr, text));
            return Ok(true);
        }
        let own = vec![IndexColumn { name: column.name.clone(), descending: false }];
        let constraint = if self.at_any(&["PRIMARY", "UNIQUE"]) {
            self.key_constraint(name, Some(own))?
        } else if self.at("CHECK") {
            self.check_constraint(name)?
        } else if self.at_any(&["REFERENCES", "FOREIGN"]) {
            self.accept_seq(&["FOREIGN", "KEY"]);
            self.references(name, vec![column.name.clone()])?
        } else if name.is_some() {
            return Err(self.error());
        } else {
            return Ok(false);
        };
        column.constraints.push(constraint);
        Ok(true)
    }

    fn table_constraint(&mut self) -> SqlResult<TableConstraint> {
        let name = if self.accept("CONSTRAINT") { Some(self.name()?) } else { None };
        if self.at_any(&["PRIMARY", "UNIQUE"]) {
            self.key_constraint(name, None)
        } else if self.at("CHECK") {
            self.check_constraint(name)
        } else if self.accept_seq(&["FOREIGN", "KEY"]) {
            let columns = self.in_parentheses(Self::name)?;
            self.references(name, columns)
        } else if self.accept("DEFAULT") {
            let (expr, text) = self.expr_text()?;
            self.expect("FOR")?;
            let column = self.name()?;
            let with_values = self.accept_seq(&["WITH", "VALUES"]);
            Ok(TableConstraint::Default { name, expr, text, column, with_values })
        } else {
            Err(self.error())
        }
    }

    fn key_constraint(
        &mut self,
        name: Option<String>,
        own: Option<Vec<IndexColumn>>,
    ) -> SqlResult<TableConstraint> {
        let primary = self.accept_seq(&["PRIMARY", "KEY"]);
        if !primary {
            self.expect("UNIQUE")?;
        }
        let clustered = if self.accept("CLUSTERED") {
            Some(true)
        } else if self.accept("NONCLUSTERED") {
            Some(false)
        } else {
            None
        };
        let columns = match own {
            Some(own) if !self.is(&Token::LParen) => own,
            _ => self.in_parentheses(Self::index_column)?,
        };
        if self.at("WITH") && !self.at_nth(1, "VALUES") {
            self.with_options()?;
        }
        self.file_group()?;
        self.accept_seq(&["NOT", "FOR", "REPLICATION"]);
        Ok(if primary {
            TableConstraint::PrimaryKey { name, clustered, columns }
        } else {
            TableConstraint::Unique { name, clustered, columns }
        })
    }

    fn check_constraint(&mut self, name: Option<String>) -> SqlResult<TableConstraint> {
        self.expect("CHECK")?;
        self.accept_seq(&["NOT", "FOR", "REPLICATION"]);
        let start = self.index();
        self.expect_mark(&Token::LParen)?;
        let expr = self.expr()?;
        self.expect_mark(&Token::RParen)?;
        Ok(TableConstraint::Check { name, expr, text: self.text_since(start) })
    }

    fn references(
        &mut self,
        name: Option<String>,
        columns: Vec<String>,
    ) -> SqlResult<TableConstraint> {
        self.expect("REFERENCES")?;
        let references = self.object_name()?;
        let referenced_columns =
            if self.is(&Token::LParen) { self.in_parentheses(Self::name)? } else { vec![] };
        let (mut on_delete, mut on_update) =
            (ReferentialAction::NoAction, ReferentialAction::NoAction);
        loop {
            if self.accept_seq(&["ON", "DELETE"]) {
                on_delete = self.referential_action()?;
            } else if self.accept_seq(&["ON", "UPDATE"]) {
                on_update = self.referential_action()?;
            } else if !self.accept_seq(&["NOT", "FOR", "REPLICATION"]) {
                break;
            }
        }
        Ok(TableConstraint::ForeignKey {
            name,
            columns,
            references,
            referenced_columns,
            on_delete,
            on_update,
        })
    }

    fn referential_action(&mut self) -> SqlResult<ReferentialAction> {
        if self.accept_seq(&["NO", "ACTION"]) {
            Ok(ReferentialAction::NoAction)
        } else if self.accept("CASCADE") {
            Ok(ReferentialAction::Cascade)
        } else if self.accept_seq(&["SET", "NULL"]) {
            Ok(ReferentialAction::SetNull)
        } else {
            self.expect_seq(&["SET", "DEFAULT"])?;
            Ok(ReferentialAction::SetDefault)
        }
    }

    // ALTER TABLE

    pub fn alter_table(&mut self) -> SqlResult<Statement> {
        let table = self.object_name()?;
        let action = self.alter_table_action(&table)?;
        Ok(Statement::AlterTable { table, action: Box::new(action) })
    }

    fn alter_table_action(&mut self, table: &ObjectName) -> SqlResult<AlterTable> {
        let check = if self.accept_seq(&["WITH", "CHECK"]) {
            Some(true)
        } else if self.accept_seq(&["WITH", "NOCHECK"]) {
            Some(false)
        } else {
            None
        };
        match self.any_word()?.as_str() {
            "ADD" => self.alter_table_add(table, check),
            word @ ("CHECK" | "NOCHECK") => {
                self.expect("CONSTRAINT")?;
                let names = if self.accept("ALL") { vec![] } else { self.list(Self::name)? };
                Ok(AlterTable::CheckConstraint {
                    names,
                    enable: word == "CHECK",
                    with_check: check == Some(true),
                })
            }
            "ALTER" => self.alter_column(),
            "DROP" => self.alter_table_drop(),
            "SWITCH" => {
                if self.at("PARTITION") {
                    return self.refuse("ALTER TABLE … SWITCH PARTITION");
                }
                self.expect("TO")?;
                let target = self.object_name()?;
                if self.at("PARTITION") {
                    return self.refuse("ALTER TABLE … SWITCH … PARTITION");
                }
                self.with_options()?;
                Ok(AlterTable::SwitchTo { target })
            }
            other => self.refuse(&format!("ALTER TABLE … {other}")),
        }
    }

    fn alter_table_add(
        &mut self,
        table: &ObjectName,
        check: Option<bool>,
    ) -> SqlResult<AlterTable> {
        let (mut columns, mut constraints, mut indexes) = (vec![], vec![], vec![]);
        loop {
            self.accept("COLUMN");
            if self.at_seq(&["PERIOD", "FOR", "SYSTEM_TIME"]) {
                return self.refuse("ALTER TABLE … ADD PERIOD");
            } else if self.at_constraint() || self.at("DEFAULT") {
                constraints.push(self.table_constraint()?);
            } else {
                columns.push(self.column(table, &mut indexes)?);
            }
            if !self.comma() {
                break;
            }
        }
        if !indexes.is_empty() {
            return self.refuse("ALTER TABLE … ADD with an inline index");
        }
        Ok(AlterTable::Add { columns, constraints, check })
    }

    fn alter_column(&mut self) -> SqlResult<AlterTable> {
        self.expect("COLUMN")?;
        let name = self.name()?;
        if self.at("ADD") || self.at("DROP") {
            return self.refuse("ALTER COLUMN … ADD and DROP");
        }
        let ty = self.data_type()?;
        let mut nullable = None;
        loop {
            if self.accept_seq(&["NOT", "NULL"]) {
                nullable = Some(false);
            } else if self.accept("NULL") {
                nullable = Some(true);
            } else if self.at("MASKED") {
                return self.refuse("ALTER COLUMN … MASKED");
            } else {
                break;
            }
        }
        self.with_options()?;
        Ok(AlterTable::AlterColumn { name, ty, nullable })
    }

    fn alter_table_drop(&mut self) -> SqlResult<AlterTable> {
        if self.at_seq(&["PERIOD", "FOR", "SYSTEM_TIME"]) {
            return self.refuse("ALTER TABLE … DROP PERIOD");
        }
        let columns = self.accept("COLUMN");
        if !columns {
            self.accept("CONSTRAINT");
        }
        let if_exists = self.if_exists();
        let mut names = vec![self.name()?];
        if !columns {
            self.with_options()?;
        }
        while self.comma() {
            if self.at_any(&["COLUMN", "CONSTRAINT"]) {
                return self.refuse("ALTER TABLE … DROP of columns and constraints together");
            }
            names.push(self.name()?);
        }
        Ok(if columns {
            AlterTable::DropColumns { names, if_exists }
        } else {
            AlterTable::DropConstraints { names, if_exists }
        })
    }
}
