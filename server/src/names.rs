//! Friendly names for guests: an adjective and a bird or beast. Pure: the random source is an argument.

use fastrand::Rng;
use shared::model::{Claim, UserName};

const ADJECTIVES: [&str; 64] = [
    "Able", "Agile", "Amber", "Bold", "Brave", "Bright", "Brisk", "Calm", "Candid", "Cheerful", "Clever",
    "Cosy", "Crisp", "Curious", "Daring", "Eager", "Early", "Fair", "Fleet", "Fond", "Frank", "Gentle",
    "Glad", "Golden", "Happy", "Hardy", "Honest", "Jolly", "Keen", "Kind", "Lively", "Loyal", "Lucky",
    "Mellow", "Merry", "Mild", "Misty", "Modest", "Neat", "Nimble", "Noble", "Patient", "Placid", "Plucky",
    "Polite", "Proud", "Quick", "Quiet", "Ready", "Rosy", "Silver", "Snug", "Spry", "Steady", "Sunny",
    "Swift", "Tidy", "Trusty", "Vivid", "Warm", "Wise", "Witty", "Young", "Zesty",
];
const ANIMALS: [&str; 64] = [
    "Badger", "Beaver", "Bee", "Bison", "Bittern", "Bobcat", "Bunting", "Buzzard", "Camel", "Cat", "Condor",
    "Crane", "Cricket", "Curlew", "Deer", "Dipper", "Dolphin", "Dove", "Eagle", "Egret", "Falcon", "Finch",
    "Fox", "Gecko", "Goose", "Hare", "Hawk", "Heron", "Hoopoe", "Ibis", "Jackdaw", "Jay", "Kestrel", "Kite",
    "Lark", "Linnet", "Lynx", "Marten", "Merlin", "Mole", "Newt", "Oriole", "Osprey", "Otter", "Owl",
    "Panda", "Parrot", "Pipit", "Plover", "Puffin", "Quail", "Raven", "Robin", "Rook", "Seal", "Sparrow",
    "Starling", "Stork", "Swallow", "Swan", "Teal", "Thrush", "Wagtail", "Wren",
];

/// How many names a guest's look-up brings along.
const CANDIDATES: usize = 3;

/// Names to try for a new guest, in this order. The store puts a number behind them if all are taken.
pub fn candidates(rng: &mut Rng) -> Vec<Claim<UserName>> {
    let pick = |rng: &mut Rng| {
        let adjective = ADJECTIVES[rng.usize(..ADJECTIVES.len())];
        format!("{adjective} {}", ANIMALS[rng.usize(..ANIMALS.len())])
    };
    (0..CANDIDATES).filter_map(|_| UserName::claim(&pick(rng)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_can_be_had() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..200 {
            assert_eq!(candidates(&mut rng).len(), CANDIDATES);
        }
        for word in ADJECTIVES.iter().chain(&ANIMALS) {
            assert!(UserName::claim(word).is_ok(), "{word}");
        }
    }
}
