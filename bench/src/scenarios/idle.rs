//! Memory: of the program alone, and for each connection that only listens.

use std::time::Duration;

use anyhow::Result;

use crate::client::Load;
use crate::report::Row;
use crate::scenarios::{LIMIT, OPENING, Run};
use crate::server_process::{Kind, Server};

pub fn run(run: &Run, rows: &mut Vec<Row>) -> Result<()> {
    let clients = run.choose(10_000, 3_000);
    for kind in [Kind::Magpie, Kind::PlainWarp] {
        let server = Server::start(kind, &run.place)?;
        std::thread::sleep(Duration::from_millis(500));
        let alone = server.rss_bytes()?;
        let mut load = Load::new(server.address, kind.speech())?;
        load.open(clients, OPENING, LIMIT)?;
        run.silence(&mut load)?;
        let full = server.rss_bytes()?;
        rows.push(
            Row::new("idle", kind.name(), format!("{clients} connections"))
                .with("rss_alone_mb", alone as f64 / 1e6)
                .with("rss_mb", full as f64 / 1e6)
                .with("rss_bytes_per_connection", full.saturating_sub(alone) as f64 / clients as f64),
        );
        server.stop()?;
    }
    Ok(())
}
