//! Takes typed values out of a JSON object and collects every fault on the way, so that a writer sees all of them at
//! once, each with its place and its cure (“errors are for people”).

use serde_json::{Map, Value};

use super::super::FieldError;
use super::pointer;

/// An object that is being read.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    prefix: String,
    /// Everything found wrong so far.
    pub(super) errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Starts to read `object`, which stands at `prefix` in its document.
    pub(super) fn new(object: &'a Map<String, Value>, prefix: &str) -> Self {
        Self {
            object,
            prefix: prefix.to_owned(),
            errors: Vec::new(),
        }
    }

    /// Notes a fault of a field, or of something below it where `path` is longer.
    pub(super) fn fail(&mut self, path: &[&str], message: impl Into<String>) {
        let pointer = path
            .iter()
            .fold(self.prefix.clone(), |parent, name| pointer(&parent, name));
        self.errors.push(FieldError {
            pointer,
            message: message.into(),
        });
    }

    /// The value of a field; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field was written at all, be it as null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// The one of several spellings that was written; two at once are a fault.
    pub(super) fn one_of(&mut self, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        let mut found = names
            .iter()
            .filter_map(|name| Some((*name, self.get(name)?)));
        let first = found.next();
        if let (Some((first, _)), Some((second, _))) = (first, found.next()) {
            self.fail(
                &[second],
                format!("`{second}` means the same as `{first}`; write only one of them"),
            );
        }
        first
    }

    /// Refuses every field that is neither in `known` nor in `ignored`, with the nearest of `known`.
    pub(super) fn refuse_unknown(&mut self, known: &[&str], ignored: &[&str]) {
        let object = self.object;
        for name in object.keys() {
            if !known.contains(&name.as_str()) && !ignored.contains(&name.as_str()) {
                self.fail(&[name], unknown(name, known));
            }
        }
    }

    /// Text of at most `most` characters, without control characters.
    pub(super) fn text(&mut self, name: &'static str, most: usize) -> Option<&'a str> {
        let value = self.get(name)?;
        match value.as_str() {
            None => self.fail(
                &[name],
                format!("`{name}` must be text; it is {}", kind(value)),
            ),
            Some(text) if text.chars().count() > most => {
                self.fail(
                    &[name],
                    format!("`{name}` may have at most {most} characters; shorten it"),
                );
            }
            Some(text)
                if text.contains(|letter: char| {
                    letter.is_control() && !matches!(letter, '\n' | '\t')
                }) =>
            {
                self.fail(
                    &[name],
                    format!("`{name}` has a control character; remove it"),
                );
            }
            Some(text) => return Some(text),
        }
        None
    }

    /// True or false.
    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.get(name)?;
        if value.as_bool().is_none() {
            self.fail(
                &[name],
                format!("`{name}` must be true or false; it is {}", shown(value)),
            );
        }
        value.as_bool()
    }

    /// A whole number within the bounds; `unit` is said in the message (“seconds”, or empty).
    pub(super) fn whole(
        &mut self,
        name: &'static str,
        value: &Value,
        least: u64,
        most: u64,
        unit: &str,
    ) -> Option<u64> {
        let number = value
            .as_u64()
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let of = if unit.is_empty() {
                String::new()
            } else {
                format!(" of {unit}")
            };
            let message = format!(
                "`{name}` must be a whole number{of} from {least} to {most}; it is {}",
                shown(value)
            );
            self.fail(&[name], message);
        }
        number
    }

    /// The same for a number that fits 32 bits, with its default.
    pub(super) fn whole_or(
        &mut self,
        name: &'static str,
        least: u32,
        most: u32,
        default: u32,
    ) -> u32 {
        let Some(value) = self.get(name) else {
            return default;
        };
        let number = self.whole(name, value, least.into(), most.into(), "");
        number
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default)
    }

    /// A list of texts, each of 1 to `longest` characters without control characters.
    pub(super) fn texts(
        &mut self,
        name: &'static str,
        value: &'a Value,
        most: usize,
        longest: usize,
    ) -> Vec<String> {
        let Some(list) = value.as_array() else {
            self.fail(
                &[name],
                format!("`{name}` must be a list of texts; it is {}", kind(value)),
            );
            return Vec::new();
        };
        if list.len() > most {
            self.fail(
                &[name],
                format!(
                    "`{name}` may have at most {most} entries; it has {}",
                    list.len()
                ),
            );
        }
        let mut texts = Vec::with_capacity(list.len());
        for (position, entry) in list.iter().enumerate() {
            match entry.as_str() {
                Some(text)
                    if (1..=longest).contains(&text.chars().count()) && !text.contains(char::is_control) =>
                {
                    texts.push(text.to_owned());
                }
                _ => self.fail(
                    &[name, &position.to_string()],
                    format!("each entry of `{name}` must be text of 1 to {longest} characters; this is {}", shown(entry)),
                ),
            }
        }
        texts
    }
}

/// A value for a message: short ones as they are, others by their kind. Not for fields that may hold secrets.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() <= 60 => format!("the text {text:?}"),
        Value::Number(number) => number.to_string(),
        Value::Bool(boolean) => boolean.to_string(),
        other => kind(other).to_owned(),
    }
}

/// What sort of value it is, without showing it.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The message for a name that is not known.
pub(in super::super) fn unknown(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(name, candidate),
                candidate,
            )
        })
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let name: String = name.chars().take(80).collect();
    match nearest {
        Some((likeness, candidate)) if likeness >= 0.5 => {
            format!("there is no field {name:?}; did you mean `{candidate}`?")
        }
        _ => format!(
            "there is no field {name:?}; remove it. Known are: {}",
            known.join(", ")
        ),
    }
}
