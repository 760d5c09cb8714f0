//! Which changes of presence in one room are known, of this hub and of its peers.
//!
//! A peer's changes are a chain: each names the one before it in that room. Whoever sees the chain broken knows
//! that something was missed, and asks for the whole. Pure: it must not know who is present.

use std::collections::BTreeSet;

use super::maps::HashMap;
use crate::broker::{HubId, PresenceVersion};

#[derive(Debug, Default)]
pub(super) struct Versions {
    /// This hub's own last change here; 0 if there was none.
    pub own: PresenceVersion,
    peers: HashMap<HubId, Known>,
}

/// What is known of one peer.
#[derive(Debug, Default)]
struct Known {
    /// The last change that was applied.
    newest: PresenceVersion,
    /// The last up to which nothing is missing.
    sure: PresenceVersion,
    /// Of a whole that comes in parts: its version, and those that are here.
    whole: Option<(PresenceVersion, BTreeSet<u32>)>,
}

impl Versions {
    /// Takes a change that follows on `after`. False if it is not to be applied: a later one was.
    pub fn change(&mut self, peer: HubId, version: PresenceVersion, after: PresenceVersion) -> bool {
        let known = self.peers.entry(peer).or_default();
        if version <= known.newest {
            return false;
        }
        if after == known.sure && known.sure == known.newest {
            known.sure = version;
        }
        known.newest = version;
        true
    }

    /// Takes one part of the whole as it was after `version`. False if it is not to be applied.
    pub fn part(&mut self, peer: HubId, version: PresenceVersion, part: u32, parts: u32) -> bool {
        let known = self.peers.entry(peer).or_default();
        if version < known.newest || version == known.sure {
            return false;
        }
        known.newest = version;
        if known.whole.as_ref().is_none_or(|(of, _)| *of != version) {
            known.whole = Some((version, BTreeSet::new()));
        }
        if let Some((_, heard)) = &mut known.whole {
            heard.insert(part);
            if heard.len() >= parts as usize {
                known.whole = None;
                known.sure = version;
            }
        }
        true
    }

    /// Whether some of a peer's changes up to `version` may be missing.
    pub fn is_behind(&self, peer: HubId, version: PresenceVersion) -> bool {
        self.sure(peer) < version
    }

    /// The last change of a peer up to which nothing is missing.
    pub fn sure(&self, peer: HubId) -> PresenceVersion {
        self.peers.get(&peer).map_or(0, |known| known.sure)
    }

    /// The same of all peers.
    pub fn known(&self) -> Vec<(HubId, PresenceVersion)> {
        self.peers.iter().map(|(peer, known)| (*peer, known.sure)).collect()
    }

    pub fn forget(&mut self, peer: HubId) {
        self.peers.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: HubId = 7;

    #[test]
    fn a_chain_that_is_whole_is_sure_and_a_broken_one_is_seen() {
        let mut versions = Versions::default();
        assert!(versions.change(PEER, 3, 0) && versions.change(PEER, 9, 3));
        assert!(!versions.is_behind(PEER, 9) && versions.is_behind(PEER, 10));
        assert!(!versions.change(PEER, 9, 3), "a repeat");
        assert!(versions.change(PEER, 12, 11), "one is missing between");
        assert!(!versions.change(PEER, 11, 9), "late: what came after it holds");
        assert_eq!((versions.sure(PEER), versions.is_behind(PEER, 12)), (9, true));
        assert!(versions.change(PEER, 15, 12));
        assert_eq!(versions.known(), [(PEER, 9)]);
    }

    #[test]
    fn the_whole_mends_a_chain_once_all_of_it_is_here() {
        let mut versions = Versions::default();
        versions.change(PEER, 12, 11);
        assert!(!versions.part(PEER, 11, 0, 1), "older than what is known");
        assert!(versions.part(PEER, 14, 1, 2) && versions.part(PEER, 14, 1, 2));
        assert_eq!(versions.sure(PEER), 0);
        assert!(versions.part(PEER, 14, 0, 2));
        assert_eq!(versions.sure(PEER), 14);
        assert!(!versions.part(PEER, 14, 0, 1), "nothing new");
        assert!(versions.change(PEER, 20, 14));
        assert_eq!(versions.sure(PEER), 20);
        versions.forget(PEER);
        assert!(versions.known().is_empty());
    }

    #[test]
    fn parts_of_different_moments_do_not_make_a_whole() {
        let mut versions = Versions::default();
        assert!(versions.part(PEER, 3, 0, 2));
        assert!(versions.change(PEER, 4, 3));
        assert!(!versions.part(PEER, 3, 1, 2), "somebody in it may have gone since");
        assert!(versions.part(PEER, 5, 1, 2));
        assert_eq!(versions.sure(PEER), 0);
        assert!(versions.part(PEER, 5, 0, 2));
        assert_eq!(versions.sure(PEER), 5);
    }
}
