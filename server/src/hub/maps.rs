//! Maps and sets that the hub goes through in an order that follows from what was put in: the same inputs give
//! the same effects in the same order.
//!
//! Keys are ids and hashes that nobody outside can choose, so that they need no secret against collisions.

use std::hash::{BuildHasherDefault, DefaultHasher};

pub(super) type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<DefaultHasher>>;
pub(super) type HashSet<K> = std::collections::HashSet<K, BuildHasherDefault<DefaultHasher>>;
