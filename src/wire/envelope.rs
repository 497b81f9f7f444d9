//! The Anthropic error envelope and the limit headers of upstream.
