//! Whether words that came with a refusal say that the request is longer than the model's window, and by how much.
//!
//! Most refusals have a code, and then the code decides (`failure`). Gateways and older models say it in words alone,
//! in many wordings; a request that is taken for too long makes the client throw its history away, so a word like
//! "window" is not enough: each phrase here says what is too large, and that it is.

/// Statuses that an overflow comes under; 200 is a failure inside a stream.
const STATUSES: [u16; 6] = [200, 400, 413, 422, 500, 502];

/// Phrases that say it, in small letters. `*` stands for a few words of the same sentence.
const PHRASES: &[&str] = &[
    "exceed*context window",
    "exceed*context length",
    "exceed*context limit",
    "context window*exceed",
    "context length*exceed",
    "context limit*exceed",
    "maximum context length is",
    "maximum context length of",
    "maximum context window is",
    "context window*too small for",
    "fit*context window",
    "fit*context length",
    "ran out of room*context",
    "longer than*context window",
    "longer than*context length",
    "larger than*context window",
    "larger than*context length",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "conversation is too long",
    "reduce the length of the messages",
    "reduce the length of the prompt",
    "reduce the length of the input",
    "reduce the length of your prompt",
    "reduce the length of either one",
    "input tokens exceed",
    "input token count*exceed",
    "exceed*number of tokens allowed",
    "exceed*maximum number of tokens",
    "exceed*input token",
    "maximum prompt length is",
    "prompt exceeds max length",
    "tokens in request more than max tokens allowed",
    "too many input tokens",
    "too large for model with*context",
];

/// How far apart the two halves of a phrase may stand, in bytes.
const REACH: usize = 60;

/// A smaller number is no window of any model.
const SMALLEST_WINDOW: u64 = 1_024;

/// What an overflow tells of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// The window, in tokens.
    pub(super) limit: Option<u64>,
    /// The request, in tokens.
    pub(super) tokens: Option<u64>,
}

/// Says whether a refusal with `status` says in its `words` that the request is too long. `code` is upstream's, if it is
/// none that decides by itself, and `param` the field that it names.
pub(super) fn is_told(status: u16, code: Option<&str>, param: Option<&str>, words: &str) -> bool {
    STATUSES.contains(&status)
        && !code.is_some_and(is_of_a_field)
        && param.is_none_or(is_whole_input)
        && has_phrase(words)
}

/// Says whether `code` refuses a single field, as in `invalid_value`, `string_above_max_length`.
fn is_of_a_field(code: &str) -> bool {
    const BEGINNINGS: [&str; 9] = [
        "invalid_value",
        "invalid_type",
        "unsupported_",
        "missing_",
        "unknown_",
        "string_",
        "array_",
        "integer_",
        "object_",
    ];
    BEGINNINGS.iter().any(|begins| code.starts_with(begins))
}

fn is_whole_input(param: &str) -> bool {
    matches!(param, "input" | "messages" | "prompt" | "model")
}

fn has_phrase(words: &str) -> bool {
    let words = words.to_ascii_lowercase().replace(['_', '\u{2019}'], " ");
    words
        .split(['.', '\n', ';', '!', '?'])
        .any(|sentence| PHRASES.iter().any(|phrase| says(sentence, phrase)))
}

fn says(sentence: &str, phrase: &str) -> bool {
    let Some((first, second)) = phrase.split_once('*') else {
        return sentence.contains(phrase);
    };
    sentence.match_indices(first).any(|(at, _)| {
        let rest = &sentence[at + first.len()..];
        let near = rest.floor_char_boundary(REACH + second.len());
        rest[..near].contains(second)
    })
}

/// Reads the sizes out of the words of an overflow.
///
/// The window is the number that stands behind a word like "maximum", or before it; the request's size is the first
/// other one that is larger.
pub(super) fn sizes(words: &str) -> Sizes {
    let words = words.to_ascii_lowercase();
    let numbers = numbers(&words);
    let limit = numbers.iter().find(|one| one.is_limit).or_else(|| {
        let is_alone = numbers.len() == 1;
        numbers.first().filter(|one| is_alone && !one.is_request)
    });
    let limit = limit.map(|one| one.value);
    let tokens = numbers
        .iter()
        .filter(|one| !one.is_limit)
        .map(|one| one.value)
        .find(|value| limit.is_none_or(|limit| *value > limit));
    Sizes {
        limit,
        tokens: tokens.filter(|tokens| Some(*tokens) != limit),
    }
}

struct Number {
    value: u64,
    is_limit: bool,
    is_request: bool,
}

/// How many words around a number say what it is.
const AROUND: usize = 5;

fn numbers(words: &str) -> Vec<Number> {
    let list: Vec<&str> = words.split_whitespace().collect();
    let is_limit = |word: &&&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphabetic() && c != '>');
        matches!(
            word,
            "maximum" | "max" | "limit" | "most" | "only" | ">" | "allowed" | "window" | "supports"
        )
    };
    let is_request = |word: &&&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphabetic());
        matches!(
            word,
            "resulted" | "requested" | "gave" | "got" | "provided" | "contains" | "has" | "used"
        )
    };
    let mut found = Vec::new();
    // In `N tokens > M` the second one is the window, whatever else is said.
    let mut is_compared = false;
    for (at, word) in list.iter().enumerate() {
        let digits: String = word
            .trim_matches(|c: char| !c.is_ascii_digit())
            .chars()
            .filter(|c| !matches!(c, ',' | '_'))
            .collect();
        let Some(value) = digits.parse().ok().filter(|n| *n >= SMALLEST_WINDOW) else {
            continue;
        };
        // What stands before the number belongs to it up to the end of a sentence or another number.
        let before = list[at.saturating_sub(AROUND)..at].iter().rev();
        let before = before.take_while(|word| {
            !word.ends_with(['.', ';', ',']) && !word.contains(|c: char| c.is_ascii_digit())
        });
        let before: Vec<&&str> = before.collect();
        let after = list.get(at + 1);
        found.push(Number {
            value,
            is_limit: before.iter().any(is_limit) || after.is_some_and(|word| is_limit(&word)),
            is_request: before.iter().any(is_request),
        });
        is_compared |= before.first().is_some_and(|word| **word == ">");
        if is_compared && let Some((last, others)) = found.split_last_mut() {
            last.is_limit = true;
            others.iter_mut().for_each(|one| one.is_limit = false);
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wordings as OpenAI, Anthropic, Google, xAI and others, and gateways before them, have them.
    #[test]
    fn every_wording_of_an_overflow_is_known() {
        for (words, limit, tokens) in [
            (
                "Your input exceeds the context window of this model.",
                None,
                None,
            ),
            (
                "Your input exceeds the context window of this model. Please adjust your input and try again.",
                None,
                None,
            ),
            (
                "This model's maximum context length is 272000 tokens. However, your messages resulted in 300123 tokens. Please reduce the length of the messages.",
                Some(272_000),
                Some(300_123),
            ),
            (
                "This model's maximum context length is 272000 tokens. However, you requested 280000 tokens (250000 in the messages, 30000 in the completion).",
                Some(272_000),
                Some(280_000),
            ),
            (
                "prompt is too long: 210000 tokens > 200000 maximum",
                Some(200_000),
                Some(210_000),
            ),
            ("Prompt is too long", None, None),
            ("input is too long for requested model", None, None),
            (
                "The input token count (1060000) exceeds the maximum number of tokens allowed (1048576).",
                Some(1_048_576),
                Some(1_060_000),
            ),
            (
                "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
                Some(131_072),
                Some(537_812),
            ),
            ("tokens in request more than max tokens allowed", None, None),
            (
                "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in 310,500 tokens.",
                Some(272_000),
                Some(310_500),
            ),
            ("Prompt exceeds max length", None, None),
            ("the context window exceeds limit", None, None),
            (
                "Codex ran out of room in the model's context window. Start a new thread.",
                None,
                None,
            ),
            ("context_length_exceeded", None, None),
            ("The conversation is too long for this model", None, None),
            (
                "the request does not fit into the context window of 128000 tokens",
                Some(128_000),
                None,
            ),
            (
                "Requested tokens exceed context limit: 190000 + 64000 > 200000",
                Some(200_000),
                None,
            ),
        ] {
            assert!(is_told(400, None, None, words), "{words}");
            let sizes = sizes(words);
            assert_eq!(sizes.limit, limit, "{words}");
            if tokens.is_some() {
                assert_eq!(sizes.tokens, tokens, "{words}");
            }
        }
    }

    #[test]
    fn other_refusals_are_none_whatever_they_speak_of() {
        for (status, code, param, words) in [
            (
                400,
                None,
                None,
                "the context window of the editor is closed",
            ),
            (400, None, None, "window 'main' exceeds the screen"),
            (400, None, None, "Unsupported parameter: context_window"),
            (
                400,
                None,
                None,
                "the tool 'context' has a description that exceeds 1024 characters",
            ),
            (400, None, None, "Invalid prompt: it asks to open a window"),
            (
                400,
                None,
                None,
                "the image is too large: 30 MB exceed the limit of 20 MB",
            ),
            (
                400,
                None,
                None,
                "max_tokens is too large: 200000. This model supports at most 128000 completion tokens.",
            ),
            (
                400,
                None,
                None,
                "rate limits exceeded. The context of your window is unknown",
            ),
            (
                400,
                Some("string_above_max_length"),
                Some("input[3].call_id"),
                "Invalid 'input[3].call_id': string too long. Expected a string with maximum length 64, but got a string with length 69 instead.",
            ),
            (
                400,
                Some("unsupported_value"),
                Some("truncation"),
                "a prompt that exceeds the context window is not cut",
            ),
            (
                400,
                None,
                Some("max_output_tokens"),
                "max_output_tokens exceeds the context window",
            ),
            (429, None, None, "your input exceeds the context window"),
            (401, None, None, "prompt is too long"),
            (503, None, None, "prompt is too long"),
            (400, None, None, ""),
        ] {
            assert!(!is_told(status, code, param, words), "{words}");
        }
    }

    #[test]
    fn a_number_alone_is_the_window_unless_it_is_the_requests() {
        for (words, limit, tokens) in [
            ("at most 272,000 tokens", Some(272_000), None),
            ("272000 tokens", Some(272_000), None),
            ("you requested 272000 tokens", None, Some(272_000)),
            ("5 tokens", None, None),
            ("", None, None),
            ("99999999999999999999999 tokens", None, None),
        ] {
            assert_eq!(sizes(words), Sizes { limit, tokens }, "{words}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_words_are_read(words in "(?s).{0,300}") {
            is_told(400, None, None, &words);
            let sizes = sizes(&words);
            if let (Some(limit), Some(tokens)) = (sizes.limit, sizes.tokens) {
                proptest::prop_assert!(tokens > limit);
            }
        }
    }
}
