//! Which question a request asks: method and path, nothing else.

use http::Method;

/// A question the proxy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Liveness: answered to anybody on loopback, without content.
    Live,
    /// `GET /healthz`: who answers, for whoever knows the secret.
    Health,
    /// `POST /v1/messages`.
    Messages,
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1/messages/count_tokens`.
    CountTokens,
    /// `GET /v1/models`.
    Models,
    /// `GET /api/requests`.
    Requests,
    /// `GET /api/requests/{id}`.
    Request,
    /// `GET /api/usage`.
    Usage,
    /// `GET /metrics`.
    Metrics,
    /// `GET /settings/haiku-model`.
    HaikuModel,
    /// `POST /settings/haiku-model`.
    ChooseHaikuModel,
    /// `GET /settings/kilo-models`.
    KiloModels,
}

/// A request that asks nothing the proxy knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No such path: 404.
    Unknown,
    /// The path exists for another method: 405.
    Method {
        /// Value of the `allow` header.
        allow: &'static str,
    },
}

/// Finds the route of `method` and `path` (no query).
pub fn route(method: &Method, path: &str) -> Result<Route, NoRoute> {
    let (route, methods, allow): (Route, &[Method], &'static str) = match path {
        // `HEAD /api/hello` is the client's warm-up: it carries no credential.
        "/health" | "/api/hello" => (Route::Live, &[Method::GET, Method::HEAD], "GET, HEAD"),
        "/healthz" => (Route::Health, &[Method::GET], "GET"),
        "/v1/messages" => (Route::Messages, &[Method::POST], "POST"),
        "/v1/messages/count_tokens" => (Route::CountTokens, &[Method::POST], "POST"),
        "/v1/chat/completions" => (Route::Chat, &[Method::POST], "POST"),
        "/v1/responses" => (Route::Responses, &[Method::POST], "POST"),
        "/settings/haiku-model" if *method == Method::POST => {
            (Route::ChooseHaikuModel, &[Method::POST], "GET, POST")
        }
        "/settings/haiku-model" => (Route::HaikuModel, &[Method::GET], "GET, POST"),
        "/settings/kilo-models" => (Route::KiloModels, &[Method::GET], "GET"),
        "/v1/models" => (Route::Models, &[Method::GET], "GET"),
        "/api/requests" => (Route::Requests, &[Method::GET], "GET"),
        "/api/usage" => (Route::Usage, &[Method::GET], "GET"),
        "/metrics" => (Route::Metrics, &[Method::GET], "GET"),
        _ if path.starts_with("/api/requests/") => (Route::Request, &[Method::GET], "GET"),
        _ => return Err(NoRoute::Unknown),
    };
    if methods.contains(method) {
        Ok(route)
    } else {
        Err(NoRoute::Method { allow })
    }
}

/// Says whether whoever asks for `path` speaks one of the OpenAI APIs, and is told errors in their shape.
pub fn is_openai(path: &str) -> bool {
    path == "/v1/responses" || path.starts_with("/v1/responses/") || path.starts_with("/v1/chat/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route() {
        let unknown = Err(NoRoute::Unknown);
        let only = |allow| Err(NoRoute::Method { allow });
        for (method, path, want) in [
            (Method::HEAD, "/api/hello", Ok(Route::Live)),
            (Method::GET, "/health", Ok(Route::Live)),
            (Method::POST, "/health", only("GET, HEAD")),
            (Method::GET, "/healthz", Ok(Route::Health)),
            (Method::POST, "/v1/messages", Ok(Route::Messages)),
            (Method::GET, "/v1/messages", only("POST")),
            (Method::POST, "/v1/messages/", unknown),
            (
                Method::POST,
                "/v1/messages/count_tokens",
                Ok(Route::CountTokens),
            ),
            (Method::POST, "/v1/chat/completions", Ok(Route::Chat)),
            (Method::POST, "/v1/responses", Ok(Route::Responses)),
            (Method::GET, "/settings/haiku-model", Ok(Route::HaikuModel)),
            (
                Method::POST,
                "/settings/haiku-model",
                Ok(Route::ChooseHaikuModel),
            ),
            (Method::PUT, "/settings/haiku-model", only("GET, POST")),
            (Method::GET, "/settings/kilo-models", Ok(Route::KiloModels)),
            (Method::GET, "/v1/models", Ok(Route::Models)),
            (Method::DELETE, "/v1/models", only("GET")),
            (Method::GET, "/api/requests", Ok(Route::Requests)),
            (Method::GET, "/api/requests/req_1", Ok(Route::Request)),
            (Method::POST, "/api/usage", only("GET")),
            (Method::GET, "/metrics", Ok(Route::Metrics)),
            (Method::GET, "/", unknown),
            (Method::POST, "/v1/messages/../models", unknown),
        ] {
            assert_eq!(route(&method, path), want, "{method} {path}");
        }
    }
}
