//! What is particular to a database server; one module an engine.

pub mod postgresql;
