//! Any text as a name: what is taken holds nothing that deceives, and is taken again as it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::model::{NAME_CHARS_MAX, RoomName, UserName, is_deceptive};

fuzz_target!(|text: &str| {
    if let Ok(claim) = UserName::claim(text) {
        check(claim.name.as_str(), &claim.skeleton);
        assert_eq!(UserName::claim(claim.name.as_str()), Ok(claim.clone()), "of {text:?}");
        assert_eq!(UserName::parse(claim.name.as_str()), Ok(claim.name));
    }
    if let Ok(claim) = RoomName::claim(text) {
        let name = claim.name.as_str();
        check(name, &claim.skeleton);
        assert!(name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_'), "{name:?}");
        assert_eq!(RoomName::claim(name), Ok(claim.clone()), "of {text:?}");
        assert_eq!(RoomName::parse(name), Ok(claim.name.clone()));
    }
});

fn check(name: &str, skeleton: &str) {
    assert!((1..=NAME_CHARS_MAX).contains(&name.chars().count()), "{name:?}");
    assert!(!name.chars().any(|c| c.is_control() || is_deceptive(c)), "{name:?}");
    assert!(name.trim() == name && !name.contains("  "), "{name:?}");
    assert!(!skeleton.is_empty(), "{name:?}");
}
