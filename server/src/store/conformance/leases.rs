//! Leases: one holder at a time.

use super::{Open, ok};

suite!(a_lease_has_one_holder);

fn a_lease_has_one_holder(open: Open) {
    let store = open();
    // The numbers' bytes are in no order that a text would have.
    let (one, other) = (255, 1 << 40);
    assert!(ok(store.lease("tea", one, 1_000, 1_300)));
    assert!(!ok(store.lease("tea", other, 1_299, 9_000)));
    assert!(ok(store.lease("coffee", other, 1_000, 1_300)), "another thing");
    assert!(ok(store.lease("tea", one, 1_200, 66_000)), "kept");
    drop(store);
    let store = open();
    assert!(!ok(store.lease("tea", other, 65_999, 70_000)), "also after a restart");
    assert!(ok(store.lease("tea", other, 66_000, 70_000)));
    assert!(!ok(store.lease("tea", one, 66_001, 70_000)));
    // Given back.
    assert!(ok(store.lease("tea", other, 66_002, 0)));
    assert!(ok(store.lease("tea", one, 66_003, 70_000)));
}
