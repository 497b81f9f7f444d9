//! Room: oauth.
