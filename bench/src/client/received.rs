//! What the connections of a load hear: each envelope is checked and counted.
//!
//! It must not know sockets: bytes come in, counts and errors come out.

use anyhow::{Context, Result, bail, ensure};
use shared::protocol::{ClientEnvelope, Resume};

use super::{
    Acked, Frame, HEAD_BYTES_MAX, KEY_ANSWER, Load, Marker, RING_EVENTS, RoomId, Speech, Stage, frames,
};

impl Load {
    /// Takes whole frames off the front of some bytes; returns how many bytes they were.
    pub(super) fn take(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<usize> {
        let mut used = 0;
        if self.conns[index].stage == Stage::Upgrading {
            used = self.take_head(index, bytes, now)?;
            if used == 0 {
                return Ok(0);
            }
        }
        loop {
            let copies = self.take_copies(index, &bytes[used..], now);
            if copies > 0 {
                self.heard_at = now;
            }
            used += copies;
            let rest = &bytes[used..];
            let Some(frame) = frames::first(rest).map_err(anyhow::Error::msg)? else { return Ok(used) };
            self.take_frame(index, &rest[..frame.end], frame, now)?;
            used += frame.end;
        }
    }

    /// Takes frames as long as they are the same bytes that another member got as its next event.
    fn take_copies(&mut self, index: usize, bytes: &[u8], now: u64) -> usize {
        let conn = &mut self.conns[index];
        let room = &self.rooms[conn.room];
        let tally = &mut self.tallies[conn.group];
        let mut used = 0;
        if conn.resuming.is_some() {
            return 0;
        }
        loop {
            let copied = &room.ring[conn.next_seq as usize % RING_EVENTS];
            let is_known = copied.seq == conn.next_seq && !copied.bytes.is_empty();
            if !is_known || !bytes[used..].starts_with(&copied.bytes) {
                return used;
            }
            used += copied.bytes.len();
            conn.next_seq += 1;
            if let Some(marker) = copied.marker {
                tally.delivered(marker.at, now);
            }
        }
    }

    /// Takes one frame that is not a known copy.
    fn take_frame(&mut self, index: usize, bytes: &[u8], frame: Frame, now: u64) -> Result<()> {
        let payload = &bytes[frame.start..frame.end];
        if frame.opcode != frames::PING {
            self.heard_at = now;
        }
        match (frame.opcode, self.speech) {
            (frames::TEXT, Speech::Magpie) => self.take_envelope(index, bytes, payload, now),
            (frames::TEXT, Speech::Text) => self.take_text(index, payload, now),
            (frames::TEXT, Speech::Bare) => {
                let marker = Marker::find(payload).context("a frame without a marker")?;
                self.tallies[self.conns[index].group].delivered(marker.at, now);
                Ok(())
            }
            (frames::PING, _) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(payload);
                self.push(index, frames::PONG);
                Ok(())
            }
            (frames::CLOSE, _) => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let conn = &mut self.conns[index];
                ensure!(conn.may_close || self.returning.is_some(), "the server closed it with {code:?}");
                conn.stage = Stage::Closed(code);
                conn.times.closed = if conn.times.closed == 0 { now } else { conn.times.closed };
                // The answer (RFC 6455 §5.5.1); the server then ends the connection.
                self.scratch.clear();
                self.scratch.extend_from_slice(payload);
                self.push(index, frames::CLOSE);
                Ok(())
            }
            (opcode, _) => bail!("a frame with opcode {opcode}"),
        }
    }

    /// The answer to the request for an upgrade; returns the bytes of its head, 0 while it is not whole.
    fn take_head(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<usize> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            ensure!(bytes.len() < HEAD_BYTES_MAX, "the answer to the handshake does not end");
            return Ok(0);
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let accepted = head.starts_with("HTTP/1.1 101") && memchr::memmem::find(bytes, KEY_ANSWER).is_some();
        if !accepted && self.returning.is_some() {
            return self.turned_away(index, &head).map(|()| bytes.len());
        }
        ensure!(accepted, "no upgrade: {head}");
        let conn = &mut self.conns[index];
        conn.times.upgraded = now;
        for line in head.lines() {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("set-cookie")
            {
                conn.cookie = value.split(';').next().unwrap_or_default().to_owned();
            }
        }
        if self.speech == Speech::Magpie {
            conn.stage = Stage::Greeting;
            let mut resume = Vec::new();
            if conn.next_seq > 0 {
                let room = str::from_utf8(&self.rooms[conn.room].id)?.parse();
                let room = room.map_err(|_| anyhow::anyhow!("a room's id"))?;
                resume.push(Resume { room, epoch: 1, seq: conn.next_seq - 1 });
                conn.resuming = Some(None);
            }
            self.say(index, &ClientEnvelope::Hello { resume });
        } else {
            self.welcomed(index);
        }
        Ok(end + 4)
    }

    pub(super) fn welcomed(&mut self, index: usize) {
        let now = self.now();
        let conn = &mut self.conns[index];
        conn.stage = Stage::Open;
        conn.times.welcomed = now;
        if conn.resuming.is_none() {
            self.is_back(index, now);
        }
    }

    /// A text of the plain chat: each sender's numbers go up by one.
    fn take_text(&mut self, index: usize, payload: &[u8], now: u64) -> Result<()> {
        let marker = Marker::find(payload).context("a text without a marker")?;
        let conn = &mut self.conns[index];
        let sender = usize::from(marker.sender);
        if conn.numbers.len() <= sender {
            conn.numbers.resize(sender + 1, 0);
        }
        ensure!(
            conn.numbers[sender] == marker.number,
            "message {} of sender {sender} came where {} was due",
            marker.number,
            conn.numbers[sender]
        );
        conn.numbers[sender] += 1;
        let tally = &mut self.tallies[conn.group];
        tally.delivered(marker.at, now);
        if let Some(own) = &mut conn.sender
            && own.id == marker.sender
            && let Some(pending) = own.pending.remove(&marker.number)
        {
            tally.acknowledged(pending.intended, now);
            self.completed.push(index);
        }
        Ok(())
    }

    fn take_envelope(&mut self, index: usize, bytes: &[u8], payload: &[u8], now: u64) -> Result<()> {
        if let Some((room, seq)) = frames::event(payload) {
            return self.take_event(index, room, seq, bytes, payload, now);
        }
        let conn = &mut self.conns[index];
        if let Some((sender, number, seq)) = frames::ack(payload) {
            let own = conn.sender.as_mut().filter(|own| own.id == sender);
            let own = own.context("an acknowledgement for another sender")?;
            let pending = own.pending.remove(&number).context("a second acknowledgement of one send")?;
            self.tallies[conn.group].acknowledged(pending.intended, now);
            self.acked.push(Acked { room: conn.room, seq, sender, number });
            self.completed.push(index);
            return self.send_next(index);
        }
        if let Some(page) = frames::page(payload) {
            return self.take_page(index, &page, payload.len(), now);
        }
        if payload.starts_with(br#"{"type":"welcome""#) {
            let heads = memchr::memmem::find_iter(payload, br#""id":""#).filter_map(|place| {
                let id: RoomId = *payload[place + 6..].first_chunk()?;
                let rest = &payload[place..];
                let head = memchr::memmem::find(rest, br#""head":"#)? + 7;
                let digits = rest[head..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                Some((id, str::from_utf8(&rest[head..head + digits]).ok()?.parse().ok()?))
            });
            for (id, head) in heads {
                if let Some(room) = self.rooms.iter_mut().find(|room| room.id == id) {
                    room.head = room.head.max(head);
                }
            }
            self.welcomed(index);
            return self.say_again(index);
        }
        if payload.starts_with(br#"{"type":"error""#) {
            return self.refused(index, payload, now);
        }
        Ok(())
    }

    /// An event that no other member has got, or that is not the next one.
    fn take_event(
        &mut self,
        index: usize,
        room_id: RoomId,
        seq: u64,
        bytes: &[u8],
        payload: &[u8],
        now: u64,
    ) -> Result<()> {
        let conn = &mut self.conns[index];
        let room = &mut self.rooms[conn.room];
        if room.id != room_id {
            return Ok(());
        }
        if conn.next_seq == 0 {
            room.head = room.head.max(seq);
            return Ok(());
        }
        if let Some(live) = &mut conn.resuming {
            let (_, last) = live.get_or_insert((seq, seq - 1));
            ensure!(*last + 1 == seq, "event {seq} came after {last}");
            *last = seq;
            room.head = room.head.max(seq);
            return room.note(seq, Marker::find(payload));
        }
        if seq <= conn.overlap && seq < conn.next_seq {
            return Ok(());
        }
        ensure!(seq == conn.next_seq, "event {seq} came where {} was due", conn.next_seq);
        conn.next_seq += 1;
        room.head = room.head.max(seq);
        let marker = Marker::find(payload);
        let copied = &mut room.ring[seq as usize % RING_EVENTS];
        let is_from_a_page = copied.seq == seq && copied.bytes.is_empty() && copied.marker == marker;
        ensure!(copied.seq != seq || is_from_a_page, "event {seq} differs from what another member got");
        if copied.seq < seq || is_from_a_page {
            copied.seq = seq;
            copied.bytes.clear();
            copied.bytes.extend_from_slice(bytes);
            copied.marker = marker;
        }
        if let Some(marker) = marker {
            self.tallies[conn.group].delivered(marker.at, now);
        }
        Ok(())
    }

    /// A page: of a room that was joined, or of what was missed.
    fn take_page(&mut self, index: usize, page: &frames::Page, bytes: usize, now: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        let Some(live) = conn.resuming else {
            if let Some(room) = self.rooms.iter_mut().find(|room| room.id == page.room) {
                room.head = room.head.max(page.head);
            }
            self.joined.insert((index, page.room));
            return Ok(());
        };
        let room = &mut self.rooms[conn.room];
        ensure!(room.id == page.room, "a page of another room");
        room.head = room.head.max(page.head);
        conn.resumed_bytes += bytes as u64;
        conn.resumed_events += page.events.len() as u64;
        for (seq, marker) in &page.events {
            room.note(*seq, *marker)?;
        }
        let is_whole = page.events.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0);
        let (Some((first, _)), Some((last, _))) = (page.events.first(), page.events.last()) else {
            ensure!(conn.next_seq > page.head, "an empty page before the head");
            return self.resumed(index, live, now);
        };
        ensure!(is_whole, "a page with a hole");
        let id = String::from_utf8_lossy(&page.room).into_owned();
        if page.gap || conn.filled_from.is_some() {
            // From the newest page backwards, until it meets what is there.
            let due = conn.filled_from.map_or(page.head, |first| first - 1);
            ensure!(*last == due, "the page ends with event {last} where {due} was due");
            conn.gaps += u32::from(page.gap);
            if conn.filled_from.is_none() {
                conn.overlap = page.head;
            }
            conn.filled_from = Some(*first);
            if *first > conn.next_seq {
                let room = id.parse().map_err(|_| anyhow::anyhow!("a room's id"))?;
                self.say(index, &ClientEnvelope::History { room, before: *first });
                return Ok(());
            }
            conn.next_seq = conn.overlap + 1;
            conn.filled_from = None;
            return self.resumed(index, live, now);
        }
        ensure!(*first == conn.next_seq, "the page has event {first} where {} was due", conn.next_seq);
        conn.next_seq = last + 1;
        if conn.next_seq <= page.head {
            self.say(index, &ClientEnvelope::Join { room: id, after: Some(*last) });
            return Ok(());
        }
        self.resumed(index, live, now)
    }

    /// A client has all that it missed.
    fn resumed(&mut self, index: usize, live: Option<(u64, u64)>, now: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        conn.overlap = conn.next_seq - 1;
        if let Some((first, last)) = live {
            ensure!(first <= conn.next_seq, "event {first} came live, {} never", conn.next_seq);
            conn.next_seq = conn.next_seq.max(last + 1);
        }
        conn.resuming = None;
        self.is_back(index, now);
        Ok(())
    }
}
