//! Text in, AST out.

pub mod ast;
