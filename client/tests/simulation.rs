//! Whole systems without a network: the real client, the real hub and a store in memory, under random fault
//! plans. A plan follows from its seed; nothing here knows a socket, a thread's timing or a clock.
//! docs/simulation.md says what is simulated and what must hold.
//!
//! `MAGPIE_PLANS=N` runs that many plans, `MAGPIE_FIRST_SEED=N` begins elsewhere than at 0, and
//! `MAGPIE_SEED=N` runs one plan and prints what it does. `MAGPIE_KEEP_GOING=1` goes on after a failure and
//! counts.

#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/ledger.rs"]
mod ledger;
#[path = "simulation/links.rs"]
mod links;
#[path = "simulation/people.rs"]
mod people;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/recovery.rs"]
mod recovery;
#[path = "simulation/sight.rs"]
mod sight;
#[path = "simulation/world.rs"]
mod world;

use std::hash::DefaultHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use world::Voice;

/// Plans in an ordinary run.
const PLANS: u64 = 3_000;
/// Plans that are run twice to see that they are the same.
const PLANS_TWICE: u64 = 40;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_fails_nothing_is_lost_doubled_out_of_order_or_told_to_the_wrong_ones() {
    if let Some(seed) = number("MAGPIE_SEED") {
        plan::run(seed, Voice::Loud);
        return;
    }
    let first = number("MAGPIE_FIRST_SEED").unwrap_or(0);
    let end = first + number("MAGPIE_PLANS").unwrap_or(PLANS);
    let goes_on = number("MAGPIE_KEEP_GOING").is_some();
    let (next, failures, stops) = (&AtomicU64::new(first), &AtomicU64::new(0), &AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(move || {
                while !stops.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    if catch_unwind(AssertUnwindSafe(|| plan::run(seed, Voice::Silent))).is_err() {
                        eprintln!("to see this plan: MAGPIE_SEED={seed}");
                        failures.fetch_add(1, Ordering::Relaxed);
                        stops.fetch_or(!goes_on, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(failures.load(Ordering::Relaxed), 0, "plans failed");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..PLANS_TWICE {
        let run = || plan::run(seed, Voice::Hashed(DefaultHasher::new()));
        assert_eq!(run(), run(), "MAGPIE_SEED={seed} does not do the same again");
    }
}
