//! The grammar of a Messages stream, as the client reads it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test binaries"
)]

use ccx::sse::Decoder;
use serde_json::{Value, json};

/// Blocks whose input is told in pieces of JSON.
const CALLS: &[&str] = &["tool_use", "server_tool_use"];

/// Content blocks as the client puts them together, and how the stream ended.
#[derive(Debug, Default, PartialEq)]
pub struct Message {
    pub content: Vec<Value>,
    pub end: Option<(Value, Value)>,
    pub error: Option<Value>,
}

/// Reads a Messages stream and holds it to the grammar.
pub fn check(output: &str) -> Message {
    let mut decoder = Decoder::default();
    decoder.feed(output.as_bytes()).unwrap();
    let mut message = Message::default();
    let mut is_started = false;
    let mut is_over = false;
    // The open block, and its partial JSON.
    let mut open: Option<(usize, String)> = None;
    while let Some(frame) = decoder.next_frame() {
        let data: Value = serde_json::from_str(frame.data)
            .unwrap_or_else(|error| panic!("{error}: {}", frame.data));
        assert_eq!(data["type"], frame.event, "the type is the event's name");
        assert!(!is_over, "{} after the end", frame.event);
        assert!(
            is_started || matches!(frame.event, "message_start" | "ping" | "error"),
            "{} before the start",
            frame.event
        );
        match frame.event {
            "message_start" => {
                assert!(!is_started, "a second start");
                is_started = true;
                assert_eq!(data["message"]["content"], json!([]));
                assert_eq!(data["message"]["role"], "assistant");
            }
            "content_block_start" => {
                assert_eq!(open, None, "two blocks open");
                assert_eq!(data["index"], message.content.len());
                message.content.push(data["content_block"].clone());
                open = Some((message.content.len() - 1, String::new()));
            }
            "content_block_delta" => {
                let (index, partial) = open.as_mut().expect("a block is open");
                assert_eq!(data["index"], *index);
                let block = &mut message.content[*index];
                let delta = &data["delta"];
                let (field, wanted) = match delta["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text"),
                    "thinking_delta" => ("thinking", "thinking"),
                    "signature_delta" => ("signature", "thinking"),
                    "input_json_delta" => {
                        assert!(CALLS.contains(&block["type"].as_str().unwrap()), "{block}");
                        partial.push_str(delta["partial_json"].as_str().unwrap());
                        continue;
                    }
                    "citations_delta" => {
                        assert_eq!(block["type"], "text");
                        if !block["citations"].is_array() {
                            block["citations"] = json!([]);
                        }
                        let citations = block["citations"].as_array_mut().unwrap();
                        citations.push(delta["citation"].clone());
                        continue;
                    }
                    other => panic!("unknown delta {other}"),
                };
                assert_eq!(block["type"], wanted);
                assert!(
                    field != "thinking" || block["signature"] == "",
                    "thinking after the signature"
                );
                let text =
                    block[field].as_str().unwrap().to_owned() + delta[field].as_str().unwrap();
                block[field] = Value::from(text);
            }
            "content_block_stop" => {
                let (index, partial) = open.take().expect("a block is open");
                assert_eq!(data["index"], index);
                let block = &mut message.content[index];
                match block["type"].as_str().unwrap() {
                    "text" => assert_ne!(block["text"], "", "an empty text block"),
                    "thinking" => assert!(
                        block["thinking"] != "" || block["signature"] != "",
                        "an empty thinking block"
                    ),
                    kind if CALLS.contains(&kind) => {
                        assert_ne!(block["name"], "");
                        assert_ne!(block["id"], "");
                        // Some are whole from the start.
                        if !partial.is_empty() {
                            block["input"] =
                                serde_json::from_str(&partial).unwrap_or(Value::from(partial));
                        }
                    }
                    "web_search_tool_result" => assert_ne!(block["tool_use_id"], ""),
                    other => panic!("unknown block {other}"),
                }
            }
            "message_delta" => {
                assert_eq!(open, None, "an open block at the end");
                assert_eq!(message.end, None);
                message.end = Some((data["delta"]["stop_reason"].clone(), data["usage"].clone()));
                let has_tool = message
                    .content
                    .iter()
                    .any(|block| block["type"] == "tool_use");
                let sequence = &data["delta"]["stop_sequence"];
                match data["delta"]["stop_reason"].as_str().unwrap() {
                    "tool_use" => assert!(has_tool),
                    "end_turn" => assert!(!has_tool),
                    "max_tokens" | "refusal" => {}
                    "stop_sequence" => assert!(sequence.is_string()),
                    other => panic!("unknown stop reason {other}"),
                }
                let is_sequence = data["delta"]["stop_reason"] == "stop_sequence";
                assert!(is_sequence || sequence.is_null(), "{sequence}");
            }
            "ping" => {}
            "message_stop" => {
                assert!(message.end.is_some());
                is_over = true;
            }
            "error" => {
                assert_eq!(message.end, None);
                message.error = Some(data["error"].clone());
                is_over = true;
            }
            other => panic!("unknown event {other}"),
        }
    }
    assert!(!decoder.has_tail());
    assert!(is_over, "the stream has no end");
    message
}
