//! Every scenario of the bench in small, against the built `magpie` beside it: each delivery is looked at, and
//! one that is lost, doubled or out of order fails. It measures nothing but the memory of idle connections,
//! which has a limit.

use std::path::Path;
use std::process::Command;

/// Most memory that an idle connection may cost, in bytes.
const IDLE_BYTES_MAX: f64 = 6_000.0;

#[test]
fn every_scenario_runs() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    let magpie = bench.with_file_name("magpie");
    if !magpie.is_file() {
        println!("skipped: there is no magpie beside the bench; cargo build -p server makes it");
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let output = Command::new(bench)
        .args(["run", "--quick", "--magpie"])
        .arg(&magpie)
        .arg("--data")
        .arg(directory.join("bench-data"))
        .arg("--json")
        .arg(directory.join("bench.json"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.join("bench.json")).unwrap()).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert!(rows.len() > 10, "{json}");
    if !rows.iter().any(|row| row["scenario"] == "cluster") {
        println!("skipped: a cluster needs POSTGRES_BIN and REDIS_SERVER, which cargo xtask test sets");
    }
    // Sizes do not depend on how busy the machine is.
    let idle = rows.iter().find(|row| row["scenario"] == "idle" && row["server"] == "magpie").unwrap();
    let bytes = idle["figures"]["rss_bytes_per_connection"].as_f64().unwrap();
    assert!(bytes > 0.0 && bytes <= IDLE_BYTES_MAX, "{bytes} bytes for an idle connection");
}
