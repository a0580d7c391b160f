//! `twelve openapi` and `twelve asyncapi`: the contracts, as `docs/` keeps them.

use clap::ValueEnum;
use command_svc::Role;
use serde_json::Value;
use service::contract;

/// Every call of every service.
pub(crate) fn document(roles: &[Role]) -> Value {
    let operations = [command_svc::contract::operations(roles), query_api::contract::operations()].concat();
    let mut schemas = command_svc::contract::schemas();
    for (name, schema) in query_api::contract::schemas().as_object().into_iter().flatten() {
        schemas[name] = schema.clone();
    }
    contract::document(&operations, &schemas)
}

/// Prints it.
pub(crate) fn run() {
    println!("{:#}", document(Role::value_variants()));
}
