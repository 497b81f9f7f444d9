//! What taking the lease of a settings file and giving it back cost: on a local disk, syncs and all, and on a file
//! system in memory, where syncs cost nothing.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use ccx::secret::Secret;
use ccx::settings::journal::{TOKEN_PREFIX, Wish};
use ccx::settings::lease::{Ask, Leases};
use criterion::{Criterion, criterion_group, criterion_main};

/// As large as a settings file with many hooks and permissions gets.
fn settings() -> String {
    let rules: Vec<String> = (0..200).map(|n| format!("Bash(command-{n}:*)")).collect();
    let all =
        serde_json::json!({"permissions": {"allow": rules}, "env": {"A": "b"}, "theme": "dark"});
    format!("{all:#}\n")
}

/// Takes and gives back `rounds` times; returns how long each took in all.
fn rounds(root: &Path, rounds: u64) -> (Duration, Duration) {
    let file = root.join("settings.json");
    fs::write(&file, settings()).expect("the bench's own directory");
    let leases = Leases::below(&root.join("state"));
    let (mut taken, mut given) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        let ask = Ask {
            file: file.clone(),
            url: "http://127.0.0.1:4711".to_owned(),
            token: Secret::new(format!("{TOKEN_PREFIX}00")),
            wish: Wish::Auto,
            models: vec!["gpt-6-luna".to_owned()],
        };
        let started = Instant::now();
        let begun = leases.begin(ask).expect("nobody else is there");
        taken += started.elapsed();
        let started = Instant::now();
        black_box(begun.held.end()).expect("nobody else is there");
        given += started.elapsed();
    }
    (taken, given)
}

fn lease(criterion: &mut Criterion) {
    let places = [
        ("disk", std::env::temp_dir()),
        ("memory", "/dev/shm".into()),
    ];
    for (name, place) in places {
        if !place.is_dir() {
            continue;
        }
        let root = tempfile::tempdir_in(place).expect("a directory of the bench's own");
        let mut group = criterion.benchmark_group(format!("lease/{name}"));
        group.sample_size(20);
        group.bench_function("taken", |bencher| {
            bencher.iter_custom(|count| rounds(root.path(), count).0);
        });
        group.bench_function("given back", |bencher| {
            bencher.iter_custom(|count| rounds(root.path(), count).1);
        });
        group.finish();
    }
}

criterion_group!(benches, lease);
criterion_main!(benches);
