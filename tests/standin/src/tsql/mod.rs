//! Text in, AST out.

pub mod ast;
pub mod datatype;
pub mod dialect;
pub mod lexer;
mod parser;

pub use parser::{parse, parse_expression, parse_name, parse_parameters, setting::set_options};
