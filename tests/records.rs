//! What a proxy tells of what happened: the list of requests, one of them, plots, and counts for Prometheus.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::{Value, json};

use support::proxy::{Answer, Proxy, now, prompt};

fn scenario() -> Value {
    let refusal = json!({"status": 400, "body": {"error": {"message": "no", "code": "x"}}});
    json!({"about": "answers, then not", "steps": [
        {"name": "answer", "when": {}, "times": 2, "answer": [{"text": "a fine answer"}]},
        {"name": "refused", "when": {}, "reply": refusal},
    ]})
}

async fn get(proxy: &Proxy, path: &str) -> Answer {
    proxy.send(proxy.request("GET", path)).await
}

#[tokio::test]
async fn requests_are_listed_and_opened() {
    let proxy = Proxy::start_after(&scenario(), |home| {
        let config = home.join("ccx/config");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("config.toml"), "capture = \"errors\"\n").unwrap();
    });
    for (stream, status) in [(true, 200), (false, 200), (false, 400)] {
        assert_eq!(
            proxy.messages(&prompt("hello", stream)).await.status,
            status
        );
    }
    let page = get(&proxy, "/api/requests?limit=2").await.json();
    let requests = page["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (&requests[0]["outcome"], &requests[0]["has_capture"]),
        (&json!("failed"), &json!(true))
    );
    assert_eq!(requests[1]["stream"], false);
    assert!(requests[0]["account_name"].as_str().unwrap().contains('@'));
    let next = page["next"].as_i64().unwrap();
    let rest = get(&proxy, &format!("/api/requests?before={next}"))
        .await
        .json();
    assert_eq!(
        (
            rest["requests"].as_array().unwrap().len(),
            rest["next"].is_null()
        ),
        (1, true)
    );
    let id = rest["requests"][0]["id"].as_str().unwrap();
    let one = get(&proxy, &format!("/api/requests/{id}")).await.json();
    assert!(
        one["why_account"].is_string() && one["capture"].is_null(),
        "{one}"
    );
    let failed = get(
        &proxy,
        &format!("/api/requests/{}", requests[0]["id"].as_str().unwrap()),
    )
    .await;
    // The capture is written beside; it may be on its way yet.
    assert_eq!(failed.status, 200);
    for (path, status) in [
        ("/api/requests/req_of_nobody", 404),
        ("/api/requests/", 404),
        ("/api/requests?limit=none", 400),
        ("/api/usage?step=week", 400),
        ("/api/usage?from=5&to=4", 400),
    ] {
        let answer = get(&proxy, path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.json()["error"]["message"].is_string(), "{path}");
    }
    let wrong = proxy.send(proxy.request("POST", "/api/requests")).await;
    assert_eq!(wrong.status, 405);
}

#[tokio::test]
async fn usage_and_metrics_count_what_happened() {
    let proxy = Proxy::start(&scenario());
    for _ in 0..3 {
        proxy.messages(&prompt("hello", false)).await;
    }
    let to = now().0 + 60;
    let usage = get(&proxy, &format!("/api/usage?step=minute&to={to}"))
        .await
        .json();
    let sum = |name: &str| -> u64 {
        let series = usage["series"].as_array().unwrap();
        series.iter().filter_map(|point| point[name].as_u64()).sum()
    };
    assert_eq!((sum("requests"), sum("failed")), (3, 1));
    assert!(sum("input_tokens") > 0);
    assert_eq!(usage["by_account"].as_array().unwrap().len(), 1);
    let metrics = get(&proxy, "/metrics").await;
    let kind = metrics.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    for line in [
        "ccx_requests_total{class=\"main\",outcome=\"done\"} 2",
        "ccx_requests_total{class=\"main\",outcome=\"failed\"} 1",
        "ccx_errors_total{status=\"400\"} 1",
        "ccx_requests_in_flight 0",
    ] {
        assert!(
            metrics.body.lines().any(|found| found == line),
            "{line}\n{}",
            metrics.body
        );
    }
    // Behind the key, all of it, and without a person's address.
    assert!(!metrics.body.contains('@'));
    for path in ["/metrics", "/api/requests", "/api/usage", "/api/requests/x"] {
        let bare = proxy.http.get(format!("{}{path}", proxy.url));
        assert_eq!(proxy.send(bare).await.status, 401, "{path}");
    }
}
