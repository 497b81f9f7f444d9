//! The Anthropic error envelope: what a failed request is answered with, as a body or as an event.

/// The `error.type` of the envelope. The client acts on the HTTP status; the type is for people and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400, 405, 422.
    InvalidRequest,
    /// 401.
    Authentication,
    /// 403.
    Permission,
    /// 404.
    NotFound,
    /// 413.
    RequestTooLarge,
    /// 429.
    RateLimit,
    /// 500, 502.
    Api,
    /// 504.
    Timeout,
    /// 529.
    Overloaded,
}

impl ErrorKind {
    /// Returns the name that goes over the wire.
    pub const fn wire_name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::RequestTooLarge => "request_too_large",
            Self::RateLimit => "rate_limit_error",
            Self::Api => "api_error",
            Self::Timeout => "timeout_error",
            Self::Overloaded => "overloaded_error",
        }
    }

    /// Returns the `error.type` of the OpenAI APIs.
    pub const fn openai_name(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::NotFound | Self::RequestTooLarge => {
                "invalid_request_error"
            }
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::RateLimit => "rate_limit_error",
            Self::Api | Self::Timeout | Self::Overloaded => "server_error",
        }
    }
}

/// Writes `{"type":"error","error":{"type","message"},"request_id"}`; the id is left out when empty.
pub fn error_body(kind: ErrorKind, message: &str, request_id: &str) -> Vec<u8> {
    let mut body = format!(
        r#"{{"type":"error","error":{{"type":"{}","message":"#,
        kind.wire_name()
    )
    .into_bytes();
    // A string cannot fail to serialise into memory.
    let _ = serde_json::to_writer(&mut body, message);
    body.push(b'}');
    if !request_id.is_empty() {
        body.extend_from_slice(br#","request_id":"#);
        let _ = serde_json::to_writer(&mut body, request_id);
    }
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_json_with_the_fields_in_place() {
        let body = error_body(ErrorKind::Overloaded, "at \"capacity\"\n", "req_1");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"type":"error","error":{"type":"overloaded_error","message":"at \"capacity\"\n"},"request_id":"req_1"}"#
        );
    }
}
