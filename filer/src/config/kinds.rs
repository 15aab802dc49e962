//! The kinds of values that a settings file holds: how each is written, read and refused.
//!
//! A length of time or a size carries its unit (`"250 ms"`, `"8 MiB"`); a bare number is refused, since nobody can see
//! what it counts.

use std::{
    marker::PhantomData,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};
use toml::de::DeValue;

/// One kind of value.
pub(super) trait Kind {
    type Value: Clone;
    /// The value that the file has, or what is wrong with it and what to do.
    fn read(&self, found: &DeValue<'_>, base: &Path) -> Result<Self::Value, String>;
    /// Its TOML; `None` while it is not set.
    fn write(&self, value: &Self::Value, base: &Path) -> Option<String>;
    /// A TOML value to show where none is set.
    fn sample(&self) -> &'static str {
        "\"..\""
    }
}

/// What a value is, in words.
pub(super) fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// The TOML of a text.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

fn text_of<'v>(found: &'v DeValue<'_>, form: &str) -> Result<&'v str, String> {
    found.as_str().ok_or_else(|| format!("must be {form}, not {}", type_of(found)))
}

const TIME_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Whole numbers with a unit.
struct Unit {
    what: &'static str,
    units: &'static [(&'static str, u64)],
    names: &'static str,
    example: &'static str,
}

const TIME: Unit = Unit { what: "a length of time", units: TIME_UNITS, names: "ms, s, min, h or d", example: "250 ms" };
const SIZE: Unit =
    Unit { what: "a size", units: SIZE_UNITS, names: "B, KiB, MiB, GiB, TiB, kB, MB, GB or TB", example: "8 MiB" };

impl Unit {
    fn read(&self, found: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, String> {
        let Self { what, names, example, .. } = self;
        let form = format!("{what} with its unit, such as \"{example}\" (units: {names})");
        if let DeValue::Integer(number) = found {
            return Err(format!("the number {number} has no unit; write {form}"));
        }
        let text = text_of(found, &form)?.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        if number.is_empty() || unit.starts_with('.') || unit.starts_with(',') {
            return Err(format!("\"{text}\" does not begin with a whole number; write {form}"));
        }
        if unit.is_empty() {
            return Err(format!("\"{text}\" has no unit; write {form}"));
        }
        let Some(&(_, factor)) = self.units.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("\"{unit}\" is not a unit of {what}; write {form}"));
        };
        let value = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        value.filter(|value| range.contains(value)).ok_or_else(|| {
            let (least, most) = (self.show(*range.start()), self.show(*range.end()));
            format!("\"{text}\" is out of range; give {least} to {most}")
        })
    }

    /// In the largest unit that divides it.
    fn show(&self, value: u64) -> String {
        let fits = |&&(name, factor): &&(&str, u64)| value.is_multiple_of(factor) && name != "KB";
        let &(name, factor) = self
            .units
            .iter()
            .filter(fits)
            .max_by_key(|(_, factor)| {
                // 0 is divided by every unit: say it in the smallest.
                if value == 0 { u64::MAX - factor } else { *factor }
            })
            .expect("the unit 1 divides everything");
        format!("{} {name}", value / factor)
    }
}

/// A length of time in words, such as `1 s`.
pub fn show_ms(ms: u64) -> String {
    TIME.show(ms)
}

/// A size in words, such as `8 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    SIZE.show(bytes)
}

/// A length of time, in milliseconds.
pub(super) struct Millis(pub RangeInclusive<u64>);

impl Kind for Millis {
    type Value = u64;
    fn read(&self, found: &DeValue<'_>, _: &Path) -> Result<u64, String> {
        TIME.read(found, &self.0)
    }
    fn write(&self, value: &u64, _: &Path) -> Option<String> {
        Some(quoted(&show_ms(*value)))
    }
}

/// A size, in bytes.
pub(super) struct Bytes(pub RangeInclusive<u64>);

impl Kind for Bytes {
    type Value = u64;
    fn read(&self, found: &DeValue<'_>, _: &Path) -> Result<u64, String> {
        SIZE.read(found, &self.0)
    }
    fn write(&self, value: &u64, _: &Path) -> Option<String> {
        Some(quoted(&show_bytes(*value)))
    }
}

/// A whole number without a unit.
pub(super) struct Count<T>(RangeInclusive<u64>, PhantomData<T>);

/// A whole number in `range`.
pub(super) fn count<T>(range: RangeInclusive<u64>) -> Count<T> {
    Count(range, PhantomData)
}

impl<T: Copy + TryFrom<u64> + std::fmt::Display> Kind for Count<T> {
    type Value = T;
    fn read(&self, found: &DeValue<'_>, _: &Path) -> Result<T, String> {
        let (least, most) = (self.0.start(), self.0.end());
        let DeValue::Integer(number) = found else {
            return Err(format!(
                "must be a whole number without quotes, from {least} to {most}, not {}",
                type_of(found)
            ));
        };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|value| self.0.contains(value));
        value
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| format!("{number} is out of range; give {least} to {most}"))
    }
    fn write(&self, value: &T, _: &Path) -> Option<String> {
        Some(value.to_string())
    }
}

/// `true` or `false`.
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;
    fn read(&self, found: &DeValue<'_>, _: &Path) -> Result<bool, String> {
        found.as_bool().ok_or_else(|| format!("must be true or false, without quotes, not {}", type_of(found)))
    }
    fn write(&self, value: &bool, _: &Path) -> Option<String> {
        Some(value.to_string())
    }
}

/// A text that `check` accepts.
pub(super) struct Text(pub fn(&str) -> Result<(), String>);

/// Any text but an empty one.
pub(super) fn text() -> Text {
    Text(|text| if text.is_empty() { Err("is empty; give a text".into()) } else { Ok(()) })
}

impl Kind for Text {
    type Value = String;
    fn read(&self, found: &DeValue<'_>, _: &Path) -> Result<String, String> {
        let text = text_of(found, "a text in quotes")?;
        (self.0)(text)?;
        Ok(text.into())
    }
    fn write(&self, value: &String, _: &Path) -> Option<String> {
        Some(quoted(value))
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;
    fn read(&self, found: &DeValue<'_>, _: &Path) -> Result<T, String> {
        let words = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let text = text_of(found, &words)?;
        let choice = self.0.iter().find(|(word, _)| *word == text);
        choice.map(|(_, value)| *value).ok_or_else(|| format!("\"{text}\" is no choice here; write {words}"))
    }
    fn write(&self, value: &T, _: &Path) -> Option<String> {
        self.0.iter().find(|(_, choice)| choice == value).map(|(word, _)| quoted(word))
    }
}

const ADDRESS: &str = "an address with a port, such as \"127.0.0.1:7400\" or \"[::]:7400\"";

fn address(found: &DeValue<'_>, form: &str) -> Result<SocketAddr, String> {
    let text = text_of(found, form)?;
    text.parse().map_err(|_| format!("\"{text}\" is not an address to listen on; write {form}"))
}

/// An address to listen on: `IP:port`.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;
    fn read(&self, found: &DeValue<'_>, _: &Path) -> Result<SocketAddr, String> {
        address(found, ADDRESS)
    }
    fn write(&self, value: &SocketAddr, _: &Path) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// An address to listen on, or `"off"`.
pub(super) struct AddressOrOff;

impl Kind for AddressOrOff {
    type Value = Option<SocketAddr>;
    fn read(&self, found: &DeValue<'_>, _: &Path) -> Result<Self::Value, String> {
        match found.as_str() {
            Some("off") => Ok(None),
            _ => address(found, &format!("{ADDRESS}, or \"off\"")).map(Some),
        }
    }
    fn write(&self, value: &Self::Value, base: &Path) -> Option<String> {
        match value {
            Some(address) => Address.write(address, base),
            None => Some(quoted("off")),
        }
    }
}

/// A path; a relative one starts where the settings file is.
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;
    fn read(&self, found: &DeValue<'_>, base: &Path) -> Result<PathBuf, String> {
        let text = text_of(found, "a path in quotes")?;
        if text.is_empty() {
            return Err("is empty; give a path".into());
        }
        Ok(base.join(text).components().collect())
    }
    fn write(&self, value: &PathBuf, base: &Path) -> Option<String> {
        Some(quoted(&value.strip_prefix(base).unwrap_or(value).to_string_lossy()))
    }
}

/// A setting that must be given, with a sample for whom it is missing.
pub(super) struct Such<K>(pub K, pub &'static str);

impl<K: Kind> Kind for Such<K> {
    type Value = K::Value;
    fn read(&self, found: &DeValue<'_>, base: &Path) -> Result<K::Value, String> {
        self.0.read(found, base)
    }
    fn write(&self, value: &K::Value, base: &Path) -> Option<String> {
        self.0.write(value, base)
    }
    fn sample(&self) -> &'static str {
        self.1
    }
}

/// A setting that may stay unset, with a sample for the example file.
pub(super) struct Maybe<K>(pub K, pub &'static str);

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;
    fn read(&self, found: &DeValue<'_>, base: &Path) -> Result<Self::Value, String> {
        self.0.read(found, base).map(Some)
    }
    fn write(&self, value: &Self::Value, base: &Path) -> Option<String> {
        value.as_ref().and_then(|value| self.0.write(value, base))
    }
    fn sample(&self) -> &'static str {
        self.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_in_the_unit_that_divides_them() {
        for (ms, text) in [(0, "0 ms"), (1_500, "1500 ms"), (60_000, "1 min"), (90_000, "90 s"), (86_400_000, "1 d")] {
            assert_eq!(show_ms(ms), text);
        }
        for (bytes, text) in
            [(0, "0 B"), (8 << 20, "8 MiB"), (400_000_000, "400 MB"), (1_025, "1025 B"), (2_000, "2 kB")]
        {
            assert_eq!(show_bytes(bytes), text);
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for value in [0, 1, 999, 1_000, 1_024, 1_536, 60_000, 3_600_000, 5_000_000_000, 1 << 33] {
            let read = |unit: &Unit| {
                let text = DeValue::String(unit.show(value).into());
                unit.read(&text, &(0..=u64::MAX)).unwrap()
            };
            assert_eq!((read(&TIME), read(&SIZE)), (value, value));
        }
    }
}
