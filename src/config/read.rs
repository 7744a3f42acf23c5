//! Takes typed values out of the merged configuration and collects every fault on the way. The `config` crate merges
//! file and environment; its own conversions are not used, because they take "10" for a number without a word and stop
//! at the first fault.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use config::{File, FileFormat, Map, Source, Value, ValueKind};

use super::{ConfigError, Environment, Problem};

const PREFIX: &str = "POSTRIDER__";

/// One variable of the environment as a source, so that its values know their variable's name.
#[derive(Debug, Clone)]
struct Variable {
    name: String,
    text: String,
}

impl Source for Variable {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let path = self
            .name
            .strip_prefix(PREFIX)
            .unwrap_or_default()
            .to_lowercase();
        let mut parts = path.split("__");
        let section = parts.next().unwrap_or_default().to_owned();
        let keys: Vec<&str> = parts.collect();
        let leaf = Value::new(Some(&self.name), ValueKind::String(self.text.clone()));
        let value = keys.iter().rev().fold(leaf, |value, key| {
            let mut table = Map::new();
            table.insert((*key).to_owned(), value);
            Value::new(Some(&self.name), ValueKind::Table(table))
        });
        let mut root = Map::new();
        root.insert(section, value);
        Ok(root)
    }
}

/// The merged configuration while it is read.
pub(super) struct Reader<'a> {
    file: String,
    pub(super) environment: &'a Environment,
    sections: BTreeMap<String, Value>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        file: &str,
        text: &str,
        environment: &'a Environment,
    ) -> Result<Self, ConfigError> {
        let mut builder =
            config::Config::builder().add_source(File::from_str(text, FileFormat::Toml));
        for (name, text) in environment
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX))
        {
            builder = builder.add_source(Variable {
                name: name.clone(),
                text: text.clone(),
            });
        }
        let syntax = |error: config::ConfigError| {
            let cause = if let config::ConfigError::FileParse { cause, .. } = &error {
                cause.to_string()
            } else {
                error.to_string()
            };
            // The parser's picture of the line is left out: the line may hold a password.
            let lines = cause
                .lines()
                .filter(|line| !line.contains('|') && !line.trim().is_empty());
            ConfigError::Syntax {
                file: file.to_owned(),
                message: lines.collect::<Vec<_>>().join(": "),
            }
        };
        let root = builder
            .build()
            .and_then(|config| config.cache.into_table())
            .map_err(syntax)?;
        Ok(Self {
            file: file.to_owned(),
            environment,
            sections: root.into_iter().collect(),
            known: Vec::new(),
            problems: Vec::new(),
        })
    }

    /// Notes a fault; without an origin it is the file's.
    pub(super) fn fail(&mut self, key: &str, origin: Option<&str>, message: impl Into<String>) {
        let origin = origin.unwrap_or(&self.file).to_owned();
        self.problems.push(Problem {
            key: key.to_owned(),
            origin,
            message: message.into(),
        });
    }

    /// Begins a section; [`Section::finish`] ends it.
    pub(super) fn section<'r>(&'r mut self, name: &'static str) -> Section<'r, 'a> {
        self.known.push(name);
        let mut table = BTreeMap::new();
        if let Some(value) = self.sections.remove(name) {
            let origin = value.origin().map(str::to_owned);
            match value.kind {
                ValueKind::Table(entries) => table.extend(entries),
                _ => self.fail(
                    name,
                    origin.as_deref(),
                    format!("must be a section: write [{name}] and its keys below"),
                ),
            }
        }
        Section {
            name,
            table,
            known: BTreeSet::new(),
            reader: self,
        }
    }

    /// Ends the reading: whatever was not asked for is not known.
    pub(super) fn finish(mut self) -> Result<(), ConfigError> {
        for (name, value) in std::mem::take(&mut self.sections) {
            let message = nearest("section", &name, self.known.iter().copied());
            self.fail(&name, value.origin(), message);
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems
            .sort_by(|left, right| left.key.cmp(&right.key));
        Err(ConfigError::Invalid(self.problems))
    }
}

/// One section while it is read.
pub(super) struct Section<'r, 'a> {
    name: &'static str,
    table: BTreeMap<String, Value>,
    known: BTreeSet<&'static str>,
    pub(super) reader: &'r mut Reader<'a>,
}

impl Section<'_, '_> {
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.insert(key);
        self.table.remove(key)
    }

    /// Notes a fault of a key (or of `key.part`), with where its value came from.
    pub(super) fn fail(&mut self, key: &str, origin: Option<&str>, message: impl Into<String>) {
        let key = format!("{}.{key}", self.name);
        self.reader.fail(&key, origin, message);
    }

    /// Text that `check` accepts; its error is a sentence.
    pub(super) fn checked(
        &mut self,
        key: &'static str,
        default: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> String {
        self.parsed(key, default.to_owned(), |text| {
            check(text).map(|()| text.to_owned())
        })
    }

    /// A value that is written as text; the error of `parse` is a sentence.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let Some(value) = self.take(key) else {
            return default;
        };
        let parsed = match &value.kind {
            ValueKind::String(text) => parse(text.trim()),
            other => Err(format!("must be text in quotes; it is {}", shown(other))),
        };
        parsed.unwrap_or_else(|message| {
            self.fail(key, value.origin(), message);
            default
        })
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
    ) -> T {
        self.parsed(key, default, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("must be one of {}; it is {text:?}", names.join(", ")))
        })
    }

    /// A whole number within the range; `unit` is said in the message (“seconds”, “bytes”, “partitions” …).
    pub(super) fn whole<T>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
        unit: &str,
    ) -> T
    where
        T: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
    {
        let Some(value) = self.take(key) else {
            return default;
        };
        let number = match (&value.kind, value.origin()) {
            (ValueKind::String(text), Some(_)) => text.trim().parse::<i64>().ok(),
            (ValueKind::I64(number), _) => Some(*number),
            _ => None,
        };
        match number
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
        {
            Some(number) => number,
            None => {
                let message = format!(
                    "must be a whole number of {unit} from {} to {}, without quotes or unit (default {default}); it is {}",
                    range.start(),
                    range.end(),
                    shown(&value.kind)
                );
                self.fail(key, value.origin(), message);
                default
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.take(key) else {
            return default;
        };
        match (&value.kind, value.origin()) {
            (ValueKind::Boolean(boolean), _) => *boolean,
            (ValueKind::String(text), Some(_)) if text.trim() == "true" => true,
            (ValueKind::String(text), Some(_)) if text.trim() == "false" => false,
            (other, origin) => {
                self.fail(
                    key,
                    origin,
                    format!(
                        "must be true or false, without quotes; it is {}",
                        shown(other)
                    ),
                );
                default
            }
        }
    }

    /// A list of values that are written as text; in the environment separated by commas.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.take(key) else {
            return default;
        };
        let entries: Vec<Option<&str>> = match (&value.kind, value.origin()) {
            (ValueKind::String(text), Some(_)) => text
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                .map(Some)
                .collect(),
            (ValueKind::Array(entries), _) => entries.iter().map(|entry| text_of(entry)).collect(),
            (other, origin) => {
                self.fail(
                    key,
                    origin,
                    format!(
                        "must be a list such as [\"a\", \"b\"]; it is {}",
                        shown(other)
                    ),
                );
                return default;
            }
        };
        let expected = entries.len();
        let mut list = Vec::with_capacity(expected);
        for (position, entry) in entries.into_iter().enumerate() {
            let parsed = entry
                .ok_or_else(|| "must be text in quotes".to_owned())
                .and_then(&parse);
            match parsed {
                Ok(parsed) => list.push(parsed),
                Err(message) => self.fail(
                    key,
                    value.origin(),
                    format!("entry {}: {message}", position + 1),
                ),
            }
        }
        // One wrong entry is enough said; a shorter list could be found wrong once more.
        if list.len() == expected {
            list
        } else {
            default
        }
    }

    pub(super) fn finish(mut self) {
        for (key, value) in std::mem::take(&mut self.table) {
            let message = nearest("key", &key, self.known.iter().copied());
            self.fail(&key, value.origin(), message);
        }
    }
}

fn text_of(value: &Value) -> Option<&str> {
    if let ValueKind::String(text) = &value.kind {
        Some(text)
    } else {
        None
    }
}

fn shown(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("the text {text:?}"),
        ValueKind::Boolean(boolean) => boolean.to_string(),
        ValueKind::I64(number) => number.to_string(),
        ValueKind::Float(number) => number.to_string(),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        _ => "something else".to_owned(),
    }
}

/// Says that there is no such thing, with the known name that is nearest, or all.
pub(super) fn nearest<'k>(
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'k str> + Clone,
) -> String {
    let nearest = known
        .clone()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(name, candidate),
                candidate,
            )
        })
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match nearest {
        Some((likeness, candidate)) if likeness >= 0.4 => {
            format!("there is no such {what}; did you mean `{candidate}`?")
        }
        _ => format!(
            "there is no such {what}; known are {}",
            known.collect::<Vec<_>>().join(", ")
        ),
    }
}
