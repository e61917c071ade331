//! What a queue is declared with, as its topic's settings, and in what two declarations of it differ.

use std::fmt::Write;

use sabir_broker::queue::{StartAt, SubscriptionSpec, SubscriptionStart};
use sabir_model::{Backoff, DeadLetterAddress, DedupLimit, Durability, Overflow, QueueConfig, TopicConfig};

use super::asking::RESERVED;
use crate::wire::*;

/// Under which name a topic keeps the arguments that its queue was declared with, in hexadecimal digits.
const KEPT: &str = "amqp.arguments";

/// What a record takes beside its body, at the most: properties are of one frame.
const BESIDE: u64 = 1 << 20;

/// The longest time, in milliseconds.
const LONGEST_MS: i64 = u32::MAX as i64;

/// The longest name of an exchange or a subscription, and routing key, in bytes: that of a short string. The broker's names may be longer.
const LONGEST_NAME: usize = 255;

/// Where dead letters go, and by which routing key.
const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
const DEAD_LETTER_KEY: &str = "x-dead-letter-routing-key";

/// How often a message may come back.
const DELIVERY_LIMIT: &str = "x-delivery-limit";

/// How fast a queue is consumed at most, which RabbitMQ has not.
const CONSUME_RATE: &str = "x-consume-rate";
const CONSUME_BURST: &str = "x-consume-burst";
/// Whether a message that comes back waits, for how many milliseconds the first time, and for how many at the most.
const RETRY_TYPE: &str = "x-delayed-retry-type";
const RETRY_MIN: &str = "x-delayed-retry-min";
const RETRY_MAX: &str = "x-delayed-retry-max";
/// For how many milliseconds a message is dropped that has the id of an earlier one.
const DEDUP_WINDOW: &str = "x-dedup-window";
/// The most ids that are remembered for this.
const DEDUP_MAX: &str = "x-dedup-max";

/// Which subscription a consumer of a topic is of, and where that begins.
const SUBSCRIPTION: &str = "x-subscription";
const START: &str = "x-stream-offset";

/// Arguments that RabbitMQ knows and that queues of these types alone have.
const OF_TYPES: &[(&str, &[QueueType])] = &[
    ("x-queue-mode", &[QueueType::Classic]),
    ("x-max-priority", &[QueueType::Classic]),
    (DELIVERY_LIMIT, &[QueueType::Quorum]),
    ("x-dead-letter-strategy", &[QueueType::Quorum]),
    ("x-quorum-initial-group-size", &[QueueType::Quorum]),
    (RETRY_TYPE, &[QueueType::Quorum]),
    (RETRY_MIN, &[QueueType::Quorum]),
    (RETRY_MAX, &[QueueType::Quorum]),
    ("x-max-age", &[]),
    ("x-stream-max-segment-size-bytes", &[]),
    ("x-initial-cluster-size", &[]),
];

/// The types of queues that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueType {
    Classic,
    Quorum,
}

impl QueueType {
    fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// Where RabbitMQ may have a queue's leader be; there is one place here.
const LOCATORS: &[&str] = &["client-local", "balanced", "min-masters", "least-leaders", "random"];

/// A queue as it is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Declaration<'a> {
    pub(super) name: &'a str,
    pub(super) durable: bool,
    pub(super) exclusive: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: FieldTable<'a>,
}

impl Declaration<'_> {
    /// The settings of its topic, where a body may have `message_max` bytes.
    ///
    /// # Errors
    /// An argument that cannot be.
    pub(super) fn config(&self, message_max: u64) -> Result<TopicConfig, ChannelException> {
        let mut config = TopicConfig::of_queue(self.queue()?);
        config.max_message_bytes = u32::try_from(message_max + BESIDE).unwrap_or(i32::MAX as u32);
        config.timestamp_after_max_ms = i64::MAX;
        if !self.durable {
            config.durability = Some(Durability::Os);
        }
        if !self.arguments.is_empty() {
            config.kept.set(KEPT, &hex(self.arguments.as_bytes()));
        }
        Ok(config)
    }

    fn queue(&self) -> Result<QueueConfig, ChannelException> {
        let mut config = QueueConfig {
            durable: self.durable,
            exclusive: self.exclusive,
            auto_delete: self.auto_delete,
            ..QueueConfig::default()
        };
        let of = self.queue_type()?;
        if of == QueueType::Quorum {
            self.check_quorum()?;
        }
        config.dead_letter = self.dead_letter()?;
        config.retry = self.retry()?;
        for (name, value) in self.arguments {
            let Ok(name) = std::str::from_utf8(name.as_bytes()) else { continue };
            self.check_known(of, name)?;
            self.set(&mut config, name, value)?;
        }
        if config.consume_burst.is_some() && config.consume_rate.is_none() {
            return Err(self.invalid(CONSUME_BURST, "expected x-consume-rate with it"));
        }
        if config.dedup_max.is_some() && config.dedup_window_ms.is_none() {
            return Err(self.invalid(DEDUP_MAX, "expected x-dedup-window with it"));
        }
        Ok(config)
    }

    /// How long what comes back waits: so long for each time that it did, up to the longest.
    fn retry(&self) -> Result<Option<Backoff>, ChannelException> {
        let time_in = |name: &str| {
            let time = |value| self.number(name, value, 1, u32::MAX.into());
            let time = self.arguments.get(name).map(time).transpose()?;
            Ok(time.map(|time| u32::try_from(time).expect("it is within these bounds")))
        };
        let (first_ms, longest_ms) = (time_in(RETRY_MIN)?, time_in(RETRY_MAX)?.unwrap_or(u32::MAX));
        match self.arguments.get(RETRY_TYPE).map(text) {
            None | Some(Some("disabled")) => return Ok(None),
            Some(Some("all" | "failed")) => {}
            Some(Some("returned")) => return Err(self.invalid(RETRY_TYPE, "that type is not there yet")),
            Some(_) => {
                return Err(self.invalid(RETRY_TYPE, "expected disabled, all, failed or returned"));
            }
        }
        let first_ms =
            first_ms.ok_or_else(|| self.invalid(RETRY_TYPE, "expected x-delayed-retry-min with it"))?;
        if longest_ms < first_ms {
            return Err(self.invalid(RETRY_MAX, "expected no less than x-delayed-retry-min"));
        }
        Ok(Some(Backoff::Linear { first_ms, longest_ms }))
    }

    /// Where its dead letters go.
    fn dead_letter(&self) -> Result<Option<DeadLetterAddress>, ChannelException> {
        let name_in = |argument: &str| match self.arguments.get(argument) {
            None => Ok(None),
            Some(value) => match text(value).filter(|text| text.len() <= LONGEST_NAME) {
                Some(text) => Ok(Some(text.into())),
                None => Err(self.invalid(argument, "expected a text of at most 255 bytes")),
            },
        };
        match (name_in(DEAD_LETTER_EXCHANGE)?, name_in(DEAD_LETTER_KEY)?) {
            (Some(exchange), routing_key) => Ok(Some(DeadLetterAddress { exchange, routing_key })),
            (None, Some(_)) => Err(self.invalid(DEAD_LETTER_KEY, "routing_key_but_no_dlx_defined")),
            (None, None) => Ok(None),
        }
    }

    fn queue_type(&self) -> Result<QueueType, ChannelException> {
        const NAME: &str = "x-queue-type";
        match self.arguments.get(NAME).map(text) {
            None | Some(Some("classic")) => Ok(QueueType::Classic),
            Some(Some("quorum")) => Ok(QueueType::Quorum),
            Some(Some("stream")) => Err(self.invalid(NAME, "that type is not there yet")),
            Some(_) => Err(self.invalid(NAME, "expected classic, quorum or stream")),
        }
    }

    fn check_quorum(&self) -> Result<(), ChannelException> {
        let properties = [
            ("non-durable", !self.durable),
            ("exclusive-owner", self.exclusive),
            ("auto-delete", self.auto_delete),
        ];
        if let Some((property, _)) = properties.iter().find(|(_, wanted)| *wanted) {
            return Err(precondition(format!("invalid property '{property}' for {}", queue(self.name))));
        }
        if self.name.starts_with(RESERVED) {
            return Err(precondition("cannot declare a server-named quorum queue".to_owned()));
        }
        Ok(())
    }

    /// Refuses what a queue of this type does not have.
    fn check_known(&self, of: QueueType, name: &str) -> Result<(), ChannelException> {
        let types = OF_TYPES.iter().find(|(known, _)| *known == name);
        if types.is_some_and(|(_, types)| !types.contains(&of)) {
            return Err(self.invalid(name, &format!("a {} queue has none", of.name())));
        }
        Ok(())
    }

    fn set(
        &self,
        config: &mut QueueConfig,
        name: &str,
        value: FieldValue<'_>,
    ) -> Result<(), ChannelException> {
        match name {
            "x-max-length" => config.max_length = Some(self.count(name, value)?),
            "x-max-length-bytes" => config.max_length_bytes = Some(self.count(name, value)?),
            "x-overflow" => config.overflow = self.overflow(name, value)?,
            DELIVERY_LIMIT => config.delivery_limit = self.delivery_limit(name, value)?,
            // What is settled and what stands for it elsewhere are in one entry, whichever is asked for.
            "x-dead-letter-strategy" => self.check_one_of(name, value, &["at-most-once", "at-least-once"])?,
            "x-message-ttl" => config.message_ttl_ms = Some(self.time(name, value, 0)?),
            "x-expires" => config.expires_ms = Some(self.time(name, value, 1)?),
            "x-max-priority" => config.max_priority = self.max_priority(name, value)?,
            CONSUME_RATE => config.consume_rate = Some(self.rate(name, value)?),
            CONSUME_BURST => config.consume_burst = Some(self.rate(name, value)?),
            DEDUP_WINDOW => config.dedup_window_ms = Some(self.time(name, value, 1)?),
            DEDUP_MAX => config.dedup_max = Some(self.dedup_max(name, value)?),
            "x-single-active-consumer" => config.single_active = self.flag(name, value)?,
            // What these decide is decided otherwise here: they are kept and compared.
            "x-queue-mode" => self.check_one_of(name, value, &["default", "lazy"])?,
            "x-queue-version" => drop(self.number(name, value, 1, 2)?),
            "x-queue-leader-locator" | "x-queue-master-locator" => {
                self.check_one_of(name, value, LOCATORS)?
            }
            "x-max-in-memory-length" | "x-max-in-memory-bytes" => drop(self.count(name, value)?),
            "x-quorum-initial-group-size" => drop(self.number(name, value, 1, i64::MAX)?),
            _ => {}
        }
        Ok(())
    }

    fn number(
        &self,
        name: &str,
        value: FieldValue<'_>,
        least: i64,
        most: i64,
    ) -> Result<i64, ChannelException> {
        let number = integer(value).filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| match most {
            i64::MAX => self.invalid(name, &format!("expected a number from {least} on")),
            _ => self.invalid(name, &format!("expected a number from {least} to {most}")),
        })
    }

    fn dedup_max(&self, name: &str, value: FieldValue<'_>) -> Result<u32, ChannelException> {
        let number = self.number(name, value, 1, DedupLimit::MOST_IDS.into())?;
        Ok(u32::try_from(number).expect("it is in these bounds"))
    }

    fn count(&self, name: &str, value: FieldValue<'_>) -> Result<u64, ChannelException> {
        let number = self.number(name, value, 0, i64::MAX)?;
        Ok(u64::try_from(number).expect("it is not below 0"))
    }

    /// Milliseconds, so many at the least.
    fn time(&self, name: &str, value: FieldValue<'_>, least: i64) -> Result<u64, ChannelException> {
        let number = self.number(name, value, least, LONGEST_MS)?;
        Ok(u64::try_from(number).expect("it is not below 0"))
    }

    /// How often a message may come back; a number below 0 is for any number of times.
    fn delivery_limit(&self, name: &str, value: FieldValue<'_>) -> Result<Option<u32>, ChannelException> {
        let limit = integer(value).ok_or_else(|| self.invalid(name, "expected a number"))?;
        Ok(u64::try_from(limit).ok().map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)))
    }

    /// The highest priority that counts; 0 is none.
    fn max_priority(&self, name: &str, value: FieldValue<'_>) -> Result<Option<u8>, ChannelException> {
        let most = self.number(name, value, 0, u8::MAX.into())?;
        Ok(u8::try_from(most).ok().filter(|most| *most > 0))
    }

    /// Messages a second, or at once.
    fn rate(&self, name: &str, value: FieldValue<'_>) -> Result<u32, ChannelException> {
        let number = self.number(name, value, 1, u32::MAX.into())?;
        Ok(u32::try_from(number).expect("it is within these bounds"))
    }

    fn flag(&self, name: &str, value: FieldValue<'_>) -> Result<bool, ChannelException> {
        match value {
            FieldValue::Bool(flag) => Ok(flag),
            _ => Err(self.invalid(name, "expected true or false")),
        }
    }

    fn check_one_of(
        &self,
        name: &str,
        value: FieldValue<'_>,
        known: &[&str],
    ) -> Result<(), ChannelException> {
        match text(value).filter(|text| known.contains(text)) {
            Some(_) => Ok(()),
            None => Err(self.invalid(name, &format!("expected one of {}", known.join(", ")))),
        }
    }

    fn overflow(&self, name: &str, value: FieldValue<'_>) -> Result<Overflow, ChannelException> {
        match text(value) {
            Some("drop-head") => Ok(Overflow::DropHead),
            Some("reject-publish") => Ok(Overflow::Reject),
            Some("reject-publish-dlx") => Ok(Overflow::RejectAndDeadLetter),
            _ => Err(self.invalid(name, "expected drop-head, reject-publish or reject-publish-dlx")),
        }
    }

    fn invalid(&self, argument: &str, problem: &str) -> ChannelException {
        precondition(format!("invalid arg '{argument}' for {}: {problem}", queue(self.name)))
    }

    /// Whether a queue that is there is what is asked for.
    ///
    /// # Errors
    /// In what it differs.
    pub(super) fn check_alike(&self, config: &TopicConfig) -> Result<(), ChannelException> {
        let Some(there) = config.queue() else { return self.check_alike_topic() };
        let fields = [
            ("durable", there.durable, self.durable),
            ("exclusive", there.exclusive, self.exclusive),
            ("auto_delete", there.auto_delete, self.auto_delete),
        ];
        if let Some((name, current, received)) =
            fields.iter().find(|(_, current, received)| current != received)
        {
            return Err(self.differs(name, &format!("'{received}'"), &format!("'{current}'")));
        }
        let kept = arguments(config);
        let current = FieldTable::from_bytes(&kept).unwrap_or_default();
        self.check_arguments(current)
    }

    /// A topic that another protocol made is durable and nothing else.
    fn check_alike_topic(&self) -> Result<(), ChannelException> {
        let differs = |name| Err(self.differs(name, "'true'", "'false'"));
        match self {
            Self { durable: false, .. } => Err(self.differs("durable", "'false'", "'true'")),
            Self { exclusive: true, .. } => differs("exclusive"),
            Self { auto_delete: true, .. } => differs("auto_delete"),
            _ => self.check_arguments(FieldTable::EMPTY),
        }
    }

    fn check_arguments(&self, current: FieldTable<'_>) -> Result<(), ChannelException> {
        let names = current.iter().chain(self.arguments).map(|(name, _)| name);
        for name in names {
            let Ok(name) = std::str::from_utf8(name.as_bytes()) else { continue };
            let (has, wants) = (current.get(name), self.arguments.get(name));
            if !alike(has, wants) {
                return Err(self.differs(name, &shown(wants), &shown(has)));
            }
        }
        Ok(())
    }

    fn differs(&self, name: &str, received: &str, current: &str) -> ChannelException {
        let of = queue(self.name);
        precondition(format!(
            "inequivalent arg '{name}' for {of}: received {received} but current is {current}"
        ))
    }
}

/// The subscription of a topic that a consumer is of, and how that is made if it is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WantedSubscription {
    pub(super) name: Box<str>,
    pub(super) spec: SubscriptionSpec,
}

impl WantedSubscription {
    /// The one that has the topic's name.
    pub(super) fn of_topic(topic: &str) -> Self {
        Self { name: topic.into(), spec: SubscriptionSpec::default() }
    }

    /// The one that a consumer of a topic names by its arguments, if it does.
    ///
    /// # Errors
    /// An argument that cannot be.
    pub(super) fn of_consumer(topic: &str, arguments: FieldTable<'_>) -> Result<Self, ChannelException> {
        let of = Declaration { name: topic, durable: true, exclusive: false, auto_delete: false, arguments };
        let mut wanted = Self::of_topic(topic);
        if let Some(name) = arguments.get(SUBSCRIPTION) {
            let name = text(name).filter(|name| (1..=LONGEST_NAME).contains(&name.len()));
            wanted.name =
                name.ok_or_else(|| of.invalid(SUBSCRIPTION, "expected a text of 1 to 255 bytes"))?.into();
        }
        if let Some(start) = arguments.get(START) {
            let says = "expected first, last, next, an offset or a timestamp";
            wanted.spec.start = start_at(start).ok_or_else(|| of.invalid(START, says))?;
        }
        let is_other = |name: &str| name.starts_with("x-stream-") && name != START;
        let others = arguments.iter().map(|(name, _)| String::from_utf8_lossy(name.as_bytes()).into_owned());
        if let Some(other) = others.into_iter().find(|name| is_other(name)) {
            return Err(of.invalid(&other, "there is no such thing yet"));
        }
        if let Some(rate) =
            [CONSUME_RATE, CONSUME_BURST].into_iter().find(|name| arguments.get(name).is_some())
        {
            return Err(of.invalid(rate, "a topic's subscription has none"));
        }
        wanted.spec.settings.dead_letter = of.dead_letter()?;
        if let Some(limit) = arguments.get(DELIVERY_LIMIT) {
            wanted.spec.settings.delivery_limit = of.delivery_limit(DELIVERY_LIMIT, limit)?;
        }
        Ok(wanted)
    }
}

/// Where a consumer wants its subscription to begin.
fn start_at(value: FieldValue<'_>) -> Option<StartAt> {
    if let FieldValue::Timestamp(seconds) = value {
        return Some(StartAt::Since(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)));
    }
    let at = |offset| u64::try_from(offset).ok().map(SubscriptionStart::At);
    let place = match text(value) {
        Some("first") => Some(SubscriptionStart::Oldest),
        Some("last") => Some(SubscriptionStart::Last),
        Some("next") => Some(SubscriptionStart::Next),
        Some(_) => None,
        None => integer(value).and_then(at),
    };
    place.map(StartAt::Place)
}

/// A queue in an error's text.
pub(super) fn queue(name: &str) -> String {
    format!("queue '{name}' in vhost '/'")
}

pub(super) fn precondition(text: String) -> ChannelException {
    ChannelException::precondition_failed(text)
}

/// Whether a topic's queue was declared as a quorum queue.
pub(super) fn is_quorum(config: &TopicConfig) -> bool {
    let kept = arguments(config);
    let declared = FieldTable::from_bytes(&kept).unwrap_or_default();
    declared.get("x-queue-type").and_then(text) == Some("quorum")
}

/// The arguments that a topic's queue was declared with.
fn arguments(config: &TopicConfig) -> Vec<u8> {
    config.kept.get(KEPT).and_then(unhex).unwrap_or_default()
}

/// Whole numbers are alike whatever their size on the wire.
fn alike(one: Option<FieldValue<'_>>, other: Option<FieldValue<'_>>) -> bool {
    match (one.and_then(integer), other.and_then(integer)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// A whole number.
pub(super) fn integer(value: FieldValue<'_>) -> Option<i64> {
    Some(match value {
        FieldValue::I8(v) => v.into(),
        FieldValue::U8(v) => v.into(),
        FieldValue::I16(v) => v.into(),
        FieldValue::U16(v) => v.into(),
        FieldValue::I32(v) => v.into(),
        FieldValue::U32(v) => v.into(),
        FieldValue::I64(v) => v,
        _ => return None,
    })
}

fn text(value: FieldValue<'_>) -> Option<&str> {
    match value {
        FieldValue::LongStr(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

/// A value in an error's text, with the name that RabbitMQ has for its type.
fn shown(value: Option<FieldValue<'_>>) -> String {
    let Some(value) = value else { return "none".into() };
    let (of, text) = match value {
        FieldValue::Bool(v) => ("bool", v.to_string()),
        FieldValue::I8(v) => ("byte", v.to_string()),
        FieldValue::U8(v) => ("unsignedbyte", v.to_string()),
        FieldValue::I16(v) => ("short", v.to_string()),
        FieldValue::U16(v) => ("unsignedshort", v.to_string()),
        FieldValue::I32(v) => ("signedint", v.to_string()),
        FieldValue::U32(v) => ("unsignedint", v.to_string()),
        FieldValue::I64(v) => ("long", v.to_string()),
        FieldValue::F32(v) => ("float", v.to_string()),
        FieldValue::F64(v) => ("double", v.to_string()),
        FieldValue::Timestamp(v) => ("timestamp", v.to_string()),
        FieldValue::Decimal { scale, value } => ("decimal", format!("{value}e-{scale}")),
        FieldValue::LongStr(v) => ("longstr", String::from_utf8_lossy(v).into_owned()),
        FieldValue::Binary(v) => ("binary", String::from_utf8_lossy(v).into_owned()),
        FieldValue::Array(_) => ("array", "..".into()),
        FieldValue::Table(_) => ("table", "..".into()),
        FieldValue::Void => ("void", "undefined".into()),
    };
    format!("the value '{text}' of type '{of}'")
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(items: &[(&str, FieldValue<'_>)]) -> FieldTableBuf {
        let mut table = FieldTableBuf::new();
        for (name, value) in items {
            table.push(ShortBytes::cut(name), *value);
        }
        table
    }

    fn declaration(arguments: FieldTable<'_>) -> Declaration<'_> {
        Declaration { name: "q", durable: true, exclusive: false, auto_delete: false, arguments }
    }

    #[test]
    fn a_declaration_is_compared_argument_by_argument() {
        let there = table(&[("x-own", FieldValue::I32(1)), ("x-queue-mode", FieldValue::LongStr(b"lazy"))]);
        let config = declaration(there.as_table()).config(1000).unwrap();
        let differs = |of: Declaration<'_>| of.check_alike(&config).map_err(|e| e.reply_text());
        let says = |what: &str| {
            let text = format!("PRECONDITION_FAILED - inequivalent arg {what}");
            Err(text.replace("@", "for queue 'q' in vhost '/': received"))
        };
        assert_eq!(differs(declaration(there.as_table())), Ok(()));
        let wider = table(&[("x-queue-mode", FieldValue::LongStr(b"lazy")), ("x-own", FieldValue::I64(1))]);
        assert_eq!(differs(declaration(wider.as_table())), Ok(()), "whatever size and order");
        let transient = Declaration { durable: false, ..declaration(there.as_table()) };
        assert_eq!(differs(transient), says("'durable' @ 'false' but current is 'true'"));
        let none = declaration(FieldTable::EMPTY);
        assert_eq!(differs(none), says("'x-own' @ none but current is the value '1' of type 'signedint'"));
        let mut more = there.clone();
        more.push(ShortBytes::cut("x-more"), FieldValue::LongStr(b"a"));
        assert_eq!(
            differs(declaration(more.as_table())),
            says("'x-more' @ the value 'a' of type 'longstr' but current is none")
        );
    }

    #[test]
    fn a_topic_of_another_protocol_is_durable_and_nothing_else() {
        let config = TopicConfig::default();
        let plain = declaration(FieldTable::EMPTY);
        assert!(plain.check_alike(&config).is_ok());
        assert!(Declaration { durable: false, ..plain }.check_alike(&config).is_err());
        assert!(Declaration { exclusive: true, ..plain }.check_alike(&config).is_err());
        assert!(Declaration { auto_delete: true, ..plain }.check_alike(&config).is_err());
        let with = table(&[("x-own", FieldValue::Bool(true))]);
        assert!(declaration(with.as_table()).check_alike(&config).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        for (name, value) in [
            ("x-message-ttl", FieldValue::I32(-1)),
            ("x-message-ttl", FieldValue::LongStr(b"1")),
            ("x-message-ttl", FieldValue::I64(1 << 32)),
            ("x-expires", FieldValue::I32(0)),
            ("x-expires", FieldValue::F64(10.0)),
            ("x-dead-letter-exchange", FieldValue::I32(1)),
            ("x-dead-letter-exchange", FieldValue::LongStr(&[b'x'; 256])),
            ("x-dead-letter-routing-key", FieldValue::LongStr(b"without an exchange")),
            ("x-dead-letter-strategy", FieldValue::LongStr(b"at-most-once")),
            ("x-queue-type", FieldValue::LongStr(b"stream")),
            ("x-queue-type", FieldValue::LongStr(b"other")),
            ("x-queue-type", FieldValue::I32(1)),
            ("x-queue-mode", FieldValue::LongStr(b"fast")),
            ("x-queue-version", FieldValue::I32(3)),
            ("x-max-priority", FieldValue::I32(256)),
            ("x-max-priority", FieldValue::I32(-1)),
            ("x-max-priority", FieldValue::LongStr(b"5")),
            ("x-max-length", FieldValue::I32(-1)),
            ("x-max-length", FieldValue::LongStr(b"many")),
            ("x-max-length-bytes", FieldValue::F64(1.0)),
            ("x-overflow", FieldValue::LongStr(b"spill")),
            ("x-consume-rate", FieldValue::I32(0)),
            ("x-consume-rate", FieldValue::F64(0.5)),
            ("x-consume-rate", FieldValue::I64(1 << 32)),
            ("x-consume-burst", FieldValue::I32(0)),
            ("x-consume-burst", FieldValue::I32(5)),
            ("x-dedup-window", FieldValue::I32(0)),
            ("x-dedup-window", FieldValue::LongStr(b"1s")),
            ("x-dedup-max", FieldValue::I32(5)),
            ("x-dedup-max", FieldValue::I32(1_000_001)),
            ("x-single-active-consumer", FieldValue::LongStr(b"yes")),
            ("x-queue-leader-locator", FieldValue::LongStr(b"elsewhere")),
            ("x-max-in-memory-length", FieldValue::I32(-1)),
            // Those of other types.
            ("x-delayed-retry-type", FieldValue::LongStr(b"all")),
            ("x-delayed-retry-min", FieldValue::I32(1)),
            ("x-delayed-retry-max", FieldValue::I32(1)),
            ("x-delivery-limit", FieldValue::I32(1)),
            ("x-quorum-initial-group-size", FieldValue::I32(1)),
            ("x-max-age", FieldValue::LongStr(b"1h")),
        ] {
            let table = table(&[(name, value)]);
            let refused = declaration(table.as_table()).config(1000).unwrap_err();
            assert_eq!(refused.code, ReplyCode::PreconditionFailed);
            assert!(refused.text.starts_with(&format!("invalid arg '{name}' for queue 'q'")), "{refused:?}");
        }
    }

    #[test]
    fn what_bounds_a_queue_is_its_setting() {
        let of = |items: &[(&str, FieldValue<'_>)]| {
            let config = declaration(table(items).as_table()).config(1000).unwrap();
            QueueConfig::clone(config.queue().unwrap())
        };
        let plain = of(&[("x-max-in-memory-bytes", FieldValue::I32(0))]);
        assert_eq!(plain, QueueConfig::default(), "noted");
        let bounded = of(&[
            ("x-max-length", FieldValue::U8(0)),
            ("x-max-length-bytes", FieldValue::I64(1 << 40)),
            ("x-overflow", FieldValue::LongStr(b"reject-publish")),
            ("x-single-active-consumer", FieldValue::Bool(true)),
            ("x-consume-rate", FieldValue::I64(u32::MAX as i64)),
            ("x-consume-burst", FieldValue::U8(1)),
            ("x-dedup-window", FieldValue::I64(u32::MAX as i64)),
            ("x-dedup-max", FieldValue::I32(1_000_000)),
        ]);
        let wanted = QueueConfig {
            consume_rate: Some(u32::MAX),
            consume_burst: Some(1),
            dedup_window_ms: Some(u32::MAX.into()),
            dedup_max: Some(1_000_000),
            max_length: Some(0),
            max_length_bytes: Some(1 << 40),
            overflow: Overflow::Reject,
            single_active: true,
            ..QueueConfig::default()
        };
        assert_eq!(bounded, wanted);
    }

    #[test]
    fn a_quorum_queue_is_durable_shared_and_without_priorities() {
        let table = table(&[
            ("x-queue-type", FieldValue::LongStr(b"quorum")),
            ("x-queue-version", FieldValue::I32(2)),
        ]);
        let plain = declaration(table.as_table());
        let config = plain.config(1000).unwrap();
        assert!(is_quorum(&config) && !is_quorum(&declaration(FieldTable::EMPTY).config(1000).unwrap()));
        for (property, wrong) in [
            ("non-durable", Declaration { durable: false, ..plain }),
            ("exclusive-owner", Declaration { exclusive: true, ..plain }),
            ("auto-delete", Declaration { auto_delete: true, ..plain }),
        ] {
            let refused = wrong.config(1000).unwrap_err();
            assert_eq!(refused.text, format!("invalid property '{property}' for queue 'q' in vhost '/'"));
        }
        assert!(Declaration { name: "amq.gen-x", ..plain }.config(1000).is_err());
        for name in ["x-max-priority", "x-queue-mode"] {
            let mut table = table.clone();
            table.push(ShortBytes::cut(name), FieldValue::I32(1));
            let refused = declaration(table.as_table()).config(1000).unwrap_err();
            assert!(refused.text.starts_with(&format!("invalid arg '{name}'")), "{refused:?}");
        }
    }

    #[test]
    fn where_dead_letters_go_and_how_often_a_message_may_come_back_are_settings() {
        let of = |items: &[(&str, FieldValue<'_>)]| {
            declaration(table(items).as_table())
                .config(1000)
                .map(|config| QueueConfig::clone(config.queue().unwrap()))
        };
        let exchange = ("x-dead-letter-exchange", FieldValue::LongStr(b""));
        let key = ("x-dead-letter-routing-key", FieldValue::LongStr(b"k"));
        let overflow = ("x-overflow", FieldValue::LongStr(b"reject-publish-dlx"));
        let config = of(&[key, exchange, overflow]).unwrap();
        let address = DeadLetterAddress { exchange: "".into(), routing_key: Some("k".into()) };
        assert_eq!((config.dead_letter, config.overflow), (Some(address), Overflow::RejectAndDeadLetter));
        let quorum = ("x-queue-type", FieldValue::LongStr(b"quorum"));
        let strategy = |name: &'static [u8]| ("x-dead-letter-strategy", FieldValue::LongStr(name));
        let config =
            of(&[quorum, ("x-delivery-limit", FieldValue::I64(1 << 40)), strategy(b"at-least-once")]);
        assert_eq!(config.unwrap().delivery_limit, Some(u32::MAX));
        assert!(of(&[quorum, strategy(b"sometimes")]).is_err());
        assert!(of(&[quorum, ("x-delivery-limit", FieldValue::LongStr(b"5"))]).is_err());
        let unlimited = of(&[quorum, ("x-delivery-limit", FieldValue::I32(-1))]);
        assert_eq!(unlimited.unwrap().delivery_limit, None);
    }

    #[test]
    fn how_long_a_quorum_queue_has_what_comes_back_wait_is_its_setting() {
        let of = |items: &[(&str, FieldValue<'_>)]| {
            let quorum = ("x-queue-type", FieldValue::LongStr(b"quorum"));
            let config = declaration(table(&[&[quorum], items].concat()).as_table()).config(1000);
            config
                .map(|config| config.queue().unwrap().retry.clone())
                .map_err(|refused| refused.text.to_string())
        };
        let kind = |name: &'static [u8]| ("x-delayed-retry-type", FieldValue::LongStr(name));
        let (least, most) =
            (("x-delayed-retry-min", FieldValue::I32(20)), ("x-delayed-retry-max", FieldValue::I32(300)));
        let linear = |longest_ms| Ok(Some(Backoff::Linear { first_ms: 20, longest_ms }));
        assert_eq!(of(&[kind(b"all"), least, most]), linear(300));
        assert_eq!(of(&[kind(b"failed"), least]), linear(u32::MAX));
        assert_eq!(of(&[kind(b"disabled"), least, most]), Ok(None));
        assert_eq!(of(&[least, most]), Ok(None));
        for (items, name) in [
            (&[kind(b"returned"), least, most][..], "x-delayed-retry-type"),
            (&[kind(b"some"), least], "x-delayed-retry-type"),
            (&[kind(b"all")], "x-delayed-retry-type"),
            (&[kind(b"all"), ("x-delayed-retry-min", FieldValue::I32(0))], "x-delayed-retry-min"),
            (&[kind(b"all"), least, ("x-delayed-retry-max", FieldValue::I32(19))], "x-delayed-retry-max"),
        ] {
            let refused = of(items).unwrap_err();
            assert!(refused.starts_with(&format!("invalid arg '{name}'")), "{refused}");
        }
    }

    #[test]
    fn times_of_messages_and_of_the_queue_are_its_settings() {
        let times = table(&[("x-message-ttl", FieldValue::U8(0)), ("x-expires", FieldValue::I64(1 << 31))]);
        let config = declaration(times.as_table()).config(1000).unwrap();
        let queue = config.queue().unwrap();
        assert_eq!((queue.message_ttl_ms, queue.expires_ms), (Some(0), Some(1 << 31)));
    }

    #[test]
    fn a_queue_that_is_not_durable_waits_for_no_disk() {
        let transient = Declaration { durable: false, ..declaration(FieldTable::EMPTY) };
        let config = transient.config(1000).unwrap();
        assert_eq!((config.durability, config.queue().unwrap().durable), (Some(Durability::Os), false));
        assert!(config.validate(Durability::Sync).is_ok());
        let durable = declaration(FieldTable::EMPTY).config(u64::MAX / 2).unwrap();
        assert_eq!((durable.durability, durable.max_message_bytes), (None, i32::MAX as u32));
    }
}
