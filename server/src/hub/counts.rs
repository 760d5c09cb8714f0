//! What a hub can be measured by. Numbers for operators; nothing is decided by them.

use std::ops::AddAssign;

/// What a hub has now, and what was counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users with connections here, or who just had some.
    pub users: usize,
    /// Rooms that are followed.
    pub rooms: usize,
    /// Questions to the store and appends that were not answered yet.
    pub asked: usize,
    /// Other hubs that are heard of.
    pub peers: usize,
    /// How often hints may have been lost, so that everything is looked at again.
    pub doubts: u64,
    /// Users who were read again for that, and sessions found void by it.
    pub users_reread: u64,
    pub sessions_voided: u64,
    /// Rooms found behind the store's log by comparing heads: their hints were lost.
    pub heads_behind: u64,
    /// Reads of the store for events that were missing before one that came, or behind a head.
    pub holes: u64,
    /// Resumes that were answered with a gap: more was missed than is replayed.
    pub resume_gaps: u64,
    /// Peers that were taken for dead because nothing was heard of them.
    pub peers_lost: u64,
    /// Rooms whose presence at a peer was asked for again because changes of it were missed.
    pub presence_reasked: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self { users, rooms, asked, peers, doubts, users_reread, sessions_voided, .. } = other;
        self.users += users;
        self.rooms += rooms;
        self.asked += asked;
        // Each hub hears of nearly the same ones.
        self.peers = self.peers.max(peers);
        self.doubts += doubts;
        self.users_reread += users_reread;
        self.sessions_voided += sessions_voided;
        let Self { heads_behind, holes, resume_gaps, peers_lost, presence_reasked, .. } = other;
        self.heads_behind += heads_behind;
        self.holes += holes;
        self.resume_gaps += resume_gaps;
        self.peers_lost += peers_lost;
        self.presence_reasked += presence_reasked;
    }
}
