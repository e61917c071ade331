//! A subscription's checkpoint form: pages of which only those that changed are written again.
//!
//! | page | form |
//! | --- | --- |
//! | 0 header | 1 · floor · head beyond it · end beyond that · claim · suspect · resets · marks (1 sealed) |
//! | 1 container, by number | 1 · 0–3 all alike, or 4 and 256 bytes |
//! | 2 owners of runs that begin in a container | 1 · (gap · length · in flight · owner · phase · since · timeout · token) of each |
//! | 3 counts of rows that begin in a container | 1 · (gap · length · acquired · returned) of each |
//! | 4 named consumer, by number | 1 · name |
//! | 5 sizes of rows that begin in a container | 1 · (gap · length · bytes of each message) of each |
//! | 6 levels of a container, which begins with level 0 | 1 · (gap from where the row before begins · level u8) of each row |
//! | 7 expiries of rows that begin in a container | 1 · (gap · length · when each message expires, in milliseconds, signed) of each |

use sabir_base::varint::{put_u64, take_u32, take_u64};
use sabir_model::DecodeError;
use sabir_model::stored::{end, put_bytes, take_form, take_str, take_u8};

use super::{MessageState, Subscription};

const FORM: u8 = 1;

/// A page's place among its subscription's; the header comes before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubscriptionPage {
    /// Floor, head, end, claim.
    Header,
    /// A container of states.
    Container(u64),
    /// Owners of what begins in a container.
    Owners(u64),
    /// Counts of what begins in a container.
    Attempts(u64),
    /// A named consumer.
    Consumer(u64),
    /// Sizes of what begins in a container.
    Sizes(u64),
    /// Levels of a container's messages.
    Levels(u64),
    /// Expiries of what begins in a container.
    Expiries(u64),
}

impl SubscriptionPage {
    /// Appends the stored form, which sorts as the pages do.
    pub fn encode(self, out: &mut Vec<u8>) {
        let (kind, number) = match self {
            Self::Header => return out.push(0),
            Self::Container(number) => (1, number),
            Self::Owners(number) => (2, number),
            Self::Attempts(number) => (3, number),
            Self::Consumer(number) => (4, number),
            Self::Sizes(number) => (5, number),
            Self::Levels(number) => (6, number),
            Self::Expiries(number) => (7, number),
        };
        out.push(kind);
        out.extend_from_slice(&number.to_be_bytes());
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// An unknown kind, a cut or overlong key.
    pub fn decode(mut key: &[u8]) -> Result<Self, DecodeError> {
        let kind = take_u8(&mut key)?;
        if kind == 0 {
            return end(key).map(|()| Self::Header);
        }
        let number = u64::from_be_bytes(sabir_model::stored::take(&mut key)?);
        end(key)?;
        Ok(match kind {
            1 => Self::Container(number),
            2 => Self::Owners(number),
            3 => Self::Attempts(number),
            4 => Self::Consumer(number),
            5 => Self::Sizes(number),
            6 => Self::Levels(number),
            7 => Self::Expiries(number),
            kind => return Err(DecodeError::Version(kind)),
        })
    }
}

impl Subscription {
    /// Hands over the pages that changed since it was asked last.
    pub fn take_dirty(&mut self, mut each: impl FnMut(SubscriptionPage)) {
        if !std::mem::replace(&mut self.header_clean, true) {
            each(SubscriptionPage::Header);
        }
        let Some(busy) = &mut self.busy else { return };
        busy.dirty_containers.take().into_iter().for_each(|n| each(SubscriptionPage::Container(n)));
        busy.owners.dirty.take().into_iter().for_each(|n| each(SubscriptionPage::Owners(n)));
        busy.attempts.dirty.take().into_iter().for_each(|n| each(SubscriptionPage::Attempts(n)));
        busy.sizes.dirty.take().into_iter().for_each(|n| each(SubscriptionPage::Sizes(n)));
        busy.levels.dirty.take().into_iter().for_each(|n| each(SubscriptionPage::Levels(n)));
        busy.expiries.dirty.take().into_iter().for_each(|n| each(SubscriptionPage::Expiries(n)));
        busy.dirty_consumers.take().into_iter().for_each(|n| each(SubscriptionPage::Consumer(n)));
    }

    /// Hands over all pages that there are.
    pub fn each_page(&self, mut each: impl FnMut(SubscriptionPage)) {
        each(SubscriptionPage::Header);
        self.states.each_container(&mut |number| each(SubscriptionPage::Container(number)));
        let Some(busy) = &self.busy else { return };
        busy.owners.each_block(|number| each(SubscriptionPage::Owners(number)));
        busy.attempts.each_block(|number| each(SubscriptionPage::Attempts(number)));
        busy.sizes.each_block(|number| each(SubscriptionPage::Sizes(number)));
        busy.levels.each_block(|number| each(SubscriptionPage::Levels(number)));
        busy.expiries.each_block(|number| each(SubscriptionPage::Expiries(number)));
        busy.consumers.keys().for_each(|number| each(SubscriptionPage::Consumer(*number)));
    }

    /// Appends a page's stored form. Tells whether there is such a page; if not, a stored one is to be deleted.
    pub fn encode_page(&self, page: SubscriptionPage, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.push(FORM);
        let busy = self.busy.as_deref();
        let is_there = match page {
            SubscriptionPage::Header => self.encode_header(out),
            SubscriptionPage::Container(number) => self.states.encode_container(number, out),
            SubscriptionPage::Owners(number) => busy.is_some_and(|b| b.owners.encode_block(number, out)),
            SubscriptionPage::Attempts(number) => busy.is_some_and(|b| b.attempts.encode_block(number, out)),
            SubscriptionPage::Sizes(number) => busy.is_some_and(|b| b.sizes.encode_block(number, out)),
            SubscriptionPage::Levels(number) => busy.is_some_and(|b| b.levels.encode_block(number, out)),
            SubscriptionPage::Expiries(number) => busy.is_some_and(|b| b.expiries.encode_block(number, out)),
            SubscriptionPage::Consumer(number) => match busy.and_then(|b| b.consumers.get(&number)) {
                Some(name) => {
                    put_bytes(out, name.as_bytes());
                    true
                }
                None => false,
            },
        };
        if !is_there {
            out.truncate(start);
        }
        is_there
    }

    fn encode_header(&self, out: &mut Vec<u8>) -> bool {
        let states = &self.states;
        put_u64(out, states.floor);
        put_u64(out, states.head - states.floor);
        put_u64(out, states.end - states.head);
        put_u64(out, self.claim);
        put_u64(out, self.suspect);
        put_u64(out, self.resets.into());
        out.push(self.sealed.into());
        true
    }

    /// Reads a page back. The header must come first, as it does in the order of the keys.
    ///
    /// # Errors
    /// A newer form, a cut or overlong page, a value out of range.
    pub fn decode_page(&mut self, page: SubscriptionPage, mut stored: &[u8]) -> Result<(), DecodeError> {
        let input = &mut stored;
        take_form(input, FORM)?;
        match page {
            SubscriptionPage::Header => self.decode_header(input)?,
            SubscriptionPage::Container(number) => self.states.decode_container(number, input)?,
            SubscriptionPage::Owners(number) => self.parts().1.owners.decode_block(number, input)?,
            SubscriptionPage::Attempts(number) => self.parts().1.attempts.decode_block(number, input)?,
            SubscriptionPage::Sizes(number) => self.parts().1.sizes.decode_block(number, input)?,
            SubscriptionPage::Levels(number) => self.parts().1.levels.decode_block(number, input)?,
            SubscriptionPage::Expiries(number) => self.parts().1.expiries.decode_block(number, input)?,
            SubscriptionPage::Consumer(number) => {
                let name = take_str(input)?.into();
                self.parts().1.consumers.insert(number, name);
            }
        }
        end(input)
    }

    /// Checks what no single page says, once all are read: that whatever is in flight has an owner.
    ///
    /// # Errors
    /// A page of owners is missing, or is not of the same checkpoint.
    pub fn check_pages(&self) -> Result<(), DecodeError> {
        let mut at = self.floor();
        while at < self.end() {
            let (state, mut end) = self.run(at);
            if state == MessageState::InFlight {
                let (_, held_to) = self.holding_run(at).ok_or(DecodeError::Field("owner"))?;
                end = end.min(held_to);
            }
            at = end;
        }
        Ok(())
    }

    fn decode_header(&mut self, input: &mut &[u8]) -> Result<(), DecodeError> {
        let too_far = DecodeError::Field("offset");
        let floor = take_u64(input)?;
        let head = floor.checked_add(take_u64(input)?).ok_or(too_far)?;
        let end = head.checked_add(take_u64(input)?).filter(|end| *end <= i64::MAX as u64).ok_or(too_far)?;
        *self = Self::new(floor);
        (self.states.head, self.states.end) = (head, end);
        (self.claim, self.suspect) = (take_u64(input)?, take_u64(input)?);
        self.resets = take_u32(input)?;
        self.sealed = match take_u8(input)? {
            marks @ 0..=1 => marks == 1,
            _ => return Err(DecodeError::Field("marks")),
        };
        self.header_clean = true;
        Ok(())
    }
}
