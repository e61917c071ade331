//! Demands: what sessions are ready to take.

/// A demand's number in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DemandNo(pub u32);

/// What a session is ready to take. Only its front end adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Messages; [`UNLIMITED`](Self::UNLIMITED) is never used up.
    pub messages: u32,
    /// Bytes. The message that uses the last of them may be larger than what is left.
    pub bytes: u64,
    /// The moment from which nothing more is taken, in milliseconds.
    pub until_ms: i64,
    /// Whether what nothing is there for is to be given up instead of waiting.
    pub drain: bool,
}

impl Credit {
    /// Messages without end.
    pub const UNLIMITED: u32 = u32::MAX;

    /// So many messages of any size, whenever they come.
    pub const fn messages(messages: u32) -> Self {
        Self { messages, bytes: u64::MAX, until_ms: i64::MAX, drain: false }
    }

    /// Nothing.
    pub const NONE: Self = Self::messages(0);

    /// Whether another message would be taken.
    pub fn is_open(&self, now_ms: i64) -> bool {
        self.messages > 0 && self.bytes > 0 && now_ms < self.until_ms
    }

    fn draw(&mut self, bytes: u32) {
        self.messages -= u32::from(self.messages != Self::UNLIMITED);
        if self.bytes != u64::MAX {
            self.bytes = self.bytes.saturating_sub(bytes.into());
        }
    }
}

/// The demands of a shard. Several members, of one subscription or several, may draw on one.
#[derive(Debug, Default)]
pub struct Demands {
    places: Vec<Option<Credit>>,
    free: Vec<u32>,
}

impl Demands {
    /// Makes a demand.
    pub fn add(&mut self, credit: Credit) -> DemandNo {
        match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(credit);
                DemandNo(place)
            }
            None => {
                self.places.push(Some(credit));
                DemandNo((self.places.len() - 1) as u32)
            }
        }
    }

    /// Ends a demand. Its members must be detached.
    pub fn remove(&mut self, demand: DemandNo) {
        if let Some(place) = self.places.get_mut(demand.0 as usize)
            && place.take().is_some()
        {
            self.free.push(demand.0);
        }
    }

    /// What is left of a demand; nothing of one that ended.
    pub fn credit(&self, demand: DemandNo) -> Credit {
        self.places.get(demand.0 as usize).copied().flatten().unwrap_or(Credit::NONE)
    }

    /// Puts a demand's credit anew.
    pub fn set(&mut self, demand: DemandNo, credit: Credit) {
        if let Some(Some(place)) = self.places.get_mut(demand.0 as usize) {
            *place = credit;
        }
    }

    /// Adds messages and bytes to a demand.
    pub fn refill(&mut self, demand: DemandNo, messages: u32, bytes: u64) {
        if let Some(Some(credit)) = self.places.get_mut(demand.0 as usize) {
            credit.messages = credit.messages.saturating_add(messages);
            credit.bytes = credit.bytes.saturating_add(bytes);
        }
    }

    pub(super) fn draw(&mut self, demand: DemandNo, bytes: u32) {
        if let Some(Some(credit)) = self.places.get_mut(demand.0 as usize) {
            credit.draw(bytes);
        }
    }

    /// Gives up what is left of a demand that drains, once all its subscriptions were looked at. Tells how many messages that were.
    pub fn drain(&mut self, demand: DemandNo) -> Option<u32> {
        let credit = self.places.get_mut(demand.0 as usize)?.as_mut().filter(|credit| credit.drain)?;
        credit.drain = false;
        Some(std::mem::take(&mut credit.messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_is_used_up_by_messages_bytes_or_time() {
        let mut demands = Demands::default();
        let demand = demands.add(Credit { bytes: 10, until_ms: 50, ..Credit::messages(2) });
        assert!(demands.credit(demand).is_open(49) && !demands.credit(demand).is_open(50));
        demands.draw(demand, 11);
        assert!(!demands.credit(demand).is_open(0), "the bytes are used up, by more than there were");
        demands.refill(demand, 0, 5);
        assert!(demands.credit(demand).is_open(0));
        demands.draw(demand, 1);
        assert!(!demands.credit(demand).is_open(0), "the messages are used up");
    }

    #[test]
    fn unlimited_credit_stays_so() {
        let mut demands = Demands::default();
        let demand = demands.add(Credit::messages(Credit::UNLIMITED));
        demands.draw(demand, 1);
        assert_eq!(demands.credit(demand), Credit::messages(Credit::UNLIMITED));
    }

    #[test]
    fn a_drained_demand_gives_up_what_is_left_once() {
        let mut demands = Demands::default();
        let demand = demands.add(Credit { drain: true, ..Credit::messages(5) });
        demands.draw(demand, 1);
        assert_eq!((demands.drain(demand), demands.drain(demand)), (Some(4), None));
    }

    #[test]
    fn an_ended_demand_takes_nothing_and_its_number_comes_again() {
        let mut demands = Demands::default();
        let demand = demands.add(Credit::messages(5));
        demands.remove(demand);
        demands.remove(demand);
        demands.refill(demand, 1, 1);
        assert!(!demands.credit(demand).is_open(0));
        assert_eq!(demands.add(Credit::messages(1)), demand);
        assert_ne!(demands.add(Credit::messages(1)), demand);
    }
}
