//! `GET /v1/models`: the account's models, and the Claude names that ccx maps to them.

use http::Response;
use serde_json::{Value, json};

use crate::catalogue::families::Family;
use crate::proxy::body::Body;
use crate::proxy::service::{self, Service};

/// The names that stand for a family. The client keeps only names with `claude` or `anthropic` in them.
const FAMILY_NAMES: [(&str, Family); 4] = [
    ("claude-opus-5-5", Family::Opus),
    ("claude-sonnet-5-5", Family::Sonnet),
    ("claude-haiku-5-5", Family::Haiku),
    ("claude-fable-5-2", Family::Fable),
];

/// Answers with the list in both APIs' shapes at once.
pub fn answer(service: &Service) -> Response<Body> {
    let catalogue = service.shelf.current();
    let mut models: Vec<Value> = catalogue
        .listed()
        .map(|model| row(&model.slug, &model.display_name, "openai"))
        .collect();
    for (name, family) in FAMILY_NAMES {
        if let Some(model) = service.families.target(&catalogue, family) {
            models.push(row(name, &model.display_name, "ccx"));
        }
    }
    let id = |row: Option<&Value>| row.map_or(Value::Null, |row| row["id"].clone());
    let list = json!({
        "object": "list",
        "has_more": false,
        "first_id": id(models.first()),
        "last_id": id(models.last()),
        "data": models,
    });
    service::json(list.to_string())
}

/// Upstream tells no dates: the epoch stands for "unknown", in the forms that both APIs ask for.
fn row(id: &str, name: &str, owner: &str) -> Value {
    json!({
        "id": id,
        "object": "model",
        "type": "model",
        "created": 0,
        "created_at": "1970-01-01T00:00:00Z",
        "owned_by": owner,
        "display_name": name,
        "description": format!("{name} on your ChatGPT plan"),
    })
}
