//! Makes a conversation shorter than it is, so that a request for its summary fits the model's window.
//!
//! The client asks for a summary when a conversation has become too long, and sends all of it once more. Where that
//! is refused too, nothing would be left to it but to give up. So what weighs most and says least goes first: old large
//! outputs of tools, old pictures and documents, then what else is large, then the oldest messages. Whatever goes leaves
//! words in its place, calls keep their results, and the instruction at the end is never touched.
//!
//! Only what is asked for a summary is shortened: an ordinary conversation is the client's to compact.

use crate::translate::loss::Loss;
use crate::wire::blocks::{Block, Content, ToolResult};
use crate::wire::json::{Raw, Text};
use crate::wire::messages::{Message, Request, Role};

/// What a shortened request is counted as.
pub const SHORTENED: Loss = Loss::marked("conversation_shortened");

/// Outputs, pictures and documents of this many tokens go first.
const LARGE_TOKENS: u64 = 1_000;

/// Texts and inputs of this many tokens go next.
const NOT_SMALL_TOKENS: u64 = 200;

/// How much of a large output stays, in bytes: it says what it was.
const HEAD_BYTES: usize = 600;

const OUTPUT_GONE: &str =
    "[ccx left the rest of this output out: the conversation is longer than the model's window]";
const MEDIUM_GONE: &str =
    "[ccx left a picture or document out here: the conversation is longer than the model's window]";
const TEXT_GONE: &str =
    "[ccx left the rest of this text out: the conversation is longer than the model's window]";
const MESSAGES_GONE: &str = "[ccx left the messages that stood here out: the conversation is longer than the model's window]";
const INPUT_GONE: &str =
    r#"{"left_out_by_ccx":"the conversation is longer than the model's window"}"#;

/// To how many percent of the window a request is shortened, at the first attempt and the next ones. The rest is for the
/// summary, and for what counting misses.
const SHARES: [u64; 3] = [85, 65, 45];

/// Returns how many tokens a request of `weight` tokens may have, that does not fit `window`, at attempt number `attempt`
/// (from zero); `None` when it was attempted often enough.
pub fn target(window: u64, weight: u64, attempt: u32) -> Option<u64> {
    let share = SHARES.get(attempt as usize)?;
    // Upstream may count more than we do: what it refused is too long, whatever its size.
    Some(window.min(weight) * share / 100)
}

/// Weighs parts of a request in tokens.
pub trait Weigher {
    /// Weighs the whole.
    fn request(&mut self, request: &Request<'_>) -> u64;
    /// Weighs one block.
    fn block(&mut self, block: &Block<'_>) -> u64;
    /// Weighs one message.
    fn message(&mut self, message: &Message<'_>) -> u64;
}

/// Shortens `request` to at most `target` tokens, as `weigher` counts. Returns what it weighs then; more than `target` if
/// what may not go is more.
pub fn shorten(request: &mut Request<'_>, target: u64, weigher: &mut impl Weigher) -> u64 {
    let weight = weigher.request(request);
    let mut shortening = Shortening {
        weigher,
        weight,
        target,
    };
    let end = instruction(&request.messages);
    shortening.media_and_outputs(&mut request.messages, LARGE_TOKENS);
    shortening.everything(request.messages.get_mut(1..end).unwrap_or_default());
    shortening.messages(&mut request.messages, end);
    let first = request.messages.first_mut().filter(|_| end > 0);
    shortening.everything(first.map(std::slice::from_mut).unwrap_or_default());
    shortening.media_and_outputs(&mut request.messages, NOT_SMALL_TOKENS);
    shortening.weight
}

/// Returns where the last thing that is said begins: the last message of the user, and what stands after it.
fn instruction(messages: &[Message<'_>]) -> usize {
    messages
        .iter()
        .rposition(|message| message.role == Role::User)
        .unwrap_or(messages.len())
}

/// Returns the place up to which messages may be taken out: the instruction, or the call that its results answer.
fn removable(messages: &[Message<'_>], end: usize) -> usize {
    if messages
        .get(end)
        .is_none_or(|_| begins_something(messages, end))
    {
        return end;
    }
    let before = messages[..end].iter();
    before
        .rev()
        .position(|message| message.role == Role::Assistant)
        .map_or(0, |back| end - 1 - back)
}

struct Shortening<'w, W> {
    weigher: &'w mut W,
    weight: u64,
    target: u64,
}

impl<W: Weigher> Shortening<'_, W> {
    fn is_done(&self) -> bool {
        self.weight <= self.target
    }

    fn block<'a>(&mut self, block: &mut Block<'a>, new: Block<'a>) {
        let (old_weight, new_weight) = (self.weigher.block(block), self.weigher.block(&new));
        if new_weight < old_weight {
            self.weight = self.weight.saturating_sub(old_weight - new_weight);
            *block = new;
        }
    }

    /// Replaces outputs, pictures and documents of at least `least` tokens, the oldest first.
    fn media_and_outputs(&mut self, messages: &mut [Message<'_>], least: u64) {
        for message in messages {
            let Content::Blocks(blocks) = &mut message.content else {
                continue;
            };
            for block in blocks {
                if self.is_done() {
                    return;
                }
                let new = match block {
                    Block::ToolResult(result) => Block::ToolResult(ToolResult {
                        content: Some(beginning(result.content.as_ref())),
                        ..result.clone()
                    }),
                    Block::Image(_) | Block::Document(_) | Block::WebSearchResult(_) => {
                        Block::Text(Text::plain(MEDIUM_GONE))
                    }
                    Block::Text(_)
                    | Block::ToolUse(_)
                    | Block::ToolReference(_)
                    | Block::Thinking { .. }
                    | Block::RedactedThinking(_)
                    | Block::ServerToolUse(_)
                    | Block::Other(_) => continue,
                };
                if self.weigher.block(block) >= least {
                    self.block(block, new);
                }
            }
        }
    }

    /// Replaces whatever is not small, the oldest first.
    fn everything(&mut self, messages: &mut [Message<'_>]) {
        for message in messages {
            if self.is_done() {
                return;
            }
            match &mut message.content {
                Content::Text(text) => {
                    let mut block = Block::Text(*text);
                    if self.weigher.block(&block) >= NOT_SMALL_TOKENS {
                        self.block(&mut block, Block::Text(Text::plain(TEXT_GONE)));
                        if let Block::Text(new) = block {
                            *text = new;
                        }
                    }
                }
                Content::Blocks(blocks) => {
                    for block in blocks {
                        if self.is_done() {
                            return;
                        }
                        self.anything(block);
                    }
                }
            }
        }
    }

    fn anything(&mut self, block: &mut Block<'_>) {
        if self.weigher.block(block) < NOT_SMALL_TOKENS {
            return;
        }
        let new = match block {
            Block::Text(_) => Block::Text(Text::plain(TEXT_GONE)),
            Block::ToolUse(call) => {
                let mut call = *call;
                call.input = Some(Raw::known(INPUT_GONE));
                Block::ToolUse(call)
            }
            Block::ServerToolUse(call) => {
                let mut call = *call;
                call.input = Some(Raw::known(INPUT_GONE));
                Block::ServerToolUse(call)
            }
            Block::ToolResult(result) => Block::ToolResult(ToolResult {
                content: Some(Content::Text(Text::plain(OUTPUT_GONE))),
                ..result.clone()
            }),
            Block::Image(_) | Block::Document(_) | Block::WebSearchResult(_) => {
                Block::Text(Text::plain(MEDIUM_GONE))
            }
            Block::Thinking { .. } | Block::RedactedThinking(_) => Block::Thinking {
                thinking: Text::plain(""),
                signature: Text::plain(""),
            },
            Block::ToolReference(_) | Block::Other(_) => return,
        };
        self.block(block, new);
    }

    /// Takes out the oldest messages behind the first, up to a place where no call is parted from its result. `end` is
    /// where the instruction begins.
    fn messages<'a>(&mut self, messages: &mut Vec<Message<'a>>, end: usize) {
        let end = removable(messages, end);
        if self.is_done() || end < 3 {
            return;
        }
        let marker = Message {
            role: Role::User,
            content: Content::Text(Text::plain(MESSAGES_GONE)),
            effort: None,
        };
        self.weight += self.weigher.message(&marker);
        let mut cut = end;
        for (at, message) in messages.iter().enumerate().take(end).skip(1) {
            if at > 1 && self.is_done() && begins_something(messages, at) {
                cut = at;
                break;
            }
            self.weight = self.weight.saturating_sub(self.weigher.message(message));
        }
        messages.splice(1..cut, [marker]);
    }
}

/// Says whether nothing from the message at `at` on answers a call that was made before.
fn begins_something(messages: &[Message<'_>], at: usize) -> bool {
    match messages[at].role {
        Role::Assistant => true,
        Role::System => false,
        Role::User => match &messages[at].content {
            Content::Text(_) => true,
            Content::Blocks(blocks) => {
                let is_result = |block: &Block<'_>| matches!(block, Block::ToolResult(_));
                !blocks.iter().any(is_result)
            }
        },
    }
}

/// Returns the beginning of an output, and words for the rest.
fn beginning<'a>(content: Option<&Content<'a>>) -> Content<'a> {
    let text = match content {
        Some(Content::Text(text)) => Some(*text),
        Some(Content::Blocks(blocks)) => blocks.iter().find_map(|block| match block {
            Block::Text(text) => Some(*text),
            _ => None,
        }),
        None => None,
    };
    let head = text.map(|text| text.head(HEAD_BYTES));
    let blocks = head.filter(|head| !head.is_empty()).map(Block::Text);
    let marker = Block::Text(Text::plain(OUTPUT_GONE));
    Content::Blocks(blocks.into_iter().chain([marker]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::weigh;

    /// Weighs texts by their bytes.
    struct Bytes(u64);

    impl weigh::Scale for Bytes {
        fn text(&mut self, text: Text<'_>) {
            self.0 += text.escaped().len() as u64;
        }
        fn json(&mut self, text: &str) {
            self.0 += text.len() as u64;
        }
        fn tokens(&mut self, tokens: u64) {
            self.0 += tokens;
        }
        fn picture(&mut self, _data: &str) {
            self.0 += 2_000;
        }
        fn tools(&mut self, _tools: &crate::wire::messages::Tools<'_>, _loaded: &[Text<'_>]) {}
    }

    impl Weigher for Bytes {
        fn request(&mut self, request: &Request<'_>) -> u64 {
            let mut bytes = Self(0);
            weigh::weigh(request, &mut bytes);
            bytes.0
        }
        fn block(&mut self, block: &Block<'_>) -> u64 {
            let mut bytes = Self(0);
            weigh::weigh_block(block, &mut bytes);
            bytes.0
        }
        fn message(&mut self, message: &Message<'_>) -> u64 {
            let mut bytes = Self(0);
            weigh::weigh_message(message, &mut bytes);
            bytes.0
        }
    }

    fn long(word: &str, bytes: usize) -> String {
        format!("{word} {}", "x".repeat(bytes))
    }

    /// A round of a call and its result of `bytes`.
    fn round(id: usize, bytes: usize) -> [String; 2] {
        let output = long("output", bytes);
        [
            format!(
                r#"{{"role":"assistant","content":[{{"type":"tool_use","id":"c{id}","name":"Read","input":{{"path":"p{id}"}}}}]}}"#
            ),
            format!(
                r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"c{id}","content":"{output}"}}]}}"#
            ),
        ]
    }

    fn said(role: &str, text: &str) -> String {
        format!(r#"{{"role":"{role}","content":"{text}"}}"#)
    }

    fn body(messages: &[String]) -> String {
        format!(
            r#"{{"model":"m","system":"s","messages":[{}]}}"#,
            messages.join(",")
        )
    }

    /// What is left, as text, and its weight.
    fn shortened(body: &str, target: u64) -> (Request<'_>, u64) {
        let mut request = Request::parse(body.as_bytes()).unwrap();
        let weight = shorten(&mut request, target, &mut Bytes(0));
        assert_eq!(
            Bytes(0).request(&request),
            weight,
            "the weight is kept in step"
        );
        (request, weight)
    }

    fn has(request: &Request<'_>, words: &str) -> bool {
        format!("{request:?}").contains(words)
    }

    #[test]
    fn the_oldest_large_outputs_go_first_and_no_more_than_needed() {
        let mut messages = vec![said("user", "prompt")];
        for id in 0..4 {
            messages.extend(round(id, 10_000));
        }
        messages.push(said("user", "sum it up"));
        let body = body(&messages);
        let (request, weight) = shortened(&body, 25_000);
        assert!(weight <= 25_000 && weight > 15_000, "{weight}");
        let gone: Vec<bool> = (0..4)
            .map(|id| format!("{:?}", request.messages[2 + 2 * id]).contains(OUTPUT_GONE))
            .collect();
        assert_eq!(gone, [true, true, false, false]);
        assert!(
            format!("{:?}", request.messages[2]).contains("output xxx"),
            "its head stays"
        );
        assert!(has(&request, "sum it up") && has(&request, "prompt"));
        assert_eq!(request.messages.len(), 10);
    }

    #[test]
    fn then_large_texts_and_inputs_then_whole_messages_with_both_halves_of_each_pair() {
        let mut messages = vec![said("user", "prompt")];
        for id in 0..50 {
            messages.push(said("user", &long(&format!("question {id}"), 150)));
            messages.extend(round(id, 150));
        }
        messages.push(said("user", "sum it up"));
        let body = body(&messages);
        for target in [4_000, 2_000, 600] {
            let (request, weight) = shortened(&body, target);
            assert!(weight <= target, "{weight} > {target}");
            assert!(
                has(&request, "prompt")
                    && has(&request, "sum it up")
                    && has(&request, MESSAGES_GONE)
            );
            let mut open = Vec::new();
            for message in &request.messages {
                let Content::Blocks(blocks) = &message.content else {
                    continue;
                };
                for block in blocks {
                    match block {
                        Block::ToolUse(call) => open.push(call.id.escaped()),
                        Block::ToolResult(result) => {
                            assert_eq!(
                                open.pop(),
                                Some(result.id.escaped()),
                                "a result keeps its call"
                            );
                        }
                        _ => {}
                    }
                }
            }
            assert!(open.is_empty(), "a call keeps its result");
        }
    }

    #[test]
    fn a_large_result_beside_the_instruction_goes_and_its_call_stays() {
        let [call, result] = round(1, 50_000);
        let messages = [
            said("user", "prompt"),
            call,
            result,
            said("user", "sum it up"),
        ];
        let text = body(&messages);
        let (request, weight) = shortened(&text, 2_000);
        assert!(weight <= 2_000, "{weight}");
        assert!(has(&request, "c1") && has(&request, OUTPUT_GONE) && has(&request, "sum it up"));
        // The same in one message.
        let [call, _] = round(1, 0);
        let output = long("output", 50_000);
        let both = format!(
            r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"c1","content":"{output}"}},{{"type":"text","text":"sum it up"}}]}}"#
        );
        let messages = [
            said("user", "prompt"),
            said("assistant", "a"),
            said("user", "b"),
            call,
            both,
        ];
        let body = body(&messages);
        let (request, weight) = shortened(&body, 2_000);
        assert!(weight <= 2_000, "{weight}");
        assert!(has(&request, "tool_use_id") || has(&request, "ToolResult"));
        assert!(has(&request, "sum it up"));
    }

    #[test]
    fn what_may_not_go_is_left_and_its_weight_told() {
        let long_instruction = long("sum it up", 5_000);
        let messages = [
            said("user", "prompt"),
            said("assistant", "a"),
            said("user", &long_instruction),
        ];
        let text = body(&messages);
        let (request, weight) = shortened(&text, 100);
        assert!(weight > 5_000);
        assert!(has(&request, &long_instruction));
        let (request, weight) = shortened(r#"{"model":"m","messages":[]}"#, 0);
        assert_eq!((request.messages.len(), weight), (0, 0));
    }

    #[test]
    fn a_request_that_fits_stays_as_it_is() {
        let messages = [
            said("user", &long("prompt", 3_000)),
            said("assistant", "a"),
            said("user", "b"),
        ];
        let body = body(&messages);
        let (request, _) = shortened(&body, 10_000);
        assert_eq!(request, Request::parse(body.as_bytes()).unwrap());
    }
}
