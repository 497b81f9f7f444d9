//! Changes `config.toml` as text: one setting at a time, with the person's comments and order kept.
//!
//! What comes out is read again before it is handed over, so that nothing is ever written that ccx would not understand.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, TomlError, Value};

use crate::config::Config;
use crate::config::fault::ConfigError;

/// What a setting is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<'a> {
    /// A word, as `"high"`.
    Word(&'a str),
    /// A list of words, as the models of a family.
    List(&'a [String]),
    /// Nothing: the line is taken out, and what holds without it holds.
    Unset,
}

/// Why a setting was not changed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file as it is, or as it would be, is not understood.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No TOML.
    #[error("the file is no TOML")]
    Syntax(#[from] TomlError),
    /// Something on the way is a value, not a table.
    #[error("`{name}` is not a table")]
    NoTable {
        /// What it is called.
        name: String,
    },
}

/// Returns `text` with the setting at `path` (`["failover"]`, `["models", "gpt-6-sol", "effort"]`) set.
///
/// # Errors
///
/// The text is not understood, before or after.
pub fn set(text: &str, path: &[&str], setting: Setting<'_>) -> Result<String, WriteError> {
    Config::parse(text)?;
    let mut document: DocumentMut = text.parse()?;
    let Some((name, tables)) = path.split_last() else {
        return Ok(text.to_owned());
    };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for step in tables {
        if setting == Setting::Unset && !table.contains_key(step) {
            return Ok(text.to_owned());
        }
        let item = table.entry(step).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        table = item
            .as_table_like_mut()
            .ok_or_else(|| WriteError::NoTable {
                name: (*step).to_owned(),
            })?;
    }
    let value = match setting {
        Setting::Unset => {
            table.remove(name);
            None
        }
        Setting::Word(word) => Some(Value::from(word)),
        Setting::List(words) => Some(Value::Array(words.iter().collect::<Array>())),
    };
    if let Some(mut value) = value {
        match table.get_mut(name).and_then(Item::as_value_mut) {
            // A comment behind it stays.
            Some(before) => {
                *value.decor_mut() = before.decor().clone();
                *before = value;
            }
            None => {
                table.insert(name, Item::Value(value));
            }
        }
    }
    let text = document.to_string();
    Config::parse(&text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_order_and_everything_else_stay() {
        let text =
            "# mine\nfailover = true # both plans are mine\n\n[families]\nopus = [\"gpt-6-sol\"]\n";
        assert_eq!(
            set(text, &["failover"], Setting::Word("off")).unwrap(),
            text.replace("true", "\"off\"")
        );
        let kilo = set(text, &["kilo"], Setting::Word("z-ai/glm-5:free")).unwrap();
        assert_eq!(
            kilo,
            text.replace("mine\n\n", "mine\nkilo = \"z-ai/glm-5:free\"\n\n")
        );
        assert_eq!(set(&kilo, &["kilo"], Setting::Unset).unwrap(), text);
    }

    #[test]
    fn tables_are_made_where_they_are_missing() {
        let text = set(
            "",
            &["models", "gpt-6.1-sol", "effort"],
            Setting::Word("high"),
        )
        .unwrap();
        assert_eq!(text, "[models.\"gpt-6.1-sol\"]\neffort = \"high\"\n");
        let models = ["gpt-6-sol".to_owned(), "gpt-5.5".to_owned()];
        let text = set("", &["families", "haiku"], Setting::List(&models)).unwrap();
        assert_eq!(text, "[families]\nhaiku = [\"gpt-6-sol\", \"gpt-5.5\"]\n");
        assert_eq!(
            set("", &["models", "x", "effort"], Setting::Unset).unwrap(),
            ""
        );
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        for (text, path, word) in [
            ("failover = ", ["failover"], "on"),
            ("stategy = \"sticky\"", ["failover"], "on"),
            ("", ["failover"], "perhaps"),
            ("", ["kilo"], "no model"),
            ("", ["nothing"], "on"),
        ] {
            assert!(
                set(text, &path, Setting::Word(word)).is_err(),
                "{text} {path:?} {word}"
            );
        }
    }
}
