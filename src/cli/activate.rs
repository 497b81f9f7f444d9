//! `ccx use`: which account is used when none is named.

use serde_json::json;

use crate::cli::environment::Environment;
use crate::cli::setup::Setup;
use crate::cli::{accounts, ui};
use crate::error::Report;

/// Makes the account `name` the active one. Sessions that run stay with theirs.
pub fn run(environment: &Environment, name: &str, as_json: bool) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    let kept = accounts::read(&setup)?;
    let record = accounts::find(&setup, &kept, Some(name))?;
    let is_there = setup.store.activate(&record.id);
    if !is_there.map_err(accounts::store_failed)? {
        return Err(accounts::removed());
    }
    let name = record.name();
    match as_json {
        true => ui::json(&json!({"active": {"id": record.id, "name": name}})),
        false => ui::result(&format!(
            "From now on ccx uses {name}; sessions that run stay with their account\n"
        )),
    }
    Ok(0)
}
