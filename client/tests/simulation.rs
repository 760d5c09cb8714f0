//! Whole systems without a network: the real client, the real hub and a store in memory, under random fault
//! plans. A plan follows from its seed; nothing here knows a socket, a thread's timing or a clock.
//!
//! `MAGPIE_PLANS=N` runs that many plans, `MAGPIE_FIRST_SEED=N` begins elsewhere than at 0, and
//! `MAGPIE_SEED=N` runs one plan and prints what it does.

#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/world.rs"]
mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Plans in an ordinary run.
const PLANS: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Says which plan failed, whichever way it failed.
struct Witness<'a> {
    seed: u64,
    failed: &'a AtomicBool,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed.store(true, Ordering::Relaxed);
            eprintln!("to see this plan: MAGPIE_SEED={}", self.seed);
        }
    }
}

#[test]
fn whatever_fails_no_message_is_lost_doubled_or_out_of_order() {
    let failed = &AtomicBool::new(false);
    if let Some(seed) = number("MAGPIE_SEED") {
        let _witness = Witness { seed, failed };
        plan::run(seed, true);
        return;
    }
    let first = number("MAGPIE_FIRST_SEED").unwrap_or(0);
    let end = first + number("MAGPIE_PLANS").unwrap_or(PLANS);
    let next = &AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(move || {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let _witness = Witness { seed, failed };
                    plan::run(seed, false);
                }
            });
        }
    });
}
