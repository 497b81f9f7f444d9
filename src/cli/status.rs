//! `ccx status`: which accounts there are, what the families mean, and which client would run.

use serde_json::{Value, json};

use crate::account::record::Source;
use crate::catalogue::families::Family;
use crate::cli::environment::Environment;
use crate::cli::setup::{Setup, VERSION};
use crate::cli::{launch, ui};
use crate::error::{Kind, Report};
use crate::proxy::entry::now;
use crate::time::in_words;

/// Prints the state. Changes nothing and asks nobody.
pub fn status(environment: &Environment, as_json: bool) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    let accounts = setup
        .store
        .accounts()
        .map_err(|error| Report::new(Kind::SignIn, error))?;
    let active = setup
        .store
        .active()
        .map_err(|error| Report::new(Kind::SignIn, error))?;
    let shelf = setup.shelf();
    if let Some(id) = &active {
        shelf.adopt(id);
    }
    let catalogue = shelf.current();
    let families = setup.config.models();
    let client = launch::find_client(environment);
    let family = |family| {
        let model = families.target(&catalogue, family);
        model.map_or("-", |model| model.slug.as_str())
    };
    let rows: Vec<Value> = accounts
        .iter()
        .map(|account| {
            let left = account.expires_at.map(|end| end.since(now()));
            let token = match (&account.dead, left) {
                (Some(death), _) => format!("unusable: {}", death.reason),
                (None, None) => "valid".to_owned(),
                (None, Some(left)) if left.is_zero() => match account.source {
                    Source::Own => "expired, renewed on use".to_owned(),
                    _ => "expired; run `codex` once so that it renews its login".to_owned(),
                },
                (None, Some(left)) => format!("valid for {}", in_words(left)),
            };
            let is_active = active.as_ref() == Some(&account.id);
            json!({"name": account.name(), "plan": account.plan, "token": token, "active": is_active})
        })
        .collect();
    let names = [
        ("opus", Family::Opus),
        ("sonnet", Family::Sonnet),
        ("haiku", Family::Haiku),
        ("fable", Family::Fable),
    ];
    if as_json {
        let models: serde_json::Map<String, Value> = names
            .iter()
            .map(|(name, of)| ((*name).to_owned(), family(*of).into()))
            .collect();
        let state = json!({
            "version": VERSION,
            "accounts": rows,
            "models": models,
            "client": client.as_ref().ok().map(|path| path.display().to_string()),
            "state": setup.places.state.display().to_string(),
        });
        ui::result(&format!("{state:#}\n"));
        return Ok(0);
    }
    let mut text = format!("ccx {VERSION}\n");
    if rows.is_empty() {
        text.push_str("accounts  none; `ccx login --import` takes over the Codex CLI's login\n");
    }
    for row in &rows {
        let word = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let (email, plan, token) = (word("name"), word("plan"), word("token"));
        text.push_str(&format!("account   {email} ({plan}), token {token}\n"));
    }
    for (name, of) in names {
        text.push_str(&format!("{name:<9} {}\n", family(of)));
    }
    match &client {
        Ok(path) => text.push_str(&format!("client    {}\n", path.display())),
        Err(_) => text.push_str("client    not found\n"),
    }
    text.push_str(&format!("state     {}\n", setup.places.state.display()));
    ui::result(&text);
    Ok(0)
}
