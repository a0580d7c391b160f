//! `twelve openapi` and `twelve asyncapi`: the contracts, as `docs/` keeps them.

use clap::ValueEnum;
use command_svc::Role;
use serde_json::Value;
use service::contract::{self, SERVICES, Schemas};

/// Every call of every service.
pub(crate) fn document(roles: &[Role]) -> Value {
    let mut schemas = Schemas::default();
    let commands = command_svc::contract::operations(roles, &mut schemas);
    let queries = query_api::contract::operations(&mut schemas);
    contract::document(&SERVICES, &[commands, queries].concat(), schemas)
}

/// Prints it.
pub(crate) fn run(operator: bool) {
    let document =
        if operator { query_api::operator::contract::document() } else { document(Role::value_variants()) };
    println!("{document:#}");
}
