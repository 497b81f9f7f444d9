//! What a conversation brings that the model has not seen yet: a turn that begins, or one that goes on.

use crate::wire::blocks::{Block, Content};
use crate::wire::json::Text;
use crate::wire::messages::{Request, Role};

/// What the end of a conversation brings: what the model has not seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newest {
    /// Something the person says: a turn begins.
    Prompt,
    /// What tools returned, and nothing else but the client's reminders: a turn goes on.
    Results {
        /// Whether one of them failed.
        has_failed: bool,
    },
}

impl Request<'_> {
    /// Says what the messages behind the last one of the assistant bring.
    pub fn newest(&self) -> Newest {
        let mut failed = None;
        let unseen = self.messages.iter().rev();
        for message in unseen.take_while(|message| message.role != Role::Assistant) {
            let blocks = match (&message.content, message.role) {
                (_, Role::System | Role::Assistant) => continue,
                (Content::Text(text), Role::User) if is_reminder(*text) => continue,
                (Content::Text(_), Role::User) => return Newest::Prompt,
                (Content::Blocks(blocks), Role::User) => blocks,
            };
            for block in blocks {
                match block {
                    Block::ToolResult(result) => {
                        failed = Some(failed.unwrap_or(false) || result.is_error);
                    }
                    Block::Text(text) if is_reminder(*text) => {}
                    _ => return Newest::Prompt,
                }
            }
        }
        match failed {
            Some(has_failed) => Newest::Results { has_failed },
            None => Newest::Prompt,
        }
    }
}

/// Says whether the client, and not the person, says `text`: a reminder, or what follows the result of a search
/// for tools (observed with client 2.1.330).
fn is_reminder(text: Text<'_>) -> bool {
    let text = text.escaped();
    text.is_empty() || text.starts_with("<system-reminder>") || text == "Tool loaded."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_goes_on_only_with_results_and_reminders() {
        let result = r#"{"type":"tool_result","tool_use_id":"a","content":"x"}"#;
        let failed = r#"{"type":"tool_result","tool_use_id":"b","content":"x","is_error":true}"#;
        let reminder = r#"{"type":"text","text":"<system-reminder>\nx</system-reminder>"}"#;
        let loaded = r#"{"type":"text","text":"Tool loaded."}"#;
        let said = r#"{"type":"text","text":"and now this"}"#;
        let user =
            |blocks: &[&str]| format!(r#"{{"role":"user","content":[{}]}}"#, blocks.join(","));
        let assistant = r#"{"role":"assistant","content":"x"}"#.to_owned();
        let system = r#"{"role":"system","content":"x"}"#.to_owned();
        let plain = r#"{"role":"user","content":"hello"}"#.to_owned();
        let fine = Newest::Results { has_failed: false };
        for (messages, expected) in [
            (vec![plain.clone()], Newest::Prompt),
            (vec![plain.clone(), assistant.clone()], Newest::Prompt),
            (vec![assistant.clone(), user(&[result])], fine),
            (vec![assistant.clone(), user(&[result, loaded])], fine),
            (
                vec![assistant.clone(), user(&[result, reminder]), system.clone()],
                fine,
            ),
            (
                vec![assistant.clone(), user(&[failed, result])],
                Newest::Results { has_failed: true },
            ),
            (
                vec![assistant.clone(), user(&[result, said])],
                Newest::Prompt,
            ),
            (
                vec![assistant.clone(), user(&[result]), plain.clone()],
                Newest::Prompt,
            ),
            (
                vec![user(&[result]), assistant.clone(), plain],
                Newest::Prompt,
            ),
            (vec![assistant, user(&[reminder])], Newest::Prompt),
        ] {
            let body = format!(r#"{{"model":"m","messages":[{}]}}"#, messages.join(","));
            let request = Request::parse(body.as_bytes()).unwrap();
            assert_eq!(request.newest(), expected, "{body}");
        }
    }
}
