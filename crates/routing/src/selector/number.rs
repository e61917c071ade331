//! Numbers: as literals are written, and as text holds them.

use super::value::PropertyValue;

/// A literal of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Integer(i64),
    Float(f64),
    /// One more than the largest whole number, which is written to be negated.
    NegatedMinimum,
}

/// The number that a literal states: decimal, hexadecimal or octal as Java writes them, with or without `L`; a fraction or an exponent
/// makes it a float, as do `F` and `D`.
pub(crate) fn parse(literal: &str) -> Option<Number> {
    let lower = literal.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        return whole(digits.strip_suffix('l').unwrap_or(digits), 16);
    }
    let digits = lower.strip_suffix('l').unwrap_or(&lower);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return if digits.len() > 1 && digits.starts_with('0') {
            whole(digits, 8)
        } else {
            whole(digits, 10)
        };
    }
    float(lower.strip_suffix(['f', 'd']).unwrap_or(&lower)).map(Number::Float)
}

fn whole(digits: &str, radix: u32) -> Option<Number> {
    let value = u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))?;
    match i64::try_from(value) {
        Ok(value) => Some(Number::Integer(value)),
        Err(_) if radix != 10 => Some(Number::Integer(value as i64)),
        Err(_) => (value == 1 << 63).then_some(Number::NegatedMinimum),
    }
}

fn float(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'+' | b'-'));
    text.parse().ok().filter(|value: &f64| plain && value.is_finite())
}

/// The number that a value is, or that its text holds.
pub(crate) fn of_value(value: PropertyValue<'_>) -> Option<PropertyValue<'_>> {
    match value {
        PropertyValue::Text(text) => of_text(text.trim()),
        PropertyValue::Bool(_) => None,
        number => Some(number),
    }
}

fn of_text<'a>(text: &str) -> Option<PropertyValue<'a>> {
    if let Ok(value) = text.parse() {
        return Some(PropertyValue::Integer(value));
    }
    // No words: infinity and what is not a number are none.
    let plain = text.bytes().all(|byte| !byte.is_ascii_alphabetic() || matches!(byte, b'e' | b'E'));
    text.parse().ok().filter(|_| plain).map(PropertyValue::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_those_of_java() {
        for (literal, value) in [
            ("0", 0),
            ("57", 57),
            ("57L", 57),
            ("0x1F", 31),
            ("017", 15),
            ("9223372036854775807", i64::MAX),
            ("0xFFFFFFFFFFFFFFFF", -1),
        ] {
            assert_eq!(parse(literal), Some(Number::Integer(value)), "{literal}");
        }
        for (literal, value) in
            [("7E3", 7e3), ("57.9e-2", 0.579), ("7.", 7.0), (".5", 0.5), ("1f", 1.0), ("010.5", 10.5)]
        {
            assert_eq!(parse(literal), Some(Number::Float(value)), "{literal}");
        }
        assert_eq!(parse("9223372036854775808"), Some(Number::NegatedMinimum));
        for wrong in ["9223372036854775809", "08", "0x", "1e", "1e999", "L", "1.2.3", "0x1.5"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn text_holds_a_number_or_does_not() {
        assert_eq!(of_text("-7"), Some(PropertyValue::Integer(-7)));
        assert_eq!(of_text("7.5e1"), Some(PropertyValue::Float(75.0)));
        for wrong in ["", "x", "inf", "NaN", "1x", "0x10"] {
            assert_eq!(of_text(wrong), None, "{wrong}");
        }
    }
}
