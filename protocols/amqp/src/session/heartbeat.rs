//! Signs of life, as deadlines: milliseconds on whatever clock the caller has.

/// When the server must say something, and when the client must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Milliseconds between signs of life; 0 for none.
    interval: u64,
    received: u64,
    sent: u64,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatDue {
    /// Nothing.
    Nothing,
    /// A heartbeat frame is to be sent.
    Send,
    /// The client has been silent for two intervals: it is taken for dead, and its connection ends without further words.
    Dead,
}

impl Heartbeat {
    /// Both sides speak now, and shall do so every `seconds`; 0 for whenever they like.
    pub fn new(seconds: u16, now: u64) -> Self {
        Self { interval: u64::from(seconds) * 1000, received: now, sent: now }
    }

    /// Something came from the client, whatever it was.
    #[inline]
    pub fn received(&mut self, now: u64) {
        self.received = now;
    }

    /// Something was sent to the client, whatever it was.
    #[inline]
    pub fn sent(&mut self, now: u64) {
        self.sent = now;
    }

    /// When something will be due if nothing happens; `None` for never.
    pub fn deadline(&self) -> Option<u64> {
        (self.interval > 0).then(|| self.send_at().min(self.dead_at()))
    }

    /// What is due.
    pub fn due(&self, now: u64) -> HeartbeatDue {
        match self.interval {
            0 => HeartbeatDue::Nothing,
            _ if now >= self.dead_at() => HeartbeatDue::Dead,
            _ if now >= self.send_at() => HeartbeatDue::Send,
            _ => HeartbeatDue::Nothing,
        }
    }

    /// Half an interval after the last word, so that one lost turn is no silence.
    fn send_at(&self) -> u64 {
        self.sent + self.interval / 2
    }

    fn dead_at(&self) -> u64 {
        self.received + 2 * self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_speaks_every_half_interval_and_a_client_is_dead_after_two() {
        let mut beat = Heartbeat::new(10, 1_000);
        assert_eq!((beat.deadline(), beat.due(5_999)), (Some(6_000), HeartbeatDue::Nothing));
        assert_eq!(beat.due(6_000), HeartbeatDue::Send);
        beat.sent(6_000);
        assert_eq!(beat.deadline(), Some(11_000));
        beat.sent(20_999);
        assert_eq!((beat.deadline(), beat.due(20_999)), (Some(21_000), HeartbeatDue::Nothing));
        assert_eq!(beat.due(21_000), HeartbeatDue::Dead);
        beat.received(20_000);
        assert_eq!(beat.due(21_000), HeartbeatDue::Nothing);
    }

    #[test]
    fn without_heartbeats_nothing_is_ever_due() {
        let beat = Heartbeat::new(0, 5);
        assert_eq!((beat.deadline(), beat.due(u64::MAX)), (None, HeartbeatDue::Nothing));
    }
}
